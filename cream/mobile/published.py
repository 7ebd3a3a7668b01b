"""The published nets, and the net that a configuration asks for."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from cream.space import Arch, ChildSpec, parse_arch
from pimm.errors import ConfigError

# The operation that the block string of each searched stage stands for: 3x3 with ratio 4 is 0, 7x7 with ratio 6 is 5.
STAGE_DEFAULTS = (0, 2, 1, 1, 3)


def published(arch: Sequence[Sequence[int]]) -> Arch:
    """The net that the official code builds from a published architecture.

    It ignores the operation chosen for a stage of one block and takes the stage's default. The released weights were
    trained so, and only they need it: never do this to a searched architecture.
    """
    first, *searched, last = (tuple(stage) for stage in arch)
    built = [stage if len(stage) > 1 else (default,) for stage, default in zip(searched, STAGE_DEFAULTS)]
    return (first, *built, last)


# The nets of the paper by their MFLOPs.
CHILD_NETS = {
    14: ChildSpec(published([[0], [3], [3, 3], [3, 3], [3], [3], [0]]), 64),
    43: ChildSpec(published([[0], [3], [3, 1], [3, 1], [3, 3, 3], [3, 3], [0]]), 96),
    114: ChildSpec(published([[0], [3], [3, 3], [3, 3], [3, 3, 3], [3, 3], [0]]), 160),
    287: ChildSpec(published([[0], [3], [3, 3], [3, 1, 3], [3, 3, 3, 3], [3, 3, 3], [0]]), 224),
    481: ChildSpec(published([[0], [3, 4, 3, 1], [3, 2, 3, 0], [3, 3, 3, 1, 1], [3, 3, 3, 3], [3, 3, 3, 3], [0]]), 224),
    604: ChildSpec(
        published(
            [[0], [3, 3, 2, 3, 3], [3, 2, 3, 2, 3], [3, 2, 3, 2, 3], [3, 3, 2, 2, 3, 3], [3, 3, 2, 3, 3, 3], [0]]
        ),
        224,
    ),
}

NNI_NAMES = {112: 114}  # NNI's copy calls one of them by another number


def child_spec(selection: int, input_arch: Sequence[Sequence[int]] | None, image_size: int) -> ChildSpec:
    """The net of ``NET.INPUT_ARCH`` if there is one, at ``image_size`` pixels, else the published one of ``selection``.

    Raises ConfigError for a selection that is not published.
    """
    if input_arch is not None:
        return ChildSpec(parse_arch(input_arch), image_size)
    selection = NNI_NAMES.get(selection, selection)
    if selection not in CHILD_NETS:
        names = [str(name) for name in CHILD_NETS]
        near = difflib.get_close_matches(str(selection), names, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(
            f"NET.SELECTION={selection} is not a published net; there are {', '.join(names)}, "
            f"and NET.INPUT_ARCH takes any architecture{hint}"
        )
    return CHILD_NETS[selection]
