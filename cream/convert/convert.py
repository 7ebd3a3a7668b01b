"""Weights from PyTorch's files into Paddle's and back, for Cream's nets and pimm's, without PyTorch.

It is here and not in pimm because it knows the nets of both.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import paddle
from paddle import Tensor, nn
from PIL import Image

from cream.convert.names import Net, Shapes, find_net
from cream.counting import count_parameters
from cream.supernet import SuperNet
from pimm.cli import run
from pimm.data import resolve_data_config
from pimm.data.imagenet import imagenet_classes
from pimm.data.transforms_factory import create_transform
from pimm.errors import CheckpointError, ConfigError, DataError
from pimm.models import load_checkpoint
from pimm.models.helpers import is_torch_file
from pimm.models.torch_names import from_torch_arrays, is_batch_counter, to_torch_arrays
from pimm.models.torch_weights import find_weights, rename_arrays
from pimm.torch_file import BFLOAT16, is_bfloat16, read_torch, save_torch
from pimm.utils import file_sha256, load_arrays, save_arrays
from pimm.utils.checkpoint import EMA, MODEL

_TORCH_ENDING, _PADDLE_ENDING = ".pth.tar", ".pdparams"
_SHOWN = 5
SPOS_PREPROCESSING = {"mean": (0.0,) * 3, "std": (1 / 255,) * 3, "interpolation": "bilinear", "crop_pct": 224 / 256}


@dataclass(frozen=True)
class Report:
    """What was converted into what; ``parameters`` counts the trainable ones, ``arrays`` what was written."""

    source: str
    format: str
    sha256: str
    net: str
    weights: str
    parameters: int
    dtype: str
    arrays: int
    dropped: list[str]
    target: str

    def __str__(self) -> str:
        rows = {**asdict(self), "dropped": self._dropped()}
        texts = {name: f"{value:,}" if isinstance(value, int) else value for name, value in rows.items()}
        return "\n".join(f"{name:<11}{text}" for name, text in texts.items())

    def _dropped(self) -> str:
        others = [name for name in self.dropped if not is_batch_counter(name)]
        counters = len(self.dropped) - len(others)
        parts = others[:_SHOWN] + [f"{len(others) - _SHOWN} more"] * (len(others) > _SHOWN)
        return ", ".join(parts + [f"{counters} counts of batches"] * (counters > 0)) or "nothing"


def from_torch(
    source: str | Path, target: str | Path, name: str = "auto", use_ema: bool | None = None
) -> tuple[Net, Report]:
    """Writes the weights of PyTorch's file ``source`` as Paddle's ``target``, bit for bit as they are.

    ``name`` as in ``find_net``, ``use_ema`` as in ``find_weights``. Raises CheckpointError for a file that cannot be
    read and for weights that are not those of the net, with every difference; ConfigError as ``find_net`` does.
    """
    content, form = read_torch(source)
    try:
        weights = find_weights(content, use_ema)
        net = find_net(name, _shapes(weights.arrays), content.get("arch"))
        model = _outline(net)
        renamed, dropped = rename_arrays(model, weights.arrays)
        state = from_torch_arrays(model, renamed, shown=None)
    except (CheckpointError, ConfigError) as error:
        raise type(error)(f"{source}: {error}") from None
    save_arrays(target, {name: _as_paddle(array) for name, array in state.items()})
    what = f"{'averaged' if weights.averaged else 'plain'}, {weights.key or 'the file is a state dict'}"
    return net, _report(source, f"PyTorch, {form}", net, model, what, state, dropped, target)


def to_torch(source: str | Path, target: str | Path, name: str = "auto") -> tuple[Net, Report]:
    """Writes Paddle's weights ``source`` as a file ``target`` that PyTorch reads; errors as in ``from_torch``.

    It holds ``arch``, the net's name, and ``state_dict`` with PyTorch's names and batch counters of 0.
    """
    arrays = load_arrays(source)
    try:
        if not isinstance(arrays, dict) or not all(isinstance(value, np.ndarray) for value in arrays.values()):
            raise CheckpointError("it holds more than weights by name")
        net = find_net(name, _shapes(arrays))
        model = _outline(net)
        state = to_torch_arrays(model, arrays)
    except (CheckpointError, ConfigError) as error:
        raise type(error)(f"{source}: {error}") from None
    save_torch(target, {"arch": net.name, "state_dict": {name: _as_torch(array) for name, array in state.items()}})
    what = "averaged" if Path(source).suffix == Path(EMA).suffix else "plain"
    return net, _report(source, "Paddle", net, model, what, arrays, [], target)


def verify(
    net: Net, weights: str | Path, image: str | Path, spos_preprocessing: bool = False
) -> list[tuple[str, float]]:
    """The five likeliest classes of an image, with their probabilities, as the net of a weights file sees them.

    ``spos_preprocessing`` shows it the image as SPOS's authors do: blue first, values of 0 to 255.
    """
    model = net.build()
    if isinstance(model, SuperNet):
        raise ConfigError(f"{net.name} is many nets: only a single one can be verified on an image")
    load_checkpoint(model, weights)
    model.eval()
    with paddle.no_grad():
        probabilities = nn.functional.softmax(model(_read_image(net, model, image, spos_preprocessing)))[0].numpy()
    names = imagenet_classes() if len(probabilities) == 1000 else [f"class {i}" for i in range(len(probabilities))]
    return [(names[i], float(probabilities[i])) for i in np.argsort(-probabilities, kind="stable")[:5]]


def _read_image(net: Net, model: nn.Layer, path: str | Path, spos_preprocessing: bool) -> Tensor:
    if net.in_chans not in (1, 3):
        raise ConfigError(f"images of {net.in_chans} channels, which {net.name} takes, are not read by --verify")
    wanted = {
        "img_size": net.resolution,
        "in_chans": net.in_chans,
        **(SPOS_PREPROCESSING if spos_preprocessing else {}),
    }
    config = resolve_data_config(wanted, model=model, verbose=False)
    try:
        with Image.open(path) as image:
            x = create_transform(**config)(image.convert("RGB" if net.in_chans == 3 else "L")).unsqueeze(0)
            return x.flip(1) if spos_preprocessing else x
    except Image.UnidentifiedImageError as error:
        raise DataError(f"{path} is no image that can be read") from error


def _shapes(arrays: Mapping[str, np.ndarray]) -> Shapes:
    return {name: array.shape for name, array in arrays.items()}


def _outline(net: Net) -> nn.Layer:
    """The net with the names and shapes of its weights, but no values."""
    with paddle.LazyGuard():
        return net.build()


def _as_paddle(array: np.ndarray) -> np.ndarray:
    """In C order, and bfloat16 as bits."""
    return np.asarray(array.view(np.uint16) if is_bfloat16(array) else array, order="C")


def _as_torch(array: np.ndarray) -> np.ndarray:
    """With the bits of bfloat16 marked as such: Paddle's files do not mark them."""
    return array.view(BFLOAT16) if array.dtype == np.uint16 else array


def _report(
    source: str | Path,
    form: str,
    net: Net,
    model: nn.Layer,
    weights: str,
    state: Mapping[str, np.ndarray],
    dropped: list[str],
    target: str | Path,
) -> Report:
    dtypes = sorted({"bfloat16" if array.dtype == np.uint16 else array.dtype.name for array in state.values()})
    return Report(
        source=str(source),
        format=form,
        sha256=file_sha256(source),
        net=net.name,
        weights=weights,
        parameters=count_parameters(model),
        dtype=", ".join(dtypes),
        arrays=len(state),
        dropped=dropped,
        target=str(target),
    )


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Convert weights that PyTorch saved into Paddle's, without PyTorch.")
    parser.add_argument("source", metavar="IN", help="a .pth or .pth.tar file; with --to-torch a .pdparams file")
    parser.add_argument("target", metavar="OUT", nargs="?", help="file to write; default: beside IN")
    parser.add_argument(
        "--model",
        metavar="NAME",
        default="auto",
        help="whose weights: cream-287, spos, a model of pimm, ...; default: auto",
    )
    parser.add_argument(
        "--ema",
        action=argparse.BooleanOptionalAction,
        help="averaged weights or plain ones of PyTorch's file; default: averaged if any",
    )
    parser.add_argument("--to-torch", action="store_true", help="from Paddle to PyTorch")
    parser.add_argument("--report", metavar="FILE", help="write what was done as JSON")
    parser.add_argument("--verify", metavar="IMAGE", help="print the five likeliest classes of an image")
    parser.add_argument(
        "--spos-preprocessing", action="store_true", help="show it that image as BGR, 0 to 255: SPOS's released nets"
    )
    return parser.parse_args(argv)


def convert(args: argparse.Namespace) -> None:
    """What the command does with its arguments."""
    check_direction(Path(args.source), args.to_torch)
    ending = _TORCH_ENDING if args.to_torch else _PADDLE_ENDING
    target = args.target or re.sub(r"(\.pth\.tar|\.pth|\.pt|\.tar|\.pdparams|\.pdema)?$", ending, args.source, count=1)
    if Path(target).resolve() == Path(args.source).resolve():
        raise ConfigError(f"{target} would replace what it is made from; name another OUT")
    if args.spos_preprocessing and not args.verify:
        raise ConfigError("--spos-preprocessing is about the image of --verify, and there is none")
    if args.to_torch and args.ema is not None:
        raise ConfigError("--ema chooses in PyTorch's files; with --to-torch the file given is the one converted")
    if args.to_torch:
        net, report = to_torch(args.source, target, args.model)
    else:
        net, report = from_torch(args.source, target, args.model, args.ema)
    print(report)
    if args.report:
        Path(args.report).write_text(json.dumps(asdict(report), indent=2) + "\n")
    if args.verify:
        weights = args.source if args.to_torch else target
        for name, probability in verify(net, weights, args.verify, args.spos_preprocessing):
            print(f"{probability:8.4f}  {name}")


def check_direction(source: Path, to_torch: bool) -> None:
    """Raises ConfigError for a folder, and for a file that is already what it would become."""
    if source.is_dir():
        raise ConfigError(f"{source} is a folder; name one of its files: {MODEL}, or {EMA}, the moving average")
    if to_torch and is_torch_file(source):
        raise ConfigError(f"{source} is PyTorch's file already: without --to-torch it becomes Paddle's")
    if not to_torch and source.suffix in (_PADDLE_ENDING, Path(EMA).suffix):
        raise ConfigError(f"{source} is Paddle's file already: with --to-torch it becomes PyTorch's")


def main(argv: Sequence[str] | None = None) -> int:
    """Converts weights (``convert-weights``, ``convert_weights.py``)."""
    args = parse_args(argv)
    return run(lambda: convert(args))
