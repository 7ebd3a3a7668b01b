"""Layers of normalisation and activation by name or by class."""

from __future__ import annotations

import functools
import types

from pimm.errors import ConfigError
from pimm.layers import evo_norm
from pimm.layers.norm_and_act import (
    BatchNormAct2d,
    GroupNorm1Act,
    GroupNormAct,
    LayerNormAct,
    LayerNormAct2d,
    RmsNormAct,
    RmsNormAct2d,
)
from pimm.messages import did_you_mean

_WITH_ACT_LAYER = {  # name: class that takes act_layer
    "batchnorm": BatchNormAct2d,
    "batchnorm2d": BatchNormAct2d,
    "groupnorm": GroupNormAct,
    "groupnorm1": GroupNorm1Act,
    "layernorm": LayerNormAct,
    "layernorm2d": LayerNormAct2d,
    "rmsnorm": RmsNormAct,
    "rmsnorm2d": RmsNormAct2d,
    "frn": evo_norm.FilterResponseNormAct2d,
}
_WITH_OWN_ACT = {
    "evonormb0": evo_norm.EvoNorm2dB0,
    "evonormb1": evo_norm.EvoNorm2dB1,
    "evonormb2": evo_norm.EvoNorm2dB2,
    "evonorms0": evo_norm.EvoNorm2dS0,
    "evonorms0a": evo_norm.EvoNorm2dS0a,
    "evonorms1": evo_norm.EvoNorm2dS1,
    "evonorms1a": evo_norm.EvoNorm2dS1a,
    "evonorms2": evo_norm.EvoNorm2dS2,
    "evonorms2a": evo_norm.EvoNorm2dS2a,
    "frntlu": evo_norm.FilterResponseNormTlu2d,
}
_NORM_ACTS = {**_WITH_ACT_LAYER, **_WITH_OWN_ACT}


def get_norm_act_layer(norm_layer, act_layer=None):
    """Return what creates layers of a normalisation and an activation, with the activation and arguments bound.

    Args:
        norm_layer: a name, such as ``batchnorm2d``; a class of normalisation with or without activation; either of them
            in a `functools.partial`; a function, which is returned; or None.
        act_layer: class or name of the activation; None for none. EvoNorm and the thresholds of FRN have their own.

    Raises:
        ConfigError: if there is no layer of this name, or for this class.
    """
    if not norm_layer:
        return None
    bound = {}
    if isinstance(norm_layer, functools.partial):
        norm_layer, bound = norm_layer.func, dict(norm_layer.keywords)
    if isinstance(norm_layer, types.FunctionType):
        return functools.partial(norm_layer, **bound) if bound else norm_layer
    layer = norm_layer if norm_layer in _NORM_ACTS.values() else _find(norm_layer)
    if layer in _WITH_ACT_LAYER.values():
        bound.setdefault("act_layer", act_layer)
    return functools.partial(layer, **bound) if bound else layer


def _find(norm_layer):
    name = norm_layer if isinstance(norm_layer, str) else norm_layer.__name__
    key = name.replace("_", "").lower().partition("-")[0]
    key = key[:-4] if key.endswith("fp32") else key  # statistics are float32 in all of them
    if key not in _NORM_ACTS:
        hint = did_you_mean(key, _NORM_ACTS) or f"; valid are {', '.join(_NORM_ACTS)}"
        raise ConfigError(f"there is no layer of normalisation and activation for {name!r:.60}{hint}")
    return _NORM_ACTS[key]


def create_norm_act_layer(layer_name, num_features, act_layer=None, apply_act=True, **kwargs):
    """Create a layer of a normalisation and an activation.

    Args:
        layer_name: as ``norm_layer`` of `get_norm_act_layer`.
        num_features: channels.
        act_layer: class or name of the activation.
        apply_act: whether there is an activation.
        kwargs: further arguments of the layer.

    Raises:
        ConfigError: as `get_norm_act_layer`.
    """
    return get_norm_act_layer(layer_name, act_layer)(num_features, apply_act=apply_act, **kwargs)
