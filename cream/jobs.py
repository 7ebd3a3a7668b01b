"""The jobs, top to bottom: search a net, choose again, retrain what was found, test it."""

from __future__ import annotations

import copy
import math
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from cream.build.build import (
    SearchNet,
    check_same_checkpoint,
    check_same_classes,
    checkpoint_to_resume,
    child_net,
    run_folder,
    search_net,
    search_space,
    settings_of_search,
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
from cream.build.checks import check_named_net, check_search, check_supernet
from cream.config.schema import Config
from cream.selection.architecture_file import read_architecture
from cream.selection.candidates import Candidate
from cream.selection.choose import choose, limits_of
from cream.selection.evolve import evolve_paths, given_supernet, supernet_of_search
from cream.train.evaluation import evaluate
from cream.train.runlog import RunLog, log
from cream.train.steps import ClassifyStep, SinglePathStep, Update
from cream.train.trainer import Trainer
from pimm.engine.evaluation import train_mode
from pimm.errors import ConfigError
from pimm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from pimm.models import load_checkpoint
from pimm.optim import create_optimizer
from pimm.scheduler import create_scheduler
from pimm.utils import ModelEma, is_main_process, latest_checkpoint, single_process


def search(cfg: Config) -> Candidate:
    """Trains a supernet and returns the best path inside the limits, of its board or sampled.

    Writes into ``SAVE_PATH/MODEL`` what ``train_supernet`` does, and ``candidates.csv``, ``architecture.json``, a
    ``retrain.yaml`` that trains the found net, ``architecture.pdparams``, the supernet's weights for it, and
    ``report.html``.
    """
    check_search(cfg)
    run, searched, step, epochs = train_supernet(cfg)
    found = choose(cfg, searched, step, run.folder)
    run.report(searched, epochs)
    run.close()
    return found


def supernet(cfg: Config) -> None:
    """Trains a supernet, in which ``evolve`` or ``select`` then choose a path, and writes as ``train_supernet``."""
    run, *_ = train_supernet(cfg)
    log.info("a path of it is chosen by: python tools/spos_search.py %s", shlex.quote(str(run.folder)))
    run.close()


def train_supernet(cfg: Config) -> tuple[RunLog, SearchNet, SinglePathStep, int]:
    """Trains a supernet; returns the open run, the net, what trained it, and the number of epochs.

    Writes checkpoints, settings and logs into ``SAVE_PATH/MODEL``. NET.INITIAL_WEIGHTS are those it begins with.
    """
    check_supernet(cfg)
    run = start_run(cfg)
    searched = search_net(cfg)
    limits_of(cfg, searched)  # a mistake in them must not wait for the end
    net, resolution = searched.net, searched.resolution
    train_loader, val_loader = training_loader(cfg, resolution), validation_loader(cfg, resolution)
    check_same_classes(train_loader.dataset, val_loader.dataset)
    if cfg.NET.INITIAL_WEIGHTS:
        load_checkpoint(net, cfg.NET.INITIAL_WEIGHTS)
    optimizer = supernet_optimizer(cfg, net)
    scheduler, epochs = supernet_scheduler(cfg, optimizer, len(train_loader))
    step = supernet_step(cfg, searched, optimizer)
    probes = searched.sampler.spread(np.random.default_rng([cfg.SEED, 2]), cfg.SUPERNET.PROBES)

    def evaluate_probes(epoch: int) -> dict[str, float]:
        """Means over fixed paths, so that epochs compare, and the accuracy of the board's best."""
        with train_mode(net, training=False):
            found = [evaluate(lambda x, arch=arch: net(x, arch), val_loader) for arch in probes]
            run.record(epoch, probes=[{"arch": arch, **one} for arch, one in zip(probes, found)], **step.log_state())
            board_prec1 = math.nan
            if step.board:
                best = step.board.entries[0].arch
                board_prec1 = evaluate(lambda x: net(x, best), val_loader)["prec1"]
        means = {name: sum(one[name] for one in found) / len(found) for name in found[0]}
        return {**means, "board_prec1": board_prec1}

    trainer = Trainer(step, train_loader, evaluate_probes, **trainer_options(cfg, run, epochs, scheduler))
    trainer.resume_or_start(check_same_checkpoint(checkpoint_to_resume(cfg, run.folder), run.folder))
    write_config(cfg, run.folder)
    trainer.fit()
    return run, searched, step, epochs


def select(folder: Path, overrides: Sequence[str] = (), output: Path | None = None) -> Candidate:
    """Chooses again among the paths of a finished search, as ``overrides`` of its settings say, without training.

    Writes into ``output``, by default the search's folder, what the search wrote in the end: ``candidates.csv``,
    ``architecture.json``, ``retrain.yaml``, ``architecture.pdparams`` and ``report.html``.
    """
    if output is not None:
        make_folder(output)
    place = output or folder
    run = RunLog(place if place.is_dir() else None)
    cfg, searched, step = trained_search(folder, overrides)
    if output is not None:
        cfg.MODEL = f"{cfg.MODEL}_{output.name}"  # the search's own choice keeps its name
        write_config(cfg, output)
    found = choose(cfg, searched, step, place)
    run.report(searched, cfg.EPOCHS)
    run.close()
    return found


def make_folder(output: Path) -> None:
    """A place for a choice of its own; ConfigError where a training is, whose settings must stay as they are."""
    if latest_checkpoint(output):
        raise ConfigError(f"--output {output} is the folder of a training; must be another one")
    output.mkdir(parents=True, exist_ok=True)


def evolve(source: Path | Config, overrides: Sequence[str] = (), output: Path | None = None) -> Candidate:
    """Searches a trained supernet by evolution and returns the best path that was met.

    The supernet is that of a search's folder, whose settings the ``overrides`` change, or, of settings, that with
    the weights of NET.INITIAL_WEIGHTS. Writes ``candidates.csv``, ``architecture.json``, ``retrain.yaml``,
    ``architecture.pdparams`` and ``report.html`` as a search does, ``architecture_final.json`` and the best paths of
    each generation in NNI's form, ``convergence.png``, and ``evolution.json``, with which the same command goes on
    after a kill; by default into the folder ``evolution`` of the search. The processes of a launch share the paths.
    """
    given = isinstance(source, Config)
    folder = run_folder(source) if given else source
    cfg = source if given else settings_of_search(source, overrides)[1]
    start_processes(cfg)
    output = output or folder / "evolution"
    make_folder(output)
    run = RunLog(output, exclusive=True)
    with single_process():
        searched, weights = given_supernet(cfg) if given else supernet_of_search(folder, overrides)
    found = evolve_paths(cfg, searched, weights, run)
    run.close()
    return found


def scratch(cfg: Config, architecture: str | None = None) -> dict[str, float]:
    """Trains one net as ``retrain`` does, and tests its best checkpoint.

    ``architecture`` in place of NET.INPUT_ARCH is a file or text as ``read_architecture`` takes it.
    """
    if architecture is not None:
        cfg = copy.deepcopy(cfg)
        cfg.NET.SELECTION, cfg.NET.INPUT_ARCH = -1, read_architecture(architecture, search_space(cfg)[0])
    retrain(cfg)
    return test(replace(cfg, RESUME_PATH=str(run_folder(cfg))))


def retrain(cfg: Config) -> dict[str, float]:
    """Trains one net, its moving average beside it, and returns the last evaluation.

    It starts from scratch, or from NET.INITIAL_WEIGHTS such as a search's ``architecture.pdparams``.

    Writes checkpoints and logs into ``SAVE_PATH/MODEL``.
    """
    check_named_net(cfg)
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
        with train_mode(net, training=False):
            evaluated = evaluate(net, val_loader)
        if ema is not None:
            own = {f"{name}_without_ema": value for name, value in evaluated.items()}
            evaluated = {**evaluate(ema.ema, val_loader), **own}
        return evaluated

    trainer = Trainer(step, train_loader, evaluate_nets, **trainer_options(cfg, run, epochs, scheduler))
    if cfg.SCHED != "sgd" and 0 < cfg.EPOCHS <= cfg.WARMUP_EPOCHS:
        log.warning("EPOCHS=%d are all warm-up: WARMUP_EPOCHS=%d should be fewer", cfg.EPOCHS, cfg.WARMUP_EPOCHS)
    trainer.resume_or_start(check_same_checkpoint(checkpoint_to_resume(cfg, run.folder), run.folder))
    write_config(cfg, run.folder)
    enable_mixup(trainer.epoch)
    evaluated = trainer.fit()
    if evaluated.get("prec1_without_ema", 0) > evaluated.get("prec1", 0):
        log.info(
            "the moving average, %.2f%%, lags behind the net itself, %.2f%%, which NET.EMA.USE=False tests",
            evaluated["prec1"], evaluated["prec1_without_ema"],
        )  # fmt: skip
    folder = shlex.quote(str(run.folder))
    log.info("the net is tested by: python tools/test.py --cfg %s/config.yaml RESUME_PATH=%s", folder, folder)
    run.close()
    return evaluated


def test(cfg: Config) -> dict[str, float]:
    """Accuracy of a trained net on the validation images: ``{"loss", "prec1", "prec5"}``.

    The weights come from ``RESUME_PATH``: a checkpoint folder, a run's folder (its best checkpoint), or a weights
    file, PyTorch's included. With ``NET.EMA.USE`` the moving average is tested where the checkpoint has one.
    """
    check_named_net(cfg)
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
