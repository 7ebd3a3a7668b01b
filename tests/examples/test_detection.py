"""The detection example: canvases, detections, COCO's metrics, and a training that learns."""

import json
import sys

import numpy as np
import paddle
import pytest
from detection_net import COLORS, TinyBody, fixed_net, write_colors
from paths import ROOT
from PIL import Image

sys.path.insert(0, str(ROOT))

from examples.detection import boxes as B
from examples.detection import data, train
from examples.detection.draw import best_classes
from examples.detection.evaluate import CocoEvaluator, average_precision, coco_results, coco_truth
from examples.detection.model import Detections, RetinaNet, detect
from pimm import cli, create_model
from pimm.engine import Update
from pimm.errors import ConfigError
from pimm.optim import create_optimizer_v2
from pimm.utils import ModelEmaV3

NAMES = tuple(COLORS)


@pytest.fixture
def photos(tmp_path):
    write_colors(tmp_path, "train")
    return data.Photos(str(tmp_path), "train", NAMES)


# Canvases


def test_a_canvas_shows_each_photograph_in_its_box(photos):
    rng = np.random.default_rng(0)
    for _ in range(10):
        canvas = data.draw_canvas(photos, 128, rng)
        assert 1 <= len(canvas.boxes) == len(canvas.classes) <= data.OBJECTS[1]
        assert canvas.boxes.min() >= 0 and canvas.boxes.max() <= 128
        x1, y1, x2, y2 = canvas.boxes[-1].astype(int)  # nothing hides the last one
        assert (canvas.image[y1:y2, x1:x2] == COLORS[NAMES[canvas.classes[-1]]]).all()


def test_photographs_hide_little_of_each_other(photos):
    rng, least, most = np.random.default_rng(0), 128, 0
    for _ in range(20):
        boxes = data.draw_canvas(photos, 128, rng).boxes
        shared = B.intersections(boxes, boxes) / np.minimum(B.areas(boxes)[:, None], B.areas(boxes)[None])
        assert shared[~np.eye(len(boxes), dtype=bool)].max(initial=0) <= data.MOST_OVERLAP
        sides = np.sqrt(B.areas(boxes))
        least, most = min(least, sides.min()), max(most, sides.max())
    assert 0.2 * 128 - 1 <= least < 0.25 * 128 and 0.35 * 128 < most <= 0.4 * 128 + 1


def test_the_seed_decides_the_canvases(photos):
    def canvases(seed, epoch=0, start=0):
        loader = data.CanvasLoader(photos, 64, batch_size=2, count=5, seed=seed)
        loader.set_epoch(epoch, start)
        return len(loader), [canvas.image for _, batch in loader for canvas in batch]

    batches, images = canvases(1)
    assert (batches, len(images)) == (3, 5)
    np.testing.assert_array_equal(images, canvases(1)[1])
    np.testing.assert_array_equal(images[4:], canvases(1, start=2)[1])
    assert not np.array_equal(images, canvases(2)[1]) and not np.array_equal(images, canvases(1, epoch=1)[1])


def test_images_are_normalized(photos):
    images, canvases = next(iter(data.CanvasLoader(photos, 64, batch_size=2, count=2, seed=0)))
    assert images.shape == [2, 3, 64, 64]
    expected = (canvases[1].image[5, 7] / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(images[1, :, 5, 7].numpy(), expected, rtol=1e-4)


def test_only_the_classes_that_are_asked_for_are_pasted(tmp_path):
    write_colors(tmp_path, "val")
    photos = data.Photos(str(tmp_path), "val", ["red", "blue"])
    rng = np.random.default_rng(0)
    pairs = {(photo.getpixel((0, 0)), number) for photo, number in (photos.draw(rng) for _ in range(30))}
    assert pairs == {(COLORS["red"], 0), (COLORS["blue"], 1)}
    with pytest.raises(ConfigError, match="there is no class gren; did you mean green"):
        data.Photos(str(tmp_path), "val", ["gren"])


# Detections


def perfect_net(canvas, anchors):
    """Return a net that predicts for one canvas what is to be learnt of it."""
    classes, offsets = B.make_targets(anchors, canvas.boxes, canvas.classes)
    logits = np.full([len(anchors), len(NAMES)], -8.0, "float32")
    logits[classes >= 0, classes[classes >= 0]] = 4.0
    return fixed_net(logits[None], offsets[None])


def test_perfect_predictions_become_the_boxes(photos):
    canvas = data.draw_canvas(photos, 128, np.random.default_rng(5))
    (found,) = detect(perfect_net(canvas, B.make_anchors(128)), paddle.zeros([1, 3, 128, 128]))
    assert len(found.boxes) == len(canvas.boxes)
    pairs = B.iou(found.boxes, canvas.boxes).argmax(axis=1)
    assert sorted(pairs.tolist()) == list(range(len(canvas.boxes)))
    np.testing.assert_allclose(found.boxes, canvas.boxes[pairs], atol=0.01)
    np.testing.assert_array_equal(found.classes, canvas.classes[pairs])
    np.testing.assert_allclose(found.scores, 1 / (1 + np.exp(-4)), rtol=1e-5)


def test_of_two_boxes_of_a_class_the_better_one_stays():
    """The same box twice in class 0 and once in class 1, from three anchors at the same place."""
    anchors = B.make_anchors(64)
    box = np.array([[8, 8, 40, 40]], "float32").repeat(3, axis=0)
    logits, offsets = np.full([1, len(anchors), 2], -9.0, "float32"), np.zeros([1, len(anchors), 4], "float32")
    places = [100, 101, 102]
    offsets[0, places] = B.encode(box, anchors[places])
    logits[0, 100, 0], logits[0, 101, 0], logits[0, 102, 1] = 1.0, 2.0, 0.0
    (found,) = detect(fixed_net(logits, offsets), paddle.zeros([1, 3, 64, 64]))
    assert found.classes.tolist() == [0, 1]
    np.testing.assert_allclose(found.scores, [1 / (1 + np.exp(-2)), 0.5], rtol=1e-6)
    np.testing.assert_allclose(found.boxes, box[:2], atol=1e-3)


def test_a_picture_shows_one_class_at_a_place():
    boxes = np.array([[0, 0, 20, 20], [1, 1, 20, 20], [30, 30, 50, 50]], "float32")
    found = best_classes(Detections(boxes, np.array([0.9, 0.8, 0.7], "float32"), np.array([2, 1, 1])))
    assert found.classes.tolist() == [2, 1]
    np.testing.assert_array_equal(found.boxes, boxes[[0, 2]])
    np.testing.assert_allclose(found.scores, [0.9, 0.7])


def test_boxes_end_at_the_border_and_weak_ones_are_left_out():
    anchors = B.make_anchors(64)
    logits, offsets = np.full([1, len(anchors), 1], -9.0, "float32"), np.zeros([1, len(anchors), 4], "float32")
    (nothing,) = detect(fixed_net(logits, offsets), paddle.zeros([1, 3, 64, 64]))
    assert (nothing.boxes.shape, nothing.scores.shape, nothing.classes.shape) == ((0, 4), (0,), (0,))
    logits[0, 1] = 3.0
    (found,) = detect(fixed_net(logits, offsets), paddle.zeros([1, 3, 64, 64]))
    np.testing.assert_allclose(found.boxes, [[0, 0, 16, 16]])


def test_a_body_with_other_strides_is_refused():
    body = TinyBody()
    body.feature_info.info[0]["reduction"] = 4
    with pytest.raises(ConfigError, match=r"strides \[4, 16, 32\], not \(8, 16, 32\)"):
        RetinaNet(body, 2)


# COCO's metrics


def measured(tmp_path, canvases, detections):
    pytest.importorskip("pycocotools")
    truth, results = tmp_path / "truth.json", tmp_path / "results.json"
    truth.write_text(json.dumps(coco_truth(canvases, NAMES)))
    results.write_text(json.dumps(coco_results(detections)))
    return average_precision(truth, results)


def canvas_of(boxes, classes):
    return data.Canvas(np.zeros([64, 64, 3], "uint8"), np.array(boxes, "float32"), np.array(classes))


CANVASES = [canvas_of([[0, 0, 20, 20], [30, 30, 50, 60]], [0, 1]), canvas_of([[10, 10, 40, 40]], [0])]


def found_in(canvas, shift=0.0, keep=None):
    boxes = canvas.boxes[:keep] + np.float32(shift)
    return Detections(boxes, np.full(len(boxes), 0.9, "float32"), canvas.classes[:keep])


def test_perfect_detections_have_precision_one(tmp_path):
    found = measured(tmp_path, CANVASES, [found_in(canvas) for canvas in CANVASES])
    assert found == pytest.approx({"map": 1.0, "map50": 1.0, "map75": 1.0})


def test_a_missing_class_costs_its_share(tmp_path):
    found = measured(tmp_path, CANVASES, [found_in(CANVASES[0], keep=1), found_in(CANVASES[1])])
    assert found == pytest.approx({"map": 0.5, "map50": 0.5, "map75": 0.5})  # class 1 of two is never found


def test_shifted_boxes_count_up_to_their_overlap(tmp_path):
    """A box of 30 pixels moved by 3 along both axes: intersection over union 27² / (2 · 30² - 27²) = 0.68."""
    canvas = CANVASES[1]
    found = measured(tmp_path, [canvas], [found_in(canvas, shift=3.0)])
    assert found == pytest.approx({"map": 0.4, "map50": 1.0, "map75": 0.0})  # 0.5, 0.55, 0.6 and 0.65 of ten


def test_no_detections_have_precision_zero(tmp_path):
    nothing = found_in(CANVASES[0], keep=0)
    assert measured(tmp_path, CANVASES, [nothing, nothing]) == {"map": 0.0, "map50": 0.0, "map75": 0.0}


def test_coco_counts_from_one():
    truth = coco_truth(CANVASES, NAMES)
    assert [entry["id"] for entry in truth["annotations"]] == [1, 2, 3]
    assert truth["annotations"][1] == {
        **{"id": 2, "image_id": 1, "category_id": 2, "iscrowd": 0},
        **{"bbox": [30.0, 30.0, 20.0, 30.0], "area": 600.0},
    }
    assert [category["name"] for category in truth["categories"]] == list(NAMES)


# Training


def test_a_small_detector_learns_to_find_colours(photos, tmp_path):
    pytest.importorskip("pycocotools")
    net = RetinaNet(TinyBody(), len(NAMES), channels=32)
    update = Update(create_optimizer_v2(net, "adamw", lr=5e-3), clip_grad=train.CLIP_GRAD)
    step = train.DetectStep(net, update, ModelEmaV3(net, 0.9), 64)
    losses = []
    for images, canvases in data.CanvasLoader(photos, 64, batch_size=8, count=8 * 150, seed=1):
        losses.append(step(images, canvases, 0)["loss"].item())
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
    test = data.CanvasLoader(photos, 64, batch_size=8, count=24, seed=0)
    assert CocoEvaluator(step.ema.module, test, NAMES, tmp_path)()["map50"] > 0.4  # it is 0 before training


@pytest.fixture
def colors(tmp_path):
    write_colors(tmp_path, "train")
    write_colors(tmp_path, "val")
    return tmp_path


def arguments(folder, *more):
    sizes = ["--size", "64", "--epochs", "1", "--canvases", "4", "--test-canvases", "2", "--batch-size", "2"]
    return ["--data-dir", str(folder), "--output", str(folder / "run"), "--classes", *NAMES, *sizes, *more]


@pytest.mark.parametrize("body", ["cream_14", "mobilenetv2_100"])
def test_the_command_trains_on_a_model_of_pimm(colors, capsys, body):
    pytest.importorskip("pycocotools")
    train.main(arguments(colors, "--body", body, "--seed", "3"))
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert json.loads((colors / "run" / "result.json").read_text()) == printed
    assert (printed["body"], printed["seed"]) == (body, 3)
    assert 0 <= printed["map50"] <= 1
    assert Image.open(colors / "run" / "detections.webp").size == (4 * 128, 2 * 128)
    assert len(json.loads((colors / "run" / "test.json").read_text())["images"]) == 2
    assert cli.run(lambda: train.main(arguments(colors, "--body", body))) == 2
    assert "holds a training already: --resume" in capsys.readouterr().err


def test_a_resumed_training_ends_like_an_uninterrupted_one(colors, monkeypatch):
    pytest.importorskip("pycocotools")
    small = ["--body", "cream_14", "--epochs", "2"]
    train.main(arguments(colors, *small))
    written = ("summary.csv", "detections.json")
    expected = [(colors / "run" / name).read_text() for name in written]
    other = [*small, "--output", str(colors / "other")]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        measure = CocoEvaluator.__call__

        def interrupt_in_epoch_1(evaluator):
            if (colors / "other" / "checkpoint-0").exists():
                raise KeyboardInterrupt
            return measure(evaluator)

        patch.setattr(CocoEvaluator, "__call__", interrupt_in_epoch_1)
        train.main(arguments(colors, *other))
    train.main(arguments(colors, *other, "--resume"))
    assert [(colors / "other" / name).read_text() for name in written] == expected


def test_the_body_starts_from_a_classifiers_weights(colors):
    classifier = create_model("cream_14")
    paddle.save(classifier.state_dict(), str(colors / "weights.pdparams"))
    options = arguments(colors, "--body", "cream_14", "--body-weights", str(colors / "weights.pdparams"))
    body = train.create_step(train.make_parser().parse_args(options)).net.body
    expected, found = classifier.state_dict(), body.state_dict()
    assert len(found) > 50
    for name, value in found.items():
        np.testing.assert_array_equal(value.numpy(), expected[name].numpy(), err_msg=name)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--body", "cream_99"], "cream_99"),
        (["--data-dir", "nowhere"], "nowhere"),
        (["--classes", "red", "gren"], "there is no class gren; did you mean green"),
        (["--size", "100"], "--size is 100; must be a multiple of 32"),
    ],
)
def test_mistakes_are_answered_in_one_line(colors, capsys, more, said):
    pytest.importorskip("pycocotools")
    assert cli.run(lambda: train.main(arguments(colors, *more))) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and said in error and len(error) < 400
    assert not (colors / "run").exists()


def test_a_missing_pycocotools_is_named(colors, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools.cocoeval", None)
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    assert cli.run(lambda: train.main(arguments(colors))) == 2
    assert capsys.readouterr().err == "error: pycocotools is missing; pip install '.[detection]' installs it\n"
