"""Weights from PyTorch's files into Paddle's and back, for the nets of Cream and of pimm, without PyTorch.

This module belongs to cream and not to pimm because it knows the nets of both.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import paddle
from paddle import nn

from cream.convert.differences import (
    MESSAGE_LENGTH,
    Shapes,
    WeightsDiffer,
    compare_shapes,
    not_weights,
    printable,
    shorten,
)
from cream.convert.names import Net, find_net
from cream.counting import count_parameters
from pimm.errors import CheckpointError, ConfigError
from pimm.models.helpers import weights_kind
from pimm.models.prefixes import with_own_names, without_prefix
from pimm.models.torch_names import from_torch_arrays, is_batch_counter, to_torch_arrays, torch_names
from pimm.models.torch_weights import find_weights, rename_arrays
from pimm.models.variants import warn_of_variant
from pimm.torch_file import BFLOAT16, is_bfloat16, read_torch, save_torch
from pimm.utils import file_sha256, load_arrays
from pimm.utils.checkpoint import EMA
from pimm.utils.model_record import save_with_record
from pimm.utils.safetensors_file import dump_safetensors, is_safetensors
from pimm.utils.serialization import atomic_file, is_for_safetensors

_SHOWN = 5  # names of dropped arrays in a summary


@dataclass(frozen=True)
class Report:
    """What was converted into what.

    Args:
        source: the file that was read.
        format: its format.
        sha256: its SHA-256.
        net: the name of the net.
        weights: which of the weights in the file were converted.
        parameters: the number of trainable values of the net.
        dtype: the types of the arrays.
        arrays: the number of arrays.
        dropped: the names of the arrays in the file that the net does not need.
        target: the file that was written.
    """

    source: str
    format: str
    sha256: str
    net: str
    weights: str
    parameters: int
    dtype: str
    arrays: int
    dropped: list[str]
    target: str

    def __str__(self) -> str:
        rows = {**asdict(self), "dropped": self._dropped()}
        texts = {name: f"{value:,}" if isinstance(value, int) else printable(value) for name, value in rows.items()}
        return "\n".join(f"{name:<11}{text}" for name, text in texts.items())

    def _dropped(self) -> str:
        """List the first dropped names, with the batch counters of batch norms as one number."""
        names = [name for name in self.dropped if not is_batch_counter(name)]
        counters = len(self.dropped) - len(names)
        parts = names[:_SHOWN] + [f"{len(names) - _SHOWN} more"] * (len(names) > _SHOWN)
        return ", ".join(parts + [f"{counters} counts of batches"] * (counters > 0)) or "nothing"


def from_torch(
    source: str | Path,
    target: str | Path,
    name: str = "auto",
    use_ema: bool | None = None,
    model_kwargs: dict | None = None,
) -> tuple[Net, Report]:
    """Convert the weights in a file of PyTorch, whose values stay the same bit for bit.

    Args:
        source: the file of PyTorch.
        target: the file of Paddle to write.
        name: the net of the weights, as ``find_net`` takes it.
        use_ema: whether to convert averaged weights, as ``find_weights`` takes it.
        model_kwargs: further arguments of a model of pimm.

    Returns:
        The net and a report.

    Raises:
        CheckpointError: the file cannot be read, or (``WeightsDiffer``) its weights are not those of the net.
        ConfigError: as ``find_net`` raises it.
    """
    content, form, arch = read_torch(source)
    with _errors_naming(source):
        weights = find_weights(content, use_ema)
        arrays, prefix = without_prefix(weights.arrays)
        net = find_net(name, _shapes(arrays), _hint(source, arch), model_kwargs)
        model = _outline(net)
        warn_of_variant(model, weights.arrays, arch, _short_path(source))
        renamed, dropped = rename_arrays(model, weights.arrays, weights.prefix)
        expected = {name: shape for name, shape in torch_names(model) if not is_batch_counter(name)}
        _check_fits(source, net, expected, _shapes(renamed))
        state = from_torch_arrays(model, renamed)
    save_with_record(target, {name: _as_paddle(array) for name, array in state.items()}, {"arch": net.name})
    which = f"{'averaged' if weights.averaged else 'plain'}, {weights.key or 'the file is a state dict'}"
    which += _without(prefix, expected)
    return net, _report(source, f"PyTorch, {form}", net, model, which, state, dropped, target)


def to_torch(
    source: str | Path, target: str | Path, name: str = "auto", model_kwargs: dict | None = None
) -> tuple[Net, Report]:
    """Convert the weights in a file of Paddle, whose values stay the same bit for bit.

    The file of PyTorch holds ``arch``, the name of the net, and ``state_dict`` with PyTorch's names and batch counters
    of 0; a target that ends in ``.safetensors`` holds the weights themselves, and the name in its metadata. Arguments,
    results and errors are those of ``from_torch``.
    """
    content = load_arrays(source)
    with _errors_naming(source):
        arrays, prefix = _own_arrays(content)
        net = find_net(name, _shapes(arrays), _hint(source), model_kwargs)
        model = _outline(net)
        arrays = with_own_names(content, model.state_dict())
        _check_fits(source, net, _shapes(model.state_dict()), _shapes(arrays))
        state = to_torch_arrays(model, arrays)
    _save_for_torch(target, net.name, {name: _as_torch(array) for name, array in state.items()})
    which = "averaged" if Path(source).suffix == Path(EMA).suffix else "plain"
    which += _without(prefix, model.state_dict())
    form = "Paddle, safetensors" if is_safetensors(source) else "Paddle"
    return net, _report(source, form, net, model, which, arrays, [], target)


def _without(prefix: str, own: Mapping[str, object]) -> str:
    """Say which prefix the names lost; one that the net's own names have was put back."""
    return f", without the prefix {prefix}" if prefix and not any(name.startswith(prefix) for name in own) else ""


def _save_for_torch(target: str | Path, arch: str, state: Mapping[str, np.ndarray]) -> None:
    if is_for_safetensors(target):
        with atomic_file(target) as file:
            dump_safetensors(state, file, {"format": "pt", "arch": arch})
    else:
        save_torch(target, {"arch": arch, "state_dict": state})


def net_of_file(source: str | Path, name: str = "auto", model_kwargs: dict | None = None) -> Net:
    """Return the net whose weights are in a file of Paddle or PyTorch.

    Arguments and errors are those of ``from_torch``.
    """
    if weights_kind(source) == "torch":
        content = read_torch(source)[0]
        with _errors_naming(source):
            shapes = _shapes(without_prefix(find_weights(content, None).arrays)[0])
            return find_net(name, shapes, _hint(source, content.get("arch")), model_kwargs)
    content = load_arrays(source)
    with _errors_naming(source):
        return find_net(name, _shapes(_own_arrays(content)[0]), _hint(source), model_kwargs)


def _hint(source: str | Path, arch: object = None) -> str:
    """Return the name of a net that a file holds, or is called after.

    A file's own name loses its endings and the checksum of timm's files: ``tf_efficientnet_lite0-0aa007d2.pth`` is
    called after tf_efficientnet_lite0.
    """
    return arch if isinstance(arch, str) else re.sub(r"[-_][0-9a-f]{8}$", "", Path(source).name.partition(".")[0])


def _own_arrays(content: object) -> tuple[dict[str, np.ndarray], str]:
    """Return the weights in a file of Paddle without their shared prefix, and the prefix."""
    culprits = not_weights(content)
    if culprits:
        more = f", and so are {len(culprits) - 1} more entries" if len(culprits) > 1 else ""
        raise CheckpointError(f"{culprits[0]}, which is no weight of a net{more}")
    return without_prefix(content)


@contextmanager
def _errors_naming(source: str | Path) -> Iterator[None]:
    """Put the name of the file before every error that the block raises, and keep the message short."""
    try:
        yield
    except WeightsDiffer:
        raise
    except (CheckpointError, ConfigError) as error:
        raise type(error)(shorten(f"{_short_path(source)}: {error}", MESSAGE_LENGTH)) from None


def _check_fits(source: str | Path, net: Net, expected: Shapes, given: Shapes) -> None:
    """Raise WeightsDiffer if names or shapes of the weights are not those that the net expects."""
    differences = compare_shapes(expected, given)
    if any(differences.values()):
        guess = ", the net that their shapes suggest" if net.guessed else ""
        raise WeightsDiffer(
            f"{_short_path(source)}: its weights do not fit {shorten(net.name, 80)}{guess}", differences
        )


def _short_path(path: str | Path) -> str:
    """Return the end of a path that is too long for a message."""
    return str(path) if len(str(path)) <= 120 else f"...{str(path)[-117:]}"


def _shapes(arrays: Mapping[str, np.ndarray]) -> Shapes:
    return {name: tuple(array.shape) for name, array in arrays.items()}


def _outline(net: Net) -> nn.Layer:
    """Build the net without values: its weights have names and shapes only."""
    with paddle.LazyGuard():
        return net.build()


def _as_paddle(array: np.ndarray) -> np.ndarray:
    """Return the array in C order; bfloat16 becomes its bits, as Paddle's files hold it."""
    return np.asarray(array.view(np.uint16) if is_bfloat16(array) else array, order="C")


def _as_torch(array: np.ndarray) -> np.ndarray:
    """Mark bits as bfloat16, which Paddle's files hold as uint16."""
    return array.view(BFLOAT16) if array.dtype == np.uint16 else array


def _report(
    source: str | Path,
    form: str,
    net: Net,
    model: nn.Layer,
    which: str,
    state: Mapping[str, np.ndarray],
    dropped: list[str],
    target: str | Path,
) -> Report:
    """Fill in the report of a conversion; the arguments are those of ``Report``, and the converted arrays."""
    dtypes = sorted({"bfloat16" if array.dtype == np.uint16 else array.dtype.name for array in state.values()})
    return Report(
        source=str(source),
        format=form,
        sha256=file_sha256(source),
        net=net.name,
        weights=which,
        parameters=count_parameters(model),
        dtype=", ".join(dtypes),
        arrays=len(state),
        dropped=dropped,
        target=str(target),
    )
