"""A net as a program of Paddle Inference, or of ONNX, that needs neither this package nor its Python code."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Callable

import numpy as np
import paddle
from paddle import nn

from cream.deploy.backends import ONNX_ALONE, ONNX_FILE, Backend, EagerNet, OnnxNet
from cream.deploy.onnx_file import quantize, require, save_onnx, to_fp16
from cream.deploy.settings import SETTINGS, InferenceSettings, is_export, write_settings
from pimm.engine import train_mode
from pimm.engine.fold import fold_batch_norms
from pimm.engine.program import PADDLE_FILES, PaddleNet, require_bf16, save_program
from pimm.errors import ConfigError

_logger = logging.getLogger(__name__)

TOLERANCE = 1e-4  # of a logit, and of the largest logit where this is less than 1
# What a lower precision may change, of the largest logit or of 1; INT8 is measured on images instead.
_ROUNDING = {"fp16": 0.02, "bf16": 0.1, "int8": float("inf")}
_COMMENT = """\
# An image in this channel order is scaled {scaled}.
# Its pixels from 0 to 1 become (pixel - mean) / std. The net takes such images [N, channels, height, width] of float32,
# and returns logits [N, classes] in the order of class_names.
"""
_SCALED = {  # how, by crop_mode
    "center": "until it just covers height / crop_pct and width / crop_pct, its middle is cut out",
    "border": "until it just fits into height / crop_pct and width / crop_pct, and cut or filled up with mean",
    "squash": "to height / crop_pct and width / crop_pct, whatever its proportions, its middle is cut out",
}


def export(
    net: nn.Layer,
    settings: InferenceSettings,
    folder: Path,
    onnx: bool = False,
    calibration: Sequence[np.ndarray] = (),
) -> dict[str, float]:
    """Write a net into a folder, and compare what was written with the net itself.

    The folder then holds ``inference.yml``, the program and the weights of Paddle Inference (``model.json``,
    ``model.pdiparams``), and with ``onnx`` ``model.onnx``; in FP16 and INT8 it holds ``model.onnx`` alone. All take any
    number of images. Batch norm is folded. The files are put in place once all of them have proved right; an earlier
    export is replaced.

    Args:
        net: the net.
        settings: how the net sees images, its classes, and the precision of the export.
        folder: a new folder, an empty one, or one with an earlier export.
        onnx: whether to write ``model.onnx`` beside the files of Paddle Inference.
        calibration: for INT8, images [channels, height, width].

    Returns:
        The largest difference of a logit from the net's own, by the name of the written file.

    Raises:
        ConfigError: the folder holds something else, a package is missing, this machine lacks the precision, or logits
            differ by more than 1e-4 before the precision is lowered.
    """
    check_folder(folder)
    check_precision(settings.precision, onnx)
    with train_mode(net, training=False), temporary_folder(folder) as partial:
        images = paddle.zeros([1, *settings.input_size])
        save_paddle(fold_batch_norms(net, images), settings.input_size, partial)
        written: dict[str, Backend] = {PADDLE_FILES[0]: PaddleNet(partial)}
        if onnx or settings.precision in ONNX_ALONE:
            save_onnx(partial)
            written[ONNX_FILE] = OnnxNet(partial)
        differences = _compare(net, written, settings, lambda largest: TOLERANCE * min(1.0, largest))
        if settings.precision != "fp32":
            lowered = _LOWER[settings.precision](partial, calibration)
            most = _ROUNDING[settings.precision]
            differences = _compare(net, lowered, settings, lambda largest: most * max(1.0, largest))
        finish(partial, folder, settings)
    return differences


def check_precision(precision: str, onnx: bool) -> None:
    """Raise ConfigError if a package, or the CPU, lacks what an export in this precision needs."""
    if onnx or precision in ONNX_ALONE:
        require("paddle2onnx", "onnxruntime")
    if precision == "int8":
        require("ml_dtypes")  # which onnxruntime needs to quantize
    if precision == "bf16":
        if onnx:
            raise ConfigError("--precision bf16 is of Paddle Inference alone: onnxruntime has no such convolution")
        require_bf16()


def _compare(
    net: nn.Layer, written: dict[str, Backend], settings: InferenceSettings, bound: Callable[[float], float]
) -> dict[str, float]:
    """Return the largest difference of a logit by file.

    Raises:
        ConfigError: it is more than the ``bound`` for the largest logit, or no number.
    """
    found = {name: largest_difference(EagerNet(net), backend, settings) for name, backend in written.items()}
    for name, (difference, largest) in found.items():
        if not difference <= bound(largest):  # NaN too
            raise ConfigError(f"{name}: a logit differs by {difference:.1e} from the net's; nothing is exported")
    return {name: difference for name, (difference, _) in found.items()}


def _as_bf16(folder: Path, _: Sequence[np.ndarray]) -> dict[str, Backend]:
    return {PADDLE_FILES[0]: PaddleNet(folder, bf16=True)}


def _as_fp16(folder: Path, _: Sequence[np.ndarray]) -> dict[str, Backend]:
    to_fp16(folder / ONNX_FILE)
    return onnx_alone(folder)


def _as_int8(folder: Path, calibration: Sequence[np.ndarray]) -> dict[str, Backend]:
    quantize(folder / ONNX_FILE, calibration)
    return onnx_alone(folder)


def onnx_alone(folder: Path) -> dict[str, Backend]:
    """Remove the files of Paddle Inference from a folder, and return what is left."""
    for name in PADDLE_FILES:
        (folder / name).unlink()
    return {ONNX_FILE: OnnxNet(folder)}


# Each changes an export in FP32 to another precision, and returns what computes with it by the name of its file.
_LOWER = {"bf16": _as_bf16, "fp16": _as_fp16, "int8": _as_int8}


def check_folder(folder: Path) -> None:
    """Raise ConfigError unless the folder is missing, empty, or holds an earlier export."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--output {folder} is a file; must be a folder")
    if folder.is_dir() and any(folder.iterdir()) and not is_export(folder):
        raise ConfigError(f"--output {folder} holds other files; must be a new folder, an empty one or an export")


@contextlib.contextmanager
def temporary_folder(folder: Path) -> Iterator[Path]:
    """Make a folder beside ``folder``, on the same disk, that is gone at the end."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def finish(partial: Path, folder: Path, settings: InferenceSettings) -> None:
    """Write the settings, and move all files into the folder.

    The settings, which tell that the export is whole, go first and come last.
    """
    write_settings(partial, settings, _COMMENT.format(scaled=_SCALED[settings.crop_mode]))
    folder.mkdir(exist_ok=True)
    for name in (SETTINGS, ONNX_FILE, *PADDLE_FILES):
        (folder / name).unlink(missing_ok=True)
    for path in sorted(partial.iterdir(), key=lambda path: path.name == SETTINGS):
        os.replace(path, folder / path.name)


def save_paddle(net: nn.Layer, input_size: Sequence[int], folder: Path) -> None:
    """Write the program and the weights of Paddle Inference, for any number of images.

    The images may have any size, unless the net is made for one, or Paddle can write its program for one alone. The
    forward function of the net becomes that of the program.

    Args:
        net: the net.
        input_size: channels, height and width of the images.
        folder: the folder of the files.
    """
    if not getattr(net, "default_cfg", {}).get("fixed_input_size"):
        forward = net.forward
        try:
            return save_program(net, (None, input_size[0], None, None), folder)
        except (TypeError, ValueError, AssertionError) as error:  # as Paddle says that Python needs a size
            _logger.debug("for images of any size: %s", error)
            net.forward = forward
        _logger.warning("the program takes images of %d x %d alone: this net computes with the size", *input_size[1:])
    save_program(net, (None, *input_size), folder)


def largest_difference(expected: Backend, given: Backend, settings: InferenceSettings) -> tuple[float, float]:
    """Return the largest difference of logits, and the largest logit, on one, three and another random image.

    The other one tells filters that a net makes from each batch: Paddle Inference with oneDNN keeps those of the first.
    """
    draw = np.random.default_rng(0)
    found = []
    for count in (1, 3, 1):
        images = draw.standard_normal((count, *settings.input_size)).astype("float32")
        logits = expected(images)
        found.append((np.abs(logits - given(images)).max(), np.abs(logits).max()))
    return tuple(float(value) for value in np.max(found, axis=0))  # NaN if any is
