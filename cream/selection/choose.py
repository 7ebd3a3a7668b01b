"""The end of a search: a trained supernet and settings in, the files of the chosen net out."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cream.build.build import (
    SearchNet,
    child_net,
    retrain_config_for,
    retrain_recipe,
    selection_loader,
    training_loader,
    write_retrain_config,
)
from cream.config.schema import Config
from cream.selection.candidates import (
    Candidate,
    Constraint,
    best_inside,
    complaints,
    score,
    write_architecture,
    write_candidates,
)
from cream.selection.latency import read_latency
from cream.space import Arch
from cream.train.evaluation import recalibrated_bn
from cream.train.runlog import log
from cream.train.sampler import Sampler
from cream.train.steps import SinglePathStep
from pimm.data.loader import Loader
from pimm.errors import ConfigError
from pimm.utils import is_main_process, save_arrays

UNLIMITED = float("inf")
DRAWS_A_PATH = 100
WEIGHTS = "architecture.pdparams"


def limits_of(cfg: Config, searched: SearchNet) -> list[Constraint]:
    """What the chosen path may cost.

    Raises ConfigError for a limit that no path keeps, and for a table of latencies that is of another space.
    """
    asked = cfg.SUPERNET
    keys = ("SUPERNET.FLOPS_MINIMUM", "SUPERNET.FLOPS_MAXIMUM")
    limits = [Constraint("MFLOPs", searched.mflops, asked.FLOPS_MINIMUM, asked.FLOPS_MAXIMUM, keys)]
    if asked.PARAMS_MAXIMUM is not None:
        limits.append(
            Constraint(
                "million parameters", searched.mparams, 0.0, asked.PARAMS_MAXIMUM, ("", "SUPERNET.PARAMS_MAXIMUM")
            )
        )
    if asked.LATENCY_TABLE is not None:
        measured = read_latency(Path(asked.LATENCY_TABLE))
        latency = measured.costs_for(searched)
        log.info("latencies are those of %s", measured)
        most = UNLIMITED if asked.LATENCY_MAXIMUM is None else asked.LATENCY_MAXIMUM
        limits.append(Constraint("ms", latency, 0.0, most, ("", "SUPERNET.LATENCY_MAXIMUM")))
    return limits


def paths_to_score(cfg: Config, searched: SearchNet, step: SinglePathStep, limits: list[Constraint]) -> list[Arch]:
    """The paths among which the search chooses: the board's, and SUPERNET.SELECT_RANDOM drawn inside the limits.

    Raises ConfigError where this is none.
    """
    flops, asked = limits[0], cfg.SUPERNET
    sampler = Sampler(searched.space, searched.mflops, flops.least, flops.most, asked.HOW_TO_PROB, asked.PRE_PROB)
    rng = np.random.default_rng([cfg.SEED, 3])
    archs = [entry.arch for entry in step.board.entries] if step.board else []
    wanted = len(archs) + asked.SELECT_RANDOM
    for _ in range(DRAWS_A_PATH * asked.SELECT_RANDOM):
        if len(archs) == wanted:
            break
        arch = sampler(rng)
        if arch not in archs and not complaints(arch, limits):
            archs.append(arch)
    if not archs:
        raise ConfigError(
            "there is no path to choose: the board is empty, and SUPERNET.SELECT_RANDOM="
            f"{asked.SELECT_RANDOM} found none inside the limits"
        )
    return archs


def choose(cfg: Config, searched: SearchNet, step: SinglePathStep, folder: Path) -> Candidate:
    """Scores the search's paths and writes what becomes of the best one that keeps all limits.

    That is ``candidates.csv`` with all of them, ``architecture.json``, ``retrain.yaml`` and, with the supernet's
    weights for the found net, ``architecture.pdparams``. Raises ConfigError where no path keeps all limits.
    """
    retrain_recipe(cfg)  # a mistake in it must not wait for the end
    limits = limits_of(cfg, searched)
    archs = paths_to_score(cfg, searched, step, limits)
    train, (images, scored_on) = training_loader(cfg, searched.resolution), selection_loader(cfg, searched.resolution)
    log.info("choosing among %d paths on %s", len(archs), scored_on)
    candidates = score(searched.net, archs, searched.tables, train, images, cfg.SUPERNET.SELECT_BATCHES)
    return write_choice(cfg, searched, candidates, limits, train, scored_on, folder)


def write_choice(
    cfg: Config,
    searched: SearchNet,
    candidates: Sequence[Candidate],
    limits: Sequence[Constraint],
    train: Loader,
    scored_on: str,
    folder: Path,
) -> Candidate:
    """The best of these candidates that keeps all limits, after its files are in the folder, see ``choose``.

    ``candidates`` come best first, ``train`` brings the batches for batch norm, and ``scored_on`` says in words what
    they were scored on.
    """
    if is_main_process():
        write_candidates(folder, candidates, limits, scored_on)
    best = best_inside(candidates, limits)
    weights = inherited_weights(cfg, searched, best.arch, train)
    if is_main_process():
        facts = {"resolution": searched.resolution, "num_classes": cfg.DATASET.NUM_CLASSES, "scored_on": scored_on}
        write_architecture(folder, best, limits, **facts)
        recipe = write_retrain_config(cfg, folder, best, searched.resolution)
        save_arrays(folder / WEIGHTS, weights)
        log.info("the net is trained by: python tools/retrain.py --cfg %s", shlex.quote(str(recipe)))
    return best


def inherited_weights(cfg: Config, searched: SearchNet, arch: Arch, train: Loader) -> dict:
    """The state of the net of one path with the supernet's weights, its statistics those that it was scored with."""
    _, child = child_net(retrain_config_for(cfg, cfg, arch, searched.resolution))
    net = searched.net
    train.set_epoch(0)
    with recalibrated_bn(net, lambda x: net(x, arch), train, cfg.SUPERNET.SELECT_BATCHES):
        child.inherit(net)
    return child.state_dict()
