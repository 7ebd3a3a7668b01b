"""What computes logits [N, classes] from images [N, channels, height, width]: a net, or its export."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

import numpy as np
import paddle
from paddle import nn

from cream import typed
from pimm.engine.inference import LogitsOf
from pimm.engine.program import damaged, refused
from pimm.errors import ConfigError

ONNX_FILE = "model.onnx"
ONNX_ALONE = ("fp16", "int8")  # precisions that exports have as ONNX alone

Backend = Callable[[np.ndarray], np.ndarray]


class EngineNet:
    """Computes logits as arrays with what `pimm.engine.open_engine` returned."""

    def __init__(self, engine: LogitsOf):
        self.engine = engine

    @paddle.no_grad()
    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return the logits of images."""
        return self.engine(paddle.to_tensor(images)).astype("float32").numpy()


class EagerNet(EngineNet):
    """Computes logits with a net in evaluation mode."""

    def __init__(self, net: nn.Layer):
        super().__init__(net)
        net.eval()


class OnnxNet:
    """Computes logits with the ONNX file in a folder, by onnxruntime.

    Raises:
        ConfigError: the file is missing.
        CheckpointError: the file is damaged.
    """

    def __init__(self, folder: Path):
        import onnxruntime  # late: an extra

        require_files(folder, ONNX_FILE)
        path = folder / ONNX_FILE
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors alone: paddle2onnx leaves constants that nothing uses
        try:
            self.session = onnxruntime.InferenceSession(str(path), options)
        except Exception as error:  # onnxruntime has types of its own
            raise damaged([path], error) from None

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return the logits of images; raise CheckpointError for images that the program does not take."""
        images = np.ascontiguousarray(images)
        try:
            return self.session.run(None, {self.session.get_inputs()[0].name: images})[0]
        except Exception as error:  # onnxruntime has types of its own
            raise refused(ONNX_FILE, images, error) from None


def require_files(folder: Path, *names: str) -> None:
    """Raise ConfigError for the first of these files that a folder lacks."""
    for name in names:
        if not (folder / name).is_file():
            raise ConfigError(f"{folder / name} is missing: {typed.script('export')} writes it")
