"""The base of both supernet trainers: the training loop with the user's own loaders and schedules."""

from __future__ import annotations

import itertools
import logging
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
from cream.train.seeding import seed_dropout
from cream.train.steps import SinglePathStep
from pimm.data.loader import Loader, PrefetchLoader
from pimm.engine import RunLog, Trainer, Update, train_mode
from pimm.errors import ConfigError, DataError, check_whole
from pimm.utils import CheckpointSaver, latest_checkpoint, world_size
from pimm.utils.labels import class_labels

_logger = logging.getLogger(__name__)

# Arguments of NNI that have no effect here, and what decides in their place.
DECIDED_ELSEWHERE = {
    "batch_size": "the loaders",
    "workers": "the loaders",
    "device": "paddle.set_device",
    "local_rank": "paddle.distributed.launch",
    "distributed": "paddle.distributed.launch",
}


class Batches:
    """Wraps a user's loader for the training loop; the loader has a length and yields (images, labels).

    Labels are classes, [N] or [N, 1]. With a loader of `pimm.data`, a training that resumes inside an epoch gets the
    remaining batches of that epoch. Any other loader starts the epoch again, and as many batches are skipped as were
    done; the remaining batches may then hold other images.

    Args:
        loader: the user's loader.
        least: the smallest number of images in a batch; DataError for fewer.
    """

    def __init__(self, loader: Iterable, least: int = 1):
        self.loader, self.least, self.done = loader, least, 0

    def __len__(self) -> int:
        return len(self.loader)

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        """Start an epoch at one of its batches."""
        if isinstance(self.loader, (Loader, PrefetchLoader)):
            self.loader.set_epoch(epoch, start_batch)
            return
        self.done = start_batch
        sampler = getattr(self.loader, "batch_sampler", None)
        if hasattr(sampler, "set_epoch"):  # paddle.io.DistributedBatchSampler shuffles by the epoch
            sampler.set_epoch(epoch)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in itertools.islice(self.loader, self.done, None):
            labels = class_labels(labels)
            if len(labels) < self.least:
                raise DataError(
                    f"a batch has {len(labels)} images; must be at least {self.least}, two slices, so that the "
                    "matching network can learn: take larger batches, and drop_last=True"
                )
            yield images, labels


class EveryBatch:
    """Steps a schedule of Paddle after every batch."""

    def __init__(self, schedule: LRScheduler):
        self.schedule = schedule

    def step_update(self, updates: int) -> None:
        """Step the schedule until it has counted all updates."""
        while self.schedule.last_epoch < updates:
            self.schedule.step()

    def step(self, epoch: int, metric: float | None = None) -> None:
        """Do nothing: ``step_update`` has counted the batches of the epoch."""

    def state_dict(self) -> dict:
        """Return the state of the schedule."""
        return self.schedule.state_dict()

    def load_state_dict(self, state: dict) -> None:
        """Restore what ``state_dict`` returned."""
        self.schedule.set_state_dict(state)


class SupernetTrainer:
    """Trains a supernet with the user's own loss, optimizer, loaders and schedule; the base of both trainers.

    Args:
        make_step: returns the training step; its arguments are net, loss, update, sampler and random generator.
        model: the supernet.
        loss: maps logits and labels to the batch's mean loss.
        optimizer: of Paddle or pimm; it holds the model's parameters.
        num_epochs: number of epochs.
        train_loader: batches of images and labels.
        valid_loader: the same for validation.
        mutator: draws the path of each batch.
        log_frequency: number of batches between two lines of the log, by default an epoch's.
        callbacks: each is called with (epoch, metrics) after an epoch.
        lr_scheduler: of `pimm.scheduler`, or Paddle's own, which is stepped after every batch.
        amp: compute in float16 on an accelerator.
        clip_grad: largest norm of all gradients together.
        probes: number of fixed paths over which ``validate`` averages.
        seed: the seed of the fixed paths and of dropout.
        folder: the folder of log, summary.csv, VisualDL's records and checkpoints; without a folder nothing is written.
            A training in the same folder resumes, with the same result as without a break if the break came after an
            epoch or the loader is one of `pimm.data`. Random streams inside other loaders are not saved.
        recovery_interval: number of batches between two checkpoints inside epochs, 0 for none.
        inherited: further arguments of NNI, which are ignored; the log says what decides in their place.

    Raises:
        ConfigError: the schedule is Paddle's ReduceOnPlateau.
        TypeError: an argument is unknown to NNI, too.
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
        for name, value, least in (("num_epochs", num_epochs, 1), ("probes", probes, 1), ("seed", seed, 0)):
            check_whole(name, value, least)
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
        self.folder = Path(folder) if folder else None
        self.loop: Trainer | None = None

    def train(self) -> dict[str, float]:
        """Train to the last epoch, resuming what was interrupted, and return the last validation."""
        if self.folder:
            self.folder.mkdir(parents=True, exist_ok=True)
        with RunLog(self.folder, loggers=("cream", "pimm")) as run:
            if self.loop is None:
                loop = self._make_loop(run)
                loop.resume_or_start(latest_checkpoint(self.folder) if self.folder else None)
                self.loop = loop  # only now, so that a folder of another training is refused at every call
            self.loop.run, self.loop.epochs = run, self.num_epochs
            return self.loop.fit()

    def _make_loop(self, run: RunLog) -> Trainer:
        return Trainer(
            self.step,
            self.train_loader,
            [self.validate],
            epochs=self.num_epochs,
            scheduler=self.lr_scheduler,
            saver=CheckpointSaver(checkpoint_dir=str(self.folder)) if self.folder else None,
            run=run,
            seed_batch=partial(seed_dropout, self.seed, len(self.train_loader)),
            after_epoch=[self._call_back],
            settings={**self.settings(), "number of processes": world_size()},
            log_interval=self.log_frequency or max(len(self.train_loader), 1),
            recovery_interval=self.recovery_interval,
        )

    def settings(self) -> dict[str, object]:
        """Return the settings that a resumed training must share with the interrupted one, as plain data."""
        return {"choices": [list(stage) for stage in self.model.space.choices], "seed": self.seed}

    def _call_back(self, epoch: int, trained: Mapping, validated: Mapping) -> None:
        for callback in self.callbacks:
            callback(epoch, validated)

    def validate(self) -> dict[str, float]:
        """Return the mean loss and accuracies of fixed paths on all validation images, so that epochs compare."""
        found = [self.validate_path(arch) for arch in self.probes]
        return {name: sum(metrics[name] for metrics in found) / len(found) for name in found[0]}

    def validate_path(self, arch: Arch) -> dict[str, float]:
        """Return loss and accuracies of one path on the validation images, without recalibration."""
        with train_mode(self.model, training=False):
            return evaluate(partial(self.model, arch=arch), self.valid_loader)


def pass_over(inherited: Mapping[str, object]) -> None:
    """Log that an argument of NNI is ignored, and what decides instead; raise TypeError for an unknown argument."""
    for name in inherited:
        if name not in DECIDED_ELSEWHERE:
            raise TypeError(f"there is no argument {name!r:.80}")
        _logger.info("%s is ignored: %s decides", name, DECIDED_ELSEWHERE[name])
