"""Comparing the weights of a file with those that a net has, and saying in one line how they differ."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from pimm.errors import CheckpointError
from pimm.utils.state import LOADABLE

Shapes = Mapping[str, "tuple[int, ...]"]

MESSAGE_LENGTH = 390  # characters of an error, which a command prints after "error: "
_ITEM_LENGTH = 90
_HINT = ", all of them in the file of --report"


class WeightsDiffer(CheckpointError):
    """Weights that are not those of a net; the message names the first differences, ``differences`` holds all.

    Args:
        beginning: the file and the net.
        differences: by kind, a text for each difference.
    """

    def __init__(self, beginning: str, differences: Mapping[str, Sequence[str]]):
        self.differences = {kind: list(texts) for kind, texts in differences.items()}
        count = sum(map(len, differences.values()))
        start = f"{beginning}, {count} difference{'s' * (count > 1)}: "
        super().__init__(start + _first(differences, MESSAGE_LENGTH - len(start)))


def _first(differences: Mapping[str, Sequence[str]], length: int) -> str:
    """List the first differences of every kind, as many as ``length`` characters hold, and count the others."""
    items = [[f"{kind}: {shorten(text, _ITEM_LENGTH)}" for text in texts] for kind, texts in differences.items()]
    in_turn = [item for row in itertools.zip_longest(*items) for item in row if item is not None]
    if len("; ".join(in_turn)) <= length:
        return "; ".join(itertools.chain(*items))
    left, shown = length - len(f"; and {len(in_turn)} more{_HINT}"), 0
    for item in in_turn:
        left -= len(item) + 2
        if left < 0:
            break
        shown += 1
    shown = max(shown, 1)
    listed = [item for row in items for item in row if item in in_turn[:shown]]
    return f"{'; '.join(listed)}; and {len(in_turn) - shown} more{_HINT}"


def compare_shapes(expected: Shapes, given: Shapes) -> dict[str, list[str]]:
    """List by kind how the names and shapes of weights differ from those that a net expects."""
    return {
        "missing": [f"{name} {list(shape)}" for name, shape in expected.items() if name not in given],
        "left over": [f"{printable(name)} {list(shape)}" for name, shape in given.items() if name not in expected],
        "shape differs": [
            f"{name} {list(given[name])}, the model has {list(shape)}"
            for name, shape in expected.items()
            if name in given and tuple(given[name]) != tuple(shape)
        ],
    }


def not_weights(content: object) -> list[str]:
    """List the entries of a file that are not arrays of numbers under a name."""
    if not isinstance(content, dict):
        return [f"it is a {type(content).__name__} and not a dict"]
    return [
        f"{shorten(repr(name), 60)} is {_kind(value)}"
        for name, value in content.items()
        if not isinstance(name, str) or not isinstance(value, np.ndarray) or value.dtype.name not in LOADABLE
    ]


def _kind(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of type {value.dtype}"
    return shorten(f"{value!r}" if isinstance(value, (str, int, float)) else f"a {type(value).__name__}", 60)


def beginnings(names: Sequence[str]) -> str:
    """Say how names begin, such as ``backbone.* (240), head.* (2)``."""
    counts = Counter(name.partition(".")[0] for name in names)
    parts = [f"{shorten(printable(name), 40)}.* ({count})" for name, count in counts.most_common(3)]
    return ", ".join(parts + ["..."] * (len(counts) > 3))


def printable(text: str) -> str:
    """Return the text, with escapes if it holds characters that a terminal would obey."""
    return text if text.isprintable() else repr(text)


def shorten(text: str, length: int) -> str:
    """Return the text, cut to ``length`` characters where it is longer."""
    return text if len(text) <= length else f"{text[: length - 3]}..."
