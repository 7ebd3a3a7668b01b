"""The plan of a retraining or test: the net, its training step and its images."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from paddle import nn

from cream.build.data import evaluation_loader, image_settings, open_images, open_split, training_loader
from cream.build.families import child_net
from cream.build.recipe import classify_step, loop_options, timm_args
from cream.config import Config
from cream.config.schema import Net, Supernet
from pimm.data import class_names
from pimm.data.loader import Loader
from pimm.engine import ClassifyStep, RunLog
from pimm.errors import ConfigError
from pimm.models import load_initial_weights
from pimm.scheduler import create_scheduler
from pimm.train_teacher import teach
from pimm.utils import freeze_matching

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RetrainPlan:
    """What a retraining consists of: the training step, with net and moving average, and the images."""

    cfg: Config
    step: ClassifyStep
    epochs: int
    scheduler: object
    train_loader: Loader
    val_loader: Loader

    def loop_options(self, run: RunLog) -> dict:
        """Return the options of the training loop."""
        return loop_options(self.cfg, run, self.epochs, self.scheduler, self.train_loader)

    def switch_mixup(self, epoch: int) -> None:
        """Mix images in the epochs before MIXUP_OFF_EPOCH; 0 means in all of them."""
        self.train_loader.mixup_enabled = not 0 < self.cfg.AUGMENTATION.MIXUP_OFF_EPOCH <= epoch


def plan_retraining(cfg: Config, teacher: tuple | None = None) -> RetrainPlan:
    """Turn the settings into the plan of a retraining; the net starts from NET.INITIAL_WEIGHTS, if given.

    A classifier of other classes begins anew.

    Args:
        cfg: the settings.
        teacher: the net of KD.CHECKPOINT and how it sees images, as `cream.deploy.source.load` returns them; or None.

    Raises:
        ConfigError: settings that name no net, nothing to freeze, or a teacher of another number of classes.
        DataError: images that cannot be used, or that are not of the teacher's classes.
        CheckpointError: initial weights of another net.
    """
    check_named_net(cfg)
    if cfg.SCHED != "sgd" and 0 < cfg.EPOCHS <= cfg.WARMUP_EPOCHS:
        _logger.warning("EPOCHS=%d are all warm-up: WARMUP_EPOCHS=%d should be fewer", cfg.EPOCHS, cfg.WARMUP_EPOCHS)
    spec, net = child_net(cfg)
    images = open_images(cfg)
    train_loader = training_loader(cfg, images.train, spec.resolution, cfg.AUGMENTATION.AA, cfg.AUGMENTATION.MIXUP)
    val_loader = evaluation_loader(cfg, images.val, spec.resolution)
    if cfg.NET.INITIAL_WEIGHTS:
        load_initial_weights(net, cfg.NET.INITIAL_WEIGHTS)
    if cfg.NET.FREEZE:
        freeze_matching(net, cfg.NET.FREEZE)
    if teacher is not None:
        given = image_settings(cfg, spec.resolution)
        classes = class_names(train_loader.dataset)
        teacher = teach(*teacher, given, cfg.DATASET.NUM_CLASSES, classes, cfg.KD.CHECKPOINT)
    step = classify_step(cfg, net, teacher)
    scheduler, epochs = create_scheduler(timm_args(cfg), step.update.optimizer, len(train_loader))
    cooldown = epochs - cfg.EPOCHS
    if cooldown > cfg.EPOCHS:
        _logger.warning("EPOCHS=%d are followed by COOLDOWN_EPOCHS=%d at MIN_LR", cfg.EPOCHS, cooldown)
    return RetrainPlan(cfg, step, epochs, scheduler, train_loader, val_loader)


def net_to_test(cfg: Config) -> tuple[nn.Layer, Loader, int]:
    """Return the net that ``cfg.NET`` names, without its weights, the validation images, and the side of an image."""
    check_named_net(cfg)
    spec, net = child_net(cfg)
    loader = evaluation_loader(cfg, open_split(cfg, ("val", "validation")), spec.resolution)
    return net, loader, spec.resolution


def check_named_net(cfg: Config) -> None:
    """Raise ConfigError for the settings of a search, which name no net to train or test."""
    if Supernet() != cfg.SUPERNET and cfg.NET.INPUT_ARCH is None and cfg.NET.SELECTION == Net().SELECTION:
        raise ConfigError(
            "these are the settings of a search, with SUPERNET.*, and name no net: the search wrote a retrain.yaml for "
            "the net that it found; otherwise give NET.INPUT_ARCH, or NET.SELECTION without SUPERNET.*"
        )
