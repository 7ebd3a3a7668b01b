"""Optimizers by timm's names."""

from __future__ import annotations

import difflib
import inspect
import logging

from paddle.nn import Layer

from pimm.errors import ConfigError
from pimm.optim.kernels import SGD, Adadelta, Adagrad, Adam, Adamax, AdamW, Nadam, RAdam, RAdamW, RMSpropTF
from pimm.optim.lookahead import Lookahead
from pimm.optim.novograd import NovoGrad, NvNovoGrad
from pimm.optim.param_groups import param_groups_weight_decay
from pimm.optim.rmsprop import RMSprop

_logger = logging.getLogger(__name__)

# name: class, and the arguments that differ from the class's own defaults
OPTIMIZERS = {
    "sgd": (SGD, {"nesterov": True}),
    "nesterov": (SGD, {"nesterov": True}),
    "momentum": (SGD, {"nesterov": False}),
    "adam": (Adam, {}),
    "adamw": (AdamW, {}),
    "adamax": (Adamax, {}),
    "nadam": (Nadam, {}),
    "radam": (RAdam, {}),
    "radamw": (RAdamW, {}),
    "adadelta": (Adadelta, {}),
    "adagrad": (Adagrad, {}),
    "rmsprop": (RMSprop, {"alpha": 0.9}),
    "rmsproptf": (RMSpropTF, {"alpha": 0.9}),
    "novograd": (NvNovoGrad, {}),
    "nvnovograd": (NvNovoGrad, {}),
}

# what timm 0.1.20's create_optimizer understands otherwise
_OPTIMIZERS_0_1_20 = {**OPTIMIZERS, "radam": (RAdamW, {}), "novograd": (NovoGrad, {})}


def create_optimizer_v2(
    model_or_params, opt="sgd", lr=None, weight_decay=0.0, momentum=0.9, filter_bias_and_bn=True, **kwargs
):
    """The optimizer named ``opt``, or ``lookahead_`` and a name, of a net or of parameters or groups.

    Of a net, biases and other 1-D weights do not decay unless ``filter_bias_and_bn`` is off. ``momentum`` goes to the
    optimizers that have one, ``kwargs`` (``eps``, ``betas``, ``alpha`` ...) to the constructor. ConfigError for an
    unknown name or argument.
    """
    cls, options, wrappers = _lookup(opt, OPTIMIZERS)
    accepted = inspect.signature(cls).parameters
    unknown = sorted(set(kwargs) - set(accepted))
    if unknown:
        valid = ", ".join(name for name in accepted if name != "params")
        raise ConfigError(f"optimizer {opt!r} takes no {', '.join(map(repr, unknown))}; it takes {valid}")
    options = {**options, **kwargs}
    if "momentum" in accepted:
        options.setdefault("momentum", momentum)
    if lr is not None:
        options["lr"] = lr
    return _build(cls, wrappers, model_or_params, weight_decay, filter_bias_and_bn, options)


def create_optimizer(args, model, filter_bias_and_bn=True):
    """The optimizer that ``args`` asks for by ``opt, lr, weight_decay, momentum, opt_eps, opt_betas``, as timm 0.1.20.

    There the decay of adamw and radam is not multiplied by the rate, so it is divided by it here, and novograd never
    decays. Use ``create_optimizer_v2`` where that is not wanted.
    """
    cls, options, wrappers = _lookup(args.opt, _OPTIMIZERS_0_1_20)
    scale = 1.0
    if "adamw" in args.opt.lower() or "radam" in args.opt.lower():
        scale = 1.0 / args.lr if args.lr else 1.0
    if cls is NovoGrad and args.weight_decay:
        _logger.warning("novograd does not apply the weight decay of %g; nvnovograd does", args.weight_decay)
        scale = 0.0
    if not isinstance(model, Layer):
        model = [_with_decay(entry, scale) for entry in model]
    asked = {
        "lr": args.lr,
        "momentum": args.momentum,
        "eps": getattr(args, "opt_eps", None),
        "betas": getattr(args, "opt_betas", None),
    }
    accepted = inspect.signature(cls).parameters
    options = {**options, **{key: value for key, value in asked.items() if key in accepted and value is not None}}
    return _build(cls, wrappers, model, args.weight_decay * scale, filter_bias_and_bn, options)


def _with_decay(entry, scale):
    """A parameter as it is, a group with its own decay scaled."""
    if not isinstance(entry, dict) or "weight_decay" not in entry:
        return entry
    return {**entry, "weight_decay": entry["weight_decay"] * scale}


def _lookup(opt, table):
    *wrappers, name = opt.lower().split("_")
    if name not in table:
        near = difflib.get_close_matches(name, table, n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise ConfigError(f"unknown optimizer {opt!r}{hint} Valid are {', '.join(table)}, alone or after 'lookahead_'")
    if wrappers not in ([], ["lookahead"]):
        raise ConfigError(f"unknown optimizer {opt!r}: only 'lookahead_' can stand before {name!r}")
    return (*table[name], wrappers)


def _build(cls, wrappers, model_or_params, weight_decay, filter_bias_and_bn, options):
    if not isinstance(model_or_params, Layer):
        params = model_or_params
    elif weight_decay and filter_bias_and_bn:
        params = param_groups_weight_decay(model_or_params, weight_decay)
    else:
        params = model_or_params.parameters()
    optimizer = cls(params, weight_decay=weight_decay, **options)
    return Lookahead(optimizer) if wrappers else optimizer
