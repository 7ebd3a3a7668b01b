"""Options of keyword arguments, such as ``--model-kwargs``."""

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


def add_model_kwargs(parser):
    """Add the option ``--model-kwargs`` to a parser or to a group of one."""
    parser.add_argument("--model-kwargs", nargs="*", action=ParseKwargs, metavar="KEY=VALUE", help="of the model")


def _literal(text):
    try:
        return ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):  # the latter for deep nesting
        return text
