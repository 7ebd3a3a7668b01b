"""Every net there is weights of: Cream's, SPOS's and pimm's by name, and the one that a set of weights belongs to."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Callable

from paddle import nn

from cream.build.families import net_from_settings
from cream.mobile.nets import ChildNet, MobileSuperNet
from cream.mobile.published import CHILD_NETS
from cream.mobile.space import OPERATIONS, SE, WIDTHS_AND_STRIDES, Operation, mobile_space
from cream.shuffle.names import SHUFFLE_NAMES, shuffle_builder, shuffle_names
from cream.shuffle.nets import NUM_FEATURES
from cream.space import Arch, format_arch, parse_arch
from pimm import create_model, is_model, list_models
from pimm.errors import ConfigError
from pimm.models.fingerprints import image_channels, models_with
from pimm.models.torch_weights import is_foreign

Shapes = Mapping[str, tuple[int, ...]]

_SUPERNET = "cream-supernet-"
_CREAM = "cream-"
_SETTINGS = (".yaml", ".yml")
_SEARCHED = range(1, 6)  # stages
_DEAD_BLOCK = (3, 4)  # stage and position of a block that the official supernet has and never runs
_OFFICIAL_DEPTH = 4  # the most blocks of a stage there


@dataclass(frozen=True)
class Net:
    """A net by name: ``build()`` makes it, for images of ``resolution`` pixels (None: the net says it)."""

    name: str
    build: Callable[[], nn.Layer]
    resolution: int | None = None
    in_chans: int = 3


def find_net(name: str, shapes: Shapes, hint: object = None) -> Net:
    """The net called ``name``, or with ``"auto"`` the one that has weights of these shapes.

    ``shapes`` are those of the weights, under PyTorch's names or Paddle's, and give the number of classes and, for
    pimm's models, of the image's channels. ``hint``,
    the name that a checkpoint carries, decides between nets of the same shapes. Raises ConfigError for an unknown
    name, and where nothing, or not one net alone, fits.
    """
    if name != "auto":
        return _by_name(name, shapes)
    candidates = models_with(shapes)
    if is_foreign(shapes):
        candidates = [candidate for candidate in candidates if candidate.startswith("tf_")]
    candidates = candidates or _cream_names(shapes) or shuffle_names(shapes)
    if isinstance(hint, str) and hint in candidates:
        candidates = [hint]
    if not candidates:
        raise ConfigError(
            "its weights are of no net that is known here; name the net with --model, a net of a space of your own by "
            "the .yaml file that it was retrained with"
        )
    if len(candidates) > 1:
        raise ConfigError(
            f"its weights fit {' and '.join(candidates)}, which compute different things with them; "
            "say with --model which of them was trained"
        )
    return _by_name(candidates[0], shapes)


def _by_name(name: str, shapes: Shapes) -> Net:
    num_classes = _num_classes(shapes)
    if is_model(name):
        channels = image_channels(shapes)
        return Net(name, lambda: create_model(name, num_classes=num_classes, in_chans=channels), in_chans=channels)
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
    near = difflib.get_close_matches(name, known, n=5)
    hint = f"did you mean {', '.join(near)}?" if near else "there are auto, cream-287, spos and the like, pimm's models"
    raise ConfigError(f"unknown net {name!r}; {hint}")


def _num_classes(shapes: Shapes) -> int:
    for bias in ("classifier.bias", "_fc.bias"):
        if len(shapes.get(bias, ())) == 1:
            return shapes[bias][0]
    return math.prod(shapes.get("classifier.0.weight", (0,))) // NUM_FEATURES  # of a ShuffleNet, which has no bias


def _cream_names(shapes: Shapes) -> list[str]:
    """The one of Cream's nets whose blocks are these, if there is one."""
    if not _has_creams_widths(shapes):
        return []
    found = _blocks(shapes)
    if any("meta_layer" in name for name in shapes):
        depths = [len(found.get(stage, ())) for stage in _SEARCHED]
        own = f"{_SUPERNET}{'-'.join(map(str, depths))}"
        stage, position = _DEAD_BLOCK
        if depths[stage - 1] != position + 1 or max(depths) > position + 1:
            return [own]
        depths[stage - 1] = _OFFICIAL_DEPTH
        return [f"{_SUPERNET}{'-'.join(map(str, depths))}", own]
    arch = _child_arch(shapes, found)
    if arch is None:
        return []
    published = [f"{_CREAM}{number}" for number, spec in CHILD_NETS.items() if spec.arch == arch]
    return published or [f"{_CREAM}{format_arch(arch)}"]


def _has_creams_widths(shapes: Shapes) -> bool:
    """Whether the blocks of each searched stage end in as many channels as in Cream's own space."""
    found: dict[int, set[int]] = {}
    for name, shape in shapes.items():
        place = re.match(r"blocks\.(\d)\..*conv_pwl\.weight$", name)
        if place:
            found.setdefault(int(place[1]), set()).add(shape[0] if shape else 0)
    return all(found.get(stage) == {width} for stage, (width, _) in zip(_SEARCHED, WIDTHS_AND_STRIDES))


def _blocks(shapes: Shapes) -> dict[int, set[int]]:
    """Positions of the blocks of each stage."""
    found: dict[int, set[int]] = {}
    for name in shapes:
        place = re.match(r"blocks\.(\d)\.(\d{1,3})\.", name)
        if place:
            found.setdefault(int(place[1]), set()).add(int(place[2]))
    return found


def _child_arch(shapes: Shapes, blocks: Mapping[int, set[int]]) -> Arch | None:
    """The architecture that expansions and kernels of the blocks tell, if they are Cream's."""
    searched = []
    for stage in _SEARCHED:
        operations = []
        for position in sorted(blocks.get(stage, ())):
            expanding = shapes.get(f"blocks.{stage}.{position}.conv_pw.weight", ())
            depthwise = shapes.get(f"blocks.{stage}.{position}.conv_dw.weight", ())
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
