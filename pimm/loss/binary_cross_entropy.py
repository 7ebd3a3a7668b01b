"""Binary cross entropy over classes, for one label or many."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import nn

from pimm.loss.reduction import require_share


class BinaryCrossEntropy(nn.Layer):
    """A yes or no for every class (arXiv 2110.00476): logits [N, C], targets [N, C] or class indices [N].

    Indices are smoothed: ``smoothing`` is spread over all classes. ``smooth_dense`` smooths the other targets too, each
    towards 0.5; without it they count as softened already. ``target_threshold`` turns targets into 0 and 1.
    ``weight`` is by class, ``pos_weight`` a number or by class; ``reduction`` is mean, sum or none, and
    ``sum_classes`` sums over classes and takes the mean over the batch instead.
    """

    def __init__(
        self,
        smoothing=0.1,
        target_threshold=None,
        weight=None,
        reduction="mean",
        sum_classes=False,
        pos_weight=None,
        smooth_dense=False,
    ):
        super().__init__()
        require_share(smoothing)
        self.smoothing = smoothing
        self.target_threshold = target_threshold
        self.reduction = "none" if sum_classes else reduction
        self.sum_classes = sum_classes
        self.weight = weight
        self.pos_weight = pos_weight
        self.smooth_dense = smooth_dense

    def forward(self, x, target):
        if target.shape != x.shape:
            one_hot = F.one_hot(target, x.shape[-1]).astype(x.dtype)
            target = one_hot * (1.0 - self.smoothing) + self.smoothing / x.shape[-1]
        elif self.smooth_dense:
            target = target * (1.0 - self.smoothing) + 0.5 * self.smoothing
        if self.target_threshold is not None:
            target = (target > self.target_threshold).astype(x.dtype)
        pos_weight = self.pos_weight
        if pos_weight is not None and not isinstance(pos_weight, paddle.Tensor):
            pos_weight = paddle.full([x.shape[-1]], pos_weight, x.dtype)
        loss = F.binary_cross_entropy_with_logits(
            x, target, self.weight, reduction=self.reduction, pos_weight=pos_weight
        )
        return loss.sum(axis=-1).mean() if self.sum_classes else loss
