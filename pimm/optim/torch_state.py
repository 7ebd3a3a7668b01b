"""Load the state of a PyTorch optimizer into an optimizer of pimm."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pimm.errors import CheckpointError
from pimm.optim.kernels import SGD, Adam, AdamW
from pimm.optim.param_groups import group_list
from pimm.optim.rmsprop import RMSprop, RMSpropTF
from pimm.optim.state import load_optimizer_state, optimizer_state


class _Form(NamedTuple):
    marks: frozenset  # keys of PyTorch's groups that only this optimizer has
    slots: dict  # PyTorch's name of an average: pimm's


_ADAM = _Form(frozenset({"betas", "eps"}), {"exp_avg": "moment1", "exp_avg_sq": "moment2"})
_FORMS = {
    SGD: _Form(frozenset({"nesterov", "dampening"}), {"momentum_buffer": "velocity"}),
    RMSpropTF: _Form(
        frozenset({"lr_in_momentum", "alpha"}),
        {"square_avg": "mean_square", "momentum_buffer": "momentum", "grad_avg": "mean_grad"},
    ),
    RMSprop: _Form(
        frozenset({"centered", "alpha"}), {"square_avg": "square_avg", "momentum_buffer": "momentum_buffer"}
    ),
    Adam: _ADAM,
    AdamW: _ADAM,
}


def load_torch_optimizer_state(optimizer, model, state, transposed=()):
    """Load the averages of PyTorch's ``optimizer.state_dict()`` into an optimizer for the same net.

    Parameters are matched by their order in each group; parameters without an entry start anew. Rates and other
    settings of the optimizer do not change.

    Args:
        optimizer: the optimizer.
        model: the net that it trains.
        state: PyTorch's state.
        transposed: names of the weights that PyTorch stores transposed.

    Raises:
        CheckpointError: if the state belongs to another optimizer or net; the optimizer is then unchanged.
    """
    form = _FORMS.get(type(optimizer))
    if form is None:
        known = ", ".join(cls.__name__ for cls in _FORMS)
        raise CheckpointError(f"{type(optimizer).__name__} cannot load a state of PyTorch; {known} can")
    try:
        groups, entries = [group for group in state["param_groups"] if group["params"]], state["state"]
        shapes = {name: tuple(param.shape) for name, param in model.named_parameters()}
        own = {key: value for key, value in optimizer_state(optimizer, model).items() if "/" not in key}
        for group, names in zip(groups, _check_groups(optimizer, model, groups, form)):
            for identifier, name in zip(group["params"], names):
                if entries.get(identifier):
                    values = _averages(optimizer, entries[identifier], form, shapes[name], name in transposed)
                    own.update({f"{name}/{slot}": value for slot, value in values.items()})
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise CheckpointError(f"this is no state of an optimizer of PyTorch: {str(error)[:200]!r}") from error
    load_optimizer_state(optimizer, model, own)


def _check_groups(optimizer, model, groups, form):
    """Return the names of the parameters in each group.

    Raises:
        CheckpointError: if PyTorch's groups are not those of the optimizer.
    """
    for group in groups:
        is_rmsprop_tf = bool(group.get("lr_in_momentum"))
        if not form.marks <= group.keys() or is_rmsprop_tf != isinstance(optimizer, RMSpropTF):
            raise CheckpointError(f"the state is not that of a {type(optimizer).__name__}")
    names = {param.name: name for name, param in model.named_parameters()}
    own = [[names[param.name] for param in group["params"]] for group in group_list(optimizer)]
    counts, own_counts = [len(group["params"]) for group in groups], [len(group) for group in own]
    if counts != own_counts:
        raise CheckpointError(f"the state is of groups of {counts} parameters; the optimizer has {own_counts}")
    return own


def _averages(optimizer, entry, form, shape, flipped):
    """Return pimm's accumulators of a parameter from those of PyTorch, which may be transposed."""
    found = {
        own: np.asarray(entry[name], np.float32) for name, own in form.slots.items() if entry.get(name) is not None
    }
    if not found:
        return {}
    for value in found.values():
        if value.shape != (shape[::-1] if flipped else shape):
            raise CheckpointError(f"the state has averages of shape {list(value.shape)} for a parameter {list(shape)}")
    found = {slot: np.transpose(value) if flipped else value for slot, value in found.items()}
    if isinstance(optimizer, (SGD, RMSpropTF)):
        # PyTorch has no such average without momentum, or if the variance is not centred.
        nothing = np.zeros_like(next(iter(found.values())))
        return {slot: found.get(slot, nothing) for slot in form.slots.values()}
    step = int(entry["step"])
    if isinstance(optimizer, RMSprop):
        return {**found, "step": np.array(step, np.int64)}
    powers = {f"beta{i}_pow_acc": beta ** (step + 1) for i, beta in ((1, optimizer._beta1), (2, optimizer._beta2))}
    return {**found, **{slot: np.array([power], np.float32) for slot, power in powers.items()}}
