"""The plan of a search: every setting checked and every file opened once, before anything is written."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import paddle
from paddle import nn

from cream.build.checks import check_supernet, is_fitted, teaches_in_place
from cream.build.data import Images, evaluation_loader, open_images, selection_loader, training_loader
from cream.build.families import fresh_supernet, net_of_settings, search_space
from cream.build.recipe import (
    loop_options,
    retrain_config_for,
    retrain_recipe,
    supernet_optimizer,
    supernet_scheduler,
)
from cream.build.run import holds_supernet, run_folder
from cream.config import Config, dump, load_config
from cream.config.rules import check_selectable
from cream.counting import count_parameters
from cream.flops import cost_tables
from cream.selection.candidates import Constraint
from cream.selection.choose import Selection
from cream.selection.latency import read_latency
from cream.space import Arch
from cream.train.average import PathAverage
from cream.train.board import PrioritizedBoard
from cream.train.draws import DRAW_RULES
from cream.train.estimate import AdditiveFit, EstimatedBoard
from cream.train.evaluation import ProbeEvaluator
from cream.train.held_out_board import IMAGES as HELD_OUT_IMAGES
from cream.train.held_out_board import HeldOutBoard, HeldOutLoss
from cream.train.multi_path import MultiPathStep
from cream.train.sampler import Sampler
from cream.train.search_net import SearchNet
from cream.train.steps import CreamStep, SinglePathStep
from cream.train.teaching import Teaching
from pimm.data.loader import Loader
from pimm.engine import RunLog, Update
from pimm.errors import CheckpointError, ConfigError
from pimm.loss import LabelSmoothingCrossEntropy
from pimm.models import load_checkpoint, load_initial_weights, load_state_dict_strictly
from pimm.utils import file_sha256, latest_checkpoint, read_checkpoint, single_process
from pimm.utils.checkpoint import EMA, MODEL, STATE, read_manifest

_logger = logging.getLogger(__name__)

UNLIMITED = float("inf")


@dataclass(frozen=True)
class SearchPlan:
    """What a search consists of: the supernet, its training step and images, the fixed paths, and the selection."""

    cfg: Config
    searched: SearchNet
    step: SinglePathStep
    epochs: int
    scheduler: object
    train_loader: Loader
    probes: ProbeEvaluator
    selection: Selection

    def loop_options(self, run: RunLog) -> dict:
        """Return the options of the training loop."""
        return loop_options(self.cfg, run, self.epochs, self.scheduler, self.train_loader)


def plan_search(cfg: Config) -> SearchPlan:
    """Turn the settings into the plan of a search; the supernet starts from NET.INITIAL_WEIGHTS, if given.

    A classifier of other classes begins anew, with the matching network.

    Raises:
        ConfigError: settings from which no supernet can be trained.
        DataError: images that cannot be used.
        CheckpointError: initial weights of another net.
    """
    check_supernet(cfg)
    recipe = retrain_recipe(cfg)
    searched = search_net(cfg)
    constraints = constraints_of(cfg, searched)
    images = open_images(cfg)
    train_loader = training_loader(cfg, images.train, searched.resolution)
    validation = evaluation_loader(cfg, images.val, searched.resolution)
    if cfg.NET.INITIAL_WEIGHTS:
        load_initial_weights(searched.net, cfg.NET.INITIAL_WEIGHTS)
    optimizer = supernet_optimizer(cfg, searched.net)
    scheduler, epochs = supernet_scheduler(cfg, optimizer, -(-len(train_loader) // cfg.SUPERNET.ACCUMULATE))
    step = supernet_step(cfg, searched, optimizer, held_out_loss(cfg, searched, images))
    probes = searched.sampler.spread(np.random.default_rng([cfg.SEED, 2]), cfg.SUPERNET.PROBES)
    return SearchPlan(
        cfg,
        searched,
        step,
        epochs,
        scheduler,
        train_loader,
        ProbeEvaluator(searched.net, probes, validation, step.board),
        plan_selection(cfg, recipe, searched, constraints, images, train_loader, validation),
    )


def search_net(cfg: Config) -> SearchNet:
    """Return the supernet that ``cfg.SUPERNET`` describes, with fresh weights, and its paths' costs and sampler."""
    settings = cfg.SUPERNET
    space, resolution = search_space(cfg)
    net = fresh_supernet(cfg, space)
    mflops, mparams = cost_tables(net, resolution)
    bounds = settings.FLOPS_MINIMUM, settings.FLOPS_MAXIMUM
    try:
        sampler = Sampler(space, mflops, *bounds, settings.HOW_TO_PROB, settings.PRE_PROB, settings.FLOPS_BINS)
    except ConfigError as error:
        fitted = "; SUPERNET.STAGE_DEPTHS=None fits the depths to the range" if settings.STAGE_DEPTHS else ""
        raise ConfigError(f"{error}{fitted}") from None
    _logger.info(
        "supernet of %d paths, %.1f to %.1f MFLOPs at %d pixels, %.1fM parameters",
        *(space.size, mflops.least, mflops.most, resolution, count_parameters(net) / 1e6),
    )
    return SearchNet(net, resolution, mflops, mparams, sampler)


def supernet_step(
    cfg: Config,
    searched: SearchNet,
    optimizer: paddle.optimizer.Optimizer,
    loss_of: HeldOutLoss | None = None,
) -> SinglePathStep:
    """Return the step that trains the supernet on one batch, of the kind that SUPERNET.METHOD names.

    Args:
        cfg: the settings.
        searched: the supernet.
        optimizer: of its weights.
        loss_of: the loss of a path on held-out images, which ranks the board where BOARD_SCORE is held_out; else None.
    """
    settings = cfg.SUPERNET
    common = (
        searched.net,
        LabelSmoothingCrossEntropy(cfg.AUGMENTATION.SMOOTHING),
        Update(optimizer, cfg.AMP, cfg.CLIP_GRAD, accumulate=settings.ACCUMULATE),
        searched.sampler,
        np.random.default_rng([cfg.SEED, 1]),
    )
    ema = PathAverage(searched.net, settings.AVERAGE) if settings.AVERAGE else None
    fit = AdditiveFit(searched.space, settings.FIT_WINDOW) if is_fitted(cfg) else None
    if settings.METHOD == "single_path":
        return SinglePathStep(*common, ema, fit)
    teaching = Teaching(
        settings.TEACHING,
        settings.TEMPERATURE,
        settings.TEACH_ONLY_BETTER,
        settings.TEACH_SHARE,
        settings.TAUGHT_SMOOTHING,
    )
    taught = {"start_epoch": settings.META_STA_EPOCH, "rho": settings.RHO, "teaching": teaching, "ema": ema, "fit": fit}
    if settings.METHOD == "multi_path":
        net, loss_fn, update, sampler, rng = common
        draw = DRAW_RULES[settings.DRAW](sampler, settings.PATHS)
        each = settings.UPDATES == "each"
        return MultiPathStep(net, loss_fn, update, draw, rng, teaches=teaches_in_place(cfg), each=each, **taught)
    return CreamStep(
        *common,
        **taught,
        board=make_board(cfg, fit, loss_of),
        flops=searched.mflops,
        pick_method=settings.PICK_METHOD,
        update_interval=settings.UPDATE_ITER,
        slice_size=settings.SLICE,
    )


def make_board(cfg: Config, fit: AdditiveFit | None, loss_of: HeldOutLoss | None) -> PrioritizedBoard:
    """Return the empty board whose entries SUPERNET.BOARD_SCORE ranks."""
    settings = cfg.SUPERNET
    if settings.BOARD_SCORE == "estimate":
        return EstimatedBoard(settings.POOL_SIZE, fit)
    if settings.BOARD_SCORE == "held_out":
        return HeldOutBoard(settings.POOL_SIZE, loss_of)
    return PrioritizedBoard(settings.POOL_SIZE, cfg.ACC_GAP)


def held_out_loss(cfg: Config, searched: SearchNet, images: Images) -> HeldOutLoss | None:
    """Return the loss of paths on some of the held-out images, evenly spread, where BOARD_SCORE asks for it."""
    if cfg.SUPERNET.METHOD != "cream" or cfg.SUPERNET.BOARD_SCORE != "held_out":
        return None
    with single_process():  # all processes score by the same images
        batches = list(evaluation_loader(cfg, images.held_out, searched.resolution))
    shown, labels = (paddle.concat([batch[i] for batch in batches]) for i in range(2))
    kept = np.linspace(0, len(labels) - 1, min(len(labels), HELD_OUT_IMAGES)).round().astype("int64")
    return HeldOutLoss(searched.net, shown[kept], labels[kept])


def constraints_of(cfg: Config, searched: SearchNet) -> list[Constraint]:
    """Return the constraints on the selected path.

    Raises:
        ConfigError: no path satisfies a constraint, or the latency table belongs to another space.
    """
    settings = cfg.SUPERNET
    keys = ("SUPERNET.FLOPS_MINIMUM", "SUPERNET.FLOPS_MAXIMUM")
    constraints = [Constraint("MFLOPs", searched.mflops, settings.FLOPS_MINIMUM, settings.FLOPS_MAXIMUM, keys)]
    if settings.PARAMS_MAXIMUM is not None:
        keys = ("", "SUPERNET.PARAMS_MAXIMUM")
        constraints.append(Constraint("million parameters", searched.mparams, 0.0, settings.PARAMS_MAXIMUM, keys))
    if settings.LATENCY_TABLE is not None:
        measured = read_latency(Path(settings.LATENCY_TABLE))
        latency = measured.costs_for(searched)
        _logger.info("the latency table was measured with %s", measured)
        most = UNLIMITED if settings.LATENCY_MAXIMUM is None else settings.LATENCY_MAXIMUM
        constraints.append(Constraint("ms", latency, 0.0, most, ("", "SUPERNET.LATENCY_MAXIMUM")))
    return constraints


# The selection


def plan_selection(
    cfg: Config,
    recipe: Config,
    searched: SearchNet,
    constraints: Sequence[Constraint],
    images: Images,
    train_loader: Loader,
    validation: Loader,
) -> Selection:
    """Return the selection of a search: it scores paths under constraints and writes the files of the selected net.

    Args:
        cfg: settings of the selection.
        recipe: the settings that will train the selected net.
        searched: the supernet.
        constraints: the constraints on the selected path.
        images: the opened images.
        train_loader: batches that recalibrate batch norm.
        validation: the loader of the validation images.
    """
    loader, scored_on = selection_loader(cfg, images, validation, searched.resolution)
    settings = cfg.SUPERNET
    return Selection(
        searched=searched,
        constraints=constraints,
        sampler=Sampler(
            searched.space,
            searched.mflops,
            settings.FLOPS_MINIMUM,
            settings.FLOPS_MAXIMUM,
            settings.HOW_TO_PROB,
            settings.PRE_PROB,
        ),
        random_paths=settings.SELECT_RANDOM,
        seed=cfg.SEED,
        train=train_loader,
        loader=loader,
        scored_on=scored_on,
        batches=settings.SELECT_BATCHES,
        by=settings.SELECT_BY,
        engine=cfg.ENGINE,
        num_classes=cfg.DATASET.NUM_CLASSES,
        child=partial(_child_of, cfg, searched.resolution),
        retrain_yaml=partial(_retrain_yaml, recipe, cfg, searched.resolution),
    )


def _child_of(cfg: Config, resolution: int, arch: Arch) -> nn.Layer:
    return net_of_settings(retrain_config_for(cfg, cfg, arch, resolution))[1]()


def _retrain_yaml(recipe: Config, cfg: Config, resolution: int, arch: Arch) -> str:
    recipe = retrain_config_for(recipe, cfg, arch, resolution)
    recipe.SAVE_PATH, recipe.MODEL = cfg.SAVE_PATH, f"{cfg.MODEL}_retrain"
    return dump(recipe)


def selection_of(cfg: Config, searched: SearchNet) -> Selection:
    """Open the images of the settings, and return the selection of a path of a trained supernet."""
    recipe, constraints, images = retrain_recipe(cfg), constraints_of(cfg, searched), open_images(cfg)
    train_loader = training_loader(cfg, images.train, searched.resolution)
    validation = evaluation_loader(cfg, images.val, searched.resolution)
    return plan_selection(cfg, recipe, searched, constraints, images, train_loader, validation)


# Finished searches


def settings_of_search(folder: Path, overrides: Sequence[str] = ()) -> tuple[Config, Config]:
    """Return the settings that a search recorded, and the same settings with ``overrides``.

    Raises:
        ConfigError: the overrides change the supernet or its training, not only the selection of a path.
        CheckpointError: the folder holds no search.
    """
    settings, latest = folder / "config.yaml", latest_checkpoint(folder)
    if latest is None or not settings.is_file() or not holds_supernet(latest):
        raise CheckpointError(
            f"{folder} holds no search; must be its SAVE_PATH/MODEL, with config.yaml and checkpoints"
        )
    recorded, cfg = (load_config(settings, texts, beside=False) for texts in ((), overrides))
    check_selectable(recorded, cfg)
    return recorded, cfg


def trained_search(folder: Path, recorded: Config) -> tuple[SearchNet, SinglePathStep]:
    """Return a search's supernet with the weights of its latest checkpoint, and its step with the board.

    The weights are the averages, where the search kept averages.

    Args:
        folder: the search's folder.
        recorded: the settings that the search recorded; their FLOPs range may have shaped the space.
    """
    searched = search_net(recorded)
    latest = latest_checkpoint(folder)
    files = read_checkpoint(latest).files
    load_state_dict_strictly(searched.net, files[MODEL], str(latest))
    done = files[STATE]["epoch"]
    if done < recorded.EPOCHS:
        _logger.warning("the supernet in %s is unfinished: %d of %d epochs are done", folder, done, recorded.EPOCHS)
    step = supernet_step(recorded, searched, supernet_optimizer(recorded, searched.net))
    step.load_state_dict(files[STATE]["step"])
    if step.ema is not None:
        load_state_dict_strictly(step.ema.ema, files[EMA], str(latest))
    step.score_by_average()
    return searched, step


def supernet_to_evolve(source: Path | Config, overrides: Sequence[str] = ()) -> tuple[SearchNet, str]:
    """Return a trained supernet, and the hash of its weights.

    Args:
        source: the folder of a search; or settings, whose run's folder holds a search or whose NET.INITIAL_WEIGHTS
            are a supernet's weights.
        overrides: changes of the settings of a search's folder.

    Raises:
        CheckpointError: there is no such supernet.
        ConfigError: the supernet was trained with other settings.
    """
    if isinstance(source, Path):
        recorded, _ = settings_of_search(source, overrides)
        return trained_search(source, recorded)[0], weights_hash(latest_checkpoint(source))
    folder, weights = run_folder(source), source.NET.INITIAL_WEIGHTS
    if latest_checkpoint(folder):
        recorded, _ = settings_of_search(folder)
        check_selectable(recorded, source)
        return trained_search(folder, recorded)[0], weights_hash(latest_checkpoint(folder))
    if not weights:
        raise CheckpointError(f"{folder} holds no search, and NET.INITIAL_WEIGHTS names no weights of a supernet")
    searched = search_net(source)
    load_checkpoint(searched.net, weights)
    return searched, weights_hash(Path(weights))


def weights_hash(weights: Path) -> str:
    """Return the SHA-256 of a file of weights, or of the weights in a checkpoint's folder."""
    if weights.is_dir() and (weights / "manifest.json").is_file():
        return read_manifest(weights)["files"][MODEL]["sha256"]
    return file_sha256(weights / MODEL if weights.is_dir() else weights)


def evolution_settings(cfg: Config, weights: str) -> dict:
    """Return everything that an evolution depends on, except the number of generations, as plain data."""
    constraints = ("FLOPS_MINIMUM", "FLOPS_MAXIMUM", "PARAMS_MAXIMUM", "LATENCY_MAXIMUM")
    scoring = ("SELECT_BATCHES", "SELECT_ON", "SELECT_BY", "HELD_OUT")
    images = ("NUM_CLASSES", "CROP_PCT", "INTERPOLATION", "MEAN", "STD", "SPOS_PREPROCESSING")
    return {
        "weights": weights,
        "SEED": cfg.SEED,
        "DATASET.BATCH_SIZE": cfg.DATASET.BATCH_SIZE,
        "SUPERNET.LATENCY_TABLE": cfg.SUPERNET.LATENCY_TABLE and weights_hash(Path(cfg.SUPERNET.LATENCY_TABLE)),
        **{f"SUPERNET.{name}": getattr(cfg.SUPERNET, name) for name in (*constraints, *scoring)},
        **{f"DATASET.{name}": _plain(getattr(cfg.DATASET, name)) for name in images},
        **{f"EVOLUTION.{name}": value for name, value in vars(cfg.EVOLUTION).items() if name != "GENERATIONS"},
    }


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value  # as JSON returns it


def renamed(cfg: Config, suffix: str) -> Config:
    """Return the settings with another MODEL, so that a later selection's net is retrained in a folder of its own."""
    return replace(cfg, MODEL=f"{cfg.MODEL}_{suffix}")
