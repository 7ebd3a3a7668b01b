"""Mean average precision by pycocotools, from files in COCO's own form."""

import contextlib
import io
import json

import paddle

from examples.detection.boxes import areas
from examples.detection.model import detect
from pimm.engine import train_mode
from pimm.errors import ConfigError

TRUTH, FOUND = "test.json", "detections.json"


def require_pycocotools():
    """Raise ConfigError if pycocotools is not installed."""
    try:
        import pycocotools.cocoeval  # noqa: F401
    except ImportError:
        raise ConfigError("pycocotools is missing; pip install '.[detection]' installs it") from None


def coco_truth(canvases, names):
    """Return the boxes of canvases in the form of COCO's files; categories are numbered from 1, as are annotations.

    Args:
        canvases: the canvases, numbered from 1 as images.
        names: names of the classes.
    """
    images, annotations = [], []
    for image_id, canvas in enumerate(canvases, 1):
        height, width = canvas.image.shape[:2]
        images.append({"id": image_id, "file_name": f"{image_id:04d}.png", "height": height, "width": width})
        for box, number, area in zip(_as_coco(canvas.boxes), canvas.classes.tolist(), areas(canvas.boxes).tolist()):
            shared = {"id": len(annotations) + 1, "image_id": image_id, "category_id": number + 1, "iscrowd": 0}
            annotations.append({**shared, "bbox": box, "area": area})
    categories = [{"id": number, "name": name} for number, name in enumerate(names, 1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def coco_results(detections):
    """Return detections, one entry for each image, in the form of COCO's results."""
    return [
        {"image_id": image_id, "category_id": number + 1, "bbox": box, "score": score}
        for image_id, found in enumerate(detections, 1)
        for box, score, number in zip(_as_coco(found.boxes), found.scores.tolist(), found.classes.tolist())
    ]


def _as_coco(boxes):
    """Return boxes as lists of x, y, width and height."""
    return [[x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in boxes.tolist()]


def average_precision(truth, results):
    """Return ``map`` (mean over intersections over union of 0.5 to 0.95), ``map50`` and ``map75``, from 0 to 1.

    Args:
        truth: path of a file of boxes.
        results: path of a file of results.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    if not json.loads(results.read_text()):  # pycocotools cannot read a file without results
        return {"map": 0.0, "map50": 0.0, "map75": 0.0}
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        coco = COCO(str(truth))
        evaluation = COCOeval(coco, coco.loadRes(str(results)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(["map", "map50", "map75"], evaluation.stats[:3].tolist()))


class CocoEvaluator:
    """Measures a net on the canvases of a loader; the folder gets the boxes and the detections as files.

    Args:
        net: a `RetinaNet`.
        loader: a `CanvasLoader`.
        names: names of the classes.
        folder: a folder that exists.
    """

    def __init__(self, net, loader, names, folder):
        self.net, self.loader, self.folder = net, loader, folder
        truth = coco_truth([loader.canvas(index) for index in range(loader.count)], names)
        (folder / TRUTH).write_text(json.dumps(truth))

    def __call__(self):
        """Return the net's average precision, see `average_precision`."""
        with train_mode(self.net, training=False), paddle.no_grad():
            detections = [found for images, _ in self.loader for found in detect(self.net, images)]
        (self.folder / FOUND).write_text(json.dumps(coco_results(detections)))
        return average_precision(self.folder / TRUTH, self.folder / FOUND)
