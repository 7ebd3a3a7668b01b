"""Verifying converted weights on an image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle
from paddle import Tensor, nn

from cream.build.data import SPOS_MEAN, SPOS_STD
from cream.convert.names import Net
from cream.supernet import SuperNet
from pimm.data import resolve_data_config
from pimm.data.dataset import decode
from pimm.data.imagenet import describe_classes
from pimm.data.transforms_factory import create_transform
from pimm.errors import ConfigError, DataError
from pimm.models import load_checkpoint

SPOS_PREPROCESSING = {"mean": SPOS_MEAN, "std": SPOS_STD, "interpolation": "bilinear", "crop_pct": 224 / 256}


def verify(
    net: Net, weights: str | Path, image: str | Path, spos_preprocessing: bool = False
) -> list[tuple[str, float]]:
    """Return the five likeliest classes of an image and their probabilities, the likeliest first.

    Args:
        net: the net.
        weights: the file with its weights.
        image: the file of the image.
        spos_preprocessing: whether to show the image as the authors of Single Path One-Shot do, with the channels in
            the order blue, green, red and values from 0 to 255.

    Raises:
        ConfigError: the net is a supernet, or takes images of other than one or three channels.
        CheckpointError: the weights do not fit the net.
        DataError: the image cannot be decoded.
    """
    model = net.build()
    if isinstance(model, SuperNet):
        raise ConfigError(f"{net.name} is a supernet of many paths: --verify takes a single net")
    load_checkpoint(model, weights)
    model.eval()
    with paddle.no_grad():
        logits = model(read_image(net, model, image, spos_preprocessing)).numpy()
    names = describe_classes(None, logits.shape[1])
    return [(names[index], probability) for index, probability in likeliest(logits, 5)[0]]


def likeliest(logits: np.ndarray, count: int) -> list[list[tuple[int, float]]]:
    """Return class and probability of the likeliest classes of each row of logits [N, classes], the likeliest first."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = shifted / shifted.sum(axis=1, keepdims=True)
    orders = np.argsort(-probabilities, axis=1, kind="stable")[:, :count].tolist()
    return [[(index, float(row[index])) for index in order] for row, order in zip(probabilities, orders)]


def read_image(net: Net, model: nn.Layer, path: str | Path, spos_preprocessing: bool) -> Tensor:
    """Read an image as a batch of one, [1, channels, H, W], prepared for a net; arguments and errors as ``verify``."""
    if net.in_chans not in (1, 3):
        raise ConfigError(f"{net.name} takes images of {net.in_chans} channels; --verify reads images of 1 or 3")
    wanted = {
        "img_size": net.resolution,
        "in_chans": net.in_chans,
        **(SPOS_PREPROCESSING if spos_preprocessing else {}),
    }
    config = resolve_data_config(wanted, model=model, verbose=False)
    try:
        image = decode(path, mode="RGB" if net.in_chans == 3 else "L")
    except Exception as error:  # Pillow raises anything for a damaged image
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise DataError(f"{path} is no image that can be read") from error
    x = create_transform(**config)(image).unsqueeze(0)
    return x.flip(1) if spos_preprocessing else x
