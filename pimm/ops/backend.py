"""Choice of what computes on the CPU: our operators for one of its instruction sets, or Paddle's own operators."""

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
    """Return the name of what computes on the CPU: one of INSTRUCTION_SETS for our operators, or "paddle".

    The first call builds or loads the operators. The environment variable PIMM_CPU_OPS chooses among the names. Raises
    ConfigError if its value is no such name, or names an instruction set that this machine does not have.
    """
    return _choose_backend(os.environ.get("PIMM_CPU_OPS", ""))


@functools.cache
def _choose_backend(wanted: str) -> str:
    if wanted not in ("", "paddle", *INSTRUCTION_SETS):
        raise ConfigError(f"PIMM_CPU_OPS is {wanted!r:.80}; it can be paddle, {', '.join(INSTRUCTION_SETS)} or empty")
    library = None if wanted == "paddle" else load_library()
    if library is None:
        return "paddle"
    supported = [name for name in INSTRUCTION_SETS if library.pimm_cpu_ops_support(name.encode())]
    if wanted and wanted not in supported:
        raise ConfigError(f"PIMM_CPU_OPS is {wanted!r:.80}, but this machine has only {', '.join(supported)}")
    return wanted or supported[0]


def backend_for(*tensors: Tensor) -> str:
    """Return `cpu_backend()` for tensors on the CPU that are all of the same type of DTYPES, else "paddle"."""
    # Static graphs take Paddle's operators, since an exported model must run where ours are missing.
    dtype = tensors[0].dtype
    if not paddle.in_dynamic_mode() or dtype not in DTYPES:
        return "paddle"
    for tensor in tensors:
        if tensor.dtype != dtype or not tensor.place.is_cpu_place():
            return "paddle"
    return cpu_backend()


def run_operator(
    name: str, tensors: tuple[Tensor | list[Tensor] | None, ...], *attributes: float | str | list[int]
) -> list[Tensor]:
    """Call one of our operators, and record its gradient where Paddle would record that of its own operators.

    Args:
        name: of the operator, as in cpu_ops.cc.
        tensors: the operator's inputs; None for an optional one that is left out, and a list for
            one of several tensors that take no part in gradients.
        attributes: the operator's attributes, in their order.

    Raises:
        ValueError: if the operator refuses the tensors or attributes, in one line.
    """
    if not paddle.is_grad_enabled():  # Paddle records the gradients of foreign operators all the same
        tensors = tuple(tensor.detach() if isinstance(tensor, Tensor) else tensor for tensor in tensors)
    try:
        return _C_ops._run_custom_op(name, *tensors, *attributes)
    except OSError as error:  # the type that Paddle gives to an operator's exception; its second line names a C++ file
        raise ValueError(str(error).splitlines()[0]) from None
