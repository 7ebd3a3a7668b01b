"""The jobs, top to bottom: search a net, choose again, retrain what was found, test it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pimm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from pimm.models import load_checkpoint
from pimm.optim import create_optimizer
from pimm.scheduler import create_scheduler
from pimm.utils import ModelEma, is_main_process

from .build import (
    agreed,
    check_same_classes,
    check_search,
    checkpoint_to_resume,
    child_net,
    search_net,
    start_processes,
    start_run,
    supernet_optimizer,
    supernet_scheduler,
    supernet_step,
    timm_args,
    trained_search,
    trainer_options,
    training_loader,
    validation_loader,
    weights_to_test,
    write_config,
)
from .choice import choose, limits_of
from .config import Config
from .evaluate import evaluate, mode
from .runlog import RunLog
from .selection import Candidate
from .steps import ClassifyStep, Update
from .trainer import Trainer


def search(cfg: Config) -> Candidate:
    """Trains a supernet and returns the best path inside the limits, of its board or sampled.

    Writes into ``SAVE_PATH/MODEL``: checkpoints, logs, ``candidates.csv``, ``architecture.json``, a ``retrain.yaml``
    that trains the found net, ``architecture.pdparams``, the supernet's weights for it, and ``report.html``.
    """
    check_search(cfg)
    run = start_run(cfg)
    searched = search_net(cfg)
    limits_of(cfg, searched)  # a mistake in them must not wait for the end
    net, resolution = searched.net, searched.resolution
    train_loader, val_loader = training_loader(cfg, resolution), validation_loader(cfg, resolution)
    check_same_classes(train_loader.dataset, val_loader.dataset)
    optimizer = supernet_optimizer(cfg, net)
    scheduler, epochs = supernet_scheduler(cfg, optimizer, len(train_loader))
    step = supernet_step(cfg, searched, optimizer)
    probes = searched.sampler.spread(np.random.default_rng([cfg.SEED, 2]), cfg.SUPERNET.PROBES)

    def evaluate_probes(epoch: int) -> dict[str, float]:
        """Means over fixed paths, so that epochs compare, and the accuracy of the board's best."""
        with mode(net, training=False):
            found = [evaluate(lambda x, arch=arch: net(x, arch), val_loader) for arch in probes]
            run.record(epoch, probes=[{"arch": arch, **one} for arch, one in zip(probes, found)], **step.course())
            board_prec1 = math.nan
            if step.board:
                best = step.board.entries[0].arch
                board_prec1 = evaluate(lambda x: net(x, best), val_loader)["prec1"]
        means = {name: sum(one[name] for one in found) / len(found) for name in found[0]}
        return {**means, "board_prec1": board_prec1}

    trainer = Trainer(step, train_loader, evaluate_probes, **trainer_options(cfg, run, epochs, scheduler))
    trainer.resume_or_start(agreed(checkpoint_to_resume(cfg, run.folder), run.folder))
    write_config(cfg, run.folder)
    trainer.fit()

    found = choose(cfg, searched, step, run.folder)
    run.report(searched, epochs)
    run.close()
    return found


def select(folder: Path, overrides: Sequence[str] = ()) -> Candidate:
    """Chooses again among the paths of a finished search, as ``overrides`` of its settings say, without training.

    Writes into the search's folder what the search wrote in the end: ``candidates.csv``, ``architecture.json``,
    ``retrain.yaml``, ``architecture.pdparams`` and ``report.html``.
    """
    run = RunLog(folder if folder.is_dir() else None)
    cfg, searched, step = trained_search(folder, overrides)
    found = choose(cfg, searched, step, folder)
    run.report(searched, cfg.EPOCHS)
    run.close()
    return found


def retrain(cfg: Config) -> dict[str, float]:
    """Trains one net, its moving average beside it, and returns the last evaluation.

    It starts from scratch, or from NET.INITIAL_WEIGHTS such as a search's ``architecture.pdparams``.

    Writes checkpoints and logs into ``SAVE_PATH/MODEL``.
    """
    run = start_run(cfg)
    spec, net = child_net(cfg)
    train_loader = training_loader(cfg, spec.resolution, cfg.AUGMENTATION.AA, cfg.AUGMENTATION.MIXUP)
    val_loader = validation_loader(cfg, spec.resolution)
    check_same_classes(train_loader.dataset, val_loader.dataset)
    if cfg.NET.INITIAL_WEIGHTS:
        load_checkpoint(net, cfg.NET.INITIAL_WEIGHTS)
    ema = ModelEma(net, cfg.NET.EMA.DECAY) if cfg.NET.EMA.USE else None
    optimizer = create_optimizer(timm_args(cfg), net)
    scheduler, epochs = create_scheduler(timm_args(cfg), optimizer, len(train_loader))
    smoothing = LabelSmoothingCrossEntropy(cfg.AUGMENTATION.SMOOTHING)
    loss_fn = SoftTargetCrossEntropy() if cfg.AUGMENTATION.MIXUP else smoothing
    step = ClassifyStep(net, loss_fn, Update(optimizer, cfg.AMP, cfg.CLIP_GRAD), ema)

    def enable_mixup(epoch: int) -> None:
        train_loader.mixup_enabled = not 0 < cfg.AUGMENTATION.MIXUP_OFF_EPOCH <= epoch

    def evaluate_nets(epoch: int) -> dict[str, float]:
        """The moving average if there is one, and the net itself beside it."""
        enable_mixup(epoch + 1)
        with mode(net, training=False):
            evaluated = evaluate(net, val_loader)
        if ema is not None:
            own = {f"{name}_without_ema": value for name, value in evaluated.items()}
            evaluated = {**evaluate(ema.ema, val_loader), **own}
        return evaluated

    trainer = Trainer(step, train_loader, evaluate_nets, **trainer_options(cfg, run, epochs, scheduler))
    trainer.resume_or_start(agreed(checkpoint_to_resume(cfg, run.folder), run.folder))
    write_config(cfg, run.folder)
    enable_mixup(trainer.epoch)
    evaluated = trainer.fit()
    run.close()
    return evaluated


def test(cfg: Config) -> dict[str, float]:
    """Accuracy of a trained net on the validation images: ``{"loss", "prec1", "prec5"}``.

    The weights come from ``RESUME_PATH``: a checkpoint folder, a run's folder (its best checkpoint), or a weights
    file, PyTorch's included. With ``NET.EMA.USE`` the moving average is tested where the checkpoint has one.
    """
    start_processes(cfg)
    run = RunLog()
    spec, net = child_net(cfg)
    load_checkpoint(net, *weights_to_test(cfg))
    net.eval()
    metrics = evaluate(net, validation_loader(cfg, spec.resolution))
    run.close()
    if is_main_process():
        print(", ".join(f"{name} {value:.4f}" for name, value in metrics.items()))
    return metrics
