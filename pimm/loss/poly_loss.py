"""PolyLoss: cross entropy with another weight of the first term of its expansion (arXiv 2204.12511)."""

from __future__ import annotations

import paddle.nn.functional as F
from paddle import nn

from pimm.errors import ConfigError
from pimm.loss.reduction import reduction_named, require_share
from pimm.ops import log_softmax
from pimm.utils.labels import class_indices, dense_targets


class PolyCrossEntropy(nn.Layer):
    """Add ``epsilon`` times one minus the probability of the label to the cross entropy, in float32.

    Takes logits [N, C] and class indices [N] or [N, 1], or probabilities [N, C].

    Args:
        epsilon: factor of the added term.
        smoothing: share of each index that is spread over all classes.
        reduction: ``mean``, ``sum`` or ``none``, over images.

    Raises:
        ConfigError: for an unknown reduction and for a smoothing that is not a share.
    """

    def __init__(self, epsilon=2.0, smoothing=0.0, reduction="mean"):
        super().__init__()
        require_share(smoothing)
        self.epsilon = epsilon
        self.smoothing = smoothing
        self.reduction = reduction_named(reduction, ("mean", "sum", "none"))

    def forward(self, x, target):
        log_probabilities = log_softmax(x.astype("float32"))
        if target.shape != x.shape:
            target = (
                F.one_hot(class_indices(target, x), x.shape[-1]) * (1.0 - self.smoothing) + self.smoothing / x.shape[-1]
            )
        target = target.astype("float32")
        hit = (target * log_probabilities.exp()).sum(axis=-1)
        return self.reduction(-(target * log_probabilities).sum(axis=-1) + self.epsilon * (1.0 - hit))


class PolyBinaryCrossEntropy(nn.Layer):
    """Add ``epsilon`` times (1 - p) ** (gamma + 1) to the binary or focal loss, in float32.

    Takes logits and targets [N, C], for images with several labels.

    Args:
        epsilon: factor of the added term.
        gamma: power of the focal loss; 0 for binary cross entropy.
        alpha: weight of positives; negatives have one minus it. By default both have weight 1.
        smoothing: moves targets towards 0.5.
        reduction: ``mean``, ``batchmean`` (sum over classes, mean over images), ``sum`` or ``none``.

    Raises:
        ConfigError: for an unknown reduction and for shares outside 0 to 1.
    """

    def __init__(self, epsilon=2.0, gamma=0.0, alpha=None, smoothing=0.0, reduction="mean"):
        super().__init__()
        require_share(smoothing)
        if alpha is not None and not 0.0 <= alpha <= 1.0:
            raise ConfigError(f"alpha must be from 0 to 1, got {alpha}")
        self.epsilon = epsilon
        self.gamma = gamma
        self.alpha = alpha
        self.smoothing = smoothing
        self.reduction = reduction_named(reduction)

    def forward(self, x, target):
        x, y = x.astype("float32"), dense_targets(target, x).astype("float32")
        y = y * (1.0 - self.smoothing) + 0.5 * self.smoothing
        p = F.sigmoid(x)
        missed = 1.0 - y * p - (1.0 - y) * (1.0 - p)
        loss = F.binary_cross_entropy_with_logits(x, y, reduction="none") + self.epsilon * missed
        if self.gamma:
            loss = loss * missed**self.gamma
        if self.alpha is not None:
            loss = loss * (y * self.alpha + (1.0 - y) * (1.0 - self.alpha))
        return self.reduction(loss)
