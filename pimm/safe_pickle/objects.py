"""Represent what is not plain data on the stack of a pickle machine, and the error for what cannot be read."""

from __future__ import annotations


class Malformed(Exception):
    """Says why a file cannot be read."""


class Inert:
    """Stands for something in a file that is not data, and does nothing: a name and what the pickle gave to the thing.

    ``args`` are the arguments of the call that would have made the object (None: the pickle holds the name alone),
    ``state`` would have become its attributes, and ``items`` is the content of a list or dict of a class of its own.
    """

    __slots__ = ("args", "items", "name", "state")

    def __init__(self, name, args=None, state=None):
        self.name, self.args, self.state, self.items = name, args, state, None

    def __repr__(self):
        return f"<inert {self.name!r}>"


class Global:
    """Stands for a name on the stack; ``function`` is what the reader calls for the name, None if nothing."""

    __slots__ = ("function", "name")

    def __init__(self, name, function=None):
        self.name, self.function = name, function


def printable(name, length=100):
    """Return a name out of a file on one line: escaped, because it may hold anything, and cut to ``length``."""
    return name.encode("unicode_escape").decode("ascii")[:length]


def describe(value):
    """Return a short text for an error message that says what ``value`` is."""
    return printable(value.name) if isinstance(value, (Global, Inert)) else f"a {type(value).__name__}"
