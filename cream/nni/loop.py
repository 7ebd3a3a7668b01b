"""What both supernet trainers share: the loop, with the user's own loaders and schedules."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Callable

import numpy as np
import paddle
from paddle import Tensor
from paddle.optimizer.lr import LRScheduler, ReduceOnPlateau

from cream.nni.mutator import SPOSSupernetTrainingMutator
from cream.space import Arch
from cream.supernet import SuperNet
from cream.train.evaluation import evaluate
from cream.train.runlog import RunLog, log
from cream.train.steps import SinglePathStep, Update
from cream.train.trainer import Trainer
from pimm.data.loader import Loader, PrefetchLoader
from pimm.engine.evaluation import train_mode
from pimm.errors import ConfigError, DataError
from pimm.utils import CheckpointSaver, latest_checkpoint, world_size

# Arguments of NNI's that something else decides here.
DECIDED_ELSEWHERE = {
    "batch_size": "the loaders",
    "workers": "the loaders",
    "device": "paddle.set_device",
    "local_rank": "paddle.distributed.launch",
    "distributed": "paddle.distributed.launch",
}


class Batches:
    """A loader of the user's, as the training loop asks for it: any with a length and (images, labels) inside.

    Labels are classes, [N] or [N, 1]. Of a loader of `pimm.data` a training that goes on in the middle of an epoch gets
    the batches that were left. Any other begins each epoch by itself, and only as many batches are passed over as were
    done: their images may be others. Raises DataError for batches of fewer than ``least`` images.
    """

    def __init__(self, loader: Iterable, least: int = 1):
        self.loader, self.least, self.done = loader, least, 0

    def __len__(self) -> int:
        return len(self.loader)

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        if isinstance(self.loader, (Loader, PrefetchLoader)):
            self.loader.set_epoch(epoch, start_batch)
            return
        self.done = start_batch
        sampler = getattr(self.loader, "batch_sampler", None)
        if hasattr(sampler, "set_epoch"):  # paddle.io.DistributedBatchSampler shuffles by it
            sampler.set_epoch(epoch)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in itertools.islice(self.loader, self.done, None):
            if labels.ndim == 2 and labels.shape[1] == 1:
                labels = labels.flatten()
            if labels.ndim != 1:
                raise DataError(f"labels are {labels.shape}; must be classes, [N] or [N, 1]")
            if len(labels) < self.least:
                raise DataError(
                    f"a batch has {len(labels)} images; must be at least {self.least}, two slices, so that the "
                    "matching network can learn: take larger batches, and drop_last=True"
                )
            yield images, labels


class EveryBatch:
    """A schedule of Paddle's, which goes one step with every batch."""

    def __init__(self, schedule: LRScheduler):
        self.schedule = schedule

    def step_update(self, updates: int) -> None:
        while self.schedule.last_epoch < updates:
            self.schedule.step()

    def step(self, epoch: int, metric: float | None = None) -> None:
        """Nothing: an epoch's last batch has been counted."""

    def state_dict(self) -> dict:
        return self.schedule.state_dict()

    def load_state_dict(self, state: dict) -> None:
        self.schedule.set_state_dict(state)


class Unsaved:
    """In place of a CheckpointSaver where nothing is to be written."""

    checkpoint_dir = "no folder, as none was asked for"

    def save_checkpoint(self, *args, **kwargs) -> None:
        """Nothing."""

    save_recovery = save_checkpoint


class SupernetTrainer:
    """What both supernet trainers share; ``make_step`` gets net, loss, update, sampler and random generator.

    Beside NNI's, options are:

    - ``callbacks``: each is called with (epoch, metrics) after an epoch.
    - ``lr_scheduler``: of `pimm.scheduler`, or Paddle's own, stepped after every batch.
    - ``amp`` (float16 on a GPU) and ``clip_grad`` (norm of all gradients).
    - ``probes``: number of fixed paths that ``validate`` averages over.
    - ``seed``: of the probes and of dropout.
    - ``folder``: gets log, summary.csv, VisualDL's records and checkpoints, after every epoch and every
      ``recovery_interval`` batches; a training of the same folder goes on where the last one ended: exactly after an
      epoch, and inside one with a loader of `pimm.data`. Loaders with a random stream of their own are not saved.

    ``log_frequency`` is the number of batches between two lines of the log, by default an epoch's.
    """

    def __init__(
        self,
        make_step: Callable[..., SinglePathStep],
        model: SuperNet,
        loss: Callable[[Tensor, Tensor], Tensor],
        optimizer: paddle.optimizer.Optimizer,
        num_epochs: int,
        train_loader: Batches,
        valid_loader: Batches,
        mutator: SPOSSupernetTrainingMutator,
        *,
        log_frequency: int | None = None,
        callbacks: Sequence[Callable[[int, dict], None]] | None = None,
        lr_scheduler=None,
        amp: bool = False,
        clip_grad: float | None = None,
        probes: int = 4,
        seed: int = 42,
        folder: str | Path | None = None,
        recovery_interval: int = 0,
        **inherited: object,
    ):
        pass_over(inherited)
        self.model, self.num_epochs = model, num_epochs
        self.train_loader, self.valid_loader = train_loader, valid_loader
        self.step = make_step(model, loss, Update(optimizer, amp, clip_grad), mutator.sampler, mutator.rng)
        self.log_frequency, self.callbacks = log_frequency, callbacks or ()
        if isinstance(lr_scheduler, ReduceOnPlateau):
            raise ConfigError(
                "lr_scheduler is Paddle's ReduceOnPlateau; must be pimm's PlateauLRScheduler in its place"
            )
        self.lr_scheduler = EveryBatch(lr_scheduler) if isinstance(lr_scheduler, LRScheduler) else lr_scheduler
        rng = np.random.default_rng([seed, 2])
        self.probes = list(dict.fromkeys(mutator.sampler(rng) for _ in range(probes)))
        self.seed, self.recovery_interval = seed, recovery_interval
        self.folder = None if folder is None else Path(folder)
        self.loop: Trainer | None = None

    def train(self) -> dict[str, float]:
        """Trains to the last epoch, or goes on with what was interrupted, and returns the last validation."""
        if self.folder:
            self.folder.mkdir(parents=True, exist_ok=True)
        run = RunLog(self.folder)
        try:
            if self.loop is None:
                loop = self._make_loop(run)
                loop.resume_or_start(latest_checkpoint(self.folder) if self.folder else None)
                self.loop = loop  # not before: a folder of another training is refused the second time too
            self.loop.run = run
            return self.loop.fit()
        finally:
            run.close()

    def _make_loop(self, run: RunLog) -> Trainer:
        return Trainer(
            self.step,
            self.train_loader,
            self._finish_epoch,
            epochs=self.num_epochs,
            scheduler=self.lr_scheduler,
            saver=CheckpointSaver(checkpoint_dir=str(self.folder)) if self.folder else Unsaved(),
            run=run,
            seed=self.seed,
            settings={**self.settings(), "number of processes": world_size()},
            log_interval=self.log_frequency or len(self.train_loader),
            recovery_interval=self.recovery_interval,
        )

    def settings(self) -> dict[str, object]:
        """What a training that goes on must have in common with what it was, as plain data."""
        return {"choices": [list(stage) for stage in self.model.space.choices], "seed": self.seed}

    def _finish_epoch(self, epoch: int) -> dict[str, float]:
        metrics = self.validate()
        for callback in self.callbacks:
            callback(epoch, metrics)
        return metrics

    def validate(self) -> dict[str, float]:
        """Means of loss and accuracies over all validation images and over fixed paths, so that epochs compare."""
        found = [self.validate_path(arch) for arch in self.probes]
        return {name: sum(metrics[name] for metrics in found) / len(found) for name in found[0]}

    def validate_path(self, arch: Arch) -> dict[str, float]:
        """Loss and accuracies of one path on the validation images, with the supernet's batch-norm statistics."""
        with train_mode(self.model, training=False):
            return evaluate(partial(self.model, arch=arch), self.valid_loader)


def pass_over(inherited: Mapping[str, object]) -> None:
    """Says who decides what an argument of NNI's would have; TypeError for one that is not NNI's either."""
    for name in inherited:
        if name not in DECIDED_ELSEWHERE:
            raise TypeError(f"there is no argument {name!r}")
        log.info("%s is passed over: %s decides", name, DECIDED_ELSEWHERE[name])
