"""A net as a program of Paddle Inference, or of ONNX, that needs neither this package nor its Python code."""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import paddle
from paddle import nn
from paddle.static import InputSpec

from cream.deploy.backends import ONNX_FILE, PADDLE_FILES, PADDLE_STEM, Backend, EagerNet, OnnxNet, PaddleNet
from cream.deploy.settings import SETTINGS, InferenceSettings, write_settings
from pimm.errors import ConfigError

TOLERANCE = 1e-4  # of a logit
_OPSET = 17  # of ONNX
_COMMENT = """\
# An image in this channel order is scaled so that its short side is height / crop_pct, its middle is cut out, and its
# pixels from 0 to 1 become (pixel - mean) / std. The net takes such images [N, channels, height, width] of float32, and
# returns logits [N, classes] in the order of class_names.
"""


def export(net: nn.Layer, settings: InferenceSettings, folder: Path, onnx: bool = False) -> dict[str, float]:
    """Write a net into a folder, and compare what was written with the net itself.

    The folder then holds ``inference.yml``, the program and the weights of Paddle Inference (``model.json``,
    ``model.pdiparams``), and with ``onnx`` ``model.onnx``. All take any number of images. The files are put in place
    once all of them have proved right; an earlier export is replaced.

    Returns:
        The largest difference of a logit from the net's own, by the name of the written file.

    Raises:
        ConfigError: the folder holds something else, a package is missing, or logits differ by more than 1e-4.
    """
    check_folder(folder)
    if onnx:
        require("paddle2onnx", "onnxruntime")
    net.eval()
    with temporary_folder(folder) as partial:
        save_paddle(net, settings.input_size[0], partial)
        written: dict[str, Backend] = {PADDLE_FILES[0]: PaddleNet(partial)}
        if onnx:
            save_onnx(partial)
            written[ONNX_FILE] = OnnxNet(partial)
        differences = {name: largest_difference(EagerNet(net), backend, settings) for name, backend in written.items()}
        for name, difference in differences.items():
            if not difference <= TOLERANCE:  # NaN too
                raise ConfigError(f"{name}: a logit differs by {difference:.1e} from the net's; nothing is exported")
        write_settings(partial, settings, _COMMENT)
        put_in_place(partial, folder)
    return differences


def check_folder(folder: Path) -> None:
    """Raise ConfigError unless the folder is missing, empty, or holds an earlier export."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--output {folder} is a file; must be a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / SETTINGS).is_file():
        raise ConfigError(f"--output {folder} holds other files; must be a new folder, an empty one or an export")


def require(*names: str) -> None:
    """Raise ConfigError for the first of these packages that is not installed."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise ConfigError(f"--onnx needs {name}, which is not installed: pip install paddle2onnx onnxruntime")


@contextlib.contextmanager
def temporary_folder(folder: Path) -> Iterator[Path]:
    """Make a folder beside ``folder``, on the same disk, that is gone at the end."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def put_in_place(partial: Path, folder: Path) -> None:
    """Move the files into the folder; the settings, which tell that the export is whole, go first and come last."""
    folder.mkdir(exist_ok=True)
    for name in (SETTINGS, ONNX_FILE, *PADDLE_FILES):
        (folder / name).unlink(missing_ok=True)
    for path in sorted(partial.iterdir(), key=lambda path: path.name == SETTINGS):
        os.replace(path, folder / path.name)


def save_paddle(net: nn.Layer, channels: int, folder: Path) -> None:
    """Write the program and the weights of Paddle Inference, for any number and size of images."""
    spec = InputSpec([None, channels, None, None], "float32", "images")
    # A copy, because the conversion replaces the forward function of the layer.
    program = paddle.jit.to_static(copy.deepcopy(net), input_spec=[spec], full_graph=True)
    paddle.jit.save(program, str(folder / PADDLE_STEM))


def save_onnx(folder: Path) -> None:
    """Write ``model.onnx`` beside the files of Paddle Inference."""
    import paddle2onnx  # late: an extra

    program, weights = (str(folder / name) for name in PADDLE_FILES)
    paddle2onnx.export(program, weights, str(folder / ONNX_FILE), opset_version=_OPSET, optimize_tool="onnxoptimizer")


def largest_difference(expected: Backend, given: Backend, settings: InferenceSettings) -> float:
    """Return the largest difference of logits on one, and on three, random images of the net's own size."""
    draw = np.random.default_rng(0)
    found = []
    for count in (1, 3):
        images = draw.standard_normal((count, *settings.input_size)).astype("float32")
        found.append(float(np.abs(expected(images) - given(images)).max()))
    return max(found) if not np.isnan(found).any() else float("nan")
