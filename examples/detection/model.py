"""A small RetinaNet (arXiv 1708.02002) on the feature maps of any pimm model: pyramid, heads, loss, detections."""

import math
from typing import NamedTuple

import numpy as np
import paddle
from paddle import nn
from paddle.nn import functional as F
from paddle.vision import ops

from examples.detection.boxes import ANCHORS_PER_POSITION, DEVIATIONS, IGNORED, STRIDES, make_anchors
from pimm.errors import ConfigError

GROUPS = 8  # of the heads' group normalisation, which does not depend on the batch
PRIOR = 0.01  # probability of a class at an anchor before training
BETA = 0.1  # where smooth L1 becomes linear


class FeaturePyramid(nn.Layer):
    """Brings feature maps to one number of channels, and adds the coarser ones to the finer ones (arXiv 1612.03144).

    Args:
        in_channels: channels of the feature maps, from the finest to the coarsest.
        channels: channels of the outputs.
    """

    def __init__(self, in_channels, channels):
        super().__init__()
        self.lateral = nn.LayerList([nn.Conv2D(count, channels, 1) for count in in_channels])
        self.output = nn.LayerList([nn.Conv2D(channels, channels, 3, padding=1) for _ in in_channels])

    def forward(self, features):
        maps = [lateral(feature) for lateral, feature in zip(self.lateral, features)]
        for finer in range(len(maps) - 2, -1, -1):
            maps[finer] = maps[finer] + F.interpolate(maps[finer + 1], size=maps[finer].shape[2:], mode="nearest")
        return [output(each) for output, each in zip(self.output, maps)]


class Head(nn.Layer):
    """Predicts ``outputs`` numbers for each anchor, with the same weights on all feature maps.

    Args:
        channels: of the feature maps.
        outputs: numbers for each anchor.
        depth: hidden convolutions.
        bias: first bias of the predictions.
    """

    def __init__(self, channels, outputs, depth=2, bias=0.0):
        super().__init__()
        hidden = []
        for _ in range(depth):
            conv = nn.Conv2D(channels, channels, 3, padding=1, bias_attr=False)
            hidden += [conv, nn.GroupNorm(GROUPS, channels), nn.ReLU()]
        self.hidden = nn.Sequential(*hidden)
        self.outputs = outputs
        self.predict = nn.Conv2D(
            channels,
            ANCHORS_PER_POSITION * outputs,
            3,
            padding=1,
            weight_attr=nn.initializer.Normal(std=0.01),
            bias_attr=nn.initializer.Constant(bias),
        )

    def forward(self, maps):
        predictions = [
            self.predict(self.hidden(each)).transpose([0, 2, 3, 1]) for each in maps
        ]  # [N, h, w, a * outputs]
        return paddle.concat([each.reshape([each.shape[0], -1, self.outputs]) for each in predictions], axis=1)


class RetinaNet(nn.Layer):
    """Predicts classes and offsets for all anchors of an image: logits [N, A, num_classes] and offsets [N, A, 4].

    Args:
        body: a model with ``features_only`` whose feature maps have the strides ``boxes.STRIDES``.
        num_classes: number of classes, without a background.
        channels: of pyramid and heads.

    Raises:
        ConfigError: the feature maps have other strides.
    """

    def __init__(self, body, num_classes, channels=64):
        super().__init__()
        if tuple(body.feature_info.reduction()) != STRIDES:
            raise ConfigError(f"the body's feature maps have strides {body.feature_info.reduction()}, not {STRIDES}")
        self.body = body
        self.pyramid = FeaturePyramid(body.feature_info.channels(), channels)
        self.classify = Head(channels, num_classes, bias=-math.log((1 - PRIOR) / PRIOR))
        self.locate = Head(channels, 4)

    def forward(self, images):
        maps = self.pyramid(self.body(images))
        return self.classify(maps), self.locate(maps)


def detection_loss(logits, offsets, classes, wanted_offsets):
    """Return the focal loss and the smooth L1 loss of a batch, both for each anchor with a box.

    Args:
        logits: [N, A, num_classes].
        offsets: [N, A, 4].
        classes: the class to find at each anchor, or ``BACKGROUND`` or ``IGNORED``, [N, A].
        wanted_offsets: [N, A, 4].
    """
    positive = classes >= 0
    count = positive.sum().astype("float32").clip(min=1)
    wanted = F.one_hot(classes.clip(min=0), logits.shape[-1]) * positive.unsqueeze(-1).astype("float32")
    focal = F.sigmoid_focal_loss(logits, wanted, reduction="none").sum(axis=-1)
    focal = (focal * (classes != IGNORED).astype("float32")).sum() / count
    return focal, smooth_l1(offsets[positive], wanted_offsets[positive]).mean(axis=-1).sum() / count


def smooth_l1(values, targets):
    """Return |d| - BETA / 2 where the difference d exceeds BETA, and d² / (2 BETA) elsewhere, in the same shape."""
    return F.smooth_l1_loss(values, targets, reduction="none", delta=BETA, is_huber=False)


class Detections(NamedTuple):
    """The boxes [D, 4] found in an image, their scores [D] from the highest on, and their classes [D]."""

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray


@paddle.no_grad()
def detect(net, images, least_score=0.05, candidates=300, most=100, overlap=0.5):
    """Return the `Detections` in each image of a batch.

    Args:
        net: a `RetinaNet` in evaluation mode.
        images: tensor [N, 3, size, size].
        least_score: below it nothing is found.
        candidates: pairs of an anchor and a class that are looked at in an image, the highest scores.
        most: detections in an image.
        overlap: of two boxes of a class with more intersection over union, the one with the higher score is kept.
    """
    size = images.shape[-1]
    logits, offsets = net(images)
    anchors = paddle.to_tensor(make_anchors(size))
    boxes = ops.box_coder(anchors, list(DEVIATIONS), offsets, "decode_center_size").clip(0, size)
    scores = F.sigmoid(logits)
    return [_select(each, score, least_score, candidates, most, overlap) for each, score in zip(boxes, scores)]


def _select(boxes, scores, least_score, candidates, most, overlap):
    num_classes = scores.shape[1]
    best, places = scores.flatten().topk(min(candidates, scores.size))
    places, best = places[best >= least_score], best[best >= least_score]
    if not len(best):
        return Detections(np.zeros([0, 4], "float32"), np.zeros([0], "float32"), np.zeros([0], "int64"))
    boxes, classes = boxes[places // num_classes], places % num_classes
    kept = ops.nms(boxes, overlap, best, classes, list(range(num_classes)))[:most]
    return Detections(boxes[kept].numpy(), best[kept].numpy(), classes[kept].numpy())
