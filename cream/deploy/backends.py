"""What computes logits [N, classes] from images [N, channels, height, width]: a net, or its export."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

import numpy as np
import paddle
from paddle import inference, nn

from cream import typed
from pimm.device import current
from pimm.errors import CheckpointError, ConfigError

PADDLE_STEM = "model"
PADDLE_FILES = (f"{PADDLE_STEM}.json", f"{PADDLE_STEM}.pdiparams")
ONNX_FILE = "model.onnx"
ONNX_ALONE = ("fp16", "int8")  # precisions that exports have as ONNX alone

Backend = Callable[[np.ndarray], np.ndarray]


class EagerNet:
    """Computes logits with a net in evaluation mode."""

    def __init__(self, net: nn.Layer):
        self.net = net
        net.eval()

    @paddle.no_grad()
    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return the logits of images."""
        return self.net(paddle.to_tensor(images)).astype("float32").numpy()


class PaddleNet:
    """Computes logits with the files of Paddle Inference in a folder, on the current GPU or plug-in device or the CPU.

    Args:
        folder: the folder.
        bf16: whether to compute in bfloat16, by oneDNN on the CPU.

    Raises:
        ConfigError: a file is missing, or the CPU has no bfloat16.
        CheckpointError: a file is damaged.
    """

    def __init__(self, folder: Path, bf16: bool = False):
        paths = [folder / name for name in PADDLE_FILES]
        _require(paths)
        config = inference.Config(*map(str, paths))
        config.disable_glog_info()
        if bf16:
            require_bf16()
            config.enable_onednn()
            config.enable_onednn_bfloat16()
        elif current().is_gpu:
            config.enable_use_gpu(256, current().index)  # megabytes at first, and the number of the device
        elif current().is_plugin:
            config.enable_custom_device(current().kind, current().index)
        try:
            self.predictor = inference.create_predictor(config)
        except Exception as error:  # Paddle raises many types for damaged files
            raise _damaged(paths, error) from None

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return the logits of images; raise CheckpointError for images that the program does not take."""
        handle = self.predictor.get_input_handle(self.predictor.get_input_names()[0])
        handle.reshape(images.shape)
        handle.copy_from_cpu(np.ascontiguousarray(images))
        try:
            self.predictor.run()
        except Exception as error:  # Paddle raises many types
            raise _refused(PADDLE_FILES[0], images, error) from None
        return self.predictor.get_output_handle(self.predictor.get_output_names()[0]).copy_to_cpu()


class OnnxNet:
    """Computes logits with the ONNX file in a folder, by onnxruntime.

    Raises:
        ConfigError: the file is missing.
        CheckpointError: the file is damaged.
    """

    def __init__(self, folder: Path):
        import onnxruntime  # late: an extra

        path = folder / ONNX_FILE
        _require([path])
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors alone: paddle2onnx leaves constants that nothing uses
        try:
            self.session = onnxruntime.InferenceSession(str(path), options)
        except Exception as error:  # onnxruntime has types of its own
            raise _damaged([path], error) from None

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return the logits of images; raise CheckpointError for images that the program does not take."""
        images = np.ascontiguousarray(images)
        try:
            return self.session.run(None, {self.session.get_inputs()[0].name: images})[0]
        except Exception as error:  # onnxruntime has types of its own
            raise _refused(ONNX_FILE, images, error) from None


def require_bf16() -> None:
    """Raise ConfigError unless oneDNN computes in bfloat16 on this CPU."""
    if not paddle.base.core.supports_bfloat16():
        raise ConfigError("this CPU has no bfloat16: --precision bf16 needs AVX-512; fp32 and --quantize run here")


def _damaged(paths: list[Path], error: Exception) -> CheckpointError:
    """Return the error of files that cannot be run."""
    return CheckpointError(f"{' and '.join(map(str, paths))} cannot be run: {_reason(error)}")


def _refused(name: str, images: np.ndarray, error: Exception) -> CheckpointError:
    """Return the error of a program that fails on images."""
    return CheckpointError(f"{name} does not compute with images of shape {list(images.shape)}: {_reason(error)}")


def _reason(error: Exception) -> str:
    """Return the line of an error that tells most; Paddle's and onnxruntime's texts have many lines."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{next((line for line in lines if 'Error' in line), lines[-1] if lines else type(error).__name__):.200}"


def _require(paths: list[Path]) -> None:
    for path in paths:
        if not path.is_file():
            raise ConfigError(f"{path} is missing: {typed.script('export')} writes it")
