"""The detection example's boxes, anchors, targets and loss, by value."""

import sys

import numpy as np
import paddle
import pytest
from paddle.nn import functional as F
from paddle.vision.ops import box_coder
from paths import ROOT

sys.path.insert(0, str(ROOT))

from examples.detection import boxes as B
from examples.detection.model import BETA, Head, detection_loss, smooth_l1


def random_boxes(rng, count, size=128):
    corners, sides = rng.uniform(0, size / 2, [count, 2]), rng.uniform(4, size / 2, [count, 2])
    return np.concatenate([corners, corners + sides], axis=1).astype("float32")


def test_anchors_lie_around_the_middle_of_their_position():
    anchors = B.make_anchors(128)
    assert anchors.shape == ((16 * 16 + 8 * 8 + 4 * 4) * 9, 4)
    np.testing.assert_allclose(anchors[1], [4 - 12, 4 - 12, 4 + 12, 4 + 12])  # stride 8, scale 1, ratio 1
    np.testing.assert_allclose(anchors[4][2] - anchors[4][0], 24 * 2 ** (1 / 3), rtol=1e-6)
    half = np.array([12 * 2**0.5, 12 / 2**0.5])  # ratio 0.5: wider than high, with the same area
    np.testing.assert_allclose(anchors[0], [*(4 - half), *(4 + half)], rtol=1e-6)
    second, below = anchors[9 + 1], anchors[16 * 9 + 1]
    np.testing.assert_allclose(second[:2], [12 - 12, 4 - 12])  # columns follow each other before rows
    np.testing.assert_allclose(below[:2], [4 - 12, 12 - 12])
    np.testing.assert_allclose(anchors[-8], [112 - 48, 112 - 48, 112 + 48, 112 + 48])  # stride 32


def test_areas_of_anchors_do_not_depend_on_the_ratio():
    areas = B.areas(B.make_anchors(64)).reshape(-1, len(B.SCALES), len(B.RATIOS))
    np.testing.assert_allclose(areas[:, :, 0], areas[:, :, 1], rtol=1e-5)
    np.testing.assert_allclose(areas[0, :, 2], [24**2, 24**2 * 2 ** (2 / 3), 24**2 * 2 ** (4 / 3)], rtol=1e-5)


def test_predictions_are_in_the_order_of_the_anchors():
    """Let a head add to the number of a position, which its input holds, the number of an output."""
    head = Head(8, outputs=2, depth=0)
    bias = np.arange(18, dtype="float32") * 100
    weight = np.zeros(head.predict.weight.shape, "float32")
    weight[:, 0, 1, 1] = 1.0
    head.predict.weight.set_value(weight)
    head.predict.bias.set_value(bias)
    maps = []
    for positions in (16, 8, 4):
        place = np.arange(positions**2, dtype="float32").reshape(1, 1, positions, positions)
        maps.append(paddle.to_tensor(np.repeat(place, 8, axis=1)))
    found = head(maps).numpy()[0]
    assert found.shape == (len(B.make_anchors(128)), 2)
    places = np.concatenate([np.arange(16**2), np.arange(8**2), np.arange(4**2)])
    expected = places[:, None, None] + bias.reshape(1, 9, 2)
    np.testing.assert_allclose(found, expected.reshape(-1, 2))


def test_iou_in_closed_form():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 4, 2]], "float32")
    others = np.array([[5, 5, 15, 15], [0, 0, 10, 10], [20, 20, 30, 30], [10, 0, 20, 10]], "float32")
    expected = [[25 / 175, 1, 0, 0], [0, 8 / 100, 0, 0]]
    np.testing.assert_allclose(B.iou(boxes, others), expected, rtol=1e-6)
    np.testing.assert_allclose(B.intersections(boxes, others)[0], [25, 100, 0, 0])


def test_offsets_in_closed_form():
    anchors = np.array([[0, 0, 10, 20]], "float32")
    boxes = np.array([[5, 10, 25, 20]], "float32")  # its middle (15, 15) is (10, 5) from the anchor's (5, 10)
    expected = [10 / 10 / 0.1, 5 / 20 / 0.1, np.log(2) / 0.2, np.log(0.5) / 0.2]
    np.testing.assert_allclose(B.encode(boxes, anchors), [expected], rtol=1e-6)


def test_paddle_decodes_the_offsets():
    rng = np.random.default_rng(0)
    anchors, boxes = random_boxes(rng, 50), random_boxes(rng, 50)
    offsets = paddle.to_tensor(B.encode(boxes, anchors)[None])
    decoded = box_coder(paddle.to_tensor(anchors), list(B.DEVIATIONS), offsets, "decode_center_size")
    np.testing.assert_allclose(decoded.numpy()[0], boxes, atol=1e-3)


def test_anchors_find_the_box_they_overlap_most():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 20]], "float32")
    anchors = np.array(
        [
            [0, 0, 10, 11],  # 10/11 and 11/20
            [0, 0, 10, 18],  # 10/18 and 18/20
            [0, 0, 10, 4.5],  # 0.45: neither found nor background
            [0, 0, 10, 3.9],  # 0.39: background
            [50, 50, 60, 60],
        ],
        "float32",
    )
    assert B.match(anchors, boxes).tolist() == [0, 1, B.IGNORED, B.BACKGROUND, B.BACKGROUND]


def test_a_box_without_anchor_gets_its_best_one():
    boxes = np.array([[0, 0, 10, 10], [40, 40, 43, 43]], "float32")
    anchors = np.array([[0, 0, 10, 10], [38, 38, 48, 48], [80, 80, 90, 90]], "float32")
    assert B.match(anchors, boxes).tolist() == [0, 1, B.BACKGROUND]


def test_an_empty_image_is_background():
    anchors = B.make_anchors(64)
    classes, offsets = B.make_targets(anchors, np.zeros([0, 4], "float32"), np.zeros([0], "int64"))
    assert (classes == B.BACKGROUND).all() and (offsets == 0).all()


def test_targets_hold_class_and_offsets_of_the_found_box():
    rng = np.random.default_rng(1)
    anchors, boxes, classes = B.make_anchors(128), random_boxes(rng, 6), np.array([3, 1, 4, 1, 5, 9])
    labels, offsets = B.make_targets(anchors, boxes, classes)
    found = B.match(anchors, boxes)
    positive = found >= 0
    assert set(found[positive].tolist()) == set(range(6))  # each box is to be found
    np.testing.assert_array_equal(labels[positive], classes[found[positive]])
    np.testing.assert_array_equal(labels[~positive], found[~positive])
    np.testing.assert_allclose(offsets[positive], B.encode(boxes[found[positive]], anchors[positive]))
    assert not offsets[~positive].any()


def test_smooth_l1_in_closed_form():
    values = paddle.to_tensor([0.0, BETA / 2, BETA, -3.0])
    expected = [0.0, (BETA / 2) ** 2 / (2 * BETA), BETA / 2, 3.0 - BETA / 2]
    np.testing.assert_allclose(smooth_l1(values, paddle.zeros([4])).numpy(), expected, rtol=1e-5)


def focal(logit, is_class):
    """The focal loss of the paper's equation 5, for one anchor and class."""
    p = 1 / (1 + np.exp(-logit))
    return -0.25 * (1 - p) ** 2 * np.log(p) if is_class else -0.75 * p**2 * np.log(1 - p)


def test_loss_in_closed_form():
    """Three anchors: class 1 of two, background, and one that is ignored."""
    logits = np.array([[[-1.0, 2.0], [0.5, -2.0], [9.0, 9.0]]], "float32")
    offsets = np.array([[[0.1, 0, 1, 0], [5, 5, 5, 5], [7, 7, 7, 7]]], "float32")
    classes = np.array([[1, B.BACKGROUND, B.IGNORED]])
    found, box = detection_loss(*map(paddle.to_tensor, (logits, offsets, classes, np.zeros_like(offsets))))
    expected = focal(-1.0, False) + focal(2.0, True) + focal(0.5, False) + focal(-2.0, False)
    np.testing.assert_allclose(found.item(), expected, rtol=1e-5)
    np.testing.assert_allclose(box.item(), (BETA / 2 + 1 - BETA / 2) / 4, rtol=1e-5)
    twice = [paddle.to_tensor(np.concatenate([each, each])) for each in (logits, offsets, classes, offsets * 0)]
    np.testing.assert_allclose(detection_loss(*twice)[0].item(), expected, rtol=1e-5)


def test_loss_of_images_without_boxes_is_finite():
    logits, offsets = paddle.zeros([1, 5, 2]), paddle.zeros([1, 5, 4])
    found, box = detection_loss(logits, offsets, paddle.full([1, 5], B.BACKGROUND, "int64"), offsets)
    np.testing.assert_allclose(found.item(), 10 * focal(0.0, False), rtol=1e-5)
    assert box.item() == 0


@pytest.mark.parametrize("place", [(0, 0, 1), (0, 1, 0), (0, 2, 0)])
def test_gradient_of_the_loss_by_finite_differences(place):
    rng = np.random.default_rng(2)
    values = rng.normal(size=[1, 3, 2])
    classes, offsets = paddle.to_tensor([[1, B.BACKGROUND, B.IGNORED]]), paddle.zeros([1, 3, 4])

    def loss(changed):
        logits = paddle.to_tensor(changed.astype("float32"), stop_gradient=False)
        return logits, detection_loss(logits, offsets, classes, offsets)[0]

    logits, value = loss(values)
    value.backward()
    step = np.zeros_like(values)
    step[place] = 1e-2
    expected = (loss(values + step)[1].item() - loss(values - step)[1].item()) / 2e-2
    np.testing.assert_allclose(logits.grad.numpy()[place], expected, rtol=5e-3, atol=1e-6)
    assert (logits.grad.numpy()[place] != 0) == (place[1] != 2)


def test_focal_loss_is_the_sum_over_anchors_and_classes():
    logits = paddle.randn([2, 7, 3])
    classes = paddle.to_tensor(np.random.default_rng(3).integers(-1, 3, [2, 7]))
    wanted = F.one_hot(classes + 1, 4)[:, :, 1:]
    offsets = paddle.zeros([2, 7, 4])
    expected = F.sigmoid_focal_loss(logits, wanted).item() / max((classes >= 0).sum().item(), 1)
    np.testing.assert_allclose(detection_loss(logits, offsets, classes, offsets)[0].item(), expected, rtol=1e-5)
