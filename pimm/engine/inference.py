"""The engine of evaluations: a net as it is, or its program on the CPU.

Paddle Inference with oneDNN runs a program, or an operator of this project if the net is small.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Union

import numpy as np
import paddle
from paddle import Tensor, nn

from pimm.device import current, has_onednn
from pimm.engine.evaluation import train_mode
from pimm.engine.fold import fold_batch_norms
from pimm.engine.fused_net import FusedNet
from pimm.engine.net_checksum import net_checksum
from pimm.engine.program import PaddleNet, has_bf16, reason_of, save_program
from pimm.engine.program_cache import find_program, make_program
from pimm.errors import ConfigError, PimmError
from pimm.models import reparameterize_model
from pimm.utils import is_main_process

_logger = logging.getLogger(__name__)

LogitsOf = Callable[[Tensor], Tensor]
Program = Union[FusedNet, PaddleNet]

MIN_IMAGES = 200  # fewer are evaluated eagerly in less time than an export takes
TOLERANCE = 1e-4  # of the largest logit
_BATCHES, _IMAGES = 2, 32  # first batches, and images of each, on which bfloat16 is compared with the net
_EAGERLY = "the net is evaluated eagerly"


class _Expected(PimmError):
    """Says why the net is evaluated eagerly where that is nothing unusual."""


def open_engine(
    net: nn.Layer, input_size: Sequence[int], engine: str = "auto", precision: str = "fp32", images: int | None = None
) -> LogitsOf:
    """Return what computes the logits of images: the net itself, or its program.

    The program is that of the net with batch norms folded and branches fused. It is kept in the user's cache, and made
    anew when the weights, the structure, the code or the version of Paddle change. Whenever it is opened, its logits
    are compared with those of the net. Later changes of the net do not reach it.

    Args:
        net: the net, which must be in evaluation mode while it evaluates.
        input_size: channels, height and width of the images.
        engine: ``eager`` for the net; ``inference`` for the program; ``auto`` for the program where it can be had and
            is there already or worth its export, and for the net elsewhere. One line of the log says why.
        precision: ``fp32`` or ``bf16`` of the program. Logits of the first batches in bf16 are compared with the net's.
        images: number of images to come, for ``auto``; None for many.

    Raises:
        ConfigError: the engine ``inference`` cannot be had, or the engine ``eager`` is to compute in bf16.
    """
    if engine == "eager" and precision != "fp32":
        raise ConfigError(f"the engine eager computes in fp32; precision {precision} needs the engine inference")
    if engine == "eager":
        return net
    try:
        _check_device()
        bf16 = precision == "bf16" and _has_bf16(required=engine == "inference")
        with train_mode(net, training=False), paddle.no_grad():
            folder = _program_of(net, input_size, images if engine == "auto" else None)
            program = PaddleNet(folder, bf16) if bf16 else _open(net, folder, input_size)
        logits_of = _Sized(program, input_size)
    except PimmError as error:
        if engine == "inference":
            raise ConfigError(f"the engine inference cannot be had: {error}") from None
        _note(logging.INFO if isinstance(error, _Expected) else logging.WARNING, f"{_EAGERLY}: {error}")
        return net
    _note(logging.INFO, f"the net is evaluated by {program.runner} in {'bf16' if bf16 else 'fp32'}")
    return _Compared(net, logits_of) if bf16 else logits_of


def _note(level: int, text: str) -> None:
    if is_main_process():
        _logger.log(level, "%s", text)


def _check_device() -> None:
    if not current().is_cpu:
        raise _Expected(f"Paddle Inference with oneDNN is for CPUs, and the device is {current()}")
    if not has_onednn():
        raise _Expected("this build of Paddle has no oneDNN")


def _has_bf16(required: bool) -> bool:
    """Return whether the CPU computes in bfloat16; where it does not, raise ConfigError or say so."""
    if has_bf16():
        return True
    reason = "this CPU has no bf16, which needs AVX-512"
    if required:
        raise ConfigError(reason)
    _note(logging.WARNING, f"{reason}: computing in fp32")
    return False


def _program_of(net: nn.Layer, input_size: Sequence[int], images: int | None) -> Path:
    """Return the folder of the net's program.

    Raises:
        PimmError: the net cannot be exported, its program differs, or there are too few ``images`` for an export.
    """
    try:
        checksum = net_checksum(net, *input_size)
        find = functools.partial(find_program, checksum, lambda folder: _is_right(net, folder, input_size))
        found = find()
        if found is not None:
            return found
        if images is not None and images < MIN_IMAGES:
            raise _Expected(f"an export of the net pays from {MIN_IMAGES} images, and there are {images}")
        return make_program(checksum, lambda folder: _export(net, input_size, folder), find)
    except OSError as error:
        raise ConfigError(f"the cache of programs cannot be written: {error}") from None
    except RecursionError:
        raise ConfigError("the layers of the net are nested too deeply") from None


def _open(net: nn.Layer, folder: Path, input_size: Sequence[int], counts: Sequence[int] = (1,)) -> Program:
    """Return what computes the net's logits with a program: our operator for small nets, else Paddle Inference.

    Args:
        net: the net.
        folder: the folder of the program.
        input_size: channels, height and width of the images.
        counts: the numbers of random images on which the logits are compared.

    Raises:
        PimmError: the program is damaged, or does not compute the net's logits.
    """
    try:
        program = FusedNet(folder)
        _check(net, program, input_size, counts)
    except Exception as error:  # whatever the operator lacks, Paddle Inference may have
        _logger.debug("no operator for small nets: %s", reason_of(error))
        program = PaddleNet(folder)
        _check(net, program, input_size, counts)
    return program


def _export(net: nn.Layer, input_size: Sequence[int], folder: Path) -> None:
    """Write the net's program: as the net runs on placeholders, or if that is wrong, as its source is translated.

    Raises:
        ConfigError: neither is possible, or the logits are not those of the net.
    """
    reason = None
    for convert in (False, True):
        try:
            fused = reparameterize_model(net)
            fused = fold_batch_norms(fused, paddle.zeros([1, *input_size]))
            save_program(fused, [None, *input_size], folder, convert)
            # A second batch of one image tells whether Paddle Inference keeps what the net makes for each batch.
            _open(net, folder, input_size, counts=(1, 3, 1))
            return
        except Exception as error:  # a net that cannot be exported raises anything
            reason = error
    text = reason if isinstance(reason, PimmError) else reason_of(reason)
    raise ConfigError(f"{type(net).__name__} cannot be exported: {text!s:.250}")


def _is_right(net: nn.Layer, folder: Path, input_size: Sequence[int]) -> bool:
    """Return whether a program of the cache still computes the net's logits.

    The checksum does not see what a script has changed outside of the net: a method of its class, a global variable.
    """
    try:
        _open(net, folder, input_size)
    except Exception:  # what the net itself raises is raised again when it evaluates
        return False
    return True


def _check(net: nn.Layer, program: Program, input_size: Sequence[int], counts: Sequence[int]) -> None:
    """Raise ConfigError unless the program computes the net's logits, on such numbers of random images."""
    draw = np.random.default_rng(0)
    for count in counts:
        images = paddle.to_tensor(draw.standard_normal((count, *input_size)).astype("float32"))
        difference, largest = _difference(net(images), program.logits(images))
        if not difference <= TOLERANCE * largest:  # NaN too
            raise ConfigError(f"a logit differs by {difference:.1e}, where the largest is {largest:.1e}")


def _difference(expected: Tensor, found: Tensor) -> tuple[float, float]:
    """Return the largest difference of logits, and the largest of the expected logits."""
    expected, found = expected.astype("float32"), found.astype("float32")
    return (expected - found).abs().max().item(), expected.abs().max().item()


class _Sized:
    """Computes logits with a program, which may have the size of the images built in; takes no images, too.

    Args:
        program: the program.
        input_size: channels, height and width of the images.
    """

    def __init__(self, program: Program, input_size: Sequence[int]):
        self.program, self.input_size = program, list(input_size)

    def __call__(self, images: Tensor) -> Tensor:
        """Return the logits; raise ConfigError for images of another size or type."""
        size = list(images.shape[1:])
        if size != self.input_size:
            raise ConfigError(f"images of {size}: must be of {self.input_size}, which the program was made for")
        if images.dtype != paddle.float32:
            raise ConfigError(f"images of {images.dtype}: must be of float32, as the program takes them")
        if not len(images):  # oneDNN takes no empty tensors
            return self.program.logits(paddle.zeros([1, *size]))[:0]
        return self.program.logits(images)


class _Compared:
    """Computes logits with a program, and logs how much those of the first batches differ from the net's.

    Args:
        net: the net.
        logits_of: the program.
    """

    def __init__(self, net: nn.Layer, logits_of: LogitsOf):
        self.net, self.logits_of = net, logits_of
        self.left = _BATCHES

    def __call__(self, images: Tensor) -> Tensor:
        logits = self.logits_of(images)
        if self.left and len(images) and is_main_process():
            self.left -= 1
            self._compare(images[:_IMAGES], logits[:_IMAGES].astype("float32"))
        return logits

    @paddle.no_grad()
    def _compare(self, images: Tensor, logits: Tensor) -> None:
        with train_mode(self.net, training=False):
            expected = self.net(images).astype("float32")
        difference, largest = _difference(expected, logits)
        same = (expected.argmax(1) == logits.argmax(1)).sum().item()
        _note(
            logging.WARNING,
            f"bf16: logits differ by at most {difference:.2g} from the net's, the largest of which is {largest:.2g}; "
            f"the same class for {same} of {len(images)} images",
        )
