"""Run the backward pass and the optimizer's step of mixed precision under a loss scale."""

from __future__ import annotations

import paddle

from pimm.device import current, device_of
from pimm.errors import CheckpointError, ConfigError
from pimm.utils.clip_grad import dispatch_clip_grad


class GradScaler(paddle.amp.GradScaler):
    """Is Paddle's scaler with a scale of no dimensions.

    Paddle prints the scale at every gradient overflow, and numpy 2.4 makes no number of an array [1]: the first
    overflow would end the training.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._flatten_scale()

    def state_dict(self):
        state = super().state_dict()
        return {**state, "scale": state["scale"].reshape([1])} if state else state

    def load_state_dict(self, state_dict):
        super().load_state_dict(state_dict)
        self._flatten_scale()

    def _flatten_scale(self):
        if self._scale is not None:
            self._scale = self._scale.reshape([])


class NativeScaler:
    """Offers `GradScaler` under timm's call: ``loss_scaler(loss, optimizer, clip_grad=..., parameters=...)``.

    The scale starts at 2 ** 16, halves at every gradient overflow, and doubles after 2000 steps without an overflow.
    Nothing is scaled if ``device`` or the device that Paddle uses is a CPU, and Paddle scales nothing in a training
    that no ``auto_cast`` runs in float16.
    """

    state_dict_key = "amp_scaler"

    def __init__(self, device="cuda"):
        self._scaler = GradScaler(
            enable=device_of(device).has_amp and current().has_amp,
            init_loss_scaling=2.0**16,
            incr_ratio=2.0,
            decr_ratio=0.5,
            incr_every_n_steps=2000,
            decr_every_n_nan_or_inf=1,
        )

    def __call__(
        self,
        loss,
        optimizer,
        clip_grad=None,
        clip_mode="norm",
        parameters=None,
        create_graph=False,
        need_update=True,
    ):
        """Run the backward pass, and with ``need_update`` a step of the optimizer; the caller clears the gradients.

        Args:
            loss: the loss, a tensor without dimensions.
            optimizer: the optimizer that steps.
            clip_grad: the limit of the unscaled gradients, as `dispatch_clip_grad` takes it; None clips nothing.
            clip_mode: how to clip.
            parameters: whose gradients to clip.
            create_graph: timm's; Paddle's backward pass cannot make a graph.
            need_update: whether to step; without it gradients accumulate.

        Raises:
            ConfigError: for ``create_graph``, and for ``clip_grad`` without ``parameters``.
        """
        if create_graph:
            raise ConfigError("create_graph is not possible: Paddle's backward pass makes no graph of its own")
        self._scaler.scale(loss).backward()
        if need_update:
            self.step(optimizer, clip_grad, clip_mode, parameters)

    def step(self, optimizer, clip_grad=None, clip_mode="norm", parameters=None):
        """Clip and step after calls without ``need_update``, for gradients that must be averaged in between.

        A gradient that overflowed in one process is not finite in the average, so that no process takes the step. The
        arguments and errors are those of the call.
        """
        if clip_grad is not None and parameters is None:
            raise ConfigError("clip_grad needs the parameters whose gradients are to be clipped")
        if clip_grad is not None:
            self._scaler.unscale_(optimizer)
            dispatch_clip_grad(parameters, clip_grad, mode=clip_mode)
        self._scaler.step(optimizer)
        self._scaler.update()

    def state_dict(self):
        """Return the scale and its counters for a checkpoint; an empty dict if nothing is scaled."""
        return self._scaler.state_dict()

    def load_state_dict(self, state_dict):
        """Go on with a saved scale; raise `CheckpointError` if the training that saved the state scaled nothing."""
        if self._scaler.is_enable() and not state_dict:
            raise CheckpointError("there is no loss scale: the checkpoint is of a training without mixed precision")
        self._scaler.load_state_dict(state_dict)
