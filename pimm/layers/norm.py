"""Batch normalisation that keeps PyTorch's running statistics."""

import contextlib

import paddle.nn.functional as F
from paddle import nn

from pimm.errors import TrainingError

_frozen = False


@contextlib.contextmanager
def frozen_batch_norm_statistics():
    """Inside, layers in training mode normalise by their batch as ever, but no running statistic changes by one bit."""
    global _frozen
    before, _frozen = _frozen, True
    try:
        yield
    finally:
        _frozen = before


class BatchNorm2d(nn.BatchNorm2D):
    """`paddle.nn.BatchNorm2D` with PyTorch's arguments and running statistics.

    ``momentum`` is PyTorch's, the weight of the *new* batch (Paddle's is one minus it), and the running variance takes
    the batch's unbiased variance. The state is Paddle's: ``weight``, ``bias``, ``_mean``, ``_variance``. Raises
    `TrainingError` in training mode on one value a channel, whose variance means nothing.
    """

    def __init__(self, num_features, eps=1e-5, momentum=0.1, affine=True):
        attr = None if affine else False
        super().__init__(num_features, momentum=1.0 - momentum, epsilon=eps, weight_attr=attr, bias_attr=attr)
        self.num_features = num_features

    def forward(self, x):
        if not self.training or _frozen:
            return self._normalise(x, self._variance, momentum=1.0)  # the old statistics times one, plus nothing
        count = x.shape[0] * x.shape[2] * x.shape[3]
        if count < 2:
            raise TrainingError(f"batch norm needs more than one value a channel in training, got shape {x.shape}")
        # Paddle adds the biased variance to whatever it is given: shrink the old one, then stretch the sum, and the
        # batch's share alone has grown by n / (n - 1). A copy, since autograd holds on to the tensor it was given.
        unbiased = count / (count - 1)
        variance = self._variance.scale(1 / unbiased)
        x = self._normalise(x, variance, self._momentum)
        self._variance.copy_(variance.scale(unbiased), False)
        return x

    def _normalise(self, x, variance, momentum):
        return F.batch_norm(
            x,
            self._mean,
            variance,
            self.weight,
            self.bias,
            training=self.training,
            momentum=momentum,
            epsilon=self._epsilon,
        )
