"""A net as a program of Paddle Inference: two files, and what computes logits with them."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import paddle
from paddle import Tensor, inference, nn
from paddle.static import InputSpec

from pimm.device import current
from pimm.errors import CheckpointError, ConfigError
from pimm.threads import restore_threads, thread_count

PADDLE_STEM = "model"
PADDLE_FILES = (f"{PADDLE_STEM}.json", f"{PADDLE_STEM}.pdiparams")

_CONVOLUTIONS = {
    f"pd_op.{name}"
    for name in ("conv2d", "depthwise_conv2d", "conv2d_transpose", "depthwise_conv2d_transpose", "conv3d")
}
_outputs = threading.RLock()  # of the process, which `quiet` redirects


class PaddleNet:
    """Computes logits with the program of a folder: on the current GPU or plug-in device, else by oneDNN.

    On a CPU the program takes as many threads as the commands' operators, see `pimm.threads.thread_count`.

    Args:
        folder: the folder with `PADDLE_FILES`.
        bf16: whether to compute in bfloat16, by oneDNN on the CPU.

    Raises:
        ConfigError: the CPU has no bfloat16.
        CheckpointError: a file is missing or damaged.
    """

    runner = "Paddle Inference with oneDNN"

    def __init__(self, folder: Path, bf16: bool = False):
        paths = [folder / name for name in PADDLE_FILES]
        self.has_run = False
        try:
            config = inference.Config(*map(str, paths))
            config.disable_glog_info()
            if bf16:
                require_bf16()
            if current().is_gpu and not bf16:
                config.enable_use_gpu(256, current().index)  # megabytes at first, and the number of the device
            elif current().is_plugin and not bf16:
                config.enable_custom_device(current().kind, current().index)
            else:
                config.set_cpu_math_library_num_threads(thread_count())
                config.enable_onednn()
            if bf16:
                config.enable_onednn_bfloat16()
            with quiet():
                self.predictor = inference.create_predictor(config)
        except ConfigError:
            raise
        except Exception as error:  # Paddle raises many types for damaged files
            raise damaged(paths, error) from None
        finally:
            restore_threads()

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return the logits of images; raise CheckpointError for images that the program does not take."""
        handle = self.predictor.get_input_handle(self.predictor.get_input_names()[0])
        handle.reshape(images.shape)
        handle.copy_from_cpu(np.ascontiguousarray(images))
        self._run(images)
        return self.predictor.get_output_handle(self.predictor.get_output_names()[0]).copy_to_cpu()

    def logits(self, images: Tensor) -> Tensor:
        """Return the logits of images as `__call__` does, from tensor to tensor; images in one piece are not copied."""
        return self._run(images, [images.contiguous()])[0]  # Paddle Inference takes no notice of strides

    def _run(self, images: np.ndarray | Tensor, *inputs: list[Tensor]) -> list[Tensor] | None:
        with contextlib.nullcontext() if self.has_run else quiet():
            self.has_run = True
            try:
                return self.predictor.run(*inputs)
            except Exception as error:  # Paddle raises many types
                raise refused(PADDLE_FILES[0], images, error) from None
            finally:
                restore_threads()


def save_program(net: nn.Layer, shape: Sequence[int | None], folder: Path, convert: bool = True) -> None:
    """Write the program and the weights of Paddle Inference.

    Args:
        net: the net. With ``convert`` its forward function becomes that of the program.
        shape: of the images [N, channels, height, width]; None for any size.
        folder: the folder of the files.
        convert: whether Paddle translates the source of the forward functions. The program then works out sizes and
            branches from the images, which takes seconds. Otherwise the net is run once on placeholders, ten times as
            fast, and what the functions read off these holds for all images: the program has to be checked.

    Raises:
        ConfigError: the net makes filters of a convolution from its images.
    """
    leave_layers_of_paddle_alone()
    traced = net if convert else _AsItIs(net)
    spec = InputSpec(list(shape), "float32", "images")
    program = paddle.jit.to_static(traced, input_spec=[spec], full_graph=True)
    with quiet():
        paddle.jit.save(program, str(folder / PADDLE_STEM))
        _check_filters(paddle.jit.load(str(folder / PADDLE_STEM)).program())


def _check_filters(program) -> None:
    """Raise ConfigError if a program makes filters of a convolution from its images.

    oneDNN keeps the filters of the first batch, unless their memory happens to be used for those of the next.
    """
    varying = set()  # ids of the values that depend on the images
    for op in program.global_block().ops:
        inputs = [value.id for value in op.operands_source() if value.initialized()]
        if op.name() in _CONVOLUTIONS and inputs[1] in varying:
            raise ConfigError("the filters of a convolution are made from the images, which oneDNN does not support")
        if op.name() == "pd_op.data" or varying.intersection(inputs):
            varying.update(result.id for result in op.results())


@functools.cache
def leave_layers_of_paddle_alone() -> None:
    """Keep Paddle from translating the source of its own layers, which halves the time of an export.

    Programs are the same. Paddle recognises a module by its file; modules with members would be searched in each call.
    """
    names = ("layer", "functional.activation", "functional.conv", "functional.norm", "functional.pooling")
    for name in names:
        module = ModuleType(f"paddle.nn.{name}")
        module.__file__ = importlib.import_module(module.__name__).__file__
        paddle.jit.ignore_module([module])


@paddle.jit.not_to_static
def _run(net: nn.Layer, images: Tensor) -> Tensor:
    return net(images)


class _AsItIs(nn.Layer):
    """Hides a net from the translation of sources."""

    def __init__(self, net: nn.Layer):
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        return _run(self.net, images)


def has_bf16() -> bool:
    """Return whether oneDNN computes in bfloat16 on this CPU."""
    return paddle.base.core.supports_bfloat16()


def require_bf16() -> None:
    """Raise ConfigError unless oneDNN computes in bfloat16 on this CPU."""
    if not has_bf16():
        raise ConfigError("this CPU has no bfloat16: --precision bf16 needs AVX-512; fp32 and --quantize run here")


def damaged(paths: Sequence[Path], error: Exception) -> CheckpointError:
    """Return the error of files that cannot be run."""
    return CheckpointError(f"{' and '.join(map(str, paths))} cannot be run: {reason_of(error)}")


def refused(name: str, images: np.ndarray | Tensor, error: Exception) -> CheckpointError:
    """Return the error of a program that fails on images."""
    return CheckpointError(f"{name} does not compute with images of shape {list(images.shape)}: {reason_of(error)}")


def reason_of(error: Exception) -> str:
    """Return the line of an error that tells most; the texts of Paddle and onnxruntime have many lines."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{next((line for line in lines if 'Error' in line), lines[-1] if lines else type(error).__name__):.200}"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drop what Paddle's C++ code prints to the process's output and errors: notes for Paddle's developers.

    Other threads wait for their turn: one that kept the dropped output and restored it last would lose all later text.
    """
    with _outputs, contextlib.ExitStack() as undo:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        undo.callback(os.close, nowhere)
        for number in (1, 2):
            with contextlib.suppress(OSError):  # a process without an output
                kept = os.dup(number)
                undo.callback(os.close, kept)
                undo.callback(os.dup2, kept, number)
                os.dup2(nowhere, number)
        yield
