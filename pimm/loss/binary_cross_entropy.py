"""Binary cross entropy over classes, for images with one label or several."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import nn

from pimm.loss.reduction import require_share
from pimm.utils.labels import class_indices


class BinaryCrossEntropy(nn.Layer):
    """Compute the binary cross entropy of every class (arXiv 2110.00476).

    Takes logits [N, C] and class indices [N] or [N, 1], or targets [N, C].

    Args:
        smoothing: share of each index that is spread over all classes.
        target_threshold: targets above it become 1 and the others 0.
        weight: weights of the classes [C].
        reduction: ``mean``, ``sum`` or ``none``.
        sum_classes: whether to return the sum over classes and mean over images instead.
        pos_weight: weight of the positive term, a number or [C].
        smooth_dense: whether ``smoothing`` also moves dense targets, towards 0.5; by default they count as soft.

    Raises:
        ConfigError: for a smoothing that is not a share.
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
            one_hot = F.one_hot(class_indices(target, x), x.shape[-1]).astype(x.dtype)
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
