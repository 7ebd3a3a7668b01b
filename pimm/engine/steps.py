"""What one batch of training does: the update of the parameters, and the plain step of a classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Callable, Protocol

import paddle
from paddle import Tensor, nn

from pimm.device import current
from pimm.errors import ConfigError, check_whole
from pimm.utils import ModelEma, ModelEmaV2, ModelEmaV3, NativeScaler, accuracy, all_reduce_gradients
from pimm.utils.clip_grad import check_clip


class Update:
    """Turns a loss into a move of the parameters: backward, average over processes, clip, optimizer step.

    Parameters that took no part in the loss have no gradient and do not move.

    Args:
        optimizer: of Paddle or pimm.
        amp: run forward passes inside ``autocast()`` in ``amp_dtype`` where that is safe, and scale the loss of
            float16. Without effect on a CPU, which has neither the kernels nor the gain.
        clip_grad: the bound that the gradients are clipped to, none by default.
        clip_mode: what the bound applies to: ``norm``, ``value`` or ``agc``.
        to_clip: parameters whose gradients are clipped, by default all that are updated.
        accumulate: number of batches whose mean gradient makes one update.
        amp_dtype: ``float16`` or ``bfloat16``.
        amp_level: ``O1``, or ``O2``, with which ``cast_weights`` casts the weights too.

    Raises:
        ConfigError: a bound or a number of batches that is not above 0, an unknown ``clip_mode``, or ``O2`` with
            several batches for an update: Paddle does not add their gradients.
    """

    def __init__(
        self,
        optimizer: paddle.optimizer.Optimizer,
        amp: bool = False,
        clip_grad: float | None = None,
        *,
        clip_mode: str = "norm",
        to_clip: Sequence[Tensor] | None = None,
        accumulate: int = 1,
        amp_dtype: str = "float16",
        amp_level: str = "O1",
    ):
        if clip_grad is not None:
            check_clip(clip_grad, clip_mode)
        check_whole("accumulate", accumulate, least=1)
        if amp_level == "O2" and accumulate > 1:
            raise ConfigError(f"mixed precision of level O2 takes one batch for an update, and {accumulate} are given")
        self.optimizer = optimizer
        self.amp = amp and current().has_amp
        self.amp_dtype, self.amp_level = amp_dtype, amp_level
        self.scaler = NativeScaler(str(current()) if self.amp and amp_dtype == "float16" else "cpu")
        self.clip_grad, self.clip_mode, self.to_clip = clip_grad, clip_mode, to_clip
        self.accumulate = accumulate
        self.count = 0
        self.start_epoch(batches=None)

    def start_epoch(self, batches: int | None, done: int = 0) -> None:
        """Note how many batches the epoch has and how many are done; its last update averages those that remain."""
        self._batches, self._done = batches, done

    @property
    def complete(self) -> bool:
        """Whether no gradient waits for further batches of its update: the last call, if any, moved the parameters."""
        return self._done % self.accumulate == 0 or self._done == self._batches

    def autocast(self):
        """Return the context of forward passes."""
        return paddle.amp.auto_cast(enable=self.amp, dtype=self.amp_dtype, level=self.amp_level)

    def cast_weights(self, net: nn.Layer) -> None:
        """Cast the weights of a net, without those of its norms, to half precision where the level is ``O2``.

        The optimizer keeps the weights in float32 beside them, and gets gradients of float32.
        """
        if self.amp and self.amp_level == "O2":
            paddle.amp.decorate(net, level="O2", dtype=self.amp_dtype, master_grad=True)

    def add(self, loss: Tensor) -> None:
        """Add the gradients of a further loss of the same batch, which the next call counts in."""
        self.scaler(loss, self.optimizer, need_update=False)

    def __call__(self, loss: Tensor, parameters: Sequence[Tensor]) -> None:
        """Add the gradients of one batch, and move ``parameters`` if the batch is the last of its update."""
        first = self._done // self.accumulate * self.accumulate  # batch of this update
        batches = self.accumulate if self._batches is None else min(self.accumulate, self._batches - first)
        self.scaler(loss / batches if batches > 1 else loss, self.optimizer, need_update=False)
        self._done += 1
        if not self.complete:
            return
        all_reduce_gradients(parameters)
        self.scaler.step(self.optimizer, self.clip_grad, self.clip_mode, self.to_clip or parameters)
        # Gradients of zero would still move the weights off the path by momentum and decay: remove the gradients.
        self.optimizer.clear_grad(set_to_zero=False)
        self.count += 1

    def state_dict(self) -> dict:
        """Return the state of the loss scaler, empty where nothing is scaled."""
        return self.scaler.state_dict()

    def load_state_dict(self, state: dict) -> None:
        """Restore what ``state_dict`` returned."""
        if state:
            self.scaler.load_state_dict(state)


class Step(Protocol):
    """One batch of training; its metrics are 0-d tensors, and the loop decides when to read the metrics.

    ``nets`` are the nets on this device: ``net``, and the moving average of its weights if there is one.
    """

    net: nn.Layer
    nets: list[nn.Layer]
    update: Update
    ema: ModelEma | ModelEmaV2 | None

    def __call__(self, images: Tensor, labels: Tensor, epoch: int) -> Mapping[str, Tensor]: ...

    def state_dict(self) -> dict: ...

    def load_state_dict(self, state: dict) -> None: ...


class ClassifyStep:
    """Trains a net on labelled images, with a moving average of its weights beside it.

    Labels are classes [N], or the probabilities [N, num_classes] that mixup makes of them. The metrics of a batch are
    ``loss`` and the accuracies ``precK`` of ``topk`` in percent, on this process's images.

    Args:
        net: maps images to logits.
        loss_fn: maps logits and labels to the batch's mean loss.
        update: moves the net's parameters.
        ema: the moving average, of any of pimm's three classes.
        topk: the values of K.
        mix: changes a batch before the forward pass; for example `pimm.data.Mixup`.
    """

    def __init__(
        self,
        net: nn.Layer,
        loss_fn: nn.Layer,
        update: Update,
        ema: ModelEma | ModelEmaV2 | None = None,
        *,
        topk: Sequence[int] = (1, 5),
        mix: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
    ):
        self.net, self.loss_fn, self.update, self.ema = net, loss_fn, update, ema
        self.topk, self.mix = tuple(topk), mix
        self.nets = [net] if ema is None or ema.device else [net, averaged_net(ema)]
        self.parameters = [p for p in net.parameters() if not p.stop_gradient]

    def __call__(self, images: Tensor, labels: Tensor, epoch: int) -> dict[str, Tensor]:
        """Train on one batch and return its metrics."""
        if self.mix is not None:
            images, labels = self.mix(images, labels)
        with self.update.autocast():
            logits = self.net(images)
            losses = self.losses(images, logits, labels)
        self.update(losses["loss"], self.parameters)
        if self.ema is not None and self.update.complete:
            self._update_average()
        return {**{name: loss.detach() for name, loss in losses.items()}, **self._accuracies(logits, labels)}

    def losses(self, images: Tensor, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the batch's ``loss``, and its parts if it has some, as metrics."""
        return {"loss": self.loss_fn(logits, labels)}

    def _update_average(self) -> None:
        if isinstance(self.ema, ModelEmaV3):
            self.ema.update(self.net, step=self.update.count)
        else:
            self.ema.update(self.net)

    def _accuracies(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        if not self.topk:
            return {}
        classes = labels if labels.ndim == 1 else labels.argmax(axis=1)
        return {f"prec{k}": value for k, value in zip(self.topk, accuracy(logits.detach(), classes, topk=self.topk))}

    def state_dict(self) -> dict:
        """Return the state of the update."""
        return {"update": self.update.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        """Restore what ``state_dict`` returned."""
        self.update.load_state_dict(state["update"])


def averaged_net(ema: ModelEma | ModelEmaV2) -> nn.Layer:
    """Return the net that a moving average keeps."""
    return ema.module if isinstance(ema, ModelEmaV2) else ema.ema
