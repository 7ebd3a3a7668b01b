"""Create optimizers by timm's names."""

from __future__ import annotations

import logging

from paddle.nn import Layer

from pimm.errors import ConfigError
from pimm.optim.kernels import RAdamLegacy
from pimm.optim.layout import mark_linear_weights
from pimm.optim.lookahead import Lookahead
from pimm.optim.novograd import NovoGrad
from pimm.optim.param_groups import param_groups_layer_decay, param_groups_weight_decay, scale_backbone
from pimm.optim.registry import OptimInfo, get_optimizer_info

_logger = logging.getLogger(__name__)

# Names with another meaning in create_optimizer of timm 0.1.20.
_INFO_0_1_20 = {"radam": OptimInfo("radam", RAdamLegacy), "novograd": OptimInfo("novograd", NovoGrad)}
_DECAY_OVER_LR_0_1_20 = ("adamw", "radam")

# Field of a training script's arguments: argument of create_optimizer_v2.
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
    "backbone_lr_scale": "backbone_lr_scale",
}


def add_weight_decay(model, weight_decay=1e-5, skip_list=()):
    """Call `param_groups_weight_decay` under timm 0.1.20's name."""
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
    backbone_lr_scale=None,
    **kwargs,
):
    """Return an optimizer of a net, of parameters or of groups.

    Args:
        model_or_params: a net, whose ``no_weight_decay()`` may name parameters that do not decay; or parameters, or
            groups of them.
        opt: a name of `list_optimizers`, ``lookahead_`` and a name, or an `OptimInfo`.
        lr, weight_decay: see `TimmOptimizer`.
        momentum: for optimizers that have one.
        foreach: unused; Paddle has no such implementations.
        filter_bias_and_bn: whether biases and other 1-D parameters of a net do not decay.
        fallback_list, fallback_no_weight_decay: see `param_groups_weight_decay`.
        layer_decay, layer_decay_min_scale, layer_decay_no_opt_scale: see `param_groups_layer_decay`.
        param_group_fn: function that returns the groups of a net.
        backbone_lr_scale: rate of all but a net's classifier, relative to its own; None for the same rate.
        kwargs: arguments of the optimizer's class (``betas``, ``alpha`` ...).

    Raises:
        ConfigError: for an unknown name or argument.
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
        if backbone_lr_scale is not None:
            params = scale_backbone(model_or_params, params, backbone_lr_scale)
    optimizer = info.opt_class(params, weight_decay=weight_decay, **options)
    return Lookahead(optimizer) if lookahead else optimizer


def optimizer_kwargs(cfg):
    """Return the arguments of ``create_optimizer_v2`` from those of a training script (``opt``, ``opt_eps`` ...).

    ``opt_eps`` and ``opt_betas`` are left out for an optimizer that has none.
    """
    found = {argument: getattr(cfg, name, None) for name, argument in _SCRIPT_ARGUMENTS.items()}
    kwargs = {argument: value for argument, value in found.items() if value is not None}
    for name in {"eps", "betas"} - _lookup(cfg.opt)[1].arguments.keys():
        kwargs.pop(name, None)
    return {**kwargs, **(getattr(cfg, "opt_args", None) or {})}


def create_optimizer(args, model, filter_bias_and_bn=True):
    """Return the optimizer of a training script's arguments, with the meaning that they had in timm 0.1.20.

    In timm 0.1.20 the decay of adamw and radam is not multiplied by the rate, so it is divided by the rate here, and
    novograd never decays. For today's meaning call ``create_optimizer_v2(model, **optimizer_kwargs(args))``.
    """
    lookahead, info = _lookup(args.opt)
    info = _INFO_0_1_20.get(info.name, info)
    scale = 1.0
    if info.name in _DECAY_OVER_LR_0_1_20 and args.lr:
        scale = 1.0 / args.lr
    if info.opt_class is NovoGrad and args.weight_decay:
        _logger.warning(
            "novograd of timm 0.1.20 ignores the weight decay of %g; nvnovograd applies it", args.weight_decay
        )
        scale = 0.0
    if not isinstance(model, Layer):
        model = [_with_decay(entry, scale) for entry in model]
    kwargs = {**optimizer_kwargs(args), "opt": info, "weight_decay": args.weight_decay * scale}
    optimizer = create_optimizer_v2(model, filter_bias_and_bn=filter_bias_and_bn, **kwargs)
    return Lookahead(optimizer) if lookahead else optimizer


def _with_decay(entry, scale):
    """Return a parameter unchanged, and a group with its own decay scaled."""
    if not isinstance(entry, dict) or "weight_decay" not in entry:
        return entry
    return {**entry, "weight_decay": entry["weight_decay"] * scale}


def _lookup(opt):
    """Return whether the name asks for Lookahead, and the entry of the table."""
    if isinstance(opt, OptimInfo):
        return False, opt
    *wrappers, name = opt.lower().split("_")
    info = get_optimizer_info(name)
    if wrappers not in ([], ["lookahead"]):
        raise ConfigError(f"unknown optimizer {opt!r:.80}: only 'lookahead_' may stand before {name!r:.80}")
    return bool(wrappers), info


def _options(info, kwargs):
    """Return the arguments of the class: those of the table, and ``kwargs``, which the class must know."""
    unknown = sorted(kwargs.keys() - info.arguments.keys())
    if unknown:
        names, valid = ", ".join(map(repr, unknown)), ", ".join(info.arguments)
        raise ConfigError(f"optimizer {info.name!r:.80} takes no {names}; it takes {valid}")
    betas, default = kwargs.get("betas"), info.arguments.get("betas")
    if betas is not None and default and (not isinstance(betas, (tuple, list)) or len(betas) != info.num_betas):
        raise ConfigError(f"optimizer {info.name!r:.80} takes {info.num_betas} betas, got {betas}")
    return {**info.defaults, **kwargs}
