"""The names of Single Path One-Shot's nets, and which of the nets a set of weights belongs to.

``spos`` is the net that the authors found, ``spos-[[...]]`` the net of a path, and ``spos-supernet`` the supernet;
``spos-channels-[[...]]`` and ``spos-channels-supernet`` belong to the space that searches channels too.
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
_SPACES = {"": PLAIN, "channels-": CHANNEL_RATIOS}  # the part of a name that says which space the net belongs to

Shapes = Mapping[str, "tuple[int, ...]"]


def shuffle_builder(name: str, num_classes: int) -> Callable[[], nn.Layer] | None:
    """Return the function that builds the net of this name, or None if the name has another form.

    Raises:
        ConfigError: the name has the form ``spos-[...``, and what follows ``spos-`` is not an architecture.
    """
    parts = re.fullmatch(rf"spos(?:-((?:channels-)?)({_SUPERNET}|\[.*))?", name)
    if not parts:
        return None
    ratios = _SPACES[parts[1] or ""]
    if parts[2] == _SUPERNET:
        return lambda: ShuffleSuperNet(num_classes, ratios)
    arch = parse_arch(parts[2]) if parts[2] else SPOS_ARCH
    return lambda: ShuffleNet(arch, num_classes, ratios)


def shuffle_names(shapes: Shapes) -> list[str]:
    """List the name of the net whose weights have these shapes, or nothing if it is none of these nets."""
    supernet_blocks = (_main_branch(shapes, first) for first in ("features.0.0", "features.0.choices.0"))
    block = next(filter(None, supernet_blocks), None)
    if block:
        _, out_chs, _ = next(positions())
        widest = {max(widths_inside(out_chs, ratios)): name for name, ratios in _SPACES.items()}
        return [f"spos-{widest[block[1]]}{_SUPERNET}"] if block[1] in widest else []
    blocks = [_main_branch(shapes, f"features.{index}") for index in range(sum(DEPTHS))]
    for name, ratios in _SPACES.items():
        choices = [_choice(block, out_chs, ratios) for block, (_, out_chs, _) in zip(blocks, positions())]
        if None not in choices:
            arch = shuffle_space(ratios).decode(choices)
            return ["spos" if ratios == PLAIN and arch == SPOS_ARCH else f"spos-{name}{format_arch(arch)}"]
    return []


def _main_branch(shapes: Shapes, block: str) -> tuple[tuple[str, int], int] | None:
    """Return the operation of a block and its inner channels, from the shapes of its main branch; None if unknown."""
    weights = [shapes.get(f"{block}.branch_main.{index}.weight", ()) for index in (0, 2, 3)]
    first, second, middle = weights
    if len(first) == len(middle) == 4:  # pointwise, depthwise
        return ("pdp", middle[-1]), first[0]
    if len(first) == len(second) == 4:  # depthwise, pointwise
        return ("dpdpdp", first[-1]), second[0]
    return None


def _choice(branch: tuple[tuple[str, int], int] | None, out_chs: int, ratios: Sequence[float]) -> int | None:
    """Return the choice that has this operation and these inner channels; None if the space has no such choice."""
    widths = widths_inside(out_chs, ratios)
    if branch is None or branch[0] not in OPERATIONS or branch[1] not in widths:
        return None
    return OPERATIONS.index(branch[0]) * len(ratios) + widths.index(branch[1])
