"""Parameter groups: which parameters decay, and the learning rate of each group."""

from __future__ import annotations

import fnmatch
import logging
import math

from paddle import nn

from pimm.errors import ConfigError
from pimm.messages import did_you_mean
from pimm.optim.layer_groups import auto_group_layers, group_parameters

_logger = logging.getLogger(__name__)

_GROUP_KEYS = ("params", "lr", "lr_scale", "learning_rate", "weight_decay", "initial_lr")
# Settings with a range in all optimizers: the least value, and the value that they stay below.
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
    """Return the trainable parameters in groups without and with weight decay; empty groups are left out.

    Args:
        model: the net.
        weight_decay: decay of the second group.
        weight_decay_exclude_1d: whether biases and other 1-D parameters do not decay.
        no_weight_decay_list: patterns (``*`` and ``?``) of the names of parameters that do not decay.
        fallback_list: patterns of the names of parameters that get groups of their own, for which `Muon` uses AdamW.
        fallback_no_weight_decay: whether ``fallback_list`` includes ``no_weight_decay_list``.
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
    """Return the trainable parameters in groups by layer and decay, with a rate for each layer (as in BEiT).

    Layers are those of the net's ``group_matcher``, or slices of its parameters. The head learns at the full rate.

    Args:
        model: the net.
        weight_decay: decay of the parameters that decay.
        no_weight_decay_list, fallback_list, fallback_no_weight_decay, weight_decay_exclude_1d: see
            `param_groups_weight_decay`.
        layer_decay: rate of a layer relative to that of the next layer.
        min_scale: lowest rate relative to the full rate.
        no_opt_scale: relative rate below which layers are frozen.

    Raises:
        ConfigError: for a ``layer_decay`` below 0.
    """
    if not 0 <= layer_decay < math.inf:
        raise ConfigError(f"layer_decay must be at least 0, got {layer_decay}")
    fallback_list = _patterns(fallback_list, fallback_no_weight_decay, no_weight_decay_list)
    layers = _layers(model)
    last = max(layers.values())
    if last == 0:
        _logger.warning(
            "layer decay has no effect: the net has no group_matcher() and no classifier in its default_cfg"
        )
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


def scale_backbone(model, groups, scale):
    """Return groups of a net's parameters in which the rate of all but the classifier is multiplied by ``scale``.

    Args:
        model: the net.
        groups: its groups, which keep their settings and are parted in two where they hold parameters of both.
        scale: rate of the body relative to that of the classifier.

    Raises:
        ConfigError: if the net has no classifier.
    """
    head = {param.name for param in getattr(model, "get_classifier", nn.Identity)().parameters()}
    if not head:
        raise ConfigError(f"{type(model).__name__} has no classifier, whose rate could differ from that of its body")
    parted = []
    for group in groups:
        for in_head, factor in ((True, 1.0), (False, scale)):
            params = [param for param in group["params"] if (param.name in head) == in_head]
            if params:
                parted.append({**group, "params": params, "lr_scale": group.get("lr_scale", 1.0) * factor})
    return parted


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
    """Return the list of groups that Paddle's optimizers take.

    Frozen parameters are left out; in Paddle the running statistics of BatchNorm are among them.

    Args:
        params: parameters, or groups with timm's or Paddle's keys. A group's ``lr`` is its own rate; its ``lr_scale``
            (in Paddle ``learning_rate``) multiplies every rate that is set.
        lr: rate of groups without their own.
        weight_decay: decay of groups without their own.
        options: hyperparameters of groups without their own.

    Raises:
        ConfigError: for an unknown or impossible setting, for a parameter that is there twice, and if none is left.
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
    _check_once([param for group in groups for param in group["params"]])
    return groups


def _check_once(params):
    seen = set()
    for param in params:
        if id(param) in seen:
            shape = list(param.shape)
            raise ConfigError(f"the optimizer got the parameter {param.name} of shape {shape} twice; give it once")
        seen.add(id(param))


def _check_keys(group, options):
    valid = [*_GROUP_KEYS, *options]
    for key in group:
        if key not in valid:
            hint = did_you_mean(key, valid) or "."
            raise ConfigError(f"a parameter group of this optimizer has no {key!r:.80}{hint} It has {', '.join(valid)}")


def _check_ranges(settings):
    for name, (least, below) in _RANGES.items():
        value = settings.get(name)
        if value is not None:
            for number in value if isinstance(value, (tuple, list)) else (value,):
                if not least <= number < below:
                    limits = f"at least {least:g}" + (f" and below {below:g}" if below < math.inf else "")
                    raise ConfigError(f"{name} must be {limits}, got {value}")


def group_list(optimizer):
    """Return the optimizer's groups.

    A Paddle optimizer that was created without groups returns one new group: changes of it are lost.
    """
    groups = optimizer._param_groups
    return groups if isinstance(groups[0], dict) else [{"params": groups}]


def group_lrs(optimizer):
    """Return the present learning rate of each parameter group."""
    return [optimizer.get_lr() * group.get("learning_rate", 1.0) for group in group_list(optimizer)]


def initial_lrs(optimizer):
    """Return the rate, before ``lr_scale``, that each group had at the first call: the base of its schedules.

    The group keeps the rate, and so does the saved state of the optimizer: schedules that are created after resuming
    have the same base.
    """
    lrs = []
    for group, lr in zip(group_list(optimizer), group_lrs(optimizer)):
        scale = group.get("lr_scale", 1.0)
        lrs.append(group.setdefault("initial_lr", lr / scale if scale else optimizer.get_lr()))
    return lrs


def set_group_lrs(optimizer, lrs):
    """Set the rate of each group to its entry of ``lrs`` times its ``lr_scale``."""
    top = max(lrs)
    optimizer.set_lr(top)
    scales = [group.get("lr_scale", 1.0) for group in group_list(optimizer)]
    set_lr_multipliers(optimizer, [(lr / top if top else 1.0) * scale for lr, scale in zip(lrs, scales)])


def set_lr_multipliers(optimizer, multipliers):
    """Set the factor by which each group multiplies the optimizer's rate.

    Paddle keeps the factor with every parameter. It is only written when the proportion of the groups' rates changes,
    such as when one of them reaches its floor.
    """
    for group, multiplier in zip(group_list(optimizer), multipliers):
        if multiplier != group.get("learning_rate", 1.0):
            group["learning_rate"] = multiplier
            for param in group["params"]:
                param.optimize_attr["learning_rate"] = multiplier
