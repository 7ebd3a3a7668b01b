"""Command lines of all jobs: arguments, help with the settings of the job, one line for a user's mistake, exit codes.

Paddle is imported once a job begins: neither ``--help`` nor a mistake waits for it.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from cream import typed
from cream.config.keys import ALIASES, KEYS
from cream.config.load import load_config
from cream.config.rules import is_first_process
from pimm import cli
from pimm.errors import ConfigError
from pimm.output_paths import check_output_paths

RESUME_HINT = "the same command resumes from the latest checkpoint, or starts anew where there is none"

_SETTING = re.compile(r"[A-Z_0-9.]+=")
_LAUNCH = "python -m paddle.distributed.launch --nproc_per_node 8"

# What to type here for options of the scripts of NNI, timm and PaddleClas; {} is the word after the option. Options
# that are named as a key, such as --flops_minimum, are found by this name.
OPTIONS_OF_OTHERS = {
    "--imagenet-dir": "DATA_DIR={}",
    "--load-checkpoint": "NET.INITIAL_WEIGHTS=FILE",
    "--learning-rate": "LR={}",
    "--lr-decay": "SCHED={}",
    "--label-smooth": "AUGMENTATION.SMOOTHING={}",
    "--log-frequency": "LOG_INTERVAL={}",
    "--tb-dir": "SAVE_PATH={}",
    "--resume": "RESUME_PATH={}",
    "--spos-preprocessing": "DATASET.SPOS_PREPROCESSING=True",
    "-b": "DATASET.BATCH_SIZE={}",
    "-j": "WORKERS={}",
    "-o": "{}",
}


class JobParser(cli.Parser):
    """Reads the command line of a job: ``[FOLDER ...] [--option VALUE] [KEY=VALUE ...]``.

    Args:
        job: name of the job, as the schema's fields have it in ``jobs``; its settings are listed by ``--help``.
        description: what the job does, in a sentence.
        example: a whole command.
        cfg: help of ``--cfg FILE``, or None where the job takes no such file.
        cfg_needed: whether ``--cfg`` must be given.
        folders: name of the positional arguments before the settings, or None where there are none.
    """

    def __init__(
        self,
        job: str,
        description: str,
        example: str,
        cfg: str | None = "YAML file with the settings",
        cfg_needed: bool = True,
        folders: str | None = None,
    ):
        super().__init__(
            config_file=False, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        self.job, self.example, self.folders = job, example, folders
        if cfg:
            self.add_argument("--cfg", "-c", required=cfg_needed, metavar="FILE", help=cfg)
        if folders:
            self.add_argument("folders", nargs="*", metavar=folders, help="folder of a search (SAVE_PATH/MODEL)")
        self.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="setting that replaces the file's")

    def parse_args(self, args=None, namespace=None):
        """Parse as `pimm.cli.Parser` does, and tell folders and settings apart by their form."""
        parsed = super().parse_args(args, namespace)
        given = [*getattr(parsed, "folders", ()), *parsed.overrides]
        if self.folders:
            parsed.folders = [text for text in given if not _SETTING.match(text)]
            given = [text for text in given if _SETTING.match(text)]
        parsed.overrides = given
        return parsed

    def translate(self, option: str, value: str | None) -> str | None:
        """Return the setting that stands here for an option of another program."""
        pattern = OPTIONS_OF_OTHERS.get(option)
        if pattern is None:
            name = option.lstrip("-").replace("-", "_").upper()
            known = ALIASES.get(name) or next((key for key in KEYS if key.rpartition(".")[2] == name), None)
            pattern = known and f"{known}={{}}"
        return pattern and pattern.replace("{}", "VALUE" if value is None else value)

    def format_help(self) -> str:
        """Return the help with an example and the settings of the job."""
        self.epilog = f"example:\n  {self.example}\n\n{describe_settings(self.job)}"
        return super().format_help()


def describe_settings(job: str) -> str:
    """List the settings that a job reads, with their defaults, units and meaning."""
    width = min(max(shutil.get_terminal_size().columns, 60), 120)
    lines = ["settings, with their defaults (docs/settings.md has the bounds):"]
    for name, known in KEYS.items():
        if job in known.jobs:
            default = str(known.default).replace(" ", "")
            unit = f" [{known.unit}]" if known.unit and known.unit not in known.text.lower() else ""
            start = f"  {name}={default}"
            start = f"{start:<32}" if len(start) < 32 else f"{start}\n{'':32}"
            text = textwrap.fill(f"{known.text}{unit}", width, initial_indent=" " * 32, subsequent_indent=" " * 32)
            lines.append(start + text.lstrip())
    return "\n".join(lines)


def load_jobs() -> ModuleType:
    """Import Paddle, which takes all cores, and the jobs.

    Raises:
        ConfigError: this is not a system on which they run.
    """
    if importlib.util.find_spec("fcntl") is None:
        raise ConfigError("cream runs on Linux and macOS alone: this Python lacks fcntl, which locks a run's folder")
    cli.use_cores()
    from cream import jobs  # late, as the page's head says

    return jobs


def search(argv: Sequence[str] | None = None) -> int:
    """Search an architecture (``cream-search``, ``tools/train.py``)."""

    def job() -> None:
        example = f"{_LAUNCH} {typed.script('train')} --cfg configs/train.yaml EPOCHS=120"
        args = JobParser("search", "Search a network with Cream.", example).parse_args(argv)
        _run_with_settings("search", args)

    return cli.run(job, RESUME_HINT)


def retrain(argv: Sequence[str] | None = None) -> int:
    """Train one architecture from scratch (``cream-retrain``, ``tools/retrain.py``)."""

    def job() -> None:
        example = f"{_LAUNCH} {typed.script('retrain')} --cfg output/search/retrain.yaml"
        args = JobParser("retrain", "Retrain the network that a search found, or a published one.", example).parse_args(
            argv
        )
        _run_with_settings("retrain", args)

    return cli.run(job, RESUME_HINT)


def test(argv: Sequence[str] | None = None) -> int:
    """Test a trained network (``cream-test``, ``tools/test.py``)."""

    def job() -> None:
        example = f"{typed.command('test')} --cfg output/search/retrain.yaml RESUME_PATH=output/search_retrain"
        args = JobParser("test", "Test a trained network on the validation images.", example).parse_args(argv)
        _run_with_settings("test", args)

    return cli.run(job)


def _run_with_settings(name: str, args: argparse.Namespace) -> None:
    cfg = load_config(args.cfg, args.overrides)
    jobs = load_jobs()
    getattr(jobs, name)(cfg)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a job as the official code's ``tools/main.py JOB FILE`` does, in this process."""

    def job() -> None:
        parser = cli.Parser(config_file=False, description="Run a job: the same as tools/JOB.py --cfg FILE.")
        parser.add_argument("job", choices=("train", "retrain", "test"), metavar="JOB", help="train, retrain or test")
        parser.add_argument("cfg", metavar="FILE", help="YAML file with the settings")
        parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="setting that replaces the file's")
        args = parser.parse_args(argv)
        _run_with_settings({"train": "search"}.get(args.job, args.job), args)

    return cli.run(job, RESUME_HINT)


def select(argv: Sequence[str] | None = None) -> int:
    """Select again among the paths of a finished search (``cream-select``, ``tools/select.py``)."""

    def job() -> None:
        parser = JobParser(
            "select",
            "Select again among the paths of a finished search: with other constraints, more random paths, or other "
            "batches for batch norm.",
            f"{typed.command('select')} output/search SUPERNET.SELECT_RANDOM=100 SUPERNET.FLOPS_MAXIMUM=300",
            cfg=None,
            folders="SEARCH",
        )
        parser.add_argument("--output", metavar="FOLDER", help="where the selection goes (default: SEARCH)")
        args = parser.parse_args(argv)
        if len(args.folders) != 1:
            parser.error(f"one SEARCH is needed, not {len(args.folders)}")
        jobs = load_jobs()
        jobs.select(Path(args.folders[0]), args.overrides, Path(args.output) if args.output else None)

    return cli.run(job)


def spos_supernet(argv: Sequence[str] | None = None) -> int:
    """Train a supernet by single paths (``spos-supernet``, ``tools/spos_supernet.py``)."""

    def job() -> None:
        parser = JobParser(
            "spos_supernet",
            "Train a supernet by paths drawn evenly (Single Path One-Shot).",
            f"{_LAUNCH} {typed.script('spos_supernet')} --cfg configs/spos/supernet.yaml",
        )
        args = _parse_spos(parser, argv)
        _run_with_settings("supernet", args)

    return cli.run(job, RESUME_HINT)


def spos_search(argv: Sequence[str] | None = None) -> int:
    """Search a trained supernet by evolution (``spos-search``, ``tools/spos_search.py``)."""

    def job() -> None:
        parser = JobParser(
            "spos_search",
            "Search a trained supernet, SPOS's or Cream's, by evolution; started again it resumes.",
            f"{_LAUNCH} {typed.script('spos_search')} output/spos_supernet EVOLUTION.GENERATIONS=20",
            cfg="in place of SEARCH: its settings; NET.INITIAL_WEIGHTS may be its weights",
            cfg_needed=False,
            folders="SEARCH",
        )
        parser.add_argument("--output", metavar="FOLDER", help="where all results go (default: SEARCH/evolution)")
        args = parser.parse_args(argv)
        if len(args.folders) + bool(args.cfg) != 1:
            parser.error("one SEARCH is needed, or --cfg in its place")
        source = load_config(args.cfg, args.overrides) if args.cfg else Path(args.folders[0])
        jobs = load_jobs()
        jobs.evolve(source, () if args.cfg else args.overrides, Path(args.output) if args.output else None)

    return cli.run(job, RESUME_HINT)


def spos_scratch(argv: Sequence[str] | None = None) -> int:
    """Train a found net from scratch and test it (``spos-scratch``, ``tools/spos_scratch.py``)."""

    def job() -> None:
        parser = JobParser(
            "spos_scratch",
            "Train one net from scratch, and test it.",
            f"{_LAUNCH} {typed.script('spos_scratch')} --cfg configs/spos/scratch.yaml \\\n"
            "      --architecture output/spos_supernet/evolution/architecture_final.json",
        )
        parser.add_argument(
            *("--architecture", "--fixed-arc"),
            metavar="FILE",
            help="NNI's architecture_final.json, a search's architecture.json, or a list such as [[0, 1], [3, 2]] "
            "(default: NET.INPUT_ARCH)",
        )
        args = _parse_spos(parser, argv)
        cfg = load_config(args.cfg, args.overrides)
        jobs = load_jobs()
        jobs.scratch(cfg, args.architecture)

    return cli.run(job, RESUME_HINT)


def _parse_spos(parser: JobParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse a command line that may have NNI's flag for the images of SPOS's authors."""
    parser.add_argument(
        "--spos-preprocessing",
        action="store_true",
        help="show images as SPOS's authors do, blue first and from 0 to 255 (DATASET.SPOS_PREPROCESSING)",
    )
    args = parser.parse_args(argv)
    if args.spos_preprocessing:
        args.overrides.append("DATASET.SPOS_PREPROCESSING=True")
    return args


def latency(argv: Sequence[str] | None = None) -> int:
    """Measure what each choice of a search takes on this machine (``cream-latency``, ``tools/latency.py``)."""

    def job() -> None:
        parser = JobParser(
            "latency",
            "Measure the milliseconds of each choice of a search on this machine.",
            f"{typed.command('latency')} --cfg configs/train.yaml DATASET.BATCH_SIZE=1 --output latency.json",
        )
        parser.add_argument("--output", required=True, metavar="FILE", help="JSON file for SUPERNET.LATENCY_TABLE")
        parser.add_argument(
            "--repeats", type=cli.at_least(1), default=30, metavar="N", help="measurements of each choice (default: 30)"
        )
        args = parser.parse_args(argv)
        check_output_paths({"--output": args.output}, {"--cfg": args.cfg})
        cfg = load_config(args.cfg, args.overrides)
        jobs = load_jobs()
        measured = jobs.latency(cfg, Path(args.output), cli.use_cores(), args.repeats)
        for net in measured.check:
            print(f"{net['arch']}: predicted {net['predicted_ms']:.2f} ms, measured {net['measured_ms']:.2f} ms")
        print(f"mean deviation {measured.deviation:.0%}; where it is large, the machine was busy")

    return cli.run(job)


def rank_correlation(argv: Sequence[str] | None = None) -> int:
    """Compare supernets with training from scratch (``cream-rank-correlation``, ``tools/rank_correlation.py``)."""

    def job() -> None:
        parser = JobParser(
            "retrain",
            "Correlate the accuracy of paths with a supernet's weights and trained from scratch. The processes of a "
            "launch share the paths, as do\nprocesses that are started one by one with the same arguments. Started "
            "again, it resumes with what is in the output folder.",
            f"{_LAUNCH} {typed.script('rank_correlation')} output/subimagenet/cream \\\n"
            "      --cfg configs/subimagenet/scratch.yaml --output output/subimagenet/ranking",
            cfg="YAML file with the recipe of training; without --truth it is needed",
            cfg_needed=False,
            folders="SEARCH",
        )
        parser.add_argument("--output", required=True, metavar="FOLDER", help="where all results go")
        parser.add_argument(
            "--truth",
            metavar="FILE",
            help="accuracies in place of trainings: NAS-Bench-Macro's JSON file, or a CSV file with columns arch and "
            "trained; searches with folders of the same name are then seeds of one method",
        )
        parser.add_argument(
            "--limit", type=float, default=float("inf"), metavar="MFLOPS", help="with --truth: largest cost of the pick"
        )
        parser.add_argument("--paths", type=int, default=30, metavar="N", help="how many paths (default: 30)")
        parser.add_argument(
            "--sample",
            choices=("spread", "uniform"),
            help="how paths are drawn: spread evenly over the costs (default), or uniformly (always with --truth)",
        )
        parser.add_argument("--seed", type=cli.at_least(0), default=0, help="seed of the draw of paths (default: 0)")
        parser.add_argument(
            "--trainings", type=int, default=1, metavar="K", help="how often to train each path (default: 1)"
        )
        args = parser.parse_args(argv)
        if not args.folders:
            parser.error("at least one SEARCH is needed")
        folders, output = [Path(folder) for folder in args.folders], Path(args.output)
        if args.truth:
            if args.cfg or args.sample == "spread" or args.trainings != 1:
                parser.error("--truth takes the place of --cfg and --trainings, and draws paths uniformly")
            text = load_jobs().rank_by_truth(
                *(folders, Path(args.truth), output, args.paths, args.seed, args.limit, args.overrides)
            )
            if is_first_process():
                print(text)
            return
        if not args.cfg:
            parser.error("--cfg is needed, or --truth in its place")
        recipe = load_config(args.cfg, args.overrides)
        jobs = load_jobs()
        found = jobs.rank_correlation(
            folders, recipe, output, args.paths, args.sample or "spread", args.seed, args.trainings
        )
        if is_first_process():
            for name, coefficients in found.items():
                print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in coefficients.items()))

    return cli.run(job, RESUME_HINT)


def report(argv: Sequence[str] | None = None) -> int:
    """Write the report of a finished search again (``cream-report``, ``tools/report.py``)."""

    def job() -> None:
        parser = cli.Parser(config_file=False, description="Write the report of a finished search again.")
        parser.add_argument("folder", type=Path, metavar="FOLDER", help="the search's SAVE_PATH/MODEL")
        folder = parser.parse_args(argv).folder
        from cream.report.report import REPORT, write_report  # late: imports Paddle and matplotlib

        write_report(folder)
        print(folder / REPORT)

    return cli.run(job)


def generate_sub_imagenet(argv: Sequence[str] | None = None) -> int:
    """Make a small image set out of a large one (``cream-sub-imagenet``, ``tools/generate_subImageNet.py``)."""

    def job() -> None:
        args = subset_parser().parse_args(argv)
        from cream.studies import subset  # late: imports Paddle
        from pimm.data import add_img_extensions

        add_img_extensions(args.img_extensions)
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


def subset_parser() -> cli.Parser:
    """Return the parser of ``generate_sub_imagenet``."""
    parser = cli.Parser(
        config_file=False,
        description="Make subImageNet: some classes of ImageNet, with some of their images, drawn by seed or read "
        "from the official lists.",
        epilog=f"example: {typed.command('generate_subImageNet')} --data-path data/imagenet --output data/subImageNet",
    )
    count = cli.at_least(1)
    parser.add_argument("--data-path", default="./data/imagenet", metavar="FOLDER", help="holds train/ and val/")
    parser.add_argument(
        "--output", default="./data/subImageNet", metavar="FOLDER", help="new folder (must be missing or empty)"
    )
    parser.add_argument("--classes", type=count, default=100, metavar="N", help="how many classes (default: 100)")
    parser.add_argument("--train", type=count, default=250, metavar="N", help="training images a class (default: 250)")
    parser.add_argument("--val", type=count, default=50, metavar="N", help="validation images a class (default: 50)")
    parser.add_argument("--seed", type=cli.at_least(0), default=0, help="seed of the draw (default: 0)")
    parser.add_argument("--class-list", metavar="FILE", help="subclass_list.txt, in place of drawn classes")
    parser.add_argument("--image-list", metavar="FILE", help="subimages_list.txt, in place of drawn images")
    parser.add_argument(
        "--val-from", choices=("val", "train"), default="val", help="where validation images are taken from"
    )
    parser.add_argument(
        "--img-extensions", nargs="+", default=(), metavar=".EXT", help="more endings of images, such as .tif .gif"
    )
    parser.add_argument("--how", choices=("link", "copy"), default="link", help="symbolic links, or copies")
    return parser
