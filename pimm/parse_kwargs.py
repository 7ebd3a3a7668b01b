"""An option of keyword arguments."""

from __future__ import annotations

import argparse
import ast


class ParseKwargs(argparse.Action):
    """Turns the words ``KEY=VALUE`` of an option with ``nargs="*"`` into ``{key: value}``.

    Values are Python literals, or else text. A word without ``=`` is an error of the command line.
    """

    def __call__(self, parser, namespace, values, option_string=None):
        parsed = {}
        for word in filter(None, values):
            key, equals, value = word.partition("=")
            if not equals:
                raise argparse.ArgumentError(self, f"expected KEY=VALUE, got {word!r:.80}")
            parsed[key] = _literal(value)
        setattr(namespace, self.dest, parsed)


def _literal(text):
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
