"""Parts of messages that many errors share."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

_LONGEST = 100  # letters of a wrong name that are compared: the time grows with their square


def did_you_mean(name: object, known: Iterable[object], count: int = 1, cutoff: float = 0.6) -> str:
    """Return ``"; did you mean A, B?"`` with the known names nearest to a wrong one, or an empty text.

    Args:
        name: what was given.
        known: what would have been valid.
        count: the most names to list.
        cutoff: how alike names must be, from 0 to 1.
    """
    near = difflib.get_close_matches(str(name)[:_LONGEST], [str(each) for each in known], n=count, cutoff=cutoff)
    return f"; did you mean {', '.join(near)}?" if near else ""


def changes(before: Mapping[str, object], now: Mapping[str, object]) -> list[str]:
    """Return ``"NAME was X and is Y"`` for each name of ``now`` that has another value in ``before``, or none there."""
    return [f"{name} was {before.get(name)} and is {value}" for name, value in now.items() if before.get(name) != value]
