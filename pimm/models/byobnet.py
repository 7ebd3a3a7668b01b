"""Nets that a table describes, with the names, state names and numbers of timm: GENet, RepVGG, MobileOne, and others.

The nets stand in `pimm.models.byobnet_variants`, their parts in `pimm.models.byobnet_net`.
"""

from __future__ import annotations

import re

from pimm.models.byobnet_net import ByobNet
from pimm.models.byobnet_variants import VARIANTS
from pimm.models.registry import register_variants

_CLIP = "visual."
_CLIP_LAYER = re.compile(r"layer(\d)\.(\d+)\.(bn|conv)(\d)")
_CLIP_SHORTCUT = re.compile(r"layer(\d)\.(\d+)\.downsample\.(\d)")
_CLIP_CONVS = {"1": "conv1_1x1", "2": "conv2_kxk", "3": "conv3_1x1"}
_CLIP_POOL = (  # CLIP's: ours
    ("attnpool", "head"),
    ("positional_embedding", "pos_embed"),
    ("q_proj", "q"),
    ("k_proj", "k"),
    ("v_proj", "v"),
    ("c_proj", "proj"),
)


def checkpoint_filter_fn(state_dict, model):
    """Return weights under timm's names for those of a whole CLIP; others stay as they are.

    Args:
        state_dict: arrays by name.
        model: the net; without an attention head it takes no weights of CLIP's.
    """
    if f"{_CLIP}conv1.weight" not in state_dict:
        return state_dict
    has_attention_head = hasattr(model.head, "pos_embed")
    found = {}
    for name, value in state_dict.items():
        if name.startswith(_CLIP) and (has_attention_head or not name.startswith(f"{_CLIP}attnpool")):
            found[_name_of_clip(name[len(_CLIP) :])] = value
    return found


def _name_of_clip(name):
    if name.startswith("attnpool"):
        for theirs, ours in _CLIP_POOL:
            name = name.replace(theirs, ours)
        return name
    name = re.sub(r"^(conv|bn)(\d)", r"stem.conv\2.\1", name)
    name = _CLIP_LAYER.sub(
        lambda found: f"stages.{int(found[1]) - 1}.{found[2]}.{_CLIP_CONVS[found[4]]}.{found[3]}", name
    )
    return _CLIP_SHORTCUT.sub(
        lambda found: f"stages.{int(found[1]) - 1}.{found[2]}.shortcut.conv.{'bn' if int(found[3]) else 'conv'}", name
    )


def _create(variant, **kwargs):
    return ByobNet(variant, **kwargs)


register_variants(VARIANTS, _create)
