"""What computes on the CPU: our operators for one of its instruction sets, or Paddle."""

from __future__ import annotations

import functools
import os

import paddle
from paddle import Tensor, _C_ops

from ..errors import ConfigError
from .build import load_library

INSTRUCTION_SETS = ("avx512", "avx2", "portable")  # fastest first
DTYPES = (paddle.float32, paddle.float64)


def cpu_backend() -> str:
    """Name what computes on the CPU: one of INSTRUCTION_SETS for our operators, or "paddle".

    The first call builds or loads the operators. The environment variable PIMM_CPU_OPS chooses among the names;
    ConfigError if it is none of them or not for this machine.
    """
    return _choose_backend(os.environ.get("PIMM_CPU_OPS", ""))


@functools.cache
def _choose_backend(wanted: str) -> str:
    if wanted not in ("", "paddle", *INSTRUCTION_SETS):
        raise ConfigError(f"PIMM_CPU_OPS is {wanted!r}; it can be paddle, {', '.join(INSTRUCTION_SETS)} or empty")
    library = None if wanted == "paddle" else load_library()
    if library is None:
        return "paddle"
    supported = [name for name in INSTRUCTION_SETS if library.pimm_cpu_ops_support(name.encode())]
    if wanted and wanted not in supported:
        raise ConfigError(f"PIMM_CPU_OPS is {wanted!r}, but this machine has only {', '.join(supported)}")
    return wanted or supported[0]


def backend_for(*tensors: Tensor) -> str:
    """Name what computes on these tensors: `cpu_backend()` if they are on the CPU and all of one type of DTYPES."""
    # In a static graph it is Paddle: an exported model must run where our operators are not.
    dtype = tensors[0].dtype
    ours = paddle.in_dynamic_mode() and dtype in DTYPES
    if ours and all(tensor.place.is_cpu_place() and tensor.dtype == dtype for tensor in tensors):
        return cpu_backend()
    return "paddle"


def run_operator(name: str, tensors: tuple[Tensor, ...], *attributes: float | str | list[int]) -> list[Tensor]:
    """Call one of our operators, and record its gradient where Paddle would record one of its own operators.

    Raises ValueError for tensors that the operator cannot take.
    """
    if not paddle.is_grad_enabled():  # which Paddle overlooks for operators that are not its own
        tensors = tuple(tensor.detach() for tensor in tensors)
    try:
        return _C_ops._run_custom_op(name, *tensors, *attributes)
    except OSError as error:  # how Paddle passes on what an operator throws, followed by a line of C++
        raise ValueError(str(error).splitlines()[0]) from None
