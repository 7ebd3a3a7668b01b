"""Parameter groups: who decays, and at what rate each group learns."""

from __future__ import annotations

from pimm.errors import ConfigError


def param_groups_weight_decay(model, weight_decay=1e-5, no_weight_decay_list=()):
    """Trainable parameters in two groups: biases and other 1-D ones, which do not decay, and the rest.

    Names in ``no_weight_decay_list`` do not decay either. A group without parameters is left out.
    """
    decay, no_decay = [], []
    for name, param in model.named_parameters():
        if not param.stop_gradient:
            exempt = param.ndim <= 1 or name.endswith(".bias") or name in no_weight_decay_list
            (no_decay if exempt else decay).append(param)
    groups = [{"params": no_decay, "weight_decay": 0.0}, {"params": decay, "weight_decay": weight_decay}]
    return [group for group in groups if group["params"]]


def as_param_groups(params, lr, weight_decay):
    """Parameters, or groups in timm's or Paddle's spelling, as the list of groups that Paddle's optimizers take.

    A group's ``lr`` is its own rate; ``lr_scale`` (Paddle: ``learning_rate``) multiplies whatever rate is set, for
    good. Frozen parameters are left out; in Paddle the running statistics of BatchNorm are among them.
    """
    entries = list(params)
    groups = []
    for entry in entries if entries and isinstance(entries[0], dict) else [{"params": entries}]:
        group = {"weight_decay": weight_decay, **entry}
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
