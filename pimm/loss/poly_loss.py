"""PolyLoss: one more term of the cross entropy's expansion (arXiv 2204.12511)."""

from __future__ import annotations

import paddle.nn.functional as F
from paddle import nn

from pimm.errors import ConfigError
from pimm.loss.reduction import reduction_named, require_share


class PolyCrossEntropy(nn.Layer):
    """Cross entropy plus ``epsilon`` times one minus the probability of the label, in float32.

    Logits [N, C]; class indices [N], of which ``smoothing`` is spread over all classes, or probabilities [N, C].
    ``reduction`` is mean, sum or none, over images.
    """

    def __init__(self, epsilon=2.0, smoothing=0.0, reduction="mean"):
        super().__init__()
        require_share(smoothing)
        self.epsilon = epsilon
        self.smoothing = smoothing
        self.reduction = reduction_named(reduction, ("mean", "sum", "none"))

    def forward(self, x, target):
        log_probabilities = F.log_softmax(x.astype("float32"), axis=-1)
        if target.shape != x.shape:
            target = F.one_hot(target, x.shape[-1]) * (1.0 - self.smoothing) + self.smoothing / x.shape[-1]
        target = target.astype("float32")
        hit = (target * log_probabilities.exp()).sum(axis=-1)
        return self.reduction(-(target * log_probabilities).sum(axis=-1) + self.epsilon * (1.0 - hit))


class PolyBinaryCrossEntropy(nn.Layer):
    """Binary or, with ``gamma``, focal loss plus ``epsilon`` times (1 - p) ** (gamma + 1), in float32.

    Logits and targets [N, C], for many labels an image. ``alpha`` weighs positives, and one minus it negatives;
    ``smoothing`` moves targets towards 0.5. ``reduction`` is mean, batchmean (the sum over classes), sum or none.
    """

    def __init__(self, epsilon=2.0, gamma=0.0, alpha=None, smoothing=0.0, reduction="mean"):
        super().__init__()
        require_share(smoothing)
        if alpha is not None and not 0.0 <= alpha <= 1.0:
            raise ConfigError(f"alpha is a share from 0 to 1, got {alpha}")
        self.epsilon = epsilon
        self.gamma = gamma
        self.alpha = alpha
        self.smoothing = smoothing
        self.reduction = reduction_named(reduction)

    def forward(self, x, target):
        x, y = x.astype("float32"), target.astype("float32")
        y = y * (1.0 - self.smoothing) + 0.5 * self.smoothing
        p = F.sigmoid(x)
        missed = 1.0 - y * p - (1.0 - y) * (1.0 - p)
        loss = F.binary_cross_entropy_with_logits(x, y, reduction="none") + self.epsilon * missed
        if self.gamma:
            loss = loss * missed**self.gamma
        if self.alpha is not None:
            loss = loss * (y * self.alpha + (1.0 - y) * (1.0 - self.alpha))
        return self.reduction(loss)
