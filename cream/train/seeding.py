"""Random streams of a training's batches."""

from __future__ import annotations

import numpy as np
import paddle

from pimm.utils import rank


def seed_dropout(seed: int, batches: int, epoch: int, batch: int) -> None:
    """Start Paddle's random stream, from which dropout draws, anew for a batch: its state cannot be saved."""
    words = np.random.SeedSequence([seed, rank(), epoch * batches + batch]).generate_state(1)
    paddle.seed(int(words[0]))
