"""Optimizers by timm's names."""

from __future__ import annotations

import logging

from paddle.nn import Layer

from pimm.errors import ConfigError
from pimm.optim.kernels import RAdamLegacy
from pimm.optim.layout import mark_linear_weights
from pimm.optim.lookahead import Lookahead
from pimm.optim.novograd import NovoGrad
from pimm.optim.param_groups import param_groups_layer_decay, param_groups_weight_decay
from pimm.optim.registry import OptimInfo, get_optimizer_info

_logger = logging.getLogger(__name__)

# what timm 0.1.20's create_optimizer understands otherwise
_INFO_0_1_20 = {"radam": OptimInfo("radam", RAdamLegacy), "novograd": OptimInfo("novograd", NovoGrad)}
_DECAY_OVER_LR_0_1_20 = ("adamw", "radam")

# args of a training script: arguments of create_optimizer_v2
_SCRIPT_ARGUMENTS = {
    "opt": "opt",
    "lr": "lr",
    "weight_decay": "weight_decay",
    "momentum": "momentum",
    "opt_eps": "eps",
    "opt_betas": "betas",
    "layer_decay": "layer_decay",
    "layer_decay_min_scale": "layer_decay_min_scale",
    "layer_decay_no_opt_scale": "layer_decay_no_opt_scale",
    "opt_foreach": "foreach",
}


def add_weight_decay(model, weight_decay=1e-5, skip_list=()):
    """`param_groups_weight_decay` under timm 0.1.20's name."""
    return param_groups_weight_decay(model, weight_decay, no_weight_decay_list=skip_list)


def create_optimizer_v2(
    model_or_params,
    opt="sgd",
    lr=None,
    weight_decay=0.0,
    momentum=0.9,
    foreach=None,
    filter_bias_and_bn=True,
    fallback_list=(),
    fallback_no_weight_decay=False,
    layer_decay=None,
    layer_decay_min_scale=0.0,
    layer_decay_no_opt_scale=None,
    param_group_fn=None,
    **kwargs,
):
    """The optimizer named ``opt``, or ``lookahead_`` and a name, of a net or of parameters or groups.

    Of a net, biases and other 1-D weights do not decay unless ``filter_bias_and_bn`` is off, nor what the net's
    ``no_weight_decay()`` names; with ``layer_decay`` its layers learn at falling rates (``param_groups_layer_decay``);
    ``param_group_fn`` makes groups of the net instead. ``momentum`` goes to the optimizers that have one, ``kwargs``
    (``betas``, ``alpha`` ...) to the constructor. ``foreach`` does nothing: Paddle has no such implementations to
    choose. ``opt`` may be an ``OptimInfo`` too. ConfigError for an unknown name or argument.
    """
    lookahead, info = _lookup(opt)
    options = _options(info, {"momentum": momentum, **kwargs} if info.has_momentum else kwargs)
    if lr is not None:
        options["lr"] = lr
    params = model_or_params
    if isinstance(model_or_params, Layer):
        mark_linear_weights(model_or_params)
        shared = {
            "weight_decay": weight_decay,
            "weight_decay_exclude_1d": filter_bias_and_bn,
            "no_weight_decay_list": getattr(model_or_params, "no_weight_decay", tuple)(),
            "fallback_list": fallback_list,
            "fallback_no_weight_decay": fallback_no_weight_decay,
        }
        if param_group_fn:
            params = param_group_fn(model_or_params)
        elif layer_decay is not None:
            rates = {"min_scale": layer_decay_min_scale, "no_opt_scale": layer_decay_no_opt_scale}
            params = param_groups_layer_decay(model_or_params, layer_decay=layer_decay, **rates, **shared)
        else:
            params = param_groups_weight_decay(model_or_params, **shared)
    optimizer = info.opt_class(params, weight_decay=weight_decay, **options)
    return Lookahead(optimizer) if lookahead else optimizer


def optimizer_kwargs(cfg):
    """Arguments of ``create_optimizer_v2`` from those of a training script (``opt``, ``lr``, ``opt_eps`` ...).

    Scripts set ``opt_eps`` and ``opt_betas`` whatever the optimizer; they are left out where it has none.
    """
    found = {argument: getattr(cfg, name, None) for name, argument in _SCRIPT_ARGUMENTS.items()}
    kwargs = {argument: value for argument, value in found.items() if value is not None}
    for name in {"eps", "betas"} - _lookup(cfg.opt)[1].arguments.keys():
        kwargs.pop(name, None)
    return {**kwargs, **(getattr(cfg, "opt_args", None) or {})}


def create_optimizer(args, model, filter_bias_and_bn=True):
    """The optimizer that the arguments of a training script ask for, with the meaning they had in timm 0.1.20.

    There the decay of adamw and radam is not multiplied by the rate, so it is divided by it here, and novograd never
    decays. Use ``create_optimizer_v2(model, **optimizer_kwargs(args))`` where that is not wanted.
    """
    lookahead, info = _lookup(args.opt)
    info = _INFO_0_1_20.get(info.name, info)
    scale = 1.0
    if info.name in _DECAY_OVER_LR_0_1_20 and args.lr:
        scale = 1.0 / args.lr
    if info.opt_class is NovoGrad and args.weight_decay:
        _logger.warning("novograd does not apply the weight decay of %g; nvnovograd does", args.weight_decay)
        scale = 0.0
    if not isinstance(model, Layer):
        model = [_with_decay(entry, scale) for entry in model]
    kwargs = {**optimizer_kwargs(args), "opt": info, "weight_decay": args.weight_decay * scale}
    optimizer = create_optimizer_v2(model, filter_bias_and_bn=filter_bias_and_bn, **kwargs)
    return Lookahead(optimizer) if lookahead else optimizer


def _with_decay(entry, scale):
    """A parameter as it is, a group with its own decay scaled."""
    if not isinstance(entry, dict) or "weight_decay" not in entry:
        return entry
    return {**entry, "weight_decay": entry["weight_decay"] * scale}


def _lookup(opt):
    """Whether a Lookahead is asked for, and the table's entry."""
    if isinstance(opt, OptimInfo):
        return False, opt
    *wrappers, name = opt.lower().split("_")
    info = get_optimizer_info(name)
    if wrappers not in ([], ["lookahead"]):
        raise ConfigError(f"unknown optimizer {opt!r}: only 'lookahead_' can stand before {name!r}")
    return bool(wrappers), info


def _options(info, kwargs):
    """The arguments of the constructor: the table's defaults and ``kwargs``, of which it must know each."""
    unknown = sorted(kwargs.keys() - info.arguments.keys())
    if unknown:
        names, valid = ", ".join(map(repr, unknown)), ", ".join(info.arguments)
        raise ConfigError(f"optimizer {info.name!r} takes no {names}; it takes {valid}")
    betas, default = kwargs.get("betas"), info.arguments.get("betas")
    if betas is not None and default and (not isinstance(betas, (tuple, list)) or len(betas) != info.num_betas):
        raise ConfigError(f"optimizer {info.name!r} takes {info.num_betas} betas, got {betas}")
    return {**info.defaults, **kwargs}
