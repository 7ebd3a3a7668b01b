"""Single Path One-Shot's nets by name, and the one that a set of weights belongs to.

``spos`` is the authors' net, ``spos-[[...]]`` that of any path, ``spos-supernet`` the net of all of them;
``spos-channels-[[...]]`` and ``spos-channels-supernet`` are those of the space that searches channels too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Callable

from paddle import nn

from cream.shuffle.nets import (
    CHANNEL_RATIOS,
    DEPTHS,
    OPERATIONS,
    PLAIN,
    SPOS_ARCH,
    ShuffleNet,
    ShuffleSuperNet,
    positions,
    shuffle_space,
    widths_inside,
)
from cream.space import format_arch, parse_arch

SHUFFLE_NAMES = ("spos", "spos-supernet", "spos-channels-supernet")
_SUPERNET = "supernet"
_SPACES = {"": PLAIN, "channels-": CHANNEL_RATIOS}  # what stands in a name for the space

Shapes = Mapping[str, "tuple[int, ...]"]


def shuffle_builder(name: str, num_classes: int) -> Callable[[], nn.Layer] | None:
    """What makes the net of this name, if it is one of these; ConfigError for an architecture that is none."""
    parts = re.fullmatch(rf"spos(?:-((?:channels-)?)({_SUPERNET}|\[.*))?", name)
    if not parts:
        return None
    ratios = _SPACES[parts[1] or ""]
    if parts[2] == _SUPERNET:
        return lambda: ShuffleSuperNet(num_classes, ratios)
    arch = parse_arch(parts[2]) if parts[2] else SPOS_ARCH
    return lambda: ShuffleNet(arch, num_classes, ratios)


def shuffle_names(shapes: Shapes) -> list[str]:
    """The name of the net that has weights of these shapes, if it is one of these."""
    supernets = (_inside(shapes, first) for first in ("features.0.0", "features.0.choices.0"))
    inside = next(filter(None, supernets), None)
    if inside:
        _, out_chs, _ = next(positions())
        widest = {max(widths_inside(out_chs, ratios)): name for name, ratios in _SPACES.items()}
        return [f"spos-{widest[inside[1]]}{_SUPERNET}"] if inside[1] in widest else []
    blocks = [_inside(shapes, f"features.{index}") for index in range(sum(DEPTHS))]
    for name, ratios in _SPACES.items():
        choices = [_choice(block, out_chs, ratios) for block, (_, out_chs, _) in zip(blocks, positions())]
        if None not in choices:
            arch = shuffle_space(ratios).decode(choices)
            return ["spos" if ratios == PLAIN and arch == SPOS_ARCH else f"spos-{name}{format_arch(arch)}"]
    return []


def _inside(shapes: Shapes, block: str) -> tuple[tuple[str, int], int] | None:
    """Operation of a block and channels inside it, by the shapes of its main branch."""
    weights = [shapes.get(f"{block}.branch_main.{index}.weight", ()) for index in (0, 2, 3)]
    first, second, middle = weights
    if len(first) == len(middle) == 4:  # pointwise, depthwise
        return ("pdp", middle[-1]), first[0]
    if len(first) == len(second) == 4:  # depthwise, pointwise
        return ("dpdpdp", first[-1]), second[0]
    return None


def _choice(inside: tuple[tuple[str, int], int] | None, out_chs: int, ratios: Sequence[float]) -> int | None:
    widths = widths_inside(out_chs, ratios)
    if inside is None or inside[0] not in OPERATIONS or inside[1] not in widths:
        return None
    return OPERATIONS.index(inside[0]) * len(ratios) + widths.index(inside[1])
