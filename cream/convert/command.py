"""The command ``convert-weights``: its arguments, the files it may write, and what it prints."""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from pimm.cli import run
from pimm.parse_kwargs import add_model_kwargs

_TORCH_ENDING, _PADDLE_ENDING = ".pth.tar", ".pdparams"
_HUB = "hf-hub:"
_ENDINGS = "pth|pt|tar|bin|ckpt|safetensors|pdparams|pdema"


def main(argv: Sequence[str] | None = None) -> int:
    """Convert weights (``convert-weights``, ``convert_weights.py``) and return the exit code."""
    args = parse_args(argv)
    return run(lambda: convert(args))


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; None means that of the process."""
    parser = argparse.ArgumentParser(
        description="Convert weights that PyTorch saved into Paddle's, or back, without PyTorch.",
        epilog="Example: python convert_weights.py checkpoint.pth.tar --verify photograph.jpg",
    )
    parser.add_argument(
        "source",
        metavar="IN",
        help="PyTorch's file, or a safetensors file; with --to-torch Paddle's; hf-hub:ORG/NAME for one of the hub",
    )
    parser.add_argument(
        "target",
        metavar="OUT",
        nargs="?",
        help="the file to write, as safetensors if its name ends in .safetensors; default: beside IN",
    )
    parser.add_argument(
        "--model",
        metavar="NAME",
        default="auto",
        help="the net of the weights: cream-287, spos, a model of pimm, the retrain.yaml of a net of your own, ...; "
        "default: auto, which tells it from the weights",
    )
    add_model_kwargs(parser)
    parser.add_argument(
        "--ema",
        action=argparse.BooleanOptionalAction,
        help="convert the averaged weights of PyTorch's file, or the plain ones; default: averaged ones if it has any",
    )
    parser.add_argument("--to-torch", action="store_true", help="convert from Paddle to PyTorch")
    parser.add_argument(
        "--report",
        metavar="FILE",
        help="write as JSON what was converted or, where the weights do not fit the net, every difference",
    )
    parser.add_argument("--verify", metavar="IMAGE", help="print the five likeliest classes of an image")
    parser.add_argument(
        "--spos-preprocessing",
        action="store_true",
        help="show that image to the net in the order blue, green, red and from 0 to 255, for SPOS's released nets",
    )
    return parser.parse_args(argv)


def convert(args: argparse.Namespace) -> None:
    """Convert weights as the arguments say, print a summary, and write and verify what they ask for.

    Raises:
        ConfigError: the arguments contradict each other, or an output file would replace an input.
        CheckpointError, DataError: as ``from_torch``, ``to_torch`` and ``verify`` raise them.
    """
    from cream.convert.convert import from_torch, to_torch  # brings Paddle, which --help need not wait for
    from pimm.errors import CheckpointError, ConfigError
    from pimm.utils import write_text

    target = args.target or default_target(args.source, args.to_torch)
    if args.source.startswith(_HUB):
        from pimm.models.hub_files import hub_weights

        args.source = str(hub_weights(args.source[len(_HUB) :]))
    check_direction(Path(args.source), args.to_torch)
    check_arguments(args, target)
    try:
        if args.to_torch:
            net, report = to_torch(args.source, target, args.model, args.model_kwargs)
        else:
            net, report = from_torch(args.source, target, args.model, args.ema, args.model_kwargs)
    except (CheckpointError, ConfigError) as error:
        if args.report:
            failure = {"source": args.source, "error": str(error), "differences": getattr(error, "differences", {})}
            write_text(args.report, json.dumps(failure, indent=2) + "\n")
        raise
    print(report)
    if args.report:
        write_text(args.report, json.dumps(asdict(report), indent=2) + "\n")
    if args.verify:
        from cream.convert.verify import verify

        weights = args.source if args.to_torch else target
        for name, probability in verify(net, weights, args.verify, args.spos_preprocessing):
            print(f"{probability:8.4f}  {name}")


def default_target(source: str, to_torch: bool) -> str:
    """Return the path beside ``source`` that has the ending of the other format; that of a hub's model is here."""
    if source.startswith(_HUB):
        source = f"{source.partition('@')[0].rpartition('/')[2]}.pth"
    ending = _TORCH_ENDING if to_torch else _PADDLE_ENDING
    return re.sub(rf"(\.pth\.tar|\.({_ENDINGS}))?$", ending, source, count=1, flags=re.IGNORECASE)


def check_arguments(args: argparse.Namespace, target: str) -> None:
    """Raise ConfigError if arguments contradict each other, or a file that is written is one that is read."""
    from pimm.errors import ConfigError
    from pimm.output_paths import check_output_paths

    if args.spos_preprocessing and not args.verify:
        raise ConfigError("--spos-preprocessing is about the image of --verify, and there is none")
    if args.to_torch and args.ema is not None:
        raise ConfigError("--ema chooses in PyTorch's files; with --to-torch the file given is the one converted")
    settings = args.model if os.path.isfile(args.model) else None
    inputs = {"IN": args.source, "--model": settings, "--verify": args.verify}
    check_output_paths({"OUT": target, "--report": args.report}, inputs)


def check_direction(source: Path, to_torch: bool) -> None:
    """Raise ConfigError for a folder, and for a file that already has the format that it would be converted to."""
    from pimm.errors import ConfigError
    from pimm.models.helpers import weights_kind
    from pimm.utils.checkpoint import EMA, MODEL

    if os.path.isdir(source):
        raise ConfigError(f"{source} is a folder; name one of its files: {MODEL}, or {EMA}, the moving average")
    kind = weights_kind(source)
    if to_torch and kind == "torch":
        raise ConfigError(f"{source} is PyTorch's file already: without --to-torch it becomes Paddle's")
    if not to_torch and kind == "paddle":
        raise ConfigError(f"{source} is Paddle's file already: with --to-torch it becomes PyTorch's")
