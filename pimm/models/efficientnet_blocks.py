"""Building blocks of the EfficientNet and MobileNet families, with timm 0.1.20's arguments and state names."""

import paddle.nn.functional as F
from paddle import nn

from pimm.layers import BatchNorm2d, Linear, SqueezeExcite, create_conv2d, drop_path, make_divisible, norm_act, sigmoid

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


def round_channels(channels, multiplier=1.0, divisor=8, channel_min=None):
    """Return channels times a width multiplier, rounded by `make_divisible`; 0 or None changes nothing."""
    return make_divisible(channels * multiplier, divisor, channel_min) if multiplier else channels


def _squeeze_excite(gated_chs, in_chs, se_ratio, se_kwargs, act_layer):
    if not se_ratio:
        return None
    return SqueezeExcite(gated_chs, se_ratio=se_ratio, **resolve_se_args(se_kwargs, in_chs, act_layer))


class ConvBnAct(nn.Layer):
    """Apply a convolution, batch norm and an activation."""

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
    ):
        super().__init__()
        self.conv = create_conv2d(in_chs, out_chs, kernel_size, stride=stride, dilation=dilation, padding=pad_type)
        self.bn1 = norm_layer(out_chs, **(norm_kwargs or {}))
        self.act1 = act_layer()

    def forward(self, x):
        return norm_act(self.conv(x), self.bn1, self.act1)


class _ResidualBlock(nn.Layer):
    """Add a shortcut, with stochastic depth, in blocks that keep the shape of their input."""

    def __init__(self, keeps_shape, noskip, drop_path_rate):
        super().__init__()
        self.has_residual = keeps_shape and not noskip
        self.drop_path_rate = drop_path_rate

    def _add_shortcut(self, x, shortcut):
        if not self.has_residual:
            return x
        return drop_path(x, self.drop_path_rate, self.training) + shortcut


class DepthwiseSeparableConv(_ResidualBlock):
    """Apply a depthwise convolution and a pointwise projection (MobileNet V1, https://arxiv.org/abs/1704.04861).

    This is an inverted residual with an expansion ratio of 1, and so without the expanding convolution. ``pw_act`` adds
    an activation after the projection.
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
    ):
        super().__init__(stride == 1 and in_chs == out_chs, noskip, drop_path_rate)
        norm_kwargs = norm_kwargs or {}
        self.conv_dw = create_conv2d(
            in_chs, in_chs, dw_kernel_size, stride=stride, dilation=dilation, padding=pad_type, depthwise=True
        )
        self.bn1 = norm_layer(in_chs, **norm_kwargs)
        self.act1 = act_layer()
        self.se = _squeeze_excite(in_chs, in_chs, se_ratio, se_kwargs, act_layer)
        self.conv_pw = create_conv2d(in_chs, out_chs, pw_kernel_size, padding=pad_type)
        self.bn2 = norm_layer(out_chs, **norm_kwargs)
        self.act2 = act_layer() if pw_act else nn.Identity()

    def forward(self, x):
        shortcut = x
        x = norm_act(self.conv_dw(x), self.bn1, self.act1)
        if self.se is not None:
            x = self.se(x)
        x = norm_act(self.conv_pw(x), self.bn2, self.act2)
        return self._add_shortcut(x, shortcut)


class InvertedResidual(_ResidualBlock):
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
    ):
        super().__init__(stride == 1 and in_chs == out_chs, noskip, drop_path_rate)
        norm_kwargs = norm_kwargs or {}
        conv_kwargs = conv_kwargs or {}
        mid_chs = make_divisible(in_chs * exp_ratio)
        self.conv_pw = create_conv2d(in_chs, mid_chs, exp_kernel_size, padding=pad_type, **conv_kwargs)
        self.bn1 = norm_layer(mid_chs, **norm_kwargs)
        self.act1 = act_layer()
        self.conv_dw = create_conv2d(
            mid_chs,
            mid_chs,
            dw_kernel_size,
            stride=stride,
            dilation=dilation,
            padding=pad_type,
            depthwise=True,
            **conv_kwargs,
        )
        self.bn2 = norm_layer(mid_chs, **norm_kwargs)
        self.act2 = act_layer()
        self.se = _squeeze_excite(mid_chs, in_chs, se_ratio, se_kwargs, act_layer)
        self.conv_pwl = create_conv2d(mid_chs, out_chs, pw_kernel_size, padding=pad_type, **conv_kwargs)
        self.bn3 = norm_layer(out_chs, **norm_kwargs)

    def forward(self, x):
        return self._add_shortcut(self._branch(x), x)

    def _branch(self, x, *routing):
        x = norm_act(self.conv_pw(x, *routing), self.bn1, self.act1)  # [N, mid, H, W]
        x = norm_act(self.conv_dw(x, *routing), self.bn2, self.act2)  # [N, mid, H / stride, W / stride]
        if self.se is not None:
            x = self.se(x)
        return self.bn3(self.conv_pwl(x, *routing))  # [N, out, H / stride, W / stride]


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
        )
        self.routing_fn = Linear(in_chs, num_experts)

    def forward(self, x):
        pooled = F.adaptive_avg_pool2d(x, 1).flatten(1)  # [N, in]
        routing = F.sigmoid(self.routing_fn(pooled))  # [N, num_experts]
        return self._add_shortcut(self._branch(x, routing), x)


class EdgeResidual(_ResidualBlock):
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
    ):
        super().__init__(stride == 1 and in_chs == out_chs, noskip, drop_path_rate)
        norm_kwargs = norm_kwargs or {}
        mid_chs = make_divisible((fake_in_chs or in_chs) * exp_ratio)
        strided, plain = {"stride": stride, "dilation": dilation}, {}
        expansion, projection = (strided, plain) if stride_in_expansion else (plain, strided)
        self.conv_exp = create_conv2d(in_chs, mid_chs, exp_kernel_size, padding=pad_type, **expansion)
        self.bn1 = norm_layer(mid_chs, **norm_kwargs)
        self.act1 = act_layer()
        self.se = _squeeze_excite(mid_chs, in_chs, se_ratio, se_kwargs, act_layer)
        self.conv_pwl = create_conv2d(mid_chs, out_chs, pw_kernel_size, padding=pad_type, **projection)
        self.bn2 = norm_layer(out_chs, **norm_kwargs)

    def forward(self, x):
        shortcut = x
        x = norm_act(self.conv_exp(x), self.bn1, self.act1)
        if self.se is not None:
            x = self.se(x)
        x = self.bn2(self.conv_pwl(x))
        return self._add_shortcut(x, shortcut)
