"""Pictures of detections."""

import numpy as np
import paddle
from paddle.vision import ops
from PIL import Image, ImageDraw

from examples.detection.data import normalize
from examples.detection.model import Detections, detect

COLORS = ("#ff3b30", "#34c759", "#0a84ff", "#ffcc00", "#ff2dd1", "#00e5ff", "#ff9500", "#af52de", "#ffffff", "#7fff00")
LEAST_SCORE = 0.35  # of a detection that is drawn


@paddle.no_grad()
def draw_detections(net, loader, names, path, rows=2, columns=4, scale=2):
    """Write a picture of the first canvases of a loader with what a net finds in them.

    Args:
        net: a `RetinaNet` in evaluation mode.
        loader: a `CanvasLoader`.
        names: names of the classes.
        path: of the picture; its ending chooses the format.
        rows: canvases below each other.
        columns: canvases beside each other.
        scale: by which the canvases are enlarged.
    """
    images = [loader.canvas(index).image for index in range(min(rows * columns, loader.count))]
    side = loader.size * scale
    picture = Image.new("RGB", (columns * side, rows * side))
    for number, (image, found) in enumerate(zip(images, detect(net, normalize(np.stack(images)), LEAST_SCORE))):
        tile = Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)
        pen = ImageDraw.Draw(tile)
        for box, score, label in zip(*(each.tolist() for each in best_classes(found))):
            corners, color = [value * scale for value in box], COLORS[label % len(COLORS)]
            pen.rectangle(corners, outline=color, width=2)
            text, place = f"{names[label]} {score:.2f}", (corners[0] + 3, corners[1] + 1)
            pen.rectangle(pen.textbbox(place, text), fill="black")
            pen.text(place, text, fill=color)
        picture.paste(tile, (number % columns * side, number // columns * side))
    picture.save(path)


def best_classes(found, overlap=0.5):
    """Return the detections without those that overlap with a better one of any class."""
    if not len(found.boxes):
        return found
    kept = ops.nms(paddle.to_tensor(found.boxes), overlap, paddle.to_tensor(found.scores)).numpy()
    return Detections(*(each[kept] for each in found))
