"""Batch normalisation that keeps PyTorch's running statistics."""

import contextlib

import paddle
import paddle.nn.functional as F
from paddle import _C_ops, distributed, nn
from paddle.autograd import PyLayer

from pimm import ops
from pimm.errors import ConfigError, TrainingError
from pimm.layers.activations import Swish, swish
from pimm.ops.updates import move_averages
from pimm.utils.distributed import world_size

_frozen = False


@contextlib.contextmanager
def frozen_batch_norm_statistics():
    """Keep all running statistics as they are, while layers in training mode still normalise by their batch."""
    global _frozen
    before, _frozen = _frozen, True
    try:
        yield
    finally:
        _frozen = before


def statistics_are_frozen():
    """Return whether `frozen_batch_norm_statistics` is in force."""
    return _frozen


def check_values(count, x):
    """Raise TrainingError if images x have only ``count`` = 1 value a channel, whose variance means nothing."""
    if count < 2:
        shape = list(x.shape)
        raise TrainingError(
            f"batch norm needs more than one value a channel, got {shape}: take larger batches or images"
        )


class BatchNorm2d(nn.BatchNorm2D):
    """`paddle.nn.BatchNorm2D` with PyTorch's arguments and running statistics.

    The running variance takes the batch's unbiased variance. The state has Paddle's names: ``weight``, ``bias``,
    ``_mean``, ``_variance``.

    Args:
        num_features: number of channels.
        eps: added to the variance.
        momentum: weight of the *new* batch in the running statistics, as in PyTorch; Paddle's is one minus that.
        affine: whether there are a weight and a bias.
    """

    def __init__(self, num_features, eps=1e-5, momentum=0.1, affine=True):
        attr = None if affine else False
        super().__init__(num_features, momentum=1.0 - momentum, epsilon=eps, weight_attr=attr, bias_attr=attr)
        self.num_features = num_features

    def forward(self, x, channels=None, then_swish=False):
        """Normalise images [N, C, H, W].

        Args:
            x: images.
            channels: if given, act as a layer of the first ``channels`` channels alone, as slimmable networks do
                (https://arxiv.org/abs/1812.08928).
            then_swish: whether to apply swish to the result, for `norm_act`.

        Raises:
            ConfigError: if the images have another number of channels.
            TrainingError: in training mode, if there is only one value a channel, whose variance means nothing.
        """
        self._check_input_dim(x)
        expected = channels or self.num_features
        if paddle.in_dynamic_mode() and x.shape[1] != expected:
            raise ConfigError(f"a batch norm of {expected} channels got an input of shape {list(x.shape)}")
        weight, bias, running_mean, running_variance = self._of_first(channels)
        if not self.training:
            x = F.batch_norm(x, running_mean, running_variance, weight, bias, epsilon=self._epsilon)
            return swish(x) if then_swish else x
        count = self._values_per_channel(x)
        if not _frozen:
            check_values(count, x)
        x, mean, variance = self._normalise(x, weight, bias, then_swish)
        if not _frozen:
            share = 1.0 - self._momentum
            self._move((mean, variance), (share, share * count / (count - 1)), channels)
        return x

    def finish(self, x):
        """Return what the layer makes of normalised images: the images, or in a subclass what an activation returns."""
        return x

    def _of_first(self, channels):
        values = (self.weight, self.bias, self._mean, self._variance)
        if channels is None:
            return values
        return tuple(None if value is None else value[:channels] for value in values)

    def _values_per_channel(self, x):
        return x.shape[0] * x.shape[2] * x.shape[3]

    def _normalise(self, x, weight, bias, then_swish):
        """Return the result, the mean and the biased variance of the batch."""
        return ops.batch_norm(x, weight, bias, self._epsilon, then_swish)

    def _move(self, batch, shares, channels):
        """Move the running mean and variance towards those of the batch by ``shares``."""
        running = (self._mean, self._variance)
        if channels is None:
            move_averages(running, batch, [self._momentum] * 2, shares)
        else:
            for average, value, share in zip(running, batch, shares):
                average[:channels] = average[:channels] * self._momentum + value * share


class SyncBatchNorm2d(BatchNorm2d):
    """`BatchNorm2d` that normalises by the batches of all processes together, which must be of equal size.

    Paddle's kernel does so on a GPU. There is none for the CPU, where this class reduces the statistics itself.
    """

    def _values_per_channel(self, x):
        return super()._values_per_channel(x) * _processes()

    def _normalise(self, x, weight, bias, then_swish):
        if _processes() == 1:
            return super()._normalise(x, weight, bias, then_swish)
        x, mean, variance = self._normalise_together(x, weight, bias)
        return swish(x) if then_swish else x, mean, variance

    def _normalise_together(self, x, weight, bias):
        if x.place.is_gpu_place():
            mean, variance = (paddle.zeros_like(running) for running in self._of_first(x.shape[1])[2:])
            arguments = (False, 0.0, self._epsilon, "NCHW", False, False)  # momentum 0.0: they become the batch's
            weight = paddle.ones_like(mean) if weight is None else weight  # the kernel needs one
            bias = paddle.zeros_like(mean) if bias is None else bias
            out = _C_ops.sync_batch_norm_(x, mean, variance, weight, bias, *arguments)[0]
            return out, mean, variance
        mean = _mean_over_processes(x)  # [1, C, 1, 1]
        x = x - mean
        variance = _mean_over_processes(x.square())
        x = x * paddle.rsqrt(variance + self._epsilon)
        if weight is not None:
            x = x * weight.reshape([1, -1, 1, 1]) + bias.reshape([1, -1, 1, 1])
        return x, mean.detach().flatten(), variance.detach().flatten()


def _processes():
    return world_size() if distributed.is_initialized() else 1


class _SumOverProcesses(PyLayer):
    """Sum over the processes. Every output contains every input, so that the gradients are summed in the same way."""

    @staticmethod
    def forward(ctx, x):
        x = x.clone()
        distributed.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx, gradient):
        return _SumOverProcesses.apply(gradient)  # rather than a plain reduction, for the sake of second derivatives


def _mean_over_processes(x):
    mean = F.adaptive_avg_pool2d(x, 1).mean(axis=0, keepdim=True)
    return _SumOverProcesses.apply(mean) / _processes()


def norm_act(x, norm, act):
    """Return ``act(norm(x))``. On a CPU, batch norm and swish take one pass over the data in training."""
    fusible = isinstance(norm, BatchNorm2d) and type(act) is Swish
    if not fusible or any(layer._forward_pre_hooks or layer._forward_post_hooks for layer in (norm, act)):
        return act(norm(x))
    return norm(x, then_swish=True)


SYNCHRONIZED = {BatchNorm2d: SyncBatchNorm2d}  # class: the class that normalises by the batches of all processes


def convert_sync_batchnorm(model):
    """Replace every `BatchNorm2d` in ``model`` by a `SyncBatchNorm2d` of the same parameters, and return the model.

    Layers of the other classes in ``SYNCHRONIZED`` are replaced in the same way.
    """
    for name, child in model.named_children():
        model.add_sublayer(name, convert_sync_batchnorm(child))
    if type(model) not in SYNCHRONIZED:
        return model
    sync = SYNCHRONIZED[type(model)](model.num_features, model._epsilon, affine=model.weight is not None)
    sync._momentum, sync.training = model._momentum, model.training
    for name, value in {**model._parameters, **model._sub_layers}.items():
        setattr(sync, name, value)
    return sync
