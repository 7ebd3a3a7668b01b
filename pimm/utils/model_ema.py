"""Keep exponential moving averages of a net's weights and running statistics."""

from __future__ import annotations

import copy
from pathlib import Path

import paddle
from paddle import nn

from pimm.device import device_of
from pimm.errors import CheckpointError, ConfigError
from pimm.ops.updates import move_averages
from pimm.utils.checkpoint import EMA, read_checkpoint
from pimm.utils.distributed import in_one_message
from pimm.utils.model import get_state_dict, unwrap_model
from pimm.utils.serialization import load_arrays
from pimm.utils.state import load_state_dict_strictly


class ModelEma:
    """Holds a copy of the net, ``ema``, that moves a little towards the net with every update.

    Args:
        model: the net.
        decay: the share that stays, from 0 to 1.
        device: where the copy lives; by default where the net lives.
        resume: a checkpoint folder with an average in it, or a ``.pdema`` file, to start from.

    Raises:
        ConfigError: ``decay`` is not from 0 to 1.
    """

    wrapped_as = "ema"

    def __init__(self, model, decay=0.9999, device="", resume=""):
        _require_share(decay)
        self.ema = _frozen_copy(model, device)
        self.decay = decay
        self.device = device
        if resume:
            self.load(resume)

    def load(self, path):
        """Start from a saved average; raise `CheckpointError` if there is none, or if the average is of another net."""
        arrays = read_checkpoint(path).files.get(EMA) if Path(path).is_dir() else load_arrays(path)
        if arrays is None:
            raise CheckpointError(f"{path} holds no average: it was saved by a training without one")
        load_state_dict_strictly(self.ema, arrays, source=f"the averaged weights in {path}")

    def update(self, model):
        """Move the average towards the net's present weights."""
        _blend(self.ema, model, 1.0 - self.decay, self.device)

    def set(self, model):
        """Set the average to the net's present weights."""
        _blend(self.ema, model, 1.0, self.device)


class ModelEmaV2(nn.Layer):
    """Keeps an average as `ModelEma` does, as a layer: ``module`` is the average, and a call of the layer calls it."""

    wrapped_as = "module"

    def __init__(self, model, decay=0.9999, device=None):
        super().__init__()
        _require_share(decay)
        self.module = _frozen_copy(model, device)
        self.decay = decay
        self.device = device

    def update(self, model):
        """Move the average towards the net's present weights."""
        _blend(self.module, model, 1.0 - self.decay, self.device)

    def set(self, model):
        """Set the average to the net's present weights."""
        _blend(self.module, model, 1.0, self.device)

    def forward(self, *args, **kwargs):
        return self.module(*args, **kwargs)


class ModelEmaV3(ModelEmaV2):
    """Keeps an average whose decay follows the step, if ``update`` is told the step.

    Args:
        model: the net.
        decay: the share that stays, at most.
        min_decay: the share that stays, at least.
        update_after_step: through the step after this one the average is the net itself.
        use_warmup: let the decay be ``1 - (1 + step / warmup_gamma) ** -warmup_power``, inside its limits.
        warmup_gamma: see there.
        warmup_power: see there.
        device: where the average lives; by default where the net lives.
        dtype: None for the net's own type, or ``float32``, which a net of half precision needs: its own type would
            lose in rounding what an update adds.
        foreach: timm's, without effect here.
        exclude_buffers: copy running statistics in place of averaging them.

    Raises:
        ConfigError: for another ``dtype``, and for a net of half precision without one.
    """

    def __init__(
        self,
        model,
        decay=0.9999,
        min_decay=0.0,
        update_after_step=0,
        use_warmup=False,
        warmup_gamma=1.0,
        warmup_power=2 / 3,
        device=None,
        dtype=None,
        foreach=True,
        exclude_buffers=False,
    ):
        super().__init__(model, decay, device)
        if dtype in ("float32", paddle.float32):
            self.module.float()
        elif dtype is not None:
            raise ConfigError(f"an average is of the net's own type or float32, not {dtype}")
        _refuse_half_precision(self.module)
        self.min_decay = min_decay
        self.update_after_step = update_after_step
        self.use_warmup = use_warmup
        self.warmup_gamma = warmup_gamma
        self.warmup_power = warmup_power
        self.exclude_buffers = exclude_buffers

    def get_decay(self, step=None):
        """Return the share of the average that stays at optimizer step ``step``, counted from one."""
        if step is None:
            return self.decay
        step -= self.update_after_step + 1
        if step <= 0:
            return 0.0
        if not self.use_warmup:
            return self.decay
        warmed = 1.0 - (1.0 + step / self.warmup_gamma) ** -self.warmup_power
        return max(min(warmed, self.decay), self.min_decay)

    def update(self, model, step=None):
        """Move the average towards the net's weights after optimizer step ``step``."""
        _blend(self.module, model, 1.0 - self.get_decay(step), self.device, self.exclude_buffers)


def _require_share(decay):
    if not 0.0 <= decay <= 1.0:  # the average would run away from the net
        raise ConfigError(f"the decay of an average must be from 0 to 1, got {decay}")


def _refuse_half_precision(average):
    for name, value in average.state_dict().items():
        if value.dtype in (paddle.float16, paddle.bfloat16):
            raise ConfigError(f"{name} is {value.dtype}, too coarse to be averaged: give dtype='float32'")


def _frozen_copy(model, device):
    average = copy.deepcopy(unwrap_model(model))
    average.eval()
    if device:
        average.to(device=device)
    for param in average.parameters():
        param.stop_gradient = True
    return average


@paddle.no_grad()
def _blend(average, model, weight, device, copy_statistics=False):
    """Move each tensor of ``average`` by the share ``weight`` towards the net's; whole numbers are copied.

    A tied weight, which has several names, moves once.
    """
    current = get_state_dict(model)
    targets = _moved(current, device) if device else current
    averages, values = [], []
    for name, value in {id(value): (name, value) for name, value in average.state_dict().items()}.values():
        target = targets[name]
        if target.dtype != value.dtype:
            target = target.astype(value.dtype)
        is_statistic = name.endswith(("._mean", "._variance"))
        if not paddle.is_floating_point(value) or (copy_statistics and is_statistic):
            paddle.assign(target, output=value)
        else:
            averages.append(value)
            values.append(target)
    if averages:
        count = len(averages)
        move_averages(averages, values, [1.0 - weight] * count, [weight] * count)


def _moved(tensors, device):
    """Return tensors by name on a device, after one wait for each data type: a copy to the CPU must be complete."""
    there = device_of(device)
    if all(device_of(tensor.place) == there for tensor in tensors.values()):
        return tensors
    values = in_one_message(list(tensors.values()), lambda flat: flat.to(str(there), blocking=True))
    return dict(zip(tensors, values))
