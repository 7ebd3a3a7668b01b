"""What computes on the CPU: our operators for one of its instruction sets, or Paddle."""

from __future__ import annotations

import functools
import os

import paddle
from paddle import Tensor

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


def recorded(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Return the tensors to give to an operator that is not Paddle's own, for which `paddle.no_grad` does nothing."""
    return tensors if paddle.is_grad_enabled() else tuple(tensor.detach() for tensor in tensors)
