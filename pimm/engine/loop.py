"""The one training loop: batches, evaluation, schedule, records and checkpoints; a step says what a batch does."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Callable, NoReturn

import paddle
from paddle import Tensor

from pimm import preemption
from pimm.data import class_names
from pimm.engine.metrics import MeanMetrics
from pimm.engine.resume import load_checkpoint_folder, load_weights_file
from pimm.engine.run_log import RunLog
from pimm.engine.steps import Step
from pimm.errors import ConfigError, DataError, TrainingError, check_whole
from pimm.optim import group_lrs
from pimm.utils import (
    CheckpointSaver,
    all_reduce_sum,
    asked_to_end,
    barrier,
    broadcast_parameters,
    distribute_bn,
    gather_bn,
    is_main_process,
    is_same_everywhere,
    rank,
    world_size,
)

_logger = logging.getLogger(__name__)

Metrics = Mapping[str, float]

SHARED_STATISTICS = ("reduce", "broadcast", "")


class Trainer:
    """Trains for ``epochs`` epochs: batches, evaluation, records, schedule and checkpoint, in this order.

    A checkpoint is written after every epoch and every ``recovery_interval`` updates, and holds all that the next batch
    depends on: a resumed training continues as if there had been no break.

    Args:
        step: what one batch does.
        loader: batches of images and labels; it has a length and ``set_epoch(epoch, start_batch)``.
        evaluators: each returns metrics after an epoch, and leaves the training as it was.
        epochs: number of epochs.
        scheduler: of `pimm.scheduler`, or None for the optimizer's own rates.
        saver: writes the checkpoints, or None where none are wanted.
        run: the records of the run.
        seed_batch: called with the epoch and the batch; starts the random streams of that batch anew, because their
            state cannot be saved.
        settings: the settings that a resumed training must share with the interrupted one, as plain data.
        layout: further values, such as the number of processes, that must be the same to resume inside an epoch.
        recorded: the settings that a checkpoint's manifest records, by default ``settings``.
        metric: the name of the metric that ranks checkpoints and guides the scheduler.
        before_epoch: hooks called with the epoch before its first batch, also after a resume inside it.
        after_epoch: hooks called with the epoch, its training metrics and the evaluators' metrics, before the epoch's
            row and checkpoint are written.
        share_statistics: ``reduce`` or ``broadcast`` the batch-norm statistics of all processes before an evaluation;
            empty leaves each process its own.
        log_interval: number of updates between two lines of the log.
        recovery_interval: number of updates between two checkpoints inside epochs, 0 for none.
        remedy: the advice in the error of a diverging training.

    Raises:
        ConfigError: an interval out of bounds, or another ``share_statistics``.

    Raises (from ``fit``):
        ConfigError: neither the step nor an evaluator gives ``metric``, or the processes have different settings or
            checkpoints.
        DataError: the loader gives no batch, or not as many as its length where several batches make an update; or the
            processes have different numbers of batches or different classes.
        TrainingError: the loss or a weight is no longer finite; such weights are never saved.
        Preempted: SIGTERM has come, and the current update is done and saved; several processes on accelerators train
            until the next line of the log first. One process breaks off an evaluation, and repeats the evaluation when
            it resumes; several processes finish the evaluation first.
    """

    def __init__(
        self,
        step: Step,
        loader,
        evaluators: Sequence[Callable[[], Metrics]],
        *,
        epochs: int,
        scheduler,
        saver: CheckpointSaver | None,
        run: RunLog,
        seed_batch: Callable[[int, int], None],
        settings: Mapping[str, object],
        layout: Mapping[str, object] | None = None,
        recorded: Mapping[str, object] | None = None,
        metric: str = "prec1",
        before_epoch: Sequence[Callable[[int], None]] = (),
        after_epoch: Sequence[Callable[[int, Metrics, Metrics], None]] = (),
        share_statistics: str = "reduce",
        log_interval: int = 50,
        recovery_interval: int = 0,
        remedy: str = "try a lower learning rate, or clip the gradients",
    ):
        check_whole("log_interval", log_interval, least=1)
        check_whole("recovery_interval", recovery_interval, least=0)
        if share_statistics not in SHARED_STATISTICS:
            raise ConfigError(f"share_statistics is {share_statistics!r:.80}; must be reduce, broadcast or empty")
        self.step, self.loader, self.evaluators = step, loader, evaluators
        self.epochs, self.scheduler, self.saver, self.run = epochs, scheduler, saver, run
        self.seed_batch = seed_batch
        self.settings, self.layout = settings, layout or {}
        self.recorded = settings if recorded is None else recorded
        self.metric = metric
        self.before_epoch, self.after_epoch = before_epoch, after_epoch
        self.share_statistics = share_statistics
        self.log_interval, self.recovery_interval = log_interval, recovery_interval
        self.remedy = remedy
        self.epoch = self.batch = 0  # both of the next batch
        self.metrics = MeanMetrics()
        self.evaluated: dict[str, float] = {}
        self.first_rate = step.update.optimizer.get_lr()
        self.unstepped = scheduler.state_dict() if scheduler is not None else None  # the state before the first step

    # Where the training stands

    @property
    def updates_per_epoch(self) -> int:
        """Number of updates in an epoch."""
        return math.ceil(len(self.loader) / self.step.update.accumulate)

    @property
    def updates(self) -> int:
        """Number of updates done since the beginning."""
        return self.epoch * self.updates_per_epoch + math.ceil(self.batch / self.step.update.accumulate)

    @property
    def at_report(self) -> bool:
        """Whether the log gets a line after the last batch."""
        done = math.ceil(self.batch / self.step.update.accumulate)
        return done % self.log_interval == 0 or self.batch == len(self.loader)

    def go_to(self, epoch: int, batch: int = 0) -> None:
        """Set the place of the next batch; ``set_rates`` sets the learning rates for this place."""
        self.epoch, self.batch, self.metrics = epoch, batch, MeanMetrics()
        self.step.update.count = self.updates

    def set_rates(self) -> None:
        """Set the learning rates that this training's own options give here; a checkpoint may have other rates."""
        if self.scheduler is None:
            optimizer = self.step.update.optimizer
            if isinstance(optimizer._learning_rate, float):  # otherwise a schedule of the caller's own
                optimizer.set_lr(self.first_rate)
            return
        if self.epoch:
            self.scheduler.step(self.epoch)
        else:
            self.scheduler.load_state_dict(self.unstepped)
        if self.updates:
            self.scheduler.step_update(self.updates)

    # Start and resume

    def resume_or_start(self, source: Path | None, *, with_optimizer: bool = True, strict: bool = True) -> None:
        """Resume from a checkpoint, or start where there is none.

        Args:
            source: folder of a checkpoint, file of weights, or file of PyTorch's training code; None starts anew.
            with_optimizer: restore the whole state; False restores the weights and the epoch alone.
            strict: refuse a checkpoint that lacks the optimizer, the loop's state, or the moving average that this
                training keeps, or that leaves no epoch to train; otherwise the missing parts start anew.

        Raises:
            CheckpointError: the checkpoint belongs to another training.
        """
        if source is None:
            self.run.rewind(0)  # removes the rows of a run that was killed before its first checkpoint
            broadcast_parameters(self.step.net)
            return
        load = load_checkpoint_folder if source.is_dir() else load_weights_file
        load(self, source, with_optimizer=with_optimizer, strict=strict)
        self.run.rewind(self.epoch)
        _logger.info("resuming from %s: epoch %d, batch %d", source, self.epoch, self.batch)

    def start_at(self, epoch: int) -> None:
        """Start at the first batch of an epoch, with the learning rates of that epoch."""
        self.go_to(epoch)
        self.set_rates()
        self.run.rewind(epoch)

    # The loop

    def fit(self) -> dict[str, float]:
        """Train the remaining epochs, and return the last evaluation."""
        self.check_processes()
        self.started, self.first_epoch = time.perf_counter(), self.epoch
        with preemption.deferred():
            while self.epoch < self.epochs:
                self.train_epoch()
                for net in self.step.nets if self.share_statistics else ():
                    distribute_bn(net, reduce=self.share_statistics == "reduce")
                trained, self.evaluated = self.metrics.read(), self.evaluate_epoch()
                for hook in self.after_epoch:
                    hook(self.epoch, trained, self.evaluated)
                rates = group_lrs(self.step.update.optimizer)
                self.run.epoch(self.epoch, trained, self.evaluated, lr=sum(rates) / len(rates))
                if self.evaluated:
                    _logger.info(
                        "epoch %d evaluated (%d/%d, %s left): %s",
                        *(self.epoch, self.epoch + 1, self.epochs, self.time_left(), _text(self.evaluated)),
                    )
                self.finish_epoch(self.ranking({**trained, **self.evaluated}))
            if self.preempted():
                raise preemption.Preempted("ended by SIGTERM after the last epoch", saved=self.saves)
        return self.evaluated

    def check_processes(self) -> None:
        """Raise an error in all processes if one trains otherwise, or on other batches or classes, than the first."""
        shared = [self.epochs, self.epoch, self.batch, self.settings, self.layout]
        if not is_same_everywhere(json.dumps(shared, default=str)):
            place = f"number {rank()} begins at epoch {self.epoch}, batch {self.batch}, of {self.epochs} epochs"
            raise ConfigError(f"the processes have different settings or checkpoints: {place}; all must have the same")
        dataset = getattr(self.loader, "dataset", None)
        classes = class_names(dataset) if getattr(dataset, "class_to_idx", None) else []
        if not is_same_everywhere(json.dumps([len(self.loader), classes], default=str)):
            named = f" of {len(classes)} classes ({', '.join(classes):.80})" if classes else ""
            raise DataError(
                f"the processes see different images: number {rank()} has {len(self.loader)} batches in an epoch"
                f"{named}; all must read one data set"
            )

    def time_left(self) -> str:
        """Return the time that the remaining epochs will take, judged by the epochs that this process has trained."""
        taken = (time.perf_counter() - self.started) / (self.epoch + 1 - self.first_epoch)
        return str(timedelta(seconds=round(taken * (self.epochs - self.epoch - 1))))

    def train_epoch(self) -> None:
        """Train the remaining batches of the epoch."""
        for hook in self.before_epoch:
            hook(self.epoch)
        self.step.net.train()
        self.loader.set_epoch(self.epoch, start_batch=self.batch)
        update = self.step.update
        update.start_epoch(len(self.loader), self.batch)
        started, images_seen = time.perf_counter(), 0
        with self.run.progress(len(self.loader), self.batch, f"epoch {self.epoch}") as bar:
            for images, labels in self.batches():
                self.seed_batch(self.epoch, self.batch)
                self.metrics.add(self.step(images, labels, self.epoch), len(labels))
                self.batch += 1
                images_seen += len(labels) * world_size()
                bar.update()
                if not update.complete:
                    continue
                if self.scheduler is not None:
                    self.scheduler.step_update(self.updates)
                if self.at_report:
                    self.report(bar, images_seen / (time.perf_counter() - started))
                if self.recovery_interval and self.updates % self.recovery_interval == 0:
                    self.save_recovery()
        if not self.batch or (update.accumulate > 1 and self.batch != len(self.loader)):
            raise DataError(
                f"the loader gave {self.batch} batches in epoch {self.epoch}, and its length is {len(self.loader)}: "
                "gradients of an unfinished update would be left over"
            )

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the loader's batches; after a SIGTERM, save between two updates and raise Preempted."""
        batches = iter(self.loader)
        while True:
            batch = trouble = None
            try:
                batch = next(batches, None)
            except Exception as error:  # SIGTERM may have ended the loader's workers, too
                trouble = error
            if self.step.update.complete and self.preempted():
                self.stop()
            if trouble is not None:
                raise trouble
            if batch is None:
                return
            yield batch

    def evaluate_epoch(self) -> dict[str, float]:
        """Return the metrics of all evaluators; after a SIGTERM, save the trained epoch and raise Preempted."""
        if world_size() > 1:
            return self._evaluate()
        try:
            with preemption.acting():
                return self._evaluate()
        except preemption.Preempted:
            self.stop()

    def _evaluate(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for evaluator in self.evaluators:
            found.update(evaluator())
        return found

    def report(self, bar, images_per_second: float) -> None:
        """Write the means of the epoch so far into log and curves; raise TrainingError if the loss is not finite."""
        means = self.metrics.read()
        if not math.isfinite(means["loss"]):
            raise self.broken(f"the loss became {means['loss']}")
        means["lr"] = group_lrs(self.step.update.optimizer)[0]
        self.run.scalars("train", means, self.updates)
        bar.set_postfix({name: f"{means[name]:.4g}" for name in ("loss", "prec1") if name in means})
        _logger.info(
            "epoch %d [%d/%d] %s, %.0f images/s",
            *(self.epoch, self.batch, len(self.loader), _text(means), images_per_second),
        )

    def ranking(self, metrics: Metrics) -> float:
        """Return the metric that ranks checkpoints; raise ConfigError if nothing gives it."""
        if self.metric not in metrics:
            raise ConfigError(f"no checkpoint can be ranked by {self.metric!r:.80}; there are {', '.join(metrics)}")
        return metrics[self.metric]

    def finish_epoch(self, metric: float) -> None:
        """Move to the next epoch, step the schedule, and save a checkpoint; ``metric`` ranks the checkpoint."""
        finished = self.epoch
        self.go_to(finished + 1)
        if self.scheduler is not None:
            self.scheduler.step(self.epoch, metric)
        self.save("save_checkpoint", finished, metric=metric)

    # Stopping early

    @property
    def saves(self) -> bool:
        """Whether this training writes checkpoints; processes after the first assume that the first has a saver."""
        return self.saver is not None or not is_main_process()

    def preempted(self) -> bool:
        """Return whether SIGTERM asked the training to end."""
        return asked_to_end(waiting=self.at_report)

    def stop(self) -> NoReturn:
        """Save a checkpoint and raise Preempted."""
        self.save_recovery()
        what = f"saved in {self.saver.checkpoint_dir}" if self.saver is not None else "nothing was to be saved"
        place = f"epoch {self.epoch}, batch {self.batch}"
        raise preemption.Preempted(f"ended by SIGTERM and {what} at {place}", saved=self.saves)

    def broken(self, what: str) -> TrainingError:
        """Return the error of a training that diverged."""
        kept = f"; the checkpoints before it are in {self.saver.checkpoint_dir}" if self.saver is not None else ""
        return TrainingError(f"{what} at epoch {self.epoch}, batch {self.batch}: {self.remedy}{kept}")

    # Saving

    def save_recovery(self) -> None:
        """Save a checkpoint inside an epoch."""
        self.save("save_recovery", self.epoch, batch_idx=self.batch)

    def save(self, method: str, epoch: int, **named) -> None:
        """Write a checkpoint, with all that the next batch depends on, by the named method of the saver."""
        self.check_weights()
        state = {
            "epoch": self.epoch,
            "batch": self.batch,
            "averages": self.metrics.state_dict(),
            "evaluated": dict(self.evaluated),
            "scheduler": self.scheduler.state_dict() if self.scheduler is not None else None,
            "step": self.step.state_dict(),
            "layout": dict(self.layout),
            "statistics": [gather_bn(net) for net in self.step.nets],  # inside an epoch each process has its own
        }
        if self.saver is not None:
            args, optimizer = SimpleNamespace(**self.recorded), self.step.update.optimizer
            write = getattr(self.saver, method)
            write(self.step.net, optimizer, args, epoch, model_ema=self.step.ema, state=state, **named)
        barrier()  # after it the other processes may read the checkpoint that the first one wrote

    def check_weights(self) -> None:
        """Raise TrainingError in all processes if any process has a weight or running statistic that is not finite."""
        state = self.step.net.state_dict().values()
        broken = paddle.stack([~tensor.isfinite().all() for tensor in state])
        if all_reduce_sum(broken.astype("int64").sum()).item():
            raise self.broken("the weights are no longer finite")


def _text(metrics: Metrics) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in metrics.items() if not math.isnan(value))
