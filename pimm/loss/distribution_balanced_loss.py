"""Distribution-balanced loss for several labels of very different frequencies (arXiv 2007.09654)."""

from __future__ import annotations

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn

from pimm.errors import ConfigError
from pimm.loss.class_weights import checked_counts
from pimm.loss.reduction import reduction_named, require_share
from pimm.utils.labels import dense_targets


class DistributionBalancedLoss(nn.Layer):
    """Compute a binary cross entropy that is rebalanced by image and class and tolerant of negatives, in float32.

    Takes logits and targets [N, C]. The weight of a class in an image is ``map_alpha + sigmoid(map_beta * (r -
    map_mu))``, where r is the share of the image's draws that class-balanced sampling makes for this class.

    Args:
        class_counts: positives of each class [C].
        num_samples: number of images that the positives were counted in.
        map_alpha, map_beta, map_mu: constants of the weights.
        neg_scale: factor of the logits of negatives.
        init_bias: factor of the class's prior logit, by which logits are shifted.
        focal_gamma, focal_balance: power and factor of the focal term.
        smoothing: moves targets towards 0.5.
        reduction: ``mean``, ``batchmean`` (sum over classes, mean over images), ``sum`` or ``none``.

    Raises:
        ConfigError: for impossible counts and for settings outside their ranges.
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
            raise ConfigError(f"neg_scale must be above 0, got {neg_scale}")
        if num_samples < 2:
            raise ConfigError(f"num_samples must be at least 2, got {num_samples}")
        # A class that no image or every image has would have no finite prior.
        counts = checked_counts(class_counts, num_samples).clip(1, num_samples - 1)
        self.map_alpha, self.map_beta, self.map_mu = map_alpha, map_beta, map_mu
        self.neg_scale = neg_scale
        self.focal_gamma, self.focal_balance = focal_gamma, focal_balance
        self.smoothing = smoothing
        self.reduction = reduction_named(reduction)
        shift = -np.log(num_samples / counts - 1) * init_bias / neg_scale
        self.register_buffer("freq_inv", paddle.to_tensor((1 / counts).astype(np.float32)))
        self.register_buffer("logit_bias", paddle.to_tensor(shift.astype(np.float32)))

    def forward(self, x, target):
        y = dense_targets(target, x).astype("float32")
        weight = self.weights(y)
        y = y * (1.0 - self.smoothing) + 0.5 * self.smoothing
        z = x.astype("float32") + self.logit_bias
        positive = F.softplus(-z) * self.focus(-z)
        negative = F.softplus(z * self.neg_scale) / self.neg_scale * self.focus(z * self.neg_scale)
        return self.reduction(weight * (y * positive + (1.0 - y) * negative))

    def weights(self, y):
        """Return the weight of every image and class [N, C]; an image without a positive has the largest."""
        draws = (y * self.freq_inv).sum(axis=-1, keepdim=True)
        ratio = self.freq_inv / draws.clip(min=float(np.finfo(np.float32).tiny))
        return F.sigmoid(self.map_beta * (ratio - self.map_mu)) + self.map_alpha

    def focus(self, z):
        """Return the focal factor of an error with the logit ``z``."""
        return F.sigmoid(z) ** self.focal_gamma * self.focal_balance if self.focal_gamma > 0 else 1.0
