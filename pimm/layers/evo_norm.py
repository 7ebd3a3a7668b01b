"""Evolved layers that are normalisation and activation in one (https://arxiv.org/abs/2004.02967).

Those named B keep a running variance of batches, those named S look at each image alone. Names ending in ``a`` divide
even without an activation. Arguments that all of them share:

    num_features: channels.
    apply_act: whether there is an activation; without it, most of them only scale and shift.
    eps: added to the variance.
    kwargs: ignored, so that a net can exchange its normalisation.
"""

import paddle
import paddle.nn.functional as F
from paddle import nn

from pimm.layers.activations import Swish
from pimm.layers.create_act import create_act_layer
from pimm.layers.norm import statistics_are_frozen
from pimm.layers.norm_and_act import groups_of

_CHANNELS = [1, -1, 1, 1]


def _variance(x, axes):
    """Return the biased variance in float32; Paddle's own promotes types."""
    x = x.astype("float32")
    return (x - x.mean(axes, keepdim=True)).square().mean(axes, keepdim=True)


def instance_std(x, eps=1e-5):
    """Return the standard deviation of each channel of each image, [N, C, 1, 1]."""
    return (_variance(x, [2, 3]) + eps).sqrt().astype(x.dtype)


def instance_rms(x, eps=1e-5):
    """Return the root mean square of each channel of each image, [N, C, 1, 1]."""
    return (x.astype("float32").square().mean([2, 3], keepdim=True) + eps).sqrt().astype(x.dtype)


def _of_groups(x, groups, eps, centred):
    channels, of_group = x.shape[1], x.astype("float32").reshape([0, groups, -1])
    of_group = of_group - of_group.mean(-1, keepdim=True) if centred else of_group
    size = (of_group.square().mean(-1) + eps).sqrt()  # [N, groups]
    return size.repeat_interleave(channels // groups, 1).reshape([0, channels, 1, 1]).astype(x.dtype)


def group_std(x, groups=32, eps=1e-5):
    """Return the standard deviation of each group of channels of each image, for each channel: [N, C, 1, 1]."""
    return _of_groups(x, groups, eps, True)


def group_rms(x, groups=32, eps=1e-5):
    """Return the root mean square of each group of channels of each image, for each channel: [N, C, 1, 1]."""
    return _of_groups(x, groups, eps, False)


class _ScaleAndShift(nn.Layer):
    """Hold a weight and a bias of each channel."""

    def __init__(self, num_features, apply_act, eps):
        super().__init__()
        self.apply_act, self.eps = apply_act, eps
        self.weight = self.one_of_each(num_features, 1.0)
        self.bias = self.one_of_each(num_features, 0.0)

    def one_of_each(self, num_features, value):
        """Create a parameter of each channel."""
        return self.create_parameter([num_features], default_initializer=nn.initializer.Constant(value))

    def scale_and_shift(self, x):
        """Return ``x * weight + bias``."""
        weight, bias = (value.reshape(_CHANNELS).astype(x.dtype) for value in (self.weight, self.bias))
        return x * weight + bias


class _EvoNormB(_ScaleAndShift):
    """Division by the larger of the batch's standard deviation and what `other_size` returns."""

    def __init__(self, num_features, apply_act=True, momentum=0.1, eps=1e-5, **kwargs):
        super().__init__(num_features, apply_act, eps)
        self.momentum = momentum
        self.register_buffer("running_var", paddle.ones([num_features]))

    def batch_std(self, x):
        """Return the standard deviation of the batch in training, else the running one, [1, C, 1, 1]."""
        variance = self.running_var
        if self.training:
            variance = _variance(x, [0, 2, 3]).flatten()
            if not statistics_are_frozen():
                count = x.shape[0] * x.shape[2] * x.shape[3]
                batch = variance.detach() * (count / (count - 1))
                self.running_var.copy_(self.running_var * (1 - self.momentum) + batch * self.momentum, False)
        return (variance.reshape(_CHANNELS) + self.eps).sqrt().astype(x.dtype)

    def forward(self, x):
        if self.apply_act:
            x = x / paddle.maximum(self.batch_std(x), self.other_size(x))
        return self.scale_and_shift(x)

    def other_size(self, x):
        """Return what the standard deviation is compared with, [N, C, H, W]."""
        raise NotImplementedError


class EvoNorm2dB0(_EvoNormB):
    """Divide by the larger of the batch's deviation and ``v * x`` plus the deviation of the image's channel."""

    def __init__(self, num_features, apply_act=True, momentum=0.1, eps=1e-3, **kwargs):
        super().__init__(num_features, apply_act, momentum, eps)
        self.v = self.one_of_each(num_features, 1.0) if apply_act else None

    def other_size(self, x):
        """Return what the standard deviation is compared with, [N, C, H, W]."""
        return x * self.v.reshape(_CHANNELS).astype(x.dtype) + instance_std(x, self.eps)


class EvoNorm2dB1(_EvoNormB):
    """Divide by the larger of the batch's deviation and ``(x + 1)`` times the root mean square of the channel."""

    def other_size(self, x):
        """Return what the standard deviation is compared with, [N, C, H, W]."""
        return (x + 1) * instance_rms(x, self.eps)


class EvoNorm2dB2(_EvoNormB):
    """Divide by the larger of the batch's deviation and the root mean square of the channel minus ``x``."""

    def other_size(self, x):
        """Return what the standard deviation is compared with, [N, C, H, W]."""
        return instance_rms(x, self.eps) - x


class EvoNorm2dS0(_ScaleAndShift):
    """Multiply by ``sigmoid(v * x)`` and divide by the deviation of groups of channels.

    Args:
        groups: number of groups.
        group_size: channels of a group, in place of ``groups``.
    """

    always_divides = False

    def __init__(self, num_features, groups=32, group_size=None, apply_act=True, eps=1e-5, **kwargs):
        super().__init__(num_features, apply_act, eps)
        self.groups = groups_of(num_features, groups, group_size)
        self.v = self.one_of_each(num_features, 1.0) if apply_act else None

    def forward(self, x):
        deviation = group_std(x, self.groups, self.eps) if self.apply_act or self.always_divides else 1.0
        if self.apply_act:
            x = x * F.sigmoid(x * self.v.reshape(_CHANNELS).astype(x.dtype))
        return self.scale_and_shift(x / deviation)


class EvoNorm2dS0a(EvoNorm2dS0):
    """`EvoNorm2dS0` that divides even without an activation."""

    always_divides = True

    def __init__(self, num_features, groups=32, group_size=None, apply_act=True, eps=1e-3, **kwargs):
        super().__init__(num_features, groups, group_size, apply_act, eps)


class EvoNorm2dS1(_ScaleAndShift):
    """Apply an activation and divide by the deviation of groups of channels before it.

    Args:
        groups: number of groups.
        group_size: channels of a group, in place of ``groups``.
        act_layer: class or name of the activation; None for swish.
    """

    always_divides = False
    size_of_groups = staticmethod(group_std)

    def __init__(self, num_features, groups=32, group_size=None, apply_act=True, act_layer=None, eps=1e-5, **kwargs):
        super().__init__(num_features, apply_act, eps)
        self.groups = groups_of(num_features, groups, group_size)
        self.act = create_act_layer(act_layer or Swish) if apply_act else nn.Identity()

    def forward(self, x):
        if self.apply_act or self.always_divides:
            x = self.act(x) / self.size_of_groups(x, self.groups, self.eps)
        return self.scale_and_shift(x)


class EvoNorm2dS1a(EvoNorm2dS1):
    """`EvoNorm2dS1` that divides even without an activation."""

    always_divides = True

    def __init__(self, num_features, groups=32, group_size=None, apply_act=True, act_layer=None, eps=1e-3, **kwargs):
        super().__init__(num_features, groups, group_size, apply_act, act_layer, eps)


class EvoNorm2dS2(EvoNorm2dS1):
    """`EvoNorm2dS1` that divides by the root mean square."""

    size_of_groups = staticmethod(group_rms)


class EvoNorm2dS2a(EvoNorm2dS1a):
    """`EvoNorm2dS1a` that divides by the root mean square."""

    size_of_groups = staticmethod(group_rms)


class FilterResponseNormAct2d(_ScaleAndShift):
    """Divide by the root mean square of each channel of an image, scale, shift and apply an activation.

    See https://arxiv.org/abs/1911.09737.
    """

    def __init__(self, num_features, apply_act=True, act_layer=nn.ReLU, eps=1e-5, **kwargs):
        super().__init__(num_features, apply_act, eps)
        act = create_act_layer(act_layer) if apply_act else None
        self.act = nn.Identity() if act is None else act

    def forward(self, x):
        return self.act(self.scale_and_shift(x / instance_rms(x, self.eps)))


class FilterResponseNormTlu2d(_ScaleAndShift):
    """Divide as `FilterResponseNormAct2d` does, with a learned threshold of each channel for the activation."""

    def __init__(self, num_features, apply_act=True, eps=1e-5, **kwargs):
        super().__init__(num_features, apply_act, eps)
        self.tau = self.one_of_each(num_features, 0.0) if apply_act else None

    def forward(self, x):
        x = self.scale_and_shift(x / instance_rms(x, self.eps))
        return x if self.tau is None else paddle.maximum(x, self.tau.reshape(_CHANNELS).astype(x.dtype))
