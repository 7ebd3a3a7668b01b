"""The ONNX file of an exported net: written from the program of Paddle Inference, in FP32, FP16 or INT8."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from cream.deploy.backends import ONNX_FILE
from pimm.engine.program import PADDLE_FILES
from pimm.errors import ConfigError

_OPSET = 17  # of ONNX


def require(*names: str) -> None:
    """Raise ConfigError for the first of these packages that is not installed."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            packages = "paddle2onnx onnxruntime ml_dtypes"
            raise ConfigError(f"ONNX needs {name}, which is not installed: pip install {packages}")


def save_onnx(folder: Path) -> None:
    """Write ``model.onnx`` beside the files of Paddle Inference."""
    import paddle2onnx  # late: an extra

    program, weights = (str(folder / name) for name in PADDLE_FILES)
    with quiet():
        paddle2onnx.export(program, weights, str(folder / ONNX_FILE), opset_version=_OPSET, optimize_tool="None")


def to_fp16(path: Path) -> None:
    """Change the weights and the operations of an ONNX file to FP16; its input and output stay FP32."""
    import onnx  # late: an extra
    from onnxruntime.transformers.float16 import convert_float_to_float16

    onnx.save(convert_float_to_float16(onnx.load(path), keep_io_types=True), str(path))


def quantize(path: Path, images: Sequence[np.ndarray]) -> None:
    """Change an ONNX file to static INT8.

    The range of every activation is what the calibration images reach. Activations are unsigned, weights are signed
    with a scale for each output channel, and of 7 bits, because sums of two products overflow 16 bits on a CPU without
    VNNI otherwise.

    Args:
        path: the file.
        images: the calibration images, each [channels, height, width].
    """
    import onnx  # late: an extra
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Images(CalibrationDataReader):
        def __init__(self):
            self.rest = ({name: image[None]} for image in images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.rest, None)

    name = onnx.load(path).graph.input[0].name
    with quiet(), tempfile.TemporaryDirectory() as folder:
        prepared = str(Path(folder) / ONNX_FILE)
        quant_pre_process(str(path), prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            str(path),
            Images(),
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Leave out the messages of other packages below errors."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    if importlib.util.find_spec("onnxruntime"):
        import onnxruntime  # late: an extra

        onnxruntime.set_default_logger_severity(3)  # errors
    try:
        yield
    finally:
        logging.disable(before)
