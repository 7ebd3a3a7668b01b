"""Cross entropy with smoothed or soft labels."""

from __future__ import annotations

import paddle.nn.functional as F
from paddle import nn

from pimm.loss.reduction import require_share
from pimm.ops import log_softmax
from pimm.utils.labels import class_indices, dense_targets


class LabelSmoothingCrossEntropy(nn.Layer):
    """Compute the cross entropy with smoothed labels (arXiv 1512.00567), the mean over the batch.

    Takes logits [N, C] and class indices [N] or [N, 1].

    Args:
        smoothing: share of each label that is spread over all classes.

    Raises:
        ConfigError: for a smoothing that is not a share.
    """

    def __init__(self, smoothing=0.1):
        super().__init__()
        require_share(smoothing)
        self.smoothing = smoothing

    def forward(self, x, target):
        log_probabilities = log_softmax(x)
        labelled = F.nll_loss(log_probabilities, class_indices(target, x))
        return (1.0 - self.smoothing) * labelled - self.smoothing * log_probabilities.mean()


class SoftTargetCrossEntropy(nn.Layer):
    """Compute the cross entropy of logits and class probabilities, both [N, C], the mean over the batch."""

    def forward(self, x, target):
        return -(dense_targets(target, x) * log_softmax(x)).sum(axis=-1).mean()
