"""The weights inside PyTorch's checkpoints: where they are, which of them, and under which of our names."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pimm.errors import CheckpointError
from pimm.models.efficientnet import EfficientNet
from pimm.models.efficientnet_blocks import DepthwiseSeparableConv, InvertedResidual
from pimm.models.torch_names import is_batch_counter, torch_names
from pimm.torch_file import is_bfloat16

AVERAGED = ("state_dict_ema", "model_ema")  # keys under which training code saves them
PLAIN = ("state_dict", "model")
_WRAPPER = "module."  # what DataParallel puts before every name

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
    """Arrays under PyTorch's names, whether they are averaged ones, and the key of the checkpoint they were under."""

    arrays: dict
    averaged: bool
    key: str


def find_weights(content, use_ema=None):
    """The `Weights` of what `load_torch` read: a training checkpoint, or a state dict itself (key ``""``).

    ``use_ema`` takes averaged weights or plain ones; None takes averaged ones where there are. Raises
    `CheckpointError` if there are none of these, and for values that are not numbers.
    """
    averaged = [(key, True) for key in AVERAGED if use_ema is not False]
    plain = [(key, False) for key in PLAIN if not use_ema]
    for key, is_averaged in averaged + plain:
        if isinstance(content.get(key), dict):
            return Weights(_clean(content[key], key), is_averaged, key)
    if content and all(isinstance(value, np.ndarray) for value in content.values()):
        if use_ema:
            raise CheckpointError("it is a plain state dict, and does not say whether its weights are averaged")
        return Weights(_clean(content, "it"), False, "")
    sought = ", ".join(key for key, _ in averaged + plain)
    held = ", ".join(sorted(f"{key!r:.40}" for key in list(content)[:20])) or "nothing"
    raise CheckpointError(f"there are no weights in it under {sought}; it holds {held}")


def _clean(state, where):
    """Arrays by name, without the prefix of a wrapped net."""
    faults = [f"{name!r:.60} is {_kind(value)}" for name, value in state.items() if not _is_weight(name, value)]
    if not state or faults:
        raise CheckpointError(f"{where} is no state dict of a net: {'; '.join(faults[:10]) or 'it is empty'}")
    if all(name.startswith(_WRAPPER) for name in state):
        return {name[len(_WRAPPER) :]: value for name, value in state.items()}
    return dict(state)


def _is_weight(name, value):
    if not isinstance(name, str) or not name.isprintable() or not isinstance(value, np.ndarray):
        return False
    return is_batch_counter(name) or value.dtype.kind == "f" or is_bfloat16(value)


def _kind(value):
    return f"of type {value.dtype}" if isinstance(value, np.ndarray) else repr(value)[:60]


def is_foreign(arrays):
    """Whether the names are those of efficientnet_pytorch, whose nets pad as TensorFlow does."""
    return "_conv_stem.weight" in arrays


def rename_arrays(model, arrays):
    """PyTorch's arrays under the names that PyTorch would use for ``model``, and the names of those that are dropped.

    Raises `CheckpointError` where two get one name; any others are kept, for the comparison with the model.
    """
    table = rename_table(model)
    own = {name for name, _ in torch_names(model)}
    renamed, dropped = {}, []
    for name, value in arrays.items():
        target = name if name in own else rename(name, table)
        if target is None or is_batch_counter(target):
            dropped.append(name)
        elif target in renamed:
            raise CheckpointError(f"{name} has the place of another array, {target}")
        else:
            renamed[target] = value
    return renamed, dropped


def rename_table(model):
    """``{dotted beginning of a foreign name: beginning of ours}`` for a model; None: names with it are dropped.

    A model adds to it by an attribute ``torch_renames``. A name that the model has itself is never renamed.
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
    """The name with its longest beginning that is in ``table`` replaced; None if that is dropped."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        beginning = ".".join(parts[:end])
        if beginning in table:
            own = table[beginning]
            return None if own is None else ".".join([own, *parts[end:]])
    return name
