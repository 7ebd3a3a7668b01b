"""Help training scripts with sort keys and command-line options."""

from __future__ import annotations

import argparse
import ast
import re


def natural_key(string_):
    """Return a sort key in which numbers inside names count as numbers and case does not: ``e-9`` before ``E-10``."""
    parts = re.split(r"(\d+)", string_.lower())
    parts[1::2] = map(int, parts[1::2])
    return parts


def add_bool_arg(parser, name, default=False, help=""):
    """Give an ``argparse`` parser the pair of options ``--name`` and ``--no-name``."""
    dest = name.replace("-", "_")
    group = parser.add_mutually_exclusive_group(required=False)
    group.add_argument(f"--{name}", dest=dest, action="store_true", help=help)
    group.add_argument(f"--no-{name}", dest=dest, action="store_false", help=help)
    parser.set_defaults(**{dest: default})


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
