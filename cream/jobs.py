"""The jobs, top to bottom: search a net, select again, evolve, retrain what was found, test it."""

from __future__ import annotations

import copy
import logging
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from cream import build, typed
from cream.config import Config
from cream.config.keys import resume_settings
from cream.deploy.source import load
from cream.report import report_search
from cream.selection.architecture_file import read_architecture
from cream.selection.candidates import Candidate
from cream.selection.evolve import evolve_paths
from cream.selection.latency import Latency, measure_latency, write_latency
from cream.selection.shared_scoring import score_many
from cream.space import Arch, format_arch
from cream.studies import ranking
from cream.studies.bench import Bench, scores_of, write_bench
from cream.studies.correlation import Correlation
from cream.studies.judgement import Bootstrap
from cream.studies.truth import read_truth
from cream.train.evaluation import NetEvaluator, evaluate
from cream.train.history import History
from pimm.engine import RunLog, Trainer, open_engine, train_mode
from pimm.engine.steps import averaged_net
from pimm.models import load_checkpoint
from pimm.utils import is_main_process, latest_checkpoint, single_process
from pimm.utils.checkpoint import MODEL, read_manifest
from pimm.utils.checkpoint_saver import BEST

_logger = logging.getLogger(__name__)


def search(cfg: Config) -> Candidate:
    """Train a supernet whose paths teach each other, and select the best of its candidates (Cream, algorithm 1).

    Writes into ``SAVE_PATH/MODEL`` checkpoints and records of the training, and of the selected net
    ``candidates.csv``, ``architecture.json``, ``retrain.yaml`` (the settings that train the net),
    ``architecture.pdparams`` (the supernet's weights for the net) and ``report.html``.
    """
    build.check_search(cfg)
    build.check_results_spare(cfg, build.run_folder(cfg))
    with build.running(cfg) as run:
        plan = build.plan_search(cfg)
        train_supernet(plan, run)
        plan.step.score_by_average()
        found = plan.selection.select(plan.step.board, run.folder, plan.step.fit)
        report_search(run, plan.searched, plan.epochs)
        command = f"{typed.command('predict')} {shlex.quote(str(run.folder))} IMAGES"
        _logger.info("the net, with the supernet's weights until it is trained, classifies images by: %s", command)
    return found


def train_supernet(plan: build.SearchPlan, run: RunLog) -> None:
    """Train the supernet: for each batch `CreamStep` draws a path, finds a teacher, and trains and offers the path.

    `SinglePathStep` only draws and trains the path. After every epoch the probes (fixed paths) and the board's best
    path are evaluated, and a checkpoint is written.
    """
    checkpoint = build.open_run(plan.cfg, run, plan.train_loader.dataset)
    history = History(run)

    def record(epoch: int, trained: Mapping, evaluated: Mapping) -> None:
        history.record(epoch, probes=plan.probes.by_path, **plan.step.log_state())

    trainer = Trainer(plan.step, plan.train_loader, [plan.probes], after_epoch=[record], **plan.loop_options(run))
    trainer.resume_or_start(checkpoint)
    history.rewind(trainer.epoch)
    build.write_config(plan.cfg, run.folder, f"# The search takes images of {plan.searched.resolution} pixels.\n")
    trainer.fit()


def supernet(cfg: Config) -> None:
    """Train a supernet for a later ``evolve`` or ``select``; writes checkpoints and records into SAVE_PATH/MODEL."""
    with build.running(cfg) as run:
        train_supernet(build.plan_search(cfg), run)
        command = f"{typed.command('spos_search')} {shlex.quote(str(run.folder))}"
        _logger.info("a path of the supernet is selected by: %s", command)


def retrain(cfg: Config) -> dict[str, float]:
    """Train one net with its moving average, and return the last evaluation.

    The net starts from scratch, or from NET.INITIAL_WEIGHTS such as a search's ``architecture.pdparams``. It learns
    from the labels, and from the teacher that KD.CHECKPOINT names. Writes checkpoints and records into
    ``SAVE_PATH/MODEL``.
    """
    with build.running(cfg) as run:
        teacher = load(cfg.KD.CHECKPOINT, cfg.KD.MODEL_NAME or "auto") if cfg.KD.CHECKPOINT else None
        plan = build.plan_retraining(cfg, teacher)
        checkpoint = build.open_run(cfg, run, plan.train_loader.dataset)
        net, ema = plan.step.net, plan.step.ema
        evaluators = [NetEvaluator(net, plan.val_loader)]
        if ema is not None:
            average = averaged_net(ema)
            evaluators = [NetEvaluator(average, plan.val_loader), NetEvaluator(net, plan.val_loader, "_without_ema")]
        hooks = {"before_epoch": [plan.switch_mixup]}
        trainer = Trainer(plan.step, plan.train_loader, evaluators, **hooks, **plan.loop_options(run))
        trainer.resume_or_start(checkpoint)
        build.write_config(cfg, run.folder)
        evaluated = trainer.fit()
        log_next_command(run.folder, evaluated)
    return evaluated


def log_next_command(folder: Path, evaluated: Mapping[str, float]) -> None:
    """Log the commands that test, run and export a retrained net, with the better of net and moving average."""
    lags = evaluated.get("prec1_without_ema", 0) > evaluated.get("prec1", 0)
    if lags:
        _logger.info(
            "the moving average, %.2f%%, lags behind the net itself, %.2f%%, which NET.EMA.USE=False tests",
            *(evaluated["prec1"], evaluated["prec1_without_ema"]),
        )
    quoted = shlex.quote(str(folder))
    command = f"{typed.command('test')} --cfg {quoted}/config.yaml RESUME_PATH={quoted}"
    _logger.info("the net is tested by: %s", f"{command} NET.EMA.USE=False" if lags else command)
    source = shlex.quote(str(folder / BEST / MODEL)) if lags else quoted
    _logger.info("it classifies images by: %s %s IMAGES", typed.command("predict"), source)
    _logger.info("it is exported by: %s %s --output FOLDER", typed.command("export"), source)


def test(cfg: Config) -> dict[str, float]:
    """Print and return the accuracy of a trained net on the validation images: ``{"loss", "prec1", "prec5"}``.

    The weights come from ``RESUME_PATH``: a checkpoint folder, a run's folder (its best checkpoint), or a weights
    file, PyTorch's included. With ``NET.EMA.USE`` the moving average is tested where the checkpoint has one. ``ENGINE``
    and ``PRECISION`` choose what computes the logits.
    """
    with build.running(cfg):
        net, loader, resolution = build.net_to_test(cfg)
        weights, use_ema = build.weights_to_test(cfg)
        build.check_trained_classes(weights, loader.dataset)
        load_checkpoint(net, weights, use_ema)
        images = len(loader) * loader.sampler.batch_size
        logits_of = open_engine(net, (3, resolution, resolution), cfg.ENGINE, cfg.PRECISION, images)
        with train_mode(net, training=False):
            metrics = evaluate(logits_of, loader)
    if is_main_process():
        print(", ".join(f"{name} {value:.4f}" for name, value in metrics.items()))
    return metrics


def scratch(cfg: Config, architecture: str | None = None) -> dict[str, float]:
    """Train one net as ``retrain`` does, and test its best checkpoint.

    ``architecture`` is a file or text for ``read_architecture``, and replaces NET.INPUT_ARCH.
    """
    if architecture is not None:
        cfg = copy.deepcopy(cfg)
        cfg.NET.SELECTION, cfg.NET.INPUT_ARCH = -1, read_architecture(architecture, build.search_space(cfg)[0])
    retrain(cfg)
    return test(replace(cfg, RESUME_PATH=str(build.run_folder(cfg)), ENGINE="eager", PRECISION="fp32"))


# Selections in a trained supernet


def select(folder: Path, overrides: Sequence[str] = (), output: Path | None = None) -> Candidate:
    """Select again among the paths of a finished search, with ``overrides`` of its settings and without training.

    Writes into ``output``, by default the search's folder, the files of a selected net: ``candidates.csv``,
    ``architecture.json``, ``retrain.yaml``, ``architecture.pdparams`` and ``report.html``.
    """
    recorded, cfg = build.settings_of_search(folder, overrides)
    build.check_results_spare(cfg, output or folder)
    if output is not None:
        cfg = build.renamed(cfg, build.open_output(output).name)
    with build.running(cfg) as run:
        run.open(output or folder)
        searched, step = build.trained_search(folder, recorded)
        if output is not None:
            build.write_config(cfg, output)
        found = build.selection_of(cfg, searched).select(step.board, run.folder, step.fit)
        report_search(run, searched, cfg.EPOCHS)
    return found


def evolve(source: Path | Config, overrides: Sequence[str] = (), output: Path | None = None) -> Candidate:
    """Search a trained supernet by evolution and return the best path (SPOS, algorithm 1).

    Writes the files of a selected net as ``select`` does, ``architecture_final.json`` and the best paths of each
    generation in NNI's format, ``convergence.png``, and ``evolution.json``, from which the same command resumes. The
    processes of a launch share the paths.

    Args:
        source: the folder of a search; or settings, whose run's folder holds a search or whose NET.INITIAL_WEIGHTS
            are a supernet's weights.
        overrides: changes of the settings of a search's folder.
        output: where all results go, by default the folder ``evolution`` of the search.
    """
    given = isinstance(source, Config)
    cfg = source if given else build.settings_of_search(source, overrides)[1]
    output = output or (build.run_folder(cfg) if given else source) / "evolution"
    build.check_results_spare(cfg, output)
    with build.running(cfg) as run:
        run.open(build.open_output(output), exclusive=True)
        with single_process():  # each process reads all images
            searched, weights = build.supernet_to_evolve(source, overrides)
            selection = build.selection_of(build.renamed(cfg, "evolution"), searched)
        numbers = {name.lower(): value for name, value in vars(cfg.EVOLUTION).items()}
        settings = build.evolution_settings(cfg, weights)
        best, generations = evolve_paths(selection, numbers, cfg.SEED, settings, output)
        build.write_config(cfg, output)
        report_search(run, searched, generations)
    return best


# Studies


def latency(cfg: Config, path: Path, threads: int, repeats: int = 30) -> Latency:
    """Measure the milliseconds of each choice on this machine, for DATASET.BATCH_SIZE images; writes ``path``."""
    with single_process(), build.running(cfg):
        searched = build.search_net(cfg)

        def child(arch):
            return build.child_net(build.retrain_config_for(cfg, cfg, arch, searched.resolution))[1]

        measured = measure_latency(searched, child, cfg.DATASET.BATCH_SIZE, threads, repeats)
        write_latency(path, measured)
    return measured


def rank_correlation(
    folders: Sequence[Path],
    recipe: Config,
    output: Path,
    n: int = 30,
    how: str = "spread",
    seed: int = 0,
    trainings: int = 1,
) -> dict[str, dict[str, Correlation]]:
    """Score n paths with each search's weights, train each path from scratch, and correlate both (Cream, section 4.2).

    The reference is the mean accuracy of a path's trainings; how well one training predicts the others is the most
    that a supernet can be expected to reach. Writes ``ranking.csv``, ``correlation.json`` and ``ranking.png`` into
    ``output``, and resumes from the results in ``output``. Under ``paddle.distributed.launch``, or started several
    times, the processes share the paths.

    Args:
        folders: searches of one space.
        recipe: the settings that train each path.
        output: folder of all results.
        n: number of paths.
        how: ``spread`` evenly over the costs, or ``uniform``, as they are drawn.
        seed: the seed of the draw of the paths.
        trainings: number of trainings of each path, with the seeds ``recipe.SEED``, ``recipe.SEED + 1``, ...

    Raises:
        ConfigError: the searches' spaces differ, or ``output`` holds another experiment.
    """
    ranking.check_numbers(n, trainings)
    build.open_output(output)
    with single_process(), build.running(recipe) as run:
        run.open(output)
        names = ranking.distinct_names(folders)
        configs = {name: build.settings_of_search(folder)[0] for name, folder in zip(names, folders)}
        searches = {name: build.trained_search(folder, configs[name])[0] for name, folder in zip(names, folders)}
        ranking.check_comparable(searches)
        cfg, searched = configs[names[0]], searches[names[0]]
        archs = ranking.draw_paths(searched, how, n, seed)
        recipes = [build.retrain_config_for(recipe, cfg, arch, searched.resolution) for arch in archs]
        ranking.check_same_experiment(output / "experiment.json", archs, experiment_settings(recipes[0]))
        study = ranking.Study(
            archs,
            costs=[{"mflops": searched.mflops(arch), "mparams": searched.mparams(arch)} for arch in archs],
            searches={
                name: (model_hash(folder), scorer(configs[name], searches[name]))
                for name, folder in zip(names, folders)
            },
            train=lambda i, training, path: train_path(recipes[i], i, len(recipes), training, path),
            trainings=trainings,
            output=output,
        )
        rows = study.rows(study.scores(), study.trained())
    return ranking.write_report(output, rows, names)


def rank_by_truth(
    folders: Sequence[Path],
    truth: Path,
    output: Path,
    n: int = 30,
    seed: int = 0,
    limit: float = float("inf"),
    overrides: Sequence[str] = (),
) -> str:
    """Score n nets with each search's weights, and judge the scores by accuracies that a file holds.

    Writes ``ranking.csv``, ``judgement.json``, ``judgement.md`` and ``ranking.png`` into ``output``, and resumes from
    the scores in ``output``. The processes of a launch share the searches. Returns the text of ``judgement.md``.

    Args:
        folders: searches of one space; folders of the same name are seeds of one method.
        truth: the accuracies, as ``cream.studies.truth.read_truth`` reads them.
        output: folder of all results.
        n: number of nets, drawn evenly from the paths of the file in the FLOPs range.
        seed: the seed of the draw of the nets.
        limit: the largest cost, in MFLOPs, of the net that is picked.
        overrides: changes of the settings by which the searches score a path.

    Raises:
        ConfigError: the searches' spaces differ, the file lacks nets, or ``output`` holds another experiment.
    """
    ranking.check_numbers(n, 1)
    names = ranking.distinct_names(folders)
    configs = {name: build.settings_of_search(folder, overrides) for name, folder in zip(names, folders)}
    build.open_output(output)
    with single_process(), build.running(configs[names[0]][1]) as run:
        run.open(output)
        trained = {name: build.trained_search(folder, configs[name][0]) for name, folder in zip(names, folders)}
        searches = {name: searched for name, (searched, _) in trained.items()}
        ranking.check_comparable(searches)
        searched = searches[names[0]]
        known, sampler = read_truth(truth, searched.space), searched.sampler
        archs = known.draw(
            searched.space, lambda arch: sampler.minimum <= searched.mflops(arch) <= sampler.maximum, n, seed
        )
        settings = {"truth": known.sha256, "overrides": sorted(overrides)}
        ranking.check_same_experiment(output / "experiment.json", archs, settings)
        scorers = {
            name: (model_hash(folder), many_scorer(configs[name][1], searches[name], trained[name][1].fit))
            for name, folder in zip(names, folders)
        }
        bench = Bench(
            archs,
            true=known.of(archs),
            mflops=known.costs(archs, searched.mflops),
            depth=np.array([searched.space.depth(arch) for arch in archs]),
            scores=scores_of(output, archs, scorers),
            limit=limit,
            bootstrap=Bootstrap(len(archs), seed),
        )
        return write_bench(output, bench)


def model_hash(folder: Path) -> str:
    """Return the SHA-256 of the weights in the latest checkpoint of a search."""
    return read_manifest(latest_checkpoint(folder))["files"][MODEL]["sha256"]


def many_scorer(cfg: Config, searched, fit: Callable[[Arch], float] | None = None):
    """Return a function that scores many paths as the search scores its candidates, and by the search's ``fit``."""
    selection = build.selection_of(cfg, searched)
    options = {"train": selection.train, "val": selection.loader, "batches": selection.batches, "engine": cfg.ENGINE}

    def score(archs: Sequence[Arch]) -> list[dict[str, float]]:
        rows = [
            {name: metrics[name] for name in ("loss", "prec1")}
            for metrics in score_many(searched.net, archs, **options)
        ]
        return [{**row, "estimate": fit(arch)} for row, arch in zip(rows, archs)] if fit else rows

    return score


def scorer(cfg: Config, searched):
    """Return a function that scores a path as the search scores its candidates."""
    selection = build.selection_of(cfg, searched)
    return lambda arch: vars(selection.score([arch])[0])


def experiment_settings(recipe: Config) -> dict[str, object]:
    """Return the settings that all trainings of an experiment share."""
    settings = {name: value for name, value in resume_settings(recipe).items() if name != "NET.INPUT_ARCH"}
    changeable = ("EPOCHS", "LR", "WARMUP_LR", "MIN_LR", "CLIP_GRAD")  # by a resumed training
    return {**settings, **{name: getattr(recipe, name) for name in changeable}}


def train_path(recipe: Config, number: int, paths: int, training: int, folder: Path) -> dict:
    """Train one path of an experiment from scratch in ``folder``, and return its architecture and metrics."""
    recipe = copy.deepcopy(recipe)
    recipe.SAVE_PATH, recipe.MODEL = str(folder.parent), folder.name
    recipe.AUTO_RESUME, recipe.RESUME_PATH, recipe.CHECKPOINT_HISTORY = True, "", 1
    recipe.SEED = (recipe.SEED + training) % 2**32
    _logger.info("path %d/%d from scratch: %s", number + 1, paths, format_arch(recipe.NET.INPUT_ARCH))
    started = time.perf_counter()
    found = retrain(recipe)
    _logger.info("path %d/%d: top-1 %.2f%%, %.0f s", number + 1, paths, found["prec1"], time.perf_counter() - started)
    return {"arch": recipe.NET.INPUT_ARCH, **found}
