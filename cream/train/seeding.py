"""The random stream of a batch."""

from __future__ import annotations

import numpy as np
import paddle

from pimm.utils import rank


def seed_dropout(seed: int, batches: int, epoch: int, batch: int) -> None:
    """Seed Paddle's random stream, which dropout draws from, anew for a batch: the stream's state cannot be saved."""
    words = np.random.SeedSequence([seed, rank(), epoch * batches + batch]).generate_state(1)
    paddle.seed(int(words[0]))
