"""Two-way loss for several labels (Kobayashi, CVPR 2023)."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import nn

from pimm.errors import ConfigError
from pimm.utils.labels import dense_targets

_NEVER = -1e4  # a logit without weight; finite, so that classes without a positive have a gradient


class TwoWayLoss(nn.Layer):
    """Compare the hardest negative with the hardest positive, over the classes of each image and the images of a class.

    Takes logits and 0/1 targets [N, C], computed in float32. Images and classes without a positive do not count.

    Args:
        tp, tn: temperatures of positives and negatives.

    Raises:
        ConfigError: for a temperature that is not positive.
    """

    def __init__(self, tp=4.0, tn=1.0):
        super().__init__()
        if min(tp, tn) <= 0:
            raise ConfigError(f"temperatures must be above 0, got {tp} and {tn}")
        self.tp, self.tn = tp, tn

    def forward(self, x, target):
        x = x.astype("float32")
        positive = dense_targets(target, x) > 0.5
        never = paddle.full_like(x, _NEVER)
        positives = paddle.where(positive, -x / self.tp, never)
        negatives = paddle.where(positive, never, x / self.tn)
        loss = 0.0
        for axis in (0, 1):
            counts = positive.any(axis=axis).astype("float32")
            margin = self.tn * negatives.logsumexp(axis=axis) + self.tp * positives.logsumexp(axis=axis)
            loss = loss + (F.softplus(margin) * counts).sum() / counts.sum().clip(min=1.0)
        return loss
