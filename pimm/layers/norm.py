"""Batch normalisation that keeps PyTorch's running statistics."""

import contextlib

import paddle
import paddle.nn.functional as F
from paddle import _C_ops, distributed, nn
from paddle.autograd import PyLayer

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
        count = self._values_per_channel(x)
        if count < 2:
            shape = list(x.shape)
            raise TrainingError(
                f"batch norm needs more than one value a channel, got {shape}: take larger batches or images"
            )
        # Paddle adds the biased variance to whatever it is given: shrink the old one, then stretch the sum, and the
        # batch's share alone has grown by n / (n - 1). A copy, since autograd holds on to the tensor it was given.
        unbiased = count / (count - 1)
        variance = self._variance.scale(1 / unbiased)
        x = self._normalise(x, variance, self._momentum)
        self._variance.copy_(variance.scale(unbiased), False)
        return x

    def _values_per_channel(self, x):
        return x.shape[0] * x.shape[2] * x.shape[3]

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


class SyncBatchNorm2d(BatchNorm2d):
    """`BatchNorm2d` that normalises by the batches of all processes together, which must be of equal size.

    On a GPU by Paddle's kernel; Paddle has none for the CPU, where the statistics are reduced here.
    """

    def _values_per_channel(self, x):
        return super()._values_per_channel(x) * _processes()

    def _normalise(self, x, variance, momentum):
        if not self.training or _processes() == 1:
            return super()._normalise(x, variance, momentum)
        if x.place.is_gpu_place():
            arguments = (False, momentum, self._epsilon, "NCHW", False, False)
            return _C_ops.sync_batch_norm_(x, self._mean, variance, self.weight, self.bias, *arguments)[0]
        batch_mean = _mean_over_processes(x)  # [1, C, 1, 1]
        x = x - batch_mean
        batch_variance = _mean_over_processes(x.square())
        with paddle.no_grad():
            for old, new in ((self._mean, batch_mean), (variance, batch_variance)):
                old.copy_(old * momentum + new.flatten() * (1.0 - momentum), False)
        x = x * paddle.rsqrt(batch_variance + self._epsilon)
        if self.weight is None:
            return x
        return x * self.weight.reshape([1, -1, 1, 1]) + self.bias.reshape([1, -1, 1, 1])


def _processes():
    return distributed.get_world_size() if distributed.is_initialized() else 1


class _SumOverProcesses(PyLayer):
    """Each process's input is in every output, so its gradient is the sum of all the outputs' gradients."""

    @staticmethod
    def forward(ctx, x):
        x = x.clone()
        distributed.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx, gradient):
        gradient = gradient.clone()
        distributed.all_reduce(gradient)
        return gradient


def _mean_over_processes(x):
    mean = F.adaptive_avg_pool2d(x, 1).mean(axis=0, keepdim=True)
    return _SumOverProcesses.apply(mean) / _processes()


def convert_sync_batchnorm(model):
    """Replace every `BatchNorm2d` in ``model`` by a `SyncBatchNorm2d` of the same parameters, and return the model."""
    if type(model) is BatchNorm2d:
        sync = SyncBatchNorm2d(model.num_features, model._epsilon, affine=model.weight is not None)
        sync._momentum, sync.training = model._momentum, model.training
        for name, parameter in model.named_parameters():
            setattr(sync, name, parameter)
        return sync
    for name, child in model.named_children():
        model.add_sublayer(name, convert_sync_batchnorm(child))
    return model
