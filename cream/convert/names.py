"""The names of all nets whose weights can be converted, and which of the nets a set of weights belongs to."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Callable

from paddle import nn

from cream.build.families import net_from_settings
from cream.convert.differences import Shapes, beginnings, shorten
from cream.mobile.nets import ChildNet, MobileSuperNet
from cream.mobile.published import CHILD_NETS
from cream.mobile.space import OPERATIONS, SE, WIDTHS_AND_STRIDES, Operation, mobile_space
from cream.shuffle.names import SHUFFLE_NAMES, shuffle_builder, shuffle_names
from cream.shuffle.nets import NUM_FEATURES
from cream.space import Arch, format_arch, parse_arch
from pimm import is_model, list_models
from pimm.errors import ConfigError
from pimm.messages import did_you_mean
from pimm.models.fingerprints import class_count, image_channels, models_with
from pimm.models.torch_weights import is_foreign
from pimm.scripts import create_with

_SUPERNET = "cream-supernet-"
_CREAM = "cream-"
_SETTINGS = (".yaml", ".yml")
_SEARCHED_STAGES = range(1, 6)
_UNUSED_BLOCK = (3, 4)  # stage and index of a block that the official supernet has but never runs
_OFFICIAL_DEPTH = 4  # the largest number of blocks in a stage of the official supernet
_DEEPEST = 50  # blocks in a stage; names in a file that claim more would take minutes to build


@dataclass(frozen=True)
class Net:
    """A net with its name.

    Args:
        name: the name.
        build: builds the net, with fresh weights.
        resolution: the side of the images that the net takes, in pixels; None if the net's own configuration says it.
        in_chans: the number of channels of these images.
        guessed: whether the net was found by the shapes of its weights.
    """

    name: str
    build: Callable[[], nn.Layer]
    resolution: int | None = None
    in_chans: int = 3
    guessed: bool = False


def find_net(name: str, shapes: Shapes, hint: object = None, model_kwargs: dict | None = None) -> Net:
    """Return the net called ``name``, or for ``"auto"`` the net whose weights have these shapes.

    Args:
        name: the name of a net, a file of settings (``.yaml``) that names one, or ``auto``.
        shapes: the shapes of the weights under PyTorch's names or Paddle's. They also tell the number of classes and,
            for pimm's models, the number of channels of an image.
        hint: the name that the checkpoint or its file carries; it decides between nets with weights of the same shapes.
        model_kwargs: further arguments of a model of pimm.

    Raises:
        ConfigError: the name is unknown, or the shapes fit no net or several, or the net takes no arguments.
    """
    if name != "auto":
        return _by_name(name, shapes, model_kwargs)
    candidates = models_with(shapes)
    if is_foreign(shapes):
        candidates = [candidate for candidate in candidates if candidate.startswith("tf_")]
    candidates = candidates or _cream_names(shapes) or shuffle_names(shapes)
    if isinstance(hint, str) and hint in candidates:
        candidates = [hint]
    if not candidates:
        raise ConfigError(
            "its weights are of no net that is known here; name the net with --model, a net of a space of your own by "
            f"the .yaml file that it was retrained with. The arrays are called {beginnings(list(shapes))}"
        )
    if len(candidates) > 1:
        raise ConfigError(
            f"its weights fit {shorten(' and '.join(candidates), 200)}, which compute different things with them; "
            "say with --model which of them was trained"
        )
    return replace(_by_name(candidates[0], shapes, model_kwargs), guessed=True)


def _by_name(name: str, shapes: Shapes, model_kwargs: dict | None) -> Net:
    """Return the net of this name, with as many classes as the shapes tell."""
    num_classes = _num_classes(shapes)
    if is_model(name):
        channels = image_channels(shapes)
        given = {"num_classes": num_classes, "in_chans": channels}
        return Net(name, lambda: create_with(model_kwargs, name, **given), in_chans=channels)
    if model_kwargs:
        raise ConfigError(f"--model-kwargs are for models of pimm, and {shorten(repr(name), 100)} is none")
    if name.endswith(_SETTINGS):
        build, spec = net_from_settings(name)
        return Net(name, build, spec.resolution)
    if name.startswith(_SUPERNET) and re.fullmatch(r"\d+(-\d+){4}", name[len(_SUPERNET) :]):
        depths = [int(depth) for depth in name[len(_SUPERNET) :].split("-")]
        slice_size = math.prod(shapes.get("meta_layer.weight", (num_classes,))) // max(num_classes, 1)
        return Net(name, lambda: MobileSuperNet(mobile_space(depths), num_classes, max(slice_size, 1)))
    build = shuffle_builder(name, num_classes)
    if build:
        return Net(name, build, 224)
    selection = name[len(_CREAM) :] if name.startswith(_CREAM) else ""
    if selection.startswith("["):
        arch = parse_arch(selection)
        return Net(name, lambda: ChildNet(arch, num_classes))
    if selection.isdecimal() and int(selection) in CHILD_NETS:
        spec = CHILD_NETS[int(selection)]
        return Net(name, lambda: ChildNet(spec.arch, num_classes), spec.resolution)
    known = [*(f"{_CREAM}{number}" for number in CHILD_NETS), *SHUFFLE_NAMES, *list_models()]
    hint = did_you_mean(name, known, count=5) or "; valid are auto, cream-287, spos, and all models of pimm"
    raise ConfigError(f"unknown net {shorten(repr(name), 100)}{hint}")


def _num_classes(shapes: Shapes) -> int:
    """Return the number of classes that the shape of the classifier tells, 0 if there is no classifier."""
    # The last layer of a ShuffleNet has no bias.
    return class_count(shapes) or math.prod(shapes.get("classifier.0.weight", (0,))) // NUM_FEATURES


def _cream_names(shapes: Shapes) -> list[str]:
    """List the names of Cream's nets that have these blocks: none, one, or two supernets."""
    if not _has_creams_widths(shapes):
        return []
    blocks = _blocks(shapes)
    if max(map(len, blocks.values()), default=0) > _DEEPEST:
        return []
    if any("meta_layer" in name for name in shapes):
        depths = [len(blocks.get(stage, ())) for stage in _SEARCHED_STAGES]
        ours = f"{_SUPERNET}{'-'.join(map(str, depths))}"
        stage, index = _UNUSED_BLOCK
        if depths[stage - 1] != index + 1 or max(depths) > index + 1:
            return [ours]
        depths[stage - 1] = _OFFICIAL_DEPTH
        return [f"{_SUPERNET}{'-'.join(map(str, depths))}", ours]
    arch = _child_arch(shapes, blocks)
    if arch is None:
        return []
    published = [f"{_CREAM}{number}" for number, spec in CHILD_NETS.items() if spec.arch == arch]
    return published or [f"{_CREAM}{format_arch(arch)}"]


def _has_creams_widths(shapes: Shapes) -> bool:
    """Return whether the blocks of each searched stage have as many output channels as in Cream's own space."""
    widths: dict[int, set[int]] = {}
    for name, shape in shapes.items():
        match = re.match(r"blocks\.(\d)\..*conv_pwl\.weight$", name)
        if match:
            widths.setdefault(int(match[1]), set()).add(shape[0] if shape else 0)
    return all(widths.get(stage) == {width} for stage, (width, _) in zip(_SEARCHED_STAGES, WIDTHS_AND_STRIDES))


def _blocks(shapes: Shapes) -> dict[int, set[int]]:
    """Return the indices of the blocks of each stage."""
    blocks: dict[int, set[int]] = {}
    for name in shapes:
        match = re.match(r"blocks\.(\d)\.(\d{1,3})\.", name)
        if match:
            blocks.setdefault(int(match[1]), set()).add(int(match[2]))
    return blocks


def _child_arch(shapes: Shapes, blocks: Mapping[int, set[int]]) -> Arch | None:
    """Return the architecture that the expansions and kernels of the blocks tell; None if they are not Cream's."""
    searched = []
    for stage in _SEARCHED_STAGES:
        operations = []
        for index in sorted(blocks.get(stage, ())):
            expanding = shapes.get(f"blocks.{stage}.{index}.conv_pw.weight", ())
            depthwise = shapes.get(f"blocks.{stage}.{index}.conv_dw.weight", ())
            if len(expanding) != 4 or len(depthwise) != 4 or not expanding[1]:
                return None
            operation = Operation("ir", depthwise[-1], expanding[0] / expanding[1], SE)
            if operation not in OPERATIONS:
                return None
            operations.append(OPERATIONS.index(operation))
        if not operations:
            return None
        searched.append(tuple(operations))
    return ((0,), *searched, (0,))
