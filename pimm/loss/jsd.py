"""The consistency loss of AugMix (arXiv 1912.02781)."""

from __future__ import annotations

import paddle
from paddle import nn

from pimm.errors import ConfigError
from pimm.loss.cross_entropy import LabelSmoothingCrossEntropy
from pimm.ops import log_softmax


class JsdCrossEntropy(nn.Layer):
    """Add the Jensen-Shannon divergence of several versions of the images to the cross entropy of the clean ones.

    Takes logits [num_splits * N, C], those of the clean images first, and as many class indices, of which the first N
    count.

    Args:
        num_splits: versions of each image.
        alpha: factor of the divergence.
        smoothing: label smoothing of the cross entropy.
    """

    def __init__(self, num_splits=3, alpha=12, smoothing=0.1):
        super().__init__()
        self.num_splits = num_splits
        self.alpha = alpha
        self.cross_entropy = LabelSmoothingCrossEntropy(smoothing or 0.0)

    def forward(self, output, target):
        if output.shape[0] % self.num_splits:
            raise ConfigError(f"a batch of {output.shape[0]} images cannot be split into {self.num_splits} equal parts")
        splits = output.chunk(self.num_splits)
        loss = self.cross_entropy(splits[0], target[: len(splits[0])])
        log_probabilities = [log_softmax(logits) for logits in splits]
        mixture = paddle.stack([log.exp() for log in log_probabilities]).mean(axis=0)
        log_mixture = mixture.clip(1e-7, 1.0).log()  # keeps the divergence from exploding
        divergences = [(log.exp() * (log - log_mixture)).sum(axis=1).mean() for log in log_probabilities]
        return loss + self.alpha * sum(divergences) / len(divergences)
