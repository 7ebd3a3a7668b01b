"""A small model with drawn weights, in the forms in which the hub and timm have weights."""

import functools
import io
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import paddle
from model_weights import draw

import pimm
from pimm.models.torch_names import load_torch_arrays, torch_names
from pimm.torch_file import save_torch
from pimm.utils.safetensors_file import dump_safetensors

NAME, TAG = "mnasnet_small", "lamb_in1k"
REPO = f"timm/{NAME}.{TAG}"
CLASSES = 7  # of models that are saved with their settings
FILES = {"config.json", "model.safetensors"}
IMAGES = paddle.linspace(-1, 1, 2 * 3 * 32 * 32).reshape([2, 3, 32, 32])


def drawn(num_classes=1000, in_chans=3):
    """Return PyTorch's ``{name: array}`` of the model."""
    return dict(_drawn(num_classes, in_chans))


@functools.cache
def _drawn(num_classes, in_chans):
    with paddle.LazyGuard():
        net = pimm.create_model(NAME, num_classes=num_classes, in_chans=in_chans)
    shapes = torch_names(net)
    return {name: np.zeros((), np.int64) if not shape else draw(name, shape) for name, shape in shapes}


def as_safetensors(arrays, metadata=None):
    file = io.BytesIO()
    dump_safetensors(arrays, file, metadata or {"format": "pt"})
    return file.getvalue()


def as_pickle(content):
    with TemporaryDirectory() as folder:
        path = Path(folder, "net.pth")
        save_torch(path, content)
        return path.read_bytes()


def config(**changes):
    """Return the bytes of a ``config.json`` of the form that timm writes."""
    settings = {
        "architecture": NAME,
        "num_classes": CLASSES,
        "num_features": 1280,
        "global_pool": "avg",
        "pretrained_cfg": {
            "tag": TAG,
            "custom_load": False,
            "input_size": [3, 64, 64],
            "mean": [0.5, 0.4, 0.3],
            "std": [0.2, 0.2, 0.2],
            "interpolation": "bilinear",
            "crop_pct": 0.9,
            "num_classes": CLASSES,
            "first_conv": "conv_stem",
            "classifier": "classifier",
        },
    }
    return json.dumps({**settings, **changes}).encode()


def saved(**changes):
    """Return the files of a model with its settings, as the hub has them."""
    return {"config.json": config(**changes), "model.safetensors": as_safetensors(drawn(CLASSES))}


def logits(net):
    net.eval()
    with paddle.no_grad():
        return net(IMAGES).numpy()


@functools.cache
def expected(num_classes):
    """Return the logits of the model with the drawn weights, which come to the net by no hub."""
    net = pimm.create_model(NAME, num_classes=num_classes)
    load_torch_arrays(net, drawn(num_classes))
    return logits(net)
