"""ZLPR: softmax cross entropy for several labels (arXiv 2208.02955)."""

from __future__ import annotations

import paddle
from paddle import nn


class ZlprLoss(nn.Layer):
    """log(1 + sum of exp(s) over negatives) + log(1 + sum of exp(-s) over positives), the mean over images.

    Logits and 0/1 targets [N, C], in float32. A logit above 0 means that the label is there.
    """

    def forward(self, x, target):
        x = x.astype("float32")
        positive = target > 0.5
        never, one = paddle.full_like(x, -float("inf")), paddle.zeros([x.shape[0], 1])  # exp(0) is the 1
        negatives = paddle.concat([paddle.where(positive, never, x), one], axis=-1)
        positives = paddle.concat([paddle.where(positive, -x, never), one], axis=-1)
        return (negatives.logsumexp(axis=-1) + positives.logsumexp(axis=-1)).mean()
