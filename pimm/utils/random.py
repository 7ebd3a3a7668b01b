"""Seed the global random streams."""

from __future__ import annotations

import random

import numpy as np
import paddle


def random_seed(seed=42, rank=0):
    """Seed Python's, numpy's and Paddle's global random streams, differently on every rank."""
    random.seed(seed + rank)
    np.random.seed(seed + rank)
    paddle.seed(seed + rank)
