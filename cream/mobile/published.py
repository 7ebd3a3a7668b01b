"""The published nets, and the net that a configuration asks for."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from cream.space import Arch, ChildSpec, parse_arch
from pimm.errors import ConfigError
from pimm.messages import did_you_mean

_log = logging.getLogger(__name__)

# The operation that the block string of each searched stage stands for: 3x3 with ratio 4 is 0, 7x7 with ratio 6 is 5.
STAGE_DEFAULTS = (0, 2, 1, 1, 3)


def published(arch: Sequence[Sequence[int]]) -> Arch:
    """Return the net that the official code builds from a published architecture.

    The official code ignores the operation chosen for a stage of one block and takes the stage's default. The released
    weights were trained so, and only they need it: never do this to a searched architecture.
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

# Other numbers for the same nets: those that the official seeds and YAML files have, and NNI's.
OTHER_NAMES = {42: 43, 470: 481, 285: 287, 600: 604, 112: 114}


def child_spec(selection: int, input_arch: Sequence[Sequence[int]] | None, image_size: int) -> ChildSpec:
    """Return the net of ``NET.INPUT_ARCH``, or else the published one of ``NET.SELECTION``.

    Args:
        selection: MFLOPs of the published net; another name of it is noted in the log.
        input_arch: an architecture in its place, or None.
        image_size: width and height, in pixels, for an ``input_arch``; a published net has its own.

    Raises:
        ConfigError: no net of this number was published.
    """
    if input_arch is not None:
        return ChildSpec(parse_arch(input_arch), image_size)
    known = OTHER_NAMES.get(selection, selection)
    if known not in CHILD_NETS:
        raise ConfigError(
            f"NET.SELECTION={selection} is not a published net; there are {', '.join(map(str, CHILD_NETS))}, "
            f"and NET.INPUT_ARCH takes any architecture{did_you_mean(selection, CHILD_NETS, cutoff=0.5)}"
        )
    if known != selection:
        _log.warning("NET.SELECTION=%d is taken as %d: the published net goes by both numbers", selection, known)
    return CHILD_NETS[known]
