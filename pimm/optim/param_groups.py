"""Parameter groups: who decays, and at what rate each group learns."""

from __future__ import annotations

import difflib
import fnmatch
import logging
import math

from pimm.errors import ConfigError
from pimm.optim.layer_groups import auto_group_layers, group_parameters

_logger = logging.getLogger(__name__)

_GROUP_KEYS = ("params", "lr", "lr_scale", "learning_rate", "weight_decay", "initial_lr")
# settings that have a range wherever they occur: from the least value up to what they stay below
_RANGES = {
    "lr": (0.0, math.inf),
    "lr_scale": (0.0, math.inf),
    "weight_decay": (0.0, math.inf),
    "eps": (0.0, math.inf),
    "momentum": (0.0, 1.0),
    "betas": (0.0, 1.0),
}


def param_groups_weight_decay(
    model,
    weight_decay=1e-5,
    weight_decay_exclude_1d=True,
    no_weight_decay_list=(),
    fallback_list=(),
    fallback_no_weight_decay=False,
):
    """Trainable parameters in two groups: those that do not decay, and the rest.

    Biases and other 1-D ones do not decay unless ``weight_decay_exclude_1d`` is off, nor do those whose names match a
    pattern of ``no_weight_decay_list`` (``*`` and ``?``, as of files). Those that match ``fallback_list`` come in two
    more groups, marked for the fallback of Muon. A group without parameters is left out.
    """
    fallback_list = _patterns(fallback_list, fallback_no_weight_decay, no_weight_decay_list)
    members = {}
    for name, param in _trainable(model):
        exempt = weight_decay_exclude_1d and (param.ndim <= 1 or name.endswith(".bias"))
        decays = bool(weight_decay) and not exempt and not _matches(name, no_weight_decay_list)
        members.setdefault((_matches(name, fallback_list), decays), []).append(param)
    return [
        _group(members[fallback, decays], weight_decay if decays else 0.0, fallback)
        for fallback, decays in sorted(members)
    ]


def param_groups_layer_decay(
    model,
    weight_decay=0.05,
    no_weight_decay_list=(),
    fallback_list=(),
    fallback_no_weight_decay=False,
    weight_decay_exclude_1d=True,
    layer_decay=0.75,
    min_scale=0.0,
    no_opt_scale=None,
):
    """Trainable parameters by layer and decay, a layer learning at ``layer_decay`` of the rate of the next (as BEiT).

    Layers are those of the net's ``group_matcher``, or slices of its parameters; the head learns at the full rate.
    Rates do not fall below ``min_scale`` of it, and layers below ``no_opt_scale`` are frozen. Patterns as in
    ``param_groups_weight_decay``.
    """
    fallback_list = _patterns(fallback_list, fallback_no_weight_decay, no_weight_decay_list)
    layers = _layers(model)
    last = max(layers.values())
    if last == 0:
        _logger.warning("layer decay has no effect: the net has no group_matcher() and names no classifier")
    groups = {}
    for name, param in _trainable(model):
        layer = layers.get(name, last)
        scale = max(min_scale, layer_decay ** (last - layer))
        if no_opt_scale and scale < no_opt_scale:
            param.stop_gradient = True
            continue
        exempt = (weight_decay_exclude_1d and param.ndim <= 1) or _matches(name, no_weight_decay_list)
        fallback = _matches(name, fallback_list)
        fresh = {**_group([], 0.0 if exempt else weight_decay, fallback), "lr_scale": scale}
        groups.setdefault((layer, exempt, fallback), fresh)["params"].append(param)
    return list(groups.values())


def _layers(model):
    if hasattr(model, "group_matcher"):
        return group_parameters(model, model.group_matcher(coarse=False), reverse=True)
    return auto_group_layers(model)


def _trainable(model):
    return [(name, param) for name, param in model.named_parameters() if not param.stop_gradient]


def _patterns(fallback_list, fallback_no_weight_decay, no_weight_decay_list):
    return {*fallback_list, *(no_weight_decay_list if fallback_no_weight_decay else ())}


def _matches(name, patterns):
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _group(params, weight_decay, fallback):
    group = {"params": params, "weight_decay": weight_decay}
    return {**group, "use_fallback": True} if fallback else group


def as_param_groups(params, lr, weight_decay, options):
    """Parameters, or groups in timm's or Paddle's spelling, as the list of groups that Paddle's optimizers take.

    A group's ``lr`` is its own rate; ``lr_scale`` (Paddle: ``learning_rate``) multiplies whatever rate is set, for
    good. ``options`` are the hyperparameters of groups that do not say otherwise. Frozen parameters are left out; in
    Paddle the running statistics of BatchNorm are among them. ConfigError for a setting that does not exist or has an
    impossible value, and if no parameter is left.
    """
    _check_ranges({"lr": lr, "weight_decay": weight_decay, **options})
    entries = list(params)
    groups = []
    for entry in entries if entries and isinstance(entries[0], dict) else [{"params": entries}]:
        _check_keys(entry, options)
        _check_ranges(entry)
        group = {"weight_decay": weight_decay, **options, **entry}
        if "learning_rate" in group:
            group["lr_scale"] = group["learning_rate"]
        own = group.pop("lr", lr)
        group["learning_rate"] = (own / lr if lr else 1.0) * group.get("lr_scale", 1.0)
        group["weight_decay"] = float(group["weight_decay"])
        group["params"] = [param for param in group["params"] if not param.stop_gradient]
        if group["params"]:
            groups.append(group)
    if not groups:
        raise ConfigError("the optimizer got no trainable parameter: all are frozen, or the list was empty")
    return groups


def _check_keys(group, options):
    valid = [*_GROUP_KEYS, *options]
    for key in group:
        if key not in valid:
            near = difflib.get_close_matches(key, valid, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"a parameter group of this optimizer has no {key!r}{hint} It has {', '.join(valid)}")


def _check_ranges(settings):
    for name, (least, below) in _RANGES.items():
        value = settings.get(name)
        if value is not None:
            for number in value if isinstance(value, (tuple, list)) else (value,):
                if not least <= number < below:
                    limits = f"at least {least:g}" + (f" and below {below:g}" if below < math.inf else "")
                    raise ConfigError(f"{name} must be {limits}, got {value}")


def group_list(optimizer):
    """The optimizer's groups; those of a Paddle optimizer made without groups as one, of which changes are lost."""
    groups = optimizer._param_groups
    return groups if isinstance(groups[0], dict) else [{"params": groups}]


def group_lrs(optimizer):
    """The rate that each parameter group learns at now."""
    return [optimizer.get_lr() * group.get("learning_rate", 1.0) for group in group_list(optimizer)]


def initial_lrs(optimizer):
    """The rate of each group, before its ``lr_scale``, when this was first asked: what its schedules start from.

    It stays with the group, and with the optimizer's saved state, so that a schedule made after resuming starts there.
    """
    lrs = []
    for group, lr in zip(group_list(optimizer), group_lrs(optimizer)):
        scale = group.get("lr_scale", 1.0)
        lrs.append(group.setdefault("initial_lr", lr / scale if scale else optimizer.get_lr()))
    return lrs


def set_group_lrs(optimizer, lrs):
    """Let each group learn at its rate in ``lrs``, times its ``lr_scale``."""
    top = max(lrs)
    optimizer.set_lr(top)
    scales = [group.get("lr_scale", 1.0) for group in group_list(optimizer)]
    set_lr_multipliers(optimizer, [(lr / top if top else 1.0) * scale for lr, scale in zip(lrs, scales)])


def set_lr_multipliers(optimizer, multipliers):
    """Set what multiplies the one rate of the optimizer in each group.

    Paddle keeps it with every parameter, so it is rewritten only where the groups' rates are no longer in proportion,
    as when one of them has reached its floor.
    """
    for group, multiplier in zip(group_list(optimizer), multipliers):
        if multiplier != group.get("learning_rate", 1.0):
            group["learning_rate"] = multiplier
            for param in group["params"]:
                param.optimize_attr["learning_rate"] = multiplier
