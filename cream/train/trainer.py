"""The one training loop, with resume; what a batch does is the step's business."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Callable, NoReturn, Protocol

import numpy as np
import paddle
from paddle import Tensor, nn

from cream.train.runlog import RunLog, log
from pimm import preemption
from pimm.errors import CheckpointError, TrainingError
from pimm.models import load_checkpoint, load_state_dict_strictly, resume_checkpoint
from pimm.models.helpers import is_torch_file
from pimm.optim import group_lrs, load_optimizer_state
from pimm.utils import (
    Checkpoint,
    CheckpointSaver,
    ModelEma,
    all_reduce_sum,
    asked_to_end,
    barrier,
    broadcast_parameters,
    distribute_bn,
    gather_bn,
    rank,
    read_checkpoint,
    scatter_bn,
    world_size,
)
from pimm.utils.checkpoint import EMA, MODEL, OPTIMIZER, STATE


class Step(Protocol):
    """One batch of training; its metrics are floats, or 0-d tensors that are read only when somebody looks."""

    net: nn.Layer
    optimizer: paddle.optimizer.Optimizer
    ema: ModelEma | None

    def __call__(self, images: Tensor, labels: Tensor, epoch: int) -> Mapping[str, float | Tensor]: ...

    def state_dict(self) -> dict: ...

    def load_state_dict(self, state: dict) -> None: ...


class Averages:
    """Running means of metrics; tensors are added up where they are and read only by ``read``."""

    def __init__(self):
        self.sums: dict[str, float | Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, metrics: Mapping[str, float | Tensor], n: int) -> None:
        for name, value in metrics.items():
            self.sums[name] = self.sums.get(name, 0.0) + value * n
            self.counts[name] = self.counts.get(name, 0) + n

    def read(self) -> dict[str, float]:
        self.sums = {name: float(total) for name, total in self.sums.items()}
        return {name: total / self.counts[name] for name, total in self.sums.items()}

    def state_dict(self) -> dict:
        self.read()
        return {"sums": self.sums, "counts": self.counts}

    def load_state_dict(self, state: dict) -> None:
        self.sums, self.counts = dict(state["sums"]), dict(state["counts"])


class Trainer:
    """Trains for ``epochs`` epochs: batches, evaluation, schedule, log and checkpoint, in this order.

    ``evaluate(epoch)`` returns metrics, of which ``metric`` ranks checkpoints and guides the scheduler. A checkpoint
    is written after every epoch and every ``recovery_interval`` batches, and holds all that the next batch depends
    on: a resumed training goes on as if there had been no break, and only with the same ``settings``, which are plain
    data. Raises TrainingError when the loss is no longer finite, and never saves weights that are not; Preempted when
    SIGTERM has come, after the batch at hand is done and saved (of several processes on GPUs: at the next report). An
    evaluation is broken off, to be done again; several processes, which must do the same, end it first.
    """

    def __init__(
        self,
        step: Step,
        loader,
        evaluate: Callable[[int], Mapping[str, float]],
        *,
        epochs: int,
        scheduler,
        saver: CheckpointSaver,
        run: RunLog,
        seed: int,
        settings: Mapping[str, object],
        metric: str = "prec1",
        log_interval: int = 50,
        recovery_interval: int = 0,
    ):
        self.step, self.loader, self.evaluate = step, loader, evaluate
        self.epochs, self.scheduler, self.saver, self.run = epochs, scheduler, saver, run
        self.seed, self.settings, self.metric = seed, settings, metric
        self.log_interval, self.recovery_interval = log_interval, recovery_interval
        self.epoch = self.batch = 0  # of the next batch
        self.averages = Averages()
        self.evaluated: dict[str, float] = {}

    @property
    def updates(self) -> int:
        """Batches done since the beginning."""
        return self.epoch * len(self.loader) + self.batch

    def resume_or_start(self, folder: Path | None) -> None:
        """Goes on from a checkpoint or a file of PyTorch's, or begins if there is none.

        Raises CheckpointError if it is of another training.
        """
        if folder is None:
            self.run.rewind(0)  # of a run that was killed before its first checkpoint
            broadcast_parameters(self.step.net)
            return
        if is_torch_file(folder):
            self.load_torch(folder)
            return
        checkpoint = read_checkpoint(folder)
        missing = [name for name in (MODEL, OPTIMIZER, STATE) if name not in checkpoint.files]
        if missing:
            raise CheckpointError(f"{folder} holds no training to go on with: it lacks {', '.join(missing)}")
        self.load(checkpoint)
        self.run.rewind(self.epoch)
        log.info("going on from %s: epoch %d, batch %d", folder, self.epoch, self.batch)

    def fit(self) -> dict[str, float]:
        """Trains from where the last checkpoint ended, or from the beginning, and returns the last evaluation."""
        with preemption.deferred():
            while self.epoch < self.epochs:
                self.train_epoch()
                self.share_statistics()
                self.evaluated = self.evaluate_epoch()
                self.run.epoch(self.epoch, self.averages.read(), self.evaluated)
                log.info("epoch %d: %s", self.epoch, _text(self.evaluated))
                self.finish_epoch()
            if self.preempted():
                raise preemption.Preempted("ended by SIGTERM behind the last epoch", saved=True)
        return self.evaluated

    def evaluate_epoch(self) -> Mapping[str, float]:
        """What ``evaluate`` finds; after a SIGTERM saves what was trained, and raises Preempted."""
        if world_size() > 1:
            return self.evaluate(self.epoch)
        try:
            with preemption.acting():
                return self.evaluate(self.epoch)
        except preemption.Preempted:
            self.stop()

    def train_epoch(self) -> None:
        """The batches of one epoch that are still to do."""
        self.step.net.train()
        self.loader.set_epoch(self.epoch, start_batch=self.batch)
        started, seen = time.perf_counter(), 0
        with self.run.progress(len(self.loader), self.batch, f"epoch {self.epoch}") as bar:
            for images, labels in self.batches():
                # Dropout draws from Paddle's stream, whose state cannot be saved: begin it anew for every batch.
                paddle.seed(int(np.random.SeedSequence([self.seed, rank(), self.updates]).generate_state(1)[0]))
                metrics = self.step(images, labels, self.epoch)
                if isinstance(metrics["loss"], float):  # a tensor is not worth waiting for
                    self.check(metrics["loss"])
                self.averages.add(metrics, len(labels))
                self.batch += 1
                seen += len(labels) * world_size()
                if self.scheduler is not None:
                    self.scheduler.step_update(self.updates)
                bar.update()
                if self.batch % self.log_interval == 0 or self.batch == len(self.loader):
                    self.report(bar, seen / (time.perf_counter() - started))
                if self.recovery_interval and self.updates % self.recovery_interval == 0:
                    self.save_recovery()

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """What the loader brings; saves and raises Preempted in place of the next batch after a SIGTERM."""
        batches = iter(self.loader)
        while True:
            batch = trouble = None
            try:
                batch = next(batches, None)
            except Exception as error:  # perhaps because SIGTERM went to the loader's workers too
                trouble = error
            if self.preempted():
                self.stop()
            if trouble is not None:
                raise trouble
            if batch is None:
                return
            yield batch

    def stop(self) -> NoReturn:
        """Saves and raises Preempted."""
        self.save_recovery()
        place = f"epoch {self.epoch}, batch {self.batch}"
        raise preemption.Preempted(f"ended by SIGTERM and saved at {place}", saved=True)

    def preempted(self) -> bool:
        """Whether the training was asked to end."""
        return asked_to_end(waiting=self.batch % self.log_interval == 0 or self.batch == len(self.loader))

    def report(self, bar, images_per_second: float) -> None:
        """Logs the epoch's means so far; raises TrainingError if the loss is not finite."""
        means = self.averages.read()
        self.check(means["loss"])
        means["lr"] = group_lrs(self.step.optimizer)[0]
        self.run.scalars("train", means, self.updates)
        bar.set_postfix(loss=f"{means['loss']:.3f}", prec1=f"{means['prec1']:.1f}")
        log.info(
            "epoch %d [%d/%d] %s, %.0f images/s",
            self.epoch, self.batch, len(self.loader), _text(means), images_per_second,
        )  # fmt: skip

    def check(self, loss: float) -> None:
        """Raises TrainingError if the loss is not finite."""
        if not np.isfinite(loss):
            raise self.broken(f"the loss became {loss}")

    def check_weights(self) -> None:
        """Raises TrainingError if a weight is not finite: no loss has shown yet what the last update did.

        In all processes, though the running statistics of one alone may be the cause.
        """
        state = self.step.net.state_dict().values()
        broken = paddle.stack([~tensor.isfinite().all() for tensor in state])
        if all_reduce_sum(broken.astype("int64").sum()).item():
            raise self.broken("the weights are no longer finite")

    def broken(self, what: str) -> TrainingError:
        return TrainingError(
            f"{what} at epoch {self.epoch}, batch {self.batch}: try a lower LR or set CLIP_GRAD; "
            f"the checkpoints before it are in {self.saver.checkpoint_dir}"
        )

    @property
    def nets(self) -> list[nn.Layer]:
        """The net, and its moving average if there is one."""
        return [self.step.net] if self.step.ema is None else [self.step.net, self.step.ema.ema]

    def share_statistics(self) -> None:
        """Batch-norm statistics, each process's own while it trains, become the mean of all."""
        for net in self.nets:
            distribute_bn(net, reduce=True)

    def finish_epoch(self) -> None:
        """Moves to the next epoch and saves what was reached."""
        finished, metric = self.epoch, self.evaluated[self.metric]
        self.epoch, self.batch, self.averages = self.epoch + 1, 0, Averages()
        if self.scheduler is not None:
            self.scheduler.step(self.epoch, metric)
        self.save(self.saver.save_checkpoint, finished, metric=metric)

    def save_recovery(self) -> None:
        """Saves in the middle of an epoch."""
        self.save(self.saver.save_recovery, self.epoch, batch_idx=self.batch)

    def save(self, write: Callable, epoch: int, **kwargs) -> None:
        """Writes all that the next batch depends on by one of the saver's methods."""
        self.check_weights()
        state = {
            "epoch": self.epoch,
            "batch": self.batch,
            "averages": self.averages.state_dict(),
            "evaluated": dict(self.evaluated),
            "scheduler": self.scheduler.state_dict() if self.scheduler is not None else None,
            "step": self.step.state_dict(),
            # Inside an epoch each process has its own.
            "statistics": [gather_bn(net) for net in self.nets],
        }
        args = SimpleNamespace(**self.settings)
        write(self.step.net, self.step.optimizer, args, epoch, model_ema=self.step.ema, state=state, **kwargs)
        barrier()  # what the first process wrote the others may read

    def check_settings(self, recorded: Mapping[str, object], source: str) -> None:
        """Raises CheckpointError if a checkpoint is of a training with other settings."""
        changed = [
            f"{name} was {recorded[name]} and is {value}"
            for name, value in self.settings.items()
            if name in recorded and recorded[name] != value
        ]
        if changed:
            listed = ", ".join(changed[:5]) + (f" and {len(changed) - 5} more" if len(changed) > 5 else "")
            raise CheckpointError(
                f"{source} is of a training with other settings: {listed}; "
                "go on with the same ones, or begin anew with another MODEL or SAVE_PATH"
            )

    def load(self, checkpoint: Checkpoint) -> None:
        """Restores what ``save`` wrote."""
        source, files = str(checkpoint.folder), checkpoint.files
        self.check_settings(checkpoint.manifest["args"], source)
        constant_rate = self.step.optimizer.get_lr()
        load_state_dict_strictly(self.step.net, files[MODEL], source)
        load_optimizer_state(self.step.optimizer, self.step.net, files[OPTIMIZER])
        if self.step.ema is not None:
            if EMA not in files:
                raise CheckpointError(f"{source} has no moving average, which this training keeps")
            load_state_dict_strictly(self.step.ema.ema, files[EMA], source)
        state = files[STATE]
        self.epoch, self.batch = state["epoch"], state["batch"]
        self.averages.load_state_dict(state["averages"])
        self.evaluated = state["evaluated"]
        self.step.load_state_dict(state["step"])
        for net, rows in zip(self.nets, state["statistics"]):
            scatter_bn(net, rows)
        if self.scheduler is None:
            if isinstance(self.step.optimizer._learning_rate, float):  # not a schedule that somebody else steps
                self.step.optimizer.set_lr(constant_rate)
            return
        self.scheduler.load_state_dict(state["scheduler"])
        self.set_rates()

    def load_torch(self, path: Path) -> None:
        """Goes on behind the last epoch that a file of PyTorch's tells of, with its weights, averages and momentum.

        Raises CheckpointError if it is of another net, or no epoch is left.
        """
        _, epoch = resume_checkpoint(self.step.net, path, self.step.optimizer)
        if self.step.ema is not None:
            load_checkpoint(self.step.ema.ema, path, use_ema=None)
        self.epoch = epoch or 0
        if self.epoch >= self.epochs:
            raise CheckpointError(
                f"{path} has all of its {self.epoch} epochs behind it; EPOCHS={self.epochs} adds none"
            )
        if self.scheduler is not None:
            self.set_rates()
        log.info("going on from %s: epoch %d", path, self.epoch)

    def set_rates(self) -> None:
        """Today's rates, not those of a checkpoint: LR or EPOCHS may have changed since."""
        if self.epoch:
            self.scheduler.step(self.epoch)
        if self.updates:
            self.scheduler.step_update(self.updates)


def _text(metrics: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in metrics.items() if not np.isnan(value))
