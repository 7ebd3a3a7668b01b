"""Optimizer state by the names of a net's parameters.

Paddle names accumulators by generated names (``conv2d_7.w_0_velocity_0``), which depend on the nets that the process
built before, and refuses a state without an accumulator that was created later. Here a state is
``{"conv_stem.weight/velocity": array}``, with a counter ``step`` for each parameter where the optimizer counts updates
by parameter, and with the optimizer's own values.
"""

from __future__ import annotations

import numpy as np
import paddle

from pimm.errors import CheckpointError
from pimm.optim.lookahead import Lookahead
from pimm.optim.param_groups import group_list, set_lr_multipliers

_STEP = "step"
_MASTER = "master_weight"
_RATE = "learning_rate"
_MULTIPLIERS = "lr_multipliers"
_INITIAL = "initial_lr"  # present once a schedule has been created
_LOOKAHEAD_STEP = "lookahead_step"
_SHOWN_PROBLEMS = 5


def optimizer_state(optimizer, model):
    """Return everything that the next step depends on besides weights and gradients, as ``{name: array}``.

    Parameters that no step has updated have no entry. The state of a Paddle ``LRScheduler`` in the optimizer is not
    included.

    Raises:
        CheckpointError: if the optimizer has parameters that are not the model's.
    """
    state = _global_values(optimizer)
    for name, param in _named_parameters(optimizer, model).items():
        state.update({f"{name}/{slot}": tensor.numpy() for slot, tensor in _tensors(optimizer, param).items()})
        if param.name in _steps(optimizer):
            state[f"{name}/{_STEP}"] = np.array(_steps(optimizer)[param.name], np.int64)
    return state


def load_optimizer_state(optimizer, model, state):
    """Restore a state of ``optimizer_state`` bit for bit; parameters without an entry start anew.

    Raises:
        CheckpointError: for entries that are unknown, missing, or of another shape or type. The message lists them, and
            the optimizer is unchanged.
    """
    params = _named_parameters(optimizer, model)
    entries, values = {name: {} for name in params}, {}
    for key, value in state.items():
        name, _, slot = key.rpartition("/")
        if name in entries:
            entries[name][slot] = value
        else:
            values[key] = value
    problems = [f"{problem} {key}" for key, problem in _global_misfits(optimizer, values).items()]
    for name, found in entries.items():
        problems += [f"{problem} {name}/{slot}" for slot, problem in _misfits(optimizer, params[name], found).items()]
    if problems:
        more = f" and {len(problems) - _SHOWN_PROBLEMS} more" if len(problems) > _SHOWN_PROBLEMS else ""
        listed = ", ".join(problems[:_SHOWN_PROBLEMS]) + more
        raise CheckpointError(f"the saved state does not fit this {type(optimizer).__name__} and net: {listed}")
    for name, found in entries.items():
        _replace(optimizer, params[name], found)
    _set_global_values(optimizer, values)


def _named_parameters(optimizer, model):
    groups = optimizer._param_groups
    held = [p for group in groups for p in group["params"]] if isinstance(groups[0], dict) else groups
    held = {param.name for param in held}
    named = {name: param for name, param in model.named_parameters() if param.name in held}
    if len(named) < len(held):
        raise CheckpointError(
            f"{len(held) - len(named)} of the optimizer's {len(held)} parameters are not the model's: "
            "save or load the state together with the net that the optimizer trains"
        )
    return named


def _global_values(optimizer):
    values = {}
    if isinstance(optimizer._learning_rate, float):
        groups = group_list(optimizer)
        values[_RATE] = np.array(optimizer.get_lr(), np.float64)
        values[_MULTIPLIERS] = np.array([group.get("learning_rate", 1.0) for group in groups], np.float64)
        if all(_INITIAL in group for group in groups):
            values[_INITIAL] = np.array([group[_INITIAL] for group in groups], np.float64)
    if isinstance(optimizer, Lookahead):
        values[_LOOKAHEAD_STEP] = np.array(optimizer.lookahead_step, np.int64)
    return values


def _set_global_values(optimizer, values):
    if _RATE in values:
        optimizer.set_lr(float(values[_RATE]))
        set_lr_multipliers(optimizer, values[_MULTIPLIERS].tolist())
    for group, lr in zip(group_list(optimizer), values.get(_INITIAL, ())):
        group[_INITIAL] = float(lr)
    if _LOOKAHEAD_STEP in values:
        optimizer.lookahead_step = int(values[_LOOKAHEAD_STEP])


def _global_misfits(optimizer, found):
    own = _global_values(optimizer)
    expected = {key: (list(value.shape), value.dtype) for key, value in own.items() if key != _INITIAL}
    if _INITIAL in found and _MULTIPLIERS in expected:
        expected[_INITIAL] = expected[_MULTIPLIERS]
    return _compare(expected, found)


def _steps(optimizer):
    return getattr(optimizer, "param_steps", {})


def _tensors(optimizer, param):
    """Return a parameter's accumulators by name; those of a half-precision one belong to its float32 copy."""
    master = optimizer._master_weights.get(param.name)
    owners = [param.name] if master is None else [param.name, master.name]
    tensors = {
        slot: table[owner] for slot, table in optimizer._accumulators.items() for owner in owners if owner in table
    }
    return tensors if master is None else {**tensors, _MASTER: master}


def _create(optimizer, param):
    block = paddle.static.default_main_program().global_block()
    optimizer._create_accumulators(block, [param])


def _forget(optimizer, param):
    master = optimizer._master_weights.pop(param.name, param)
    for table in optimizer._accumulators.values():
        table.pop(param.name, None)
        table.pop(master.name, None)
    _steps(optimizer).pop(param.name, None)
    optimizer._already_create_accumulator.discard(param.name)


def _misfits(optimizer, param, found):
    """Return what is wrong with the entries of a parameter, as ``{slot: problem}``."""
    if not found:
        return {}
    fresh = not _tensors(optimizer, param)
    if fresh:
        _create(optimizer, param)
    expected = {slot: (tensor.shape, _numpy_dtype(tensor)) for slot, tensor in _tensors(optimizer, param).items()}
    expected.pop(Lookahead.SLOW, None)
    if isinstance(optimizer, Lookahead) and Lookahead.SLOW in found:
        expected[Lookahead.SLOW] = (param.shape, _numpy_dtype(optimizer._master_weights.get(param.name, param)))
    if fresh:
        _forget(optimizer, param)
    if hasattr(optimizer, "param_steps"):
        expected[_STEP] = ([], np.dtype(np.int64))
    return _compare(expected, found)


def _compare(expected, found):
    """Return what is wrong with arrays that should be ``{key: (shape, dtype)}``."""
    problems = {key: "missing" for key in expected if key not in found}
    for key, value in found.items():
        if key not in expected:
            problems[key] = "unknown"
        elif (list(value.shape), value.dtype) != expected[key]:
            shape, dtype = expected[key]
            problems[key] = f"{value.dtype}{list(value.shape)} instead of {dtype}{list(shape)} for"
    return problems


def _numpy_dtype(tensor):
    name = str(tensor.dtype).rsplit(".", 1)[-1]
    return np.dtype("uint16" if name == "bfloat16" else name)  # numpy has no bfloat16; Paddle returns the bits


def _replace(optimizer, param, found):
    _forget(optimizer, param)
    if not found:
        return
    _create(optimizer, param)
    if Lookahead.SLOW in found:
        optimizer.add_slow(param)
    for slot, tensor in _tensors(optimizer, param).items():
        tensor.set_value(found[slot])
    if _STEP in found:
        _steps(optimizer)[param.name] = int(found[_STEP])
