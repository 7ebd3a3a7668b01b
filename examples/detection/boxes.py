"""Boxes, anchors, and which anchor is to find which box; a box is ``x1, y1, x2, y2`` in pixels."""

import numpy as np

STRIDES = (8, 16, 32)  # pixels between two positions of a feature map
STRIDES_OF_AN_ANCHOR = 3  # the paper has 4; 3 suits the canvases' smaller photographs
SCALES = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))  # times STRIDES_OF_AN_ANCHOR: side of an anchor, in strides
RATIOS = (0.5, 1.0, 2.0)  # height over width
ANCHORS_PER_POSITION = len(SCALES) * len(RATIOS)
DEVIATIONS = (0.1, 0.1, 0.2, 0.2)  # units of the offsets, which bring the offsets to about 1

BACKGROUND, IGNORED = -1, -2


def make_anchors(size):
    """Return the anchors of a square image of ``size`` pixels, [A, 4], float32.

    The order is that of the net's outputs: feature map, row, column, scale, ratio.
    """
    return np.concatenate([_anchors_of_map(-(-size // stride), stride) for stride in STRIDES]).astype("float32")


def _anchors_of_map(positions, stride):
    centers = (np.arange(positions) + 0.5) * stride
    y, x = np.meshgrid(centers, centers, indexing="ij")
    scales, roots = np.meshgrid(SCALES, np.sqrt(RATIOS), indexing="ij")
    half_sides = STRIDES_OF_AN_ANCHOR / 2 * stride * np.stack([scales / roots, scales * roots], axis=-1).reshape(-1, 2)
    middles = np.stack([x, y], axis=-1).reshape(-1, 1, 2)
    return np.concatenate([middles - half_sides, middles + half_sides], axis=-1).reshape(-1, 4)


def areas(boxes):
    """Return the area of each box, [N]."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def intersections(boxes, others):
    """Return the area that each of ``boxes`` [N, 4] shares with each of ``others`` [M, 4], as [N, M]."""
    corner = np.maximum(boxes[:, None, :2], others[None, :, :2])
    opposite = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    return (opposite - corner).clip(min=0).prod(axis=-1)


def iou(boxes, others):
    """Return the intersection over union of ``boxes`` [N, 4] and ``others`` [M, 4], as [N, M]."""
    shared = intersections(boxes, others)
    return shared / (areas(boxes)[:, None] + areas(others)[None, :] - shared)


def encode(boxes, anchors):
    """Return the offsets that lead from each anchor to its box, [N, 4]; `paddle.vision.ops.box_coder` decodes them.

    The offsets are those of Faster R-CNN (arXiv 1506.01497, equation 2) in units of ``DEVIATIONS``.

    Args:
        boxes: one box for each anchor, [N, 4].
        anchors: [N, 4].
    """
    sides, anchor_sides = boxes[:, 2:] - boxes[:, :2], anchors[:, 2:] - anchors[:, :2]
    moves = (boxes[:, :2] + boxes[:, 2:] - anchors[:, :2] - anchors[:, 2:]) / 2 / anchor_sides
    return np.concatenate([moves, np.log(sides / anchor_sides)], axis=1) / np.asarray(DEVIATIONS, "float32")


def match(anchors, boxes, positive=0.5, negative=0.4):
    """Return the index of the box that each anchor is to find, [A], or ``BACKGROUND`` or ``IGNORED``.

    An anchor finds the box with which it overlaps most. A box that no anchor would find is found by its best anchor.

    Args:
        anchors: [A, 4].
        boxes: [G, 4], G may be 0.
        positive: the least intersection over union of an anchor that finds a box.
        negative: below this intersection over union an anchor is background; between both it is ignored.
    """
    if not len(boxes):
        return np.full(len(anchors), BACKGROUND)
    overlaps = iou(anchors, boxes)
    best = overlaps.max(axis=1)
    found = np.where(best >= positive, overlaps.argmax(axis=1), np.where(best < negative, BACKGROUND, IGNORED))
    for box in set(range(len(boxes))) - set(found.tolist()):
        found[overlaps[:, box].argmax()] = box
    return found


def make_targets(anchors, boxes, classes):
    """Return what a net is to learn of an image at each anchor: classes [A] and offsets [A, 4].

    Args:
        anchors: [A, 4].
        boxes: the boxes of the image, [G, 4].
        classes: the classes of the boxes, [G].

    Returns:
        the class of the box to find, or ``BACKGROUND`` or ``IGNORED``, int64; and the offsets, 0 where there is no box.
    """
    found = match(anchors, boxes)
    positive = found >= 0
    offsets = np.zeros([len(anchors), 4], "float32")
    offsets[positive] = encode(boxes[found[positive]], anchors[positive])
    labels = found.astype("int64")
    labels[positive] = classes[found[positive]]
    return labels, offsets
