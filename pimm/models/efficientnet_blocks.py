"""Building blocks of the EfficientNet and MobileNet families, with timm 0.1.20's arguments and state names."""

import paddle.nn.functional as F
from paddle import nn

from pimm.layers import BatchNorm2d, Linear, SqueezeExcite, create_conv2d, drop_path, make_divisible, norm_act, sigmoid

# What Google trained its mobile networks with; 1 - 0.99 because momentum is the new batch's weight here.
BN_MOMENTUM_TF_DEFAULT = 1 - 0.99
BN_EPS_TF_DEFAULT = 1e-3


def get_bn_args_tf():
    """Batch-norm arguments of the TensorFlow reference networks."""
    return {"momentum": BN_MOMENTUM_TF_DEFAULT, "eps": BN_EPS_TF_DEFAULT}


def resolve_bn_args(kwargs):
    """Take ``bn_tf``, ``bn_momentum`` and ``bn_eps`` out of ``kwargs``; return the batch-norm arguments they mean."""
    bn_args = get_bn_args_tf() if kwargs.pop("bn_tf", False) else {}
    given = {"momentum": kwargs.pop("bn_momentum", None), "eps": kwargs.pop("bn_eps", None)}
    return {**bn_args, **{name: value for name, value in given.items() if value is not None}}


def resolve_se_args(kwargs, in_chs, act_layer=None):
    """Arguments of `SqueezeExcite` in a block with ``in_chs`` inputs.

    ``reduce_mid`` counts the hidden channels from the gated width, else they are counted from the block's input;
    an ``act_layer`` left open is the block's own.
    """
    se_kwargs = {"gate_fn": sigmoid, "act_layer": None, "reduce_mid": False, "divisor": 1, **(kwargs or {})}
    if not se_kwargs.pop("reduce_mid"):
        se_kwargs["reduced_base_chs"] = in_chs
    se_kwargs["act_layer"] = se_kwargs["act_layer"] or act_layer
    return se_kwargs


def round_channels(channels, multiplier=1.0, divisor=8, channel_min=None):
    """Channels scaled by a width multiplier and rounded by `make_divisible`; a multiplier of 0 or None leaves them."""
    return make_divisible(channels * multiplier, divisor, channel_min) if multiplier else channels


def _squeeze_excite(gated_chs, in_chs, se_ratio, se_kwargs, act_layer):
    if not se_ratio:
        return None
    return SqueezeExcite(gated_chs, se_ratio=se_ratio, **resolve_se_args(se_kwargs, in_chs, act_layer))


class ConvBnAct(nn.Layer):
    """Convolution, batch norm, activation."""

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
    """Adds a shortcut, with stochastic depth, where a block keeps its input's shape."""

    def __init__(self, keeps_shape, noskip, drop_path_rate):
        super().__init__()
        self.has_residual = keeps_shape and not noskip
        self.drop_path_rate = drop_path_rate

    def _add_shortcut(self, x, shortcut):
        if not self.has_residual:
            return x
        return drop_path(x, self.drop_path_rate, self.training) + shortcut


class DepthwiseSeparableConv(_ResidualBlock):
    """Depthwise convolution and pointwise projection (MobileNet V1, https://arxiv.org/abs/1704.04861).

    An inverted residual whose expansion is one needs no expanding convolution: this is it. ``pw_act`` adds an
    activation after the projection.
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
    """Pointwise expansion, depthwise convolution, gate, pointwise projection (MobileNet V2 and V3).

    https://arxiv.org/abs/1801.04381, https://arxiv.org/abs/1905.02244. Lists of kernel sizes mix kernels (MixNet).
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
    """`InvertedResidual` whose kernels are mixed from ``num_experts`` for each image (`CondConv2d`)."""

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
    """Full convolution that expands, gate, strided pointwise projection (EfficientNet-EdgeTPU).

    ``fake_in_chs``, if not 0, stands in for the input's channels when the expansion is counted.
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
    ):
        super().__init__(stride == 1 and in_chs == out_chs, noskip, drop_path_rate)
        norm_kwargs = norm_kwargs or {}
        mid_chs = make_divisible((fake_in_chs or in_chs) * exp_ratio)
        self.conv_exp = create_conv2d(in_chs, mid_chs, exp_kernel_size, padding=pad_type)
        self.bn1 = norm_layer(mid_chs, **norm_kwargs)
        self.act1 = act_layer()
        self.se = _squeeze_excite(mid_chs, in_chs, se_ratio, se_kwargs, act_layer)
        self.conv_pwl = create_conv2d(
            mid_chs, out_chs, pw_kernel_size, stride=stride, dilation=dilation, padding=pad_type
        )
        self.bn2 = norm_layer(out_chs, **norm_kwargs)

    def forward(self, x):
        shortcut = x
        x = norm_act(self.conv_exp(x), self.bn1, self.act1)
        if self.se is not None:
            x = self.se(x)
        x = self.bn2(self.conv_pwl(x))
        return self._add_shortcut(x, shortcut)
