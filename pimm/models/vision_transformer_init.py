"""Initial weights of vision transformers, in the ways that timm names ``weight_init``."""

from __future__ import annotations

import math
import re

from paddle import nn

from pimm.errors import ConfigError
from pimm.layers.weight_init import constant_, lecun_normal_, normal_, trunc_normal_, zeros_

MODES = ("", "jax", "jax_nlhb", "moco", "reset", "skip")
_LAST_LAYERS = re.compile(r"blocks\.(\d+)\.(attn\.proj|mlp\.fc2)")  # of a branch beside a shortcut


def _timm(name, layer, scale, head_bias):
    if isinstance(layer, nn.Linear):
        trunc_normal_(layer.weight, std=0.02 * scale)
        _zero_bias(layer)


def _jax(name, layer, scale, head_bias):
    if isinstance(layer, nn.Linear) and name.startswith("head"):
        zeros_(layer.weight)
        constant_(layer.bias, head_bias)
    elif isinstance(layer, nn.Linear):
        _xavier(layer, sum(layer.weight.shape), scale)
        if layer.bias is not None:
            normal_(layer.bias, std=1e-6) if "mlp" in name else zeros_(layer.bias)
    elif isinstance(layer, nn.Conv2D):
        lecun_normal_(layer.weight, math.prod(layer.weight.shape[1:]))
        _zero_bias(layer)


def _moco(name, layer, scale, head_bias):
    if isinstance(layer, nn.Linear):
        inputs, outputs = layer.weight.shape
        _xavier(layer, inputs + (outputs // 3 if "qkv" in name else outputs), scale)
        _zero_bias(layer)


def _xavier(layer, channels, scale):
    """Draw weights from U(-a, a), a being the root of 6 over the numbers of inputs and outputs."""
    bound = math.sqrt(6 / channels) * scale
    nn.initializer.Uniform(-bound, bound)(layer.weight)


def _zero_bias(layer):
    if layer.bias is not None:
        zeros_(layer.bias)


_DRAW = {"": _timm, "jax": _jax, "jax_nlhb": _jax, "moco": _moco}


def init_weights_vit(model, mode="", fix_init=False):
    """Draw the weights of linear layers, and of convolutions, of a vision transformer.

    Layers with a method ``init_weights`` draw their own afterwards.

    Args:
        model: the net.
        mode: "" for a normal distribution of deviation 0.02; ``jax``, ``jax_nlhb`` (whose head begins with the bias of
            equal probabilities) or ``moco`` for those of these projects; ``reset`` or ``skip`` for the layers' own.
        fix_init: whether the last layers of each branch are scaled down with the number of branches before.

    Raises:
        ConfigError: for another mode.
    """
    if mode not in MODES:
        raise ConfigError(
            f"weight_init is {mode!r:.80}; valid are {', '.join(filter(None, MODES))}, and an empty string"
        )
    draw = _DRAW.get(mode)
    head_bias = -math.log(model.num_classes) if mode == "jax_nlhb" and model.num_classes else 0.0
    for name, layer in model.named_sublayers() if draw else ():
        last = _LAST_LAYERS.fullmatch(name) if fix_init else None
        draw(name, layer, 1 / math.sqrt(2.0 * (int(last[1]) + 1)) if last else 1.0, head_bias)
    for layer in reversed(model.sublayers()) if draw else ():
        if hasattr(layer, "init_weights"):
            layer.init_weights()
