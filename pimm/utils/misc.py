"""Help training scripts with sort keys and command-line options."""

from __future__ import annotations

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
