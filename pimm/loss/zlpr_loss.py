"""ZLPR loss: softmax cross entropy for several labels (arXiv 2208.02955)."""

from __future__ import annotations

import paddle
from paddle import nn

from pimm.utils.labels import dense_targets


class ZlprLoss(nn.Layer):
    """Compute log(1 + sum of exp(s) over negatives) + log(1 + sum of exp(-s) over positives), the mean over images.

    Takes logits s and 0/1 targets [N, C], computed in float32. A logit above 0 predicts the label.
    """

    def forward(self, x, target):
        x = x.astype("float32")
        positive = dense_targets(target, x) > 0.5
        never, one = paddle.full_like(x, -float("inf")), paddle.zeros([x.shape[0], 1])  # exp(0) is the 1
        negatives = paddle.concat([paddle.where(positive, never, x), one], axis=-1)
        positives = paddle.concat([paddle.where(positive, -x, never), one], axis=-1)
        return (negatives.logsumexp(axis=-1) + positives.logsumexp(axis=-1)).mean()
