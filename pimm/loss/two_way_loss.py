"""Two-way multi-label loss (Kobayashi, CVPR 2023)."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import nn

from pimm.errors import ConfigError

_NEVER = -1e4  # a logit that counts for nothing, and finite: a class without a positive has a gradient too


class TwoWayLoss(nn.Layer):
    """The hardest negative against the hardest positive, over the classes of an image and over the images of a class.

    Logits and 0/1 targets [N, C], in float32; ``tp`` and ``tn`` are the temperatures of positives and negatives.
    Images and classes without a positive do not count.
    """

    def __init__(self, tp=4.0, tn=1.0):
        super().__init__()
        if min(tp, tn) <= 0:
            raise ConfigError(f"temperatures are above 0, got {tp} and {tn}")
        self.tp, self.tn = tp, tn

    def forward(self, x, target):
        x = x.astype("float32")
        positive = target > 0.5
        never = paddle.full_like(x, _NEVER)
        positives = paddle.where(positive, -x / self.tp, never)
        negatives = paddle.where(positive, never, x / self.tn)
        loss = 0.0
        for axis in (0, 1):
            counts = positive.any(axis=axis).astype("float32")
            margin = self.tn * negatives.logsumexp(axis=axis) + self.tp * positives.logsumexp(axis=axis)
            loss = loss + (F.softplus(margin) * counts).sum() / counts.sum().clip(min=1.0)
        return loss
