"""Cross entropy with softened labels."""

from __future__ import annotations

import paddle.nn.functional as F
from paddle import nn

from pimm.loss.reduction import require_share


class LabelSmoothingCrossEntropy(nn.Layer):
    """Cross entropy against labels of which a share ``smoothing`` is spread over all classes (arXiv 1512.00567).

    Logits [N, C], class indices [N]; the mean over the batch.
    """

    def __init__(self, smoothing=0.1):
        super().__init__()
        require_share(smoothing)
        self.smoothing = smoothing

    def forward(self, x, target):
        log_probabilities = F.log_softmax(x, axis=-1)
        labelled = F.nll_loss(log_probabilities, target)
        return (1.0 - self.smoothing) * labelled - self.smoothing * log_probabilities.mean()


class SoftTargetCrossEntropy(nn.Layer):
    """Cross entropy against class probabilities; both [N, C], the mean over the batch."""

    def forward(self, x, target):
        return -(target * F.log_softmax(x, axis=-1)).sum(axis=-1).mean()
