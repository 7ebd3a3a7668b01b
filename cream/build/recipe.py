"""The recipe of a training: optimizer, schedule and options of the loop; and the recipe that a search writes."""

from __future__ import annotations

import copy
from functools import partial
from types import SimpleNamespace

import paddle
from paddle import nn

from cream.config import Config, load_config
from cream.config.keys import resume_settings
from cream.space import Arch
from cream.supernet import SuperNet
from cream.train.seeding import seed_dropout
from pimm.data import class_names
from pimm.data.loader import Loader
from pimm.engine import ClassifyStep, DistillStep, RunLog, Teacher, Update
from pimm.loss import (
    LabelSmoothingCrossEntropy,
    LogitDistillationLoss,
    SoftTargetCrossEntropy,
    distillation_weights,
)
from pimm.optim import create_optimizer, param_groups_weight_decay
from pimm.scheduler import LinearLRScheduler, create_scheduler
from pimm.utils import CheckpointSaver, ModelEma, world_size

PAPER_RECIPE = (
    *("OPT=rmsproptf", "OPT_EPS=1e-3", "LR=0.064", "WEIGHT_DECAY=1e-5", "SCHED=cosine", "EPOCHS=500"),
    *("WARMUP_EPOCHS=3", "WARMUP_LR=1e-6", "NET.DROPOUT_RATE=0.2", "NET.EMA.DECAY=0.9999"),
    *("DATASET.BATCH_SIZE=128", "DATASET.INTERPOLATION=bicubic", "AUGMENTATION.AA=rand-m9-mstd0.5"),
)


def timm_args(cfg: Config) -> SimpleNamespace:
    """Return the settings as the attributes that timm's factories of optimizers and schedules read."""
    args = SimpleNamespace(**{name.lower(): value for name, value in vars(cfg).items()})
    args.plateau_mode = "min" if cfg.EVAL_METRICS == "loss" else "max"
    return args


def supernet_optimizer(cfg: Config, net: SuperNet) -> paddle.optimizer.Optimizer:
    """Return the optimizer of the shared weights; a matching network learns at the rate META_LR and without decay."""
    matching = net.meta_layer.parameters() if hasattr(net, "meta_layer") else []
    names = {parameter.name for parameter in matching}
    groups = [
        {**group, "params": [parameter for parameter in group["params"] if parameter.name not in names]}
        for group in param_groups_weight_decay(net, cfg.WEIGHT_DECAY)
    ]
    if matching:
        groups.append({"params": matching, "lr": cfg.META_LR, "weight_decay": 0.0})
    return create_optimizer(timm_args(cfg), groups)


def supernet_scheduler(cfg: Config, optimizer: paddle.optimizer.Optimizer, batches: int) -> tuple:
    """Return the schedule that SCHED names, and the number of epochs; ``sgd`` falls linearly to 0 in a search."""
    if cfg.SCHED == "sgd":
        return LinearLRScheduler(optimizer, cfg.EPOCHS * batches), cfg.EPOCHS
    return create_scheduler(timm_args(cfg), optimizer, batches)


def classify_step(cfg: Config, net: nn.Layer, teacher: Teacher | None = None) -> ClassifyStep:
    """Return the step of a retraining: optimizer, loss, the moving average that NET.EMA asks for, and the teacher."""
    smoothing = LabelSmoothingCrossEntropy(cfg.AUGMENTATION.SMOOTHING)
    loss_fn = SoftTargetCrossEntropy() if cfg.AUGMENTATION.MIXUP else smoothing
    ema = ModelEma(net, cfg.NET.EMA.DECAY) if cfg.NET.EMA.USE else None
    optimizer = create_optimizer(timm_args(cfg), net)
    parts = net, loss_fn, Update(optimizer, cfg.AMP, cfg.CLIP_GRAD), ema
    if teacher is None:
        return ClassifyStep(*parts)
    weights = distillation_weights(cfg.KD.TASK_LOSS_WEIGHT, cfg.KD.DISTILL_LOSS_WEIGHT)
    return DistillStep(*parts, teacher=teacher, kd_loss=LogitDistillationLoss(cfg.KD.TEMPERATURE), weights=weights)


def loop_options(cfg: Config, run: RunLog, epochs: int, scheduler, loader: Loader) -> dict:
    """Return the options of the training loop that searches and retrainings share."""
    # A checkpoint inside an epoch counts batches, and another number of processes would make other batches.
    settings = {**resume_settings(cfg), "number of processes": world_size()}
    return {
        "epochs": epochs,
        "scheduler": scheduler,
        "saver": CheckpointSaver(
            checkpoint_dir=str(run.folder),
            recovery_dir=str(run.folder),
            decreasing=cfg.EVAL_METRICS == "loss",
            max_history=cfg.CHECKPOINT_HISTORY,
            max_recoveries=cfg.RECOVERY_HISTORY,
        ),
        "run": run,
        "seed_batch": partial(seed_dropout, cfg.SEED, len(loader)),
        "settings": settings,
        "recorded": {**settings, "classes": class_names(loader.dataset)},
        "metric": cfg.EVAL_METRICS,
        "log_interval": cfg.LOG_INTERVAL,
        "recovery_interval": cfg.RECOVERY_INTERVAL,
        "remedy": "try a lower LR or set CLIP_GRAD",
    }


def retrain_recipe(cfg: Config) -> Config:
    """Return the settings in the file that RETRAIN_CFG names, or those of the paper."""
    return load_config(cfg.RETRAIN_CFG, () if cfg.RETRAIN_CFG else PAPER_RECIPE)


def retrain_config_for(recipe: Config, cfg: Config, arch: Arch, resolution: int) -> Config:
    """Return the recipe for one path of a search, with its architecture, space and image size and the search's data.

    The net sees images as the supernet saw them, because the net may start from the supernet's weights.

    Args:
        recipe: the settings of the training.
        cfg: the settings of the search.
        arch: the path.
        resolution: side of the images in pixels.
    """
    recipe = copy.deepcopy(recipe)
    recipe.NET.SELECTION, recipe.NET.INPUT_ARCH = -1, arch
    recipe.DATA_DIR, recipe.DATASET.NUM_CLASSES = cfg.DATA_DIR, cfg.DATASET.NUM_CLASSES
    recipe.DATASET.IMAGE_SIZE, recipe.NET.GP = resolution, cfg.NET.GP
    for name in ("IMG_EXTENSIONS", "MEAN", "STD", "SPOS_PREPROCESSING"):
        setattr(recipe.DATASET, name, getattr(cfg.DATASET, name))
    for name in ("FAMILY", "SHUFFLE", "SPACE", "RESUNIT", "DIL_CONV"):  # they define what each choice means
        setattr(recipe.SUPERNET, name, getattr(cfg.SUPERNET, name))
    recipe.SUPERNET.SELECT_ON = "val"  # nothing is left to select: no training image is held out
    return recipe
