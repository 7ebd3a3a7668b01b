"""Small helpers of training scripts."""

from __future__ import annotations

import random
import re

import numpy as np
import paddle


def natural_key(string):
    """Sort key in which numbers inside names count as numbers and case does not: ``epoch-9`` before ``epoch-10``."""
    parts = re.split(r"(\d+)", string.lower())
    parts[1::2] = map(int, parts[1::2])
    return parts


def add_bool_arg(parser, name, default=False, help=""):
    """Give an ``argparse`` parser the pair of options ``--name`` and ``--no-name``."""
    dest = name.replace("-", "_")
    group = parser.add_mutually_exclusive_group(required=False)
    group.add_argument(f"--{name}", dest=dest, action="store_true", help=help)
    group.add_argument(f"--no-{name}", dest=dest, action="store_false", help=help)
    parser.set_defaults(**{dest: default})


def random_seed(seed=42, rank=0):
    """Seed Python's, numpy's and Paddle's global random streams, differently on every rank."""
    random.seed(seed + rank)
    np.random.seed(seed + rank)
    paddle.seed(seed + rank)
