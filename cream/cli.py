"""The command lines of all jobs: arguments, one clear line for a user's mistake, exit codes."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from pathlib import Path

from cream.config.load import load_config
from cream.config.schema import Config
from pimm import cli

NNI_OPTIONS = (
    "The options of NNI's scripts are settings here: --imagenet-dir is DATA_DIR, --load-checkpoint "
    "NET.INITIAL_WEIGHTS=FILE, --workers WORKERS, --batch-size DATASET.BATCH_SIZE (of one process), --epochs EPOCHS, "
    "--learning-rate LR, --lr-decay SCHED, --momentum MOMENTUM, --weight-decay WEIGHT_DECAY, --label-smooth "
    "AUGMENTATION.SMOOTHING, --log-frequency LOG_INTERVAL, --seed SEED, --tb-dir SAVE_PATH."
)

RESUME_HINT = "the same command goes on from the last checkpoint, or begins anew where there is none"

_SETTING = re.compile(r"[A-Z_0-9.]+=")


def search(argv: Sequence[str] | None = None) -> int:
    """Searches an architecture (``cream-search``, ``tools/train.py``)."""
    return _command("search", "Search a network with Cream.", argv, RESUME_HINT)


def retrain(argv: Sequence[str] | None = None) -> int:
    """Trains one architecture from scratch (``cream-retrain``, ``tools/retrain.py``)."""
    return _command("retrain", "Retrain the network that a search found, or a published one.", argv, RESUME_HINT)


def test(argv: Sequence[str] | None = None) -> int:
    """Measures a trained network (``cream-test``, ``tools/test.py``)."""
    return _command("test", "Test a trained network on the validation images.", argv)


def select(argv: Sequence[str] | None = None) -> int:
    """Chooses again among the paths of a finished search (``cream-select``, ``tools/select.py``)."""

    def job() -> None:
        parser = argparse.ArgumentParser(
            description="Choose again among the paths of a finished search: with other limits, more random paths "
            "(SUPERNET.SELECT_RANDOM), or other batches for batch norm.",
        )
        parser.add_argument("search", nargs="+", metavar="SEARCH", help="folder of the search (SAVE_PATH/MODEL)")
        parser.add_argument("--output", metavar="FOLDER", help="where the choice goes (default: SEARCH)")
        folders, overrides, args = _parse_with_settings(parser, argv, "search")
        if len(folders) != 1:
            parser.error(f"one SEARCH is needed, not {len(folders)}")
        from cream import jobs

        cli.use_cores()
        jobs.select(Path(folders[0]), overrides, Path(args.output) if args.output else None)

    return cli.run(job)


def spos_supernet(argv: Sequence[str] | None = None) -> int:
    """Trains a supernet by single paths (``spos-supernet``, ``tools/spos_supernet.py``)."""

    def job() -> None:
        parser = _parser("Train a supernet by paths drawn evenly (Single Path One-Shot).", NNI_OPTIONS)
        cfg = _spos_settings(parser, argv)[0]
        from cream import jobs

        cli.use_cores()
        jobs.supernet(cfg)

    return cli.run(job, RESUME_HINT)


def spos_search(argv: Sequence[str] | None = None) -> int:
    """Searches a trained supernet by evolution (``spos-search``, ``tools/spos_search.py``)."""

    def job() -> None:
        parser = argparse.ArgumentParser(
            description="Search a trained supernet, SPOS's or Cream's, by evolution; started again it goes on.",
            epilog="EVOLUTION.* say how long and how broad, SUPERNET.FLOPS_MAXIMUM, PARAMS_MAXIMUM and LATENCY_MAXIMUM "
            "what a path may cost, SUPERNET.SELECT_BATCHES on how many training batches batch norm is calibrated.",
        )
        parser.add_argument("search", nargs="*", metavar="SEARCH", help="folder of the search (SAVE_PATH/MODEL)")
        parser.add_argument(
            "--cfg", metavar="FILE", help="in place of SEARCH: its settings; NET.INITIAL_WEIGHTS may be its weights"
        )
        parser.add_argument("--output", metavar="FOLDER", help="where all results go (default: SEARCH/evolution)")
        folders, overrides, args = _parse_with_settings(parser, argv, "search")
        if len(folders) + bool(args.cfg) != 1:
            parser.error("one SEARCH is needed, or --cfg in its place")
        source = load_config(args.cfg, overrides) if args.cfg else Path(folders[0])
        from cream import jobs

        cli.use_cores()
        jobs.evolve(source, () if args.cfg else overrides, Path(args.output) if args.output else None)

    return cli.run(job, RESUME_HINT)


def spos_scratch(argv: Sequence[str] | None = None) -> int:
    """Trains a found net from scratch and tests it (``spos-scratch``, ``tools/spos_scratch.py``)."""

    def job() -> None:
        parser = _parser("Train one net from scratch, and test it.", NNI_OPTIONS)
        parser.add_argument(
            "--architecture",
            metavar="FILE",
            help="NNI's architecture_final.json, a search's architecture.json, or a list such as [[0, 1], [3, 2]] "
            "(default: NET.INPUT_ARCH)",
        )
        cfg, args = _spos_settings(parser, argv)
        from cream import jobs

        cli.use_cores()
        jobs.scratch(cfg, args.architecture)

    return cli.run(job, RESUME_HINT)


def _spos_settings(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> tuple[Config, argparse.Namespace]:
    """The settings that the command line gives, and its further arguments."""
    parser.add_argument(
        "--spos-preprocessing",
        action="store_true",
        help="show images as SPOS's authors do, blue first and from 0 to 255 (DATASET.SPOS_PREPROCESSING)",
    )
    args = parser.parse_intermixed_args(argv)
    flag = ["DATASET.SPOS_PREPROCESSING=True"] if args.spos_preprocessing else []
    return load_config(args.cfg, [*args.overrides, *flag]), args


def latency(argv: Sequence[str] | None = None) -> int:
    """Measures what each choice of a search takes on this machine (``cream-latency``, ``tools/latency.py``)."""

    def job() -> None:
        parser = _parser("Measure the milliseconds of each choice of a search on this machine.")
        parser.add_argument("--output", required=True, metavar="FILE", help="JSON file for SUPERNET.LATENCY_TABLE")
        parser.add_argument(
            "--repeats", type=cli.at_least(1), default=30, metavar="N", help="of each measurement (default: 30)"
        )
        args = parser.parse_intermixed_args(argv)
        cfg = load_config(args.cfg, args.overrides)
        from cream import jobs

        measured = jobs.latency(cfg, Path(args.output), cli.use_cores(), args.repeats)
        for net in measured.check:
            print(f"{net['arch']}: predicted {net['predicted_ms']:.2f} ms, measured {net['measured_ms']:.2f} ms")
        print(f"mean deviation {measured.deviation:.0%}; where it is large, the machine was busy")

    return cli.run(job)


def rank_correlation(argv: Sequence[str] | None = None) -> int:
    """Compares supernets with training from scratch (``cream-rank-correlation``, ``tools/rank_correlation.py``)."""

    def job() -> None:
        parser = argparse.ArgumentParser(
            description="Correlate the accuracy of paths with a supernet's weights and trained from scratch.",
            epilog="Several processes share the paths: under paddle.distributed.launch, or started one by one with "
            "the same arguments. Started again, it goes on with what is in the output folder.",
        )
        parser.add_argument("searches", nargs="+", metavar="SEARCH", help="folder of a search (SAVE_PATH/MODEL)")
        parser.add_argument("--cfg", required=True, metavar="FILE", help="YAML file with the recipe of training")
        parser.add_argument("--output", required=True, metavar="FOLDER", help="where all results go")
        parser.add_argument("--paths", type=int, default=30, metavar="N", help="how many paths (default: 30)")
        parser.add_argument(
            "--sample",
            choices=("spread", "uniform"),
            default="spread",
            help="evenly over the costs (default), or as drawn",
        )
        parser.add_argument("--seed", type=cli.at_least(0), default=0, help="of the choice of paths (default: 0)")
        parser.add_argument(
            "--trainings", type=int, default=1, metavar="K", help="how often to train each path (default: 1)"
        )
        folders, overrides, args = _parse_with_settings(parser, argv, "searches")
        recipe = load_config(args.cfg, overrides)
        from cream import jobs

        cli.use_cores()
        searches = [Path(folder) for folder in folders]
        found = jobs.rank_correlation(
            searches, recipe, Path(args.output), args.paths, args.sample, args.seed, args.trainings
        )
        if os.environ.get("PADDLE_TRAINER_ID", "0") == "0":
            for name, coefficients in found.items():
                print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in coefficients.items()))

    return cli.run(job, RESUME_HINT)


def generate_sub_imagenet(argv: Sequence[str] | None = None) -> int:
    """Makes a small image set out of a large one (``cream-sub-imagenet``, ``tools/generate_subImageNet.py``)."""

    def job() -> None:
        from cream.studies import subset

        parser = argparse.ArgumentParser(
            description="Make subImageNet: some classes of ImageNet, with some of their images, drawn by seed or read "
            "from the official lists.",
        )
        parser.add_argument("--data-path", default="./data/imagenet", metavar="FOLDER", help="holds train/ and val/")
        parser.add_argument("--output", default="./data/subImageNet", metavar="FOLDER", help="must not be there yet")
        parser.add_argument(
            "--classes", type=cli.at_least(1), default=100, metavar="N", help="how many classes (default: 100)"
        )
        parser.add_argument(
            "--train", type=cli.at_least(1), default=250, metavar="N", help="training images a class (default: 250)"
        )
        parser.add_argument(
            "--val", type=cli.at_least(1), default=50, metavar="N", help="validation images a class (default: 50)"
        )
        parser.add_argument("--seed", type=cli.at_least(0), default=0, help="of the draw (default: 0)")
        parser.add_argument("--class-list", metavar="FILE", help="subclass_list.txt, in place of drawn classes")
        parser.add_argument("--image-list", metavar="FILE", help="subimages_list.txt, in place of drawn images")
        parser.add_argument(
            "--val-from", choices=("val", "train"), default="val", help="where validation images are taken from"
        )
        parser.add_argument("--how", choices=tuple(subset.PLACE), default="link", help="symbolic links, or copies")
        args = parser.parse_args(argv)
        source = subset.Source(Path(args.data_path))
        if args.class_list:
            names = subset.read_class_list(Path(args.class_list))
        else:
            names = subset.draw_classes(source, args.classes, args.seed)
        listed = subset.read_image_list(Path(args.image_list), names) if args.image_list else {}
        chosen = {
            name: subset.choose_images(source, name, args.train, args.val, args.seed, args.val_from, listed.get(name))
            for name in names
        }
        subset.make_subset(source, Path(args.output), chosen, args.how)
        print(f"{args.output}: {len(names)} classes, {args.train} training and {args.val} validation images each")

    return cli.run(job)


def _parse_with_settings(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None, name: str
) -> tuple[list[str], list[str], argparse.Namespace]:
    """Parses ``[NAME ...] [KEY=VALUE ...]`` and returns names and settings apart."""
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="setting that replaces the file's")
    parser.add_argument("--local_rank", "--local-rank", type=int, help=argparse.SUPPRESS)
    args = parser.parse_intermixed_args(argv)
    given = [*getattr(args, name), *args.overrides]
    overrides = [text for text in given if _SETTING.match(text)]
    return [text for text in given if not _SETTING.match(text)], overrides, args


def parse_args(description: str, argv: Sequence[str] | None = None) -> Config:
    """Settings of ``--cfg FILE [KEY=VALUE ...]``; ``--local_rank``, which older launchers append, is passed over.

    Raises:
        ConfigError, OSError: as ``load_config``.
        SystemExit: arguments of another form.
    """
    args = _parser(description).parse_intermixed_args(argv)
    return load_config(args.cfg, args.overrides)


def _parser(description: str, epilog: str | None = None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, epilog=epilog)
    parser.add_argument("--cfg", required=True, metavar="FILE", help="YAML file with the settings")
    parser.add_argument("--local_rank", "--local-rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="setting that replaces the file's")
    return parser


def _command(name: str, description: str, argv: Sequence[str] | None, resume_hint: str = "") -> int:
    def job() -> None:
        cfg = parse_args(description, argv)
        from cream import jobs  # imports all of training, which a wrong setting or --help need not wait for

        cli.use_cores()
        getattr(jobs, name)(cfg)

    return cli.run(job, resume_hint)
