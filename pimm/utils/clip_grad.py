"""Clip gradients in a way that is chosen by name."""

from __future__ import annotations

from paddle import nn

from pimm.errors import ConfigError
from pimm.messages import did_you_mean
from pimm.utils.agc import adaptive_clip_grad

_CLIP = {
    "norm": lambda parameters, value, norm_type: nn.utils.clip_grad_norm_(parameters, value, norm_type),
    "value": lambda parameters, value, norm_type: nn.utils.clip_grad_value_(parameters, value),
    "agc": lambda parameters, value, norm_type: adaptive_clip_grad(parameters, value, norm_type=norm_type),
}


def dispatch_clip_grad(parameters, value, mode="norm", norm_type=2.0):
    """Clip the gradients of ``parameters`` in place, without waiting for the device.

    Args:
        parameters: the parameters; those without a gradient are passed over.
        value: the limit.
        mode: "norm" scales all gradients together to a norm of at most ``value``, "value" cuts every element to
            ``value``, "agc" scales the gradient of each output to ``value`` times the norm of the output's weights.
        norm_type: which norm: 2 for the Euclidean one.

    Raises:
        ConfigError: for another mode, and for a limit that is not above 0: it would turn the gradients round.
    """
    check_clip(value, mode)
    with_gradient = [param for param in parameters if param.grad is not None]
    if with_gradient:
        _CLIP[mode](with_gradient, value, norm_type)


def check_clip(value, mode):
    """Raise ConfigError for a limit or a mode by which `dispatch_clip_grad` cannot clip."""
    if mode not in _CLIP:
        raise ConfigError(
            f"gradients are clipped by {', '.join(_CLIP)}, not by {mode!r:.80}{did_you_mean(mode, _CLIP)}"
        )
    if isinstance(value, str) or not value > 0:
        raise ConfigError(f"the limit of the gradients must be a number above 0, got {value!r:.80}")
