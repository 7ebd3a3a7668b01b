"""Building blocks of the EfficientNet and MobileNet families, with timm 0.1.20's arguments and state names.

Arguments that came with timm 1.x stand last, and mean in every block:

- ``group_size``: channels that a group of the spatial convolution mixes; 1 for a depthwise convolution, 0 for one of a
  single group.
- ``aa_layer``: layer, or name of one, that shrinks images in place of a strided convolution (`create_aa`); None for
  the strided convolution.
- ``se_layer``: class of the gate, which takes the channels and ``act_layer``, in place of `SqueezeExcite`.

The universal blocks and the attention of MobileNet V4 are in `pimm.models.efficientnet_universal`.
"""

import inspect

import paddle.nn.functional as F
from paddle import nn

from pimm.errors import ConfigError
from pimm.layers import (
    BatchNorm2d,
    Linear,
    SqueezeExcite,
    create_aa,
    create_conv2d,
    drop_path,
    get_norm_act_layer,
    make_divisible,
    norm_act,
    sigmoid,
)

# Batch norm of Google's mobile networks; 1 - 0.99 because momentum is the weight of the new batch here.
BN_MOMENTUM_TF_DEFAULT = 1 - 0.99
BN_EPS_TF_DEFAULT = 1e-3


def get_bn_args_tf():
    """Return the batch-norm arguments of the TensorFlow reference networks."""
    return {"momentum": BN_MOMENTUM_TF_DEFAULT, "eps": BN_EPS_TF_DEFAULT}


def resolve_bn_args(kwargs):
    """Remove ``bn_tf``, ``bn_momentum`` and ``bn_eps`` from ``kwargs`` and return batch-norm arguments."""
    bn_args = get_bn_args_tf() if kwargs.pop("bn_tf", False) else {}
    given = {"momentum": kwargs.pop("bn_momentum", None), "eps": kwargs.pop("bn_eps", None)}
    return {**bn_args, **{name: value for name, value in given.items() if value is not None}}


def resolve_se_args(kwargs, in_chs, act_layer=None):
    """Return the arguments of the `SqueezeExcite` of a block.

    Args:
        kwargs: arguments that override the defaults. ``reduce_mid`` derives the hidden channels from the number of
            gated channels; otherwise they are derived from the block's input channels.
        in_chs: input channels of the block.
        act_layer: the block's activation, which the gate takes unless ``kwargs`` name another one.
    """
    se_kwargs = {"gate_fn": sigmoid, "act_layer": None, "reduce_mid": False, "divisor": 1, **(kwargs or {})}
    if not se_kwargs.pop("reduce_mid"):
        se_kwargs["reduced_base_chs"] = in_chs
    se_kwargs["act_layer"] = se_kwargs["act_layer"] or act_layer
    return se_kwargs


def round_channels(channels, multiplier=1.0, divisor=8, channel_min=None, round_limit=0.9):
    """Return channels times a width multiplier, rounded by `make_divisible`; 0 or None changes nothing."""
    return make_divisible(channels * multiplier, divisor, channel_min, round_limit) if multiplier else channels


def num_groups(group_size, channels):
    """Return how many groups of ``group_size`` channels there are; one for 0 or None.

    Raises:
        ConfigError: if the channels cannot be divided so.
    """
    if not group_size:
        return 1
    if channels % group_size:
        raise ConfigError(f"{channels} channels cannot be divided into groups of {group_size}")
    return channels // group_size


def create_norm(channels, norm_layer, norm_kwargs=None, act_layer=None):
    """Return a normalisation and the activation after it, which is the identity without ``act_layer``.

    A class that takes ``apply_act``, or the name of one, gets the activation as an argument, and applies it itself.
    """
    norm_kwargs = norm_kwargs or {}
    if isinstance(norm_layer, str) or "apply_act" in inspect.signature(norm_layer).parameters:
        layer = get_norm_act_layer(norm_layer, act_layer)
        return layer(channels, apply_act=act_layer is not None, **norm_kwargs), nn.Identity()
    return norm_layer(channels, **norm_kwargs), nn.Identity() if act_layer is None else act_layer()


def create_gate(gated_chs, in_chs, se_ratio, se_kwargs, se_layer, act_layer):
    if se_layer is not None:
        return se_layer(gated_chs, act_layer=act_layer)
    if not se_ratio:
        return None
    return SqueezeExcite(gated_chs, se_ratio=se_ratio, **resolve_se_args(se_kwargs, in_chs, act_layer))


def _apply(layer, x):
    return x if layer is None else layer(x)


class ResidualBlock(nn.Layer):
    """Add a shortcut, with stochastic depth, in blocks that keep the shape of their input."""

    def __init__(self, keeps_shape, noskip, drop_path_rate):
        super().__init__()
        self.has_residual = keeps_shape and not noskip
        self.drop_path_rate = drop_path_rate
        self.aa = None

    def _shrink(self, aa_layer, channels, stride):
        """Set the layer that shrinks images in place of a convolution; return the stride of that convolution."""
        if aa_layer is None or stride == 1:
            return stride
        self.aa = create_aa(aa_layer, channels=channels, stride=stride)
        return 1

    def _add_shortcut(self, x, shortcut):
        if not self.has_residual:
            return x
        return drop_path(x, self.drop_path_rate, self.training) + shortcut


class ConvBnAct(ResidualBlock):
    """Apply a convolution, batch norm and an activation, with ``skip`` beside a shortcut."""

    def __init__(
        self,
        in_chs,
        out_chs,
        kernel_size,
        stride=1,
        dilation=1,
        pad_type="",
        act_layer=nn.ReLU,
        norm_layer=BatchNorm2d,
        norm_kwargs=None,
        skip=False,
        drop_path_rate=0.0,
        group_size=0,
        aa_layer=None,
    ):
        super().__init__(stride == 1 and in_chs == out_chs, not skip, drop_path_rate)
        conv_stride = self._shrink(aa_layer, out_chs, stride)
        groups = num_groups(group_size, in_chs)
        self.conv = create_conv2d(
            in_chs, out_chs, kernel_size, stride=conv_stride, dilation=dilation, padding=pad_type, groups=groups
        )
        self.bn1, self.act1 = create_norm(out_chs, norm_layer, norm_kwargs, act_layer)

    def forward(self, x):
        return self._add_shortcut(_apply(self.aa, norm_act(self.conv(x), self.bn1, self.act1)), x)


class DepthwiseSeparableConv(ResidualBlock):
    """Apply a depthwise convolution and a pointwise projection (MobileNet V1, https://arxiv.org/abs/1704.04861).

    This is an inverted residual with an expansion ratio of 1, and so without the expanding convolution. ``pw_act`` adds
    an activation after the projection. With ``s2d`` a convolution first turns 2x2 pixels into four times as many
    channels, and the depthwise kernel has half the size (EfficientNet-X, https://arxiv.org/abs/2102.05610).
    """

    def __init__(
        self,
        in_chs,
        out_chs,
        dw_kernel_size=3,
        stride=1,
        dilation=1,
        pad_type="",
        act_layer=nn.ReLU,
        noskip=False,
        pw_kernel_size=1,
        pw_act=False,
        se_ratio=0.0,
        se_kwargs=None,
        norm_layer=BatchNorm2d,
        norm_kwargs=None,
        drop_path_rate=0.0,
        group_size=1,
        s2d=False,
        aa_layer=None,
        se_layer=None,
    ):
        super().__init__(stride == 1 and in_chs == out_chs and not s2d, noskip, drop_path_rate)
        mid_chs, dw_pad_type, self.conv_s2d = in_chs, pad_type, None
        if s2d:
            mid_chs = 4 * in_chs
            self.conv_s2d = create_conv2d(in_chs, mid_chs, 2, stride=2, padding="same")
            self.bn_s2d, self.act_s2d = create_norm(mid_chs, norm_layer, norm_kwargs, act_layer)
            dw_kernel_size = (dw_kernel_size + 1) // 2
            dw_pad_type = "same" if dw_kernel_size == 2 else pad_type
        conv_stride = self._shrink(aa_layer, mid_chs, stride)
        self.conv_dw = create_conv2d(
            mid_chs,
            mid_chs,
            dw_kernel_size,
            stride=conv_stride,
            dilation=dilation,
            padding=dw_pad_type,
            groups=num_groups(group_size, mid_chs),
        )
        self.bn1, self.act1 = create_norm(mid_chs, norm_layer, norm_kwargs, act_layer)
        self.se = create_gate(mid_chs, in_chs, se_ratio, se_kwargs, se_layer, act_layer)
        self.conv_pw = create_conv2d(mid_chs, out_chs, pw_kernel_size, padding=pad_type)
        self.bn2, self.act2 = create_norm(out_chs, norm_layer, norm_kwargs, act_layer if pw_act else None)

    def forward(self, x):
        shortcut = x
        if self.conv_s2d is not None:
            x = norm_act(self.conv_s2d(x), self.bn_s2d, self.act_s2d)
        x = _apply(self.aa, norm_act(self.conv_dw(x), self.bn1, self.act1))
        x = norm_act(self.conv_pw(_apply(self.se, x)), self.bn2, self.act2)
        return self._add_shortcut(x, shortcut)


class InvertedResidual(ResidualBlock):
    """Apply a pointwise expansion, a depthwise convolution, a gate and a pointwise projection (MobileNet V2 and V3).

    Follows https://arxiv.org/abs/1801.04381 and https://arxiv.org/abs/1905.02244. Lists of kernel sizes mix kernels, as
    in MixNet.
    """

    def __init__(
        self,
        in_chs,
        out_chs,
        dw_kernel_size=3,
        stride=1,
        dilation=1,
        pad_type="",
        act_layer=nn.ReLU,
        noskip=False,
        exp_ratio=1.0,
        exp_kernel_size=1,
        pw_kernel_size=1,
        se_ratio=0.0,
        se_kwargs=None,
        norm_layer=BatchNorm2d,
        norm_kwargs=None,
        conv_kwargs=None,
        drop_path_rate=0.0,
        group_size=1,
        aa_layer=None,
        se_layer=None,
    ):
        super().__init__(stride == 1 and in_chs == out_chs, noskip, drop_path_rate)
        conv_kwargs = conv_kwargs or {}
        mid_chs = make_divisible(in_chs * exp_ratio)
        conv_stride = self._shrink(aa_layer, mid_chs, stride)
        self.conv_pw = create_conv2d(in_chs, mid_chs, exp_kernel_size, padding=pad_type, **conv_kwargs)
        self.bn1, self.act1 = create_norm(mid_chs, norm_layer, norm_kwargs, act_layer)
        self.conv_dw = create_conv2d(
            mid_chs,
            mid_chs,
            dw_kernel_size,
            stride=conv_stride,
            dilation=dilation,
            padding=pad_type,
            groups=num_groups(group_size, mid_chs),
            **conv_kwargs,
        )
        self.bn2, self.act2 = create_norm(mid_chs, norm_layer, norm_kwargs, act_layer)
        self.se = create_gate(mid_chs, in_chs, se_ratio, se_kwargs, se_layer, act_layer)
        self.conv_pwl = create_conv2d(mid_chs, out_chs, pw_kernel_size, padding=pad_type, **conv_kwargs)
        self.bn3, _ = create_norm(out_chs, norm_layer, norm_kwargs)

    def forward(self, x):
        return self._add_shortcut(self._branch(x), x)

    def _branch(self, x, *routing):
        x = norm_act(self.conv_pw(x, *routing), self.bn1, self.act1)  # [N, mid, H, W]
        x = _apply(
            self.aa, norm_act(self.conv_dw(x, *routing), self.bn2, self.act2)
        )  # [N, mid, H / stride, W / stride]
        return self.bn3(self.conv_pwl(_apply(self.se, x), *routing))  # [N, out, H / stride, W / stride]


class CondConvResidual(InvertedResidual):
    """Mix the kernels of an `InvertedResidual` from ``num_experts`` for each image (`CondConv2d`)."""

    def __init__(
        self,
        in_chs,
        out_chs,
        dw_kernel_size=3,
        stride=1,
        dilation=1,
        pad_type="",
        act_layer=nn.ReLU,
        noskip=False,
        exp_ratio=1.0,
        exp_kernel_size=1,
        pw_kernel_size=1,
        se_ratio=0.0,
        se_kwargs=None,
        norm_layer=BatchNorm2d,
        norm_kwargs=None,
        num_experts=0,
        drop_path_rate=0.0,
        group_size=1,
        aa_layer=None,
        se_layer=None,
    ):
        super().__init__(
            in_chs,
            out_chs,
            dw_kernel_size=dw_kernel_size,
            stride=stride,
            dilation=dilation,
            pad_type=pad_type,
            act_layer=act_layer,
            noskip=noskip,
            exp_ratio=exp_ratio,
            exp_kernel_size=exp_kernel_size,
            pw_kernel_size=pw_kernel_size,
            se_ratio=se_ratio,
            se_kwargs=se_kwargs,
            norm_layer=norm_layer,
            norm_kwargs=norm_kwargs,
            conv_kwargs={"num_experts": num_experts},
            drop_path_rate=drop_path_rate,
            group_size=group_size,
            aa_layer=aa_layer,
            se_layer=se_layer,
        )
        self.routing_fn = Linear(in_chs, num_experts)

    def forward(self, x):
        pooled = F.adaptive_avg_pool2d(x, 1).flatten(1)  # [N, in]
        routing = F.sigmoid(self.routing_fn(pooled))  # [N, num_experts]
        return self._add_shortcut(self._branch(x, routing), x)


class EdgeResidual(ResidualBlock):
    """Apply a full convolution that expands, a gate and a pointwise projection (EfficientNet-EdgeTPU).

    ``fake_in_chs``, if not 0, replaces the input channels when the expanded channels are computed.
    ``stride_in_expansion`` puts stride and dilation into the expanding convolution, as in timm 1.x; by default the
    projection has them, as in timm 0.1.20. Weights have the same names and shapes in both. With symmetric padding and
    no gate the results are equal too; with TensorFlow's padding they differ.
    """

    def __init__(
        self,
        in_chs,
        out_chs,
        exp_kernel_size=3,
        exp_ratio=1.0,
        fake_in_chs=0,
        stride=1,
        dilation=1,
        pad_type="",
        act_layer=nn.ReLU,
        noskip=False,
        pw_kernel_size=1,
        se_ratio=0.0,
        se_kwargs=None,
        norm_layer=BatchNorm2d,
        norm_kwargs=None,
        drop_path_rate=0.0,
        stride_in_expansion=False,
        group_size=0,
        aa_layer=None,
        se_layer=None,
    ):
        super().__init__(stride == 1 and in_chs == out_chs, noskip, drop_path_rate)
        mid_chs = make_divisible((fake_in_chs or in_chs) * exp_ratio)
        strided, plain = {"stride": self._shrink(aa_layer, mid_chs, stride), "dilation": dilation}, {}
        expansion, projection = (strided, plain) if stride_in_expansion else (plain, strided)
        groups = num_groups(group_size, mid_chs)
        self.conv_exp = create_conv2d(in_chs, mid_chs, exp_kernel_size, padding=pad_type, groups=groups, **expansion)
        self.bn1, self.act1 = create_norm(mid_chs, norm_layer, norm_kwargs, act_layer)
        self.se = create_gate(mid_chs, in_chs, se_ratio, se_kwargs, se_layer, act_layer)
        self.conv_pwl = create_conv2d(mid_chs, out_chs, pw_kernel_size, padding=pad_type, **projection)
        self.bn2, _ = create_norm(out_chs, norm_layer, norm_kwargs)

    def forward(self, x):
        shortcut = x
        x = _apply(self.aa, norm_act(self.conv_exp(x), self.bn1, self.act1))
        x = self.bn2(self.conv_pwl(_apply(self.se, x)))
        return self._add_shortcut(x, shortcut)
