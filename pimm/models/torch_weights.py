"""Find the weights inside PyTorch's checkpoints, and give them the names of a model here."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pimm.errors import CheckpointError
from pimm.models.efficientnet import EfficientNet
from pimm.models.efficientnet_blocks import DepthwiseSeparableConv, InvertedResidual
from pimm.models.prefixes import with_own_names, wrapper_prefix
from pimm.models.torch_names import is_batch_counter, torch_names
from pimm.torch_file import Inert, is_bfloat16

AVERAGED = ("state_dict_ema", "model_ema", "params_ema", "ema_state_dict")  # keys under which training code saves them
PLAIN = ("state_dict", "model", "model_state_dict", "net", "params")
_PUBLISHED = (*AVERAGED, *PLAIN, "module", "model_state", "encoder")  # I-JEPA's files have an encoder
_PARALLEL = "module."  # what PyTorch's DataParallel puts before each name
_AVERAGES = "n_averaged"  # the counter of PyTorch's AveragedModel, beside a net under ``module.``
_SHOWN = 3

# The parts of an EfficientNet, and of its blocks, as efficientnet_pytorch and efficientnet_lite_pytorch call them.
_PARTS = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_GATE = {"_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand"}
_BLOCK_PARTS = {
    DepthwiseSeparableConv: {
        "_depthwise_conv": "conv_dw",
        "_bn1": "bn1",
        **_GATE,
        "_project_conv": "conv_pw",
        "_bn2": "bn2",
    },
    InvertedResidual: {
        "_expand_conv": "conv_pw",
        "_bn0": "bn1",
        "_depthwise_conv": "conv_dw",
        "_bn1": "bn2",
        **_GATE,
        "_project_conv": "conv_pwl",
        "_bn2": "bn3",
    },
}


class Weights(NamedTuple):
    """Holds arrays under PyTorch's names, and says how the checkpoint held them.

    ``averaged`` tells whether they are averages over the training, ``key`` is where they were (``""``: the checkpoint
    is a state dict itself), and ``prefix`` is what each name began with and has lost.
    """

    arrays: dict
    averaged: bool
    key: str
    prefix: str = ""

    def __str__(self):
        place = f"the weights under {self.key!r}" if self.key else "its weights"
        return f"{place}, taken without their prefix {self.prefix!r}" if self.prefix else place


def find_weights(content, use_ema=None):
    """Return the `Weights` of what `load_torch` read: of a training checkpoint, or of a state dict itself.

    Args:
        content: the dict in the file.
        use_ema: whether to take averaged weights or plain ones; None takes averaged ones if there are any.

    Raises:
        CheckpointError: if there are no such weights, if there are several, and for values that are not numbers.
    """
    kinds = [(AVERAGED, True)] * (use_ema is not False) + [(PLAIN, False)] * (not use_ema)
    for keys, averaged in kinds:
        key = _only_key(content, keys)
        if key is not None:
            return _clean(content[key], key, averaged)
    arrays = sum(isinstance(value, np.ndarray) for value in content.values())
    if 2 * arrays > len(content):
        weights = _clean(content, "", averaged=False)
        if use_ema and not weights.averaged:
            raise CheckpointError("it is a plain state dict, and does not say whether its weights are averaged")
        return weights
    sought = [key for keys, _ in kinds for key in keys]
    for key in sought:
        if isinstance(content.get(key), dict):
            return _clean(content[key], key, key in AVERAGED)
    held = ", ".join(sorted(f"{key!r:.40}" for key in list(content)[:5])) or "nothing"
    more = f" and {len(content) - 5} more" if len(content) > 5 else ""
    raise CheckpointError(f"there are no weights in it under {', '.join(sought)}; it holds {held}{more}")


def find_state_dict(content):
    """Return the arrays of what `load_torch` read of published weights, with all tables, whatever type they are of.

    Args:
        content: the dict in the file.

    Raises:
        CheckpointError: if there are no arrays in it.
    """
    key = next((key for key in _PUBLISHED if isinstance(content.get(key), dict) and _has_arrays(content[key])), None)
    arrays = {
        name: value for name, value in (content[key] if key else content).items() if isinstance(value, np.ndarray)
    }
    if not arrays:
        raise CheckpointError(f"there are no weights in it, neither alone nor under {', '.join(_PUBLISHED)}")
    if all(name.startswith(_PARALLEL) for name in arrays):
        return {name[len(_PARALLEL) :]: value for name, value in arrays.items()}
    return arrays


def _only_key(content, keys):
    """Return the only one of ``keys`` that has arrays, or None; several keys may have the same arrays."""
    found = [key for key in keys if isinstance(content.get(key), dict) and _has_arrays(content[key])]
    if any(content[key] is not content[found[0]] for key in found[1:]):
        raise CheckpointError(
            f"it holds weights under {' and '.join(map(repr, found))}; save the wanted ones alone, as 'state_dict'"
        )
    return found[0] if found else None


def _has_arrays(state):
    return any(isinstance(value, np.ndarray) for value in state.values())


def _clean(state, key, averaged):
    """Return the weights of a state dict, without the prefixes that all their names have.

    A counter beside a net says that they are averages; one below it, which a wrapper cannot have put there, is a fault.
    """
    counters = {name for name in state if isinstance(name, str) and name.rpartition(".")[2] == _AVERAGES}
    prefix = wrapper_prefix([name for name in state if isinstance(name, str) and name not in counters])
    counters = {name for name in counters if prefix.startswith(name[: -len(_AVERAGES)])}
    arrays = {name: value for name, value in state.items() if name not in counters}
    faults = [f"{name!r:.60} is {_kind(value)}" for name, value in arrays.items() if not _is_weight(name, value)]
    if not arrays or faults:
        more = [f"{len(faults) - _SHOWN} more"] * (len(faults) > _SHOWN)
        listed = "; ".join(faults[:_SHOWN] + more) or "it is empty"
        raise CheckpointError(f"{key or 'it'} is no state dict of a net: {listed}")
    stripped = {name[len(prefix) :]: value for name, value in arrays.items()}
    return Weights(stripped, averaged or bool(counters), key, prefix)


def _is_weight(name, value):
    if not isinstance(name, str) or not name.isprintable() or not isinstance(value, np.ndarray):
        return False
    return is_batch_counter(name) or value.dtype.kind == "f" or is_bfloat16(value)


def _kind(value):
    if isinstance(value, np.ndarray):
        return f"of type {value.dtype!s:.40}"
    return f"a {value.name:.60}" if isinstance(value, Inert) else f"{value!r:.60}"


def is_foreign(arrays):
    """Tell whether the names are those of efficientnet_pytorch, whose nets pad as TensorFlow does."""
    return "_conv_stem.weight" in arrays


def rename_arrays(model, arrays, prefix=""):
    """Return PyTorch's arrays under the names that PyTorch would use for ``model``, and the names that are dropped.

    Args:
        model: the net whose names are wanted.
        arrays: ``{name: array}``; names of no part of the net are kept, for the comparison with the net.
        prefix: what `find_weights` took off each name; `with_own_names` puts back what the net needs.

    Raises:
        CheckpointError: where two arrays get one name.
    """
    table = rename_table(model)
    own = {name for name, _ in torch_names(model)}
    renamed, dropped = {}, []
    for name, value in with_own_names(arrays, own, prefix, lambda name: _target(name, own, table)).items():
        target = _target(name, own, table)
        if target is None or is_batch_counter(target):
            dropped.append(name)
        elif target in renamed:
            raise CheckpointError(f"{name} has the place of another array, {target}")
        else:
            renamed[target] = value
    return renamed, dropped


def _target(name, own, table):
    return name if name in own else rename(name, table)


def rename_table(model):
    """Return ``{dotted beginning of a foreign name: beginning of ours}`` for a model; None stands for names to drop.

    A model adds to the table by an attribute ``torch_renames``. A name that the model has itself is never renamed.
    """
    table = dict(getattr(model, "torch_renames", {}))
    if isinstance(model, EfficientNet):
        table.update(_PARTS)
        blocks = [(f"blocks.{i}.{j}", block) for i, stage in enumerate(model.blocks) for j, block in enumerate(stage)]
        for index, (prefix, block) in enumerate(blocks):
            for part, own in _BLOCK_PARTS.get(type(block), {}).items():
                table[f"_blocks.{index}.{part}"] = f"{prefix}.{own}"
    return table


def rename(name, table):
    """Replace the longest beginning of ``name`` that is in ``table``; return None if the table drops the name."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        beginning = ".".join(parts[:end])
        if beginning in table:
            own = table[beginning]
            return None if own is None else ".".join([own, *parts[end:]])
    return name
