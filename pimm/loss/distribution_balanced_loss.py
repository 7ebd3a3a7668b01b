"""Distribution-balanced loss, for many labels of very different frequency (arXiv 2007.09654)."""

from __future__ import annotations

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn

from pimm.errors import ConfigError
from pimm.loss.class_weights import checked_counts
from pimm.loss.reduction import reduction_named, require_share


class DistributionBalancedLoss(nn.Layer):
    """Binary cross entropy, rebalanced by image and class, and tolerant of negatives; logits and targets [N, C].

    ``class_counts`` [C] are the positives of each class among ``num_samples`` images. The weight of an image's class is
    ``map_alpha + sigmoid(map_beta * (r - map_mu))``, r being how often its image would be drawn for this class out of
    all draws of it. Logits are shifted by ``init_bias`` times the class's prior one; those of negatives are scaled by
    ``neg_scale``. ``focal_gamma`` and ``focal_balance`` are the focal term's power and factor. ``smoothing`` moves
    targets towards 0.5. ``reduction`` is mean, batchmean (the sum over classes), sum or none. Computed in float32.
    """

    def __init__(
        self,
        class_counts,
        num_samples,
        map_alpha=0.1,
        map_beta=10.0,
        map_mu=0.2,
        neg_scale=2.0,
        init_bias=0.05,
        focal_gamma=2.0,
        focal_balance=2.0,
        smoothing=0.0,
        reduction="mean",
    ):
        super().__init__()
        require_share(smoothing)
        if neg_scale <= 0:
            raise ConfigError(f"neg_scale is above 0, got {neg_scale}")
        if num_samples < 2:
            raise ConfigError(f"num_samples is at least 2, got {num_samples}")
        counts = checked_counts(class_counts, num_samples).clip(
            1, num_samples - 1
        )  # a class that is never or always there has no finite prior
        self.map_alpha, self.map_beta, self.map_mu = map_alpha, map_beta, map_mu
        self.neg_scale = neg_scale
        self.focal_gamma, self.focal_balance = focal_gamma, focal_balance
        self.smoothing = smoothing
        self.reduction = reduction_named(reduction)
        shift = -np.log(num_samples / counts - 1) * init_bias / neg_scale
        self.register_buffer("freq_inv", paddle.to_tensor((1 / counts).astype(np.float32)))
        self.register_buffer("logit_bias", paddle.to_tensor(shift.astype(np.float32)))

    def forward(self, x, target):
        y = target.astype("float32")
        weight = self.weights(y)
        y = y * (1.0 - self.smoothing) + 0.5 * self.smoothing
        z = x.astype("float32") + self.logit_bias
        positive = F.softplus(-z) * self.focus(-z)
        negative = F.softplus(z * self.neg_scale) / self.neg_scale * self.focus(z * self.neg_scale)
        return self.reduction(weight * (y * positive + (1.0 - y) * negative))

    def weights(self, y):
        """The weight of every image and class; the largest for an image without a positive."""
        draws = (y * self.freq_inv).sum(axis=-1, keepdim=True)
        ratio = self.freq_inv / draws.clip(min=float(np.finfo(np.float32).tiny))
        return F.sigmoid(self.map_beta * (ratio - self.map_mu)) + self.map_alpha

    def focus(self, z):
        """The focal factor of an error whose logit is ``z``."""
        return F.sigmoid(z) ** self.focal_gamma * self.focal_balance if self.focal_gamma > 0 else 1.0
