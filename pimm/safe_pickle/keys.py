"""Bound the time that keys of dicts and items of sets cost.

Whoever writes a file can choose integers, floats and tuples whose hashes collide, so that each of n insertions takes
n steps; the hash of a tuple that holds itself twice, sixty levels deep, takes 2 ** 60 steps. Text and bytes cannot be
chosen so: Python hashes them with a secret. Names and objects are hashed by their address.
"""

from __future__ import annotations

import numpy as np

from pimm.safe_pickle.objects import Global, Inert, Malformed, describe

MAX_COST = 50_000  # per pickle: fifty thousand class numbers, or five thousand numbers and tuples of any kind
_MAX_PARTS = 64  # of one tuple, those of the tuples in it included
_SMALL = 1 << 16  # numbers below this limit have too few rivals to collide badly
_ODD, _TUPLE = 10, 4  # cost of a number of any size, and of a tuple beside its parts


class Keys:
    """Checks keys, and counts what those of one pickle cost so far."""

    def __init__(self):
        self.cost = 0

    def check(self, key):
        """Return the key to use for ``key``; raise Malformed for an unusable key, and for too many that may collide."""
        if type(key) is str or type(key) is bytes:
            return key
        if isinstance(key, np.generic):
            key = key.item()
        self.cost += _cost(key, [0])
        if self.cost > MAX_COST:
            raise Malformed("it has too many keys that are not text")
        return key

    def make_set(self, items=(), kind=set):
        """Return a set of ``items``, each of which is checked as a key."""
        return kind([self.check(item) for item in items])

    def make_dict(self, pairs=()):
        """Return a dict of the pairs of a dict or of an iterable, each of whose keys is checked."""
        return {self.check(key): value for key, value in (pairs.items() if isinstance(pairs, dict) else pairs)}


def _cost(key, parts):
    """Return the cost of one key; ``parts`` holds the number of parts that were met in it."""
    parts[0] += 1
    kind = type(key)
    if kind in (str, bytes, bool, type(None), Global, Inert) or hasattr(key, "is_stand_in"):
        return 1
    if kind is int and -(2**63) <= key < 2**63:
        return 1 if 0 <= key < _SMALL else _ODD
    if kind is float and key == key:
        return _ODD
    if kind in (tuple, frozenset) and parts[0] + len(key) <= _MAX_PARTS:
        return _TUPLE + sum(_cost(part, parts) for part in key)
    raise Malformed(f"{describe(key)} as a key")
