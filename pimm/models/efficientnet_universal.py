"""Blocks of MobileNet V4 (https://arxiv.org/abs/2404.10518): the universal inverted bottleneck and mobile attention.

State names are those of timm; arguments that blocks have in common are described in `pimm.models.efficientnet_blocks`.
"""

from paddle import nn

from pimm.errors import ConfigError
from pimm.layers import (
    Attention2d,
    BatchNorm2d,
    ConvNormAct,
    LayerScale2d,
    MultiQueryAttention2d,
    make_divisible,
)
from pimm.models.efficientnet_blocks import ResidualBlock, create_gate, create_norm, num_groups


def _depthwise(channels, kernel_size, group_size, **kwargs):
    """Return the depthwise convolution of a kernel, or the identity for a kernel of 0."""
    if not kernel_size:
        return nn.Identity()
    return ConvNormAct(channels, channels, kernel_size, groups=num_groups(group_size, channels), **kwargs)


class UniversalInvertedResidual(ResidualBlock):
    """Apply pointwise expansion and projection with a depthwise convolution before, between or after them.

    A kernel of 0 leaves a depthwise convolution out. The middle one has the stride; without it the first, or the last.

    Args:
        in_chs: channels of the input.
        out_chs: channels of the output.
        dw_kernel_size_start: kernel before the expansion.
        dw_kernel_size_mid: kernel between expansion and projection.
        dw_kernel_size_end: kernel after the projection.
        stride: by how much the images shrink.
        dilation: dilation of the depthwise convolutions.
        pad_type: padding, such as ``same``.
        act_layer: class of the activations.
        noskip: whether there is no shortcut.
        exp_ratio: channels of the expansion for each input channel.
        se_ratio: hidden channels of the gate for each input channel; 0 for no gate.
        se_kwargs: arguments of the gate.
        norm_layer: class of the normalisation layers.
        norm_kwargs: arguments of the normalisation layers.
        drop_path_rate: stochastic depth.
        layer_scale_init_value: first value of the scale of each channel; None for no scale.
        group_size: channels that a group of the depthwise convolutions mixes.
        aa_layer: layer that shrinks images in place of a strided convolution.
        se_layer: class of the gate in place of `SqueezeExcite`.

    Raises:
        ConfigError: for a stride without a depthwise convolution.
    """

    def __init__(
        self,
        in_chs,
        out_chs,
        dw_kernel_size_start=0,
        dw_kernel_size_mid=3,
        dw_kernel_size_end=0,
        stride=1,
        dilation=1,
        pad_type="",
        act_layer=nn.ReLU,
        noskip=False,
        exp_ratio=1.0,
        se_ratio=0.0,
        se_kwargs=None,
        norm_layer=BatchNorm2d,
        norm_kwargs=None,
        drop_path_rate=0.0,
        layer_scale_init_value=1e-5,
        group_size=1,
        aa_layer=None,
        se_layer=None,
    ):
        super().__init__(stride == 1 and in_chs == out_chs, noskip, drop_path_rate)
        kernels = (dw_kernel_size_mid, dw_kernel_size_start, dw_kernel_size_end)
        if stride > 1 and not any(kernels):
            raise ConfigError("a universal inverted residual of stride 2 needs a depthwise convolution")
        strided = next((place for place, kernel in enumerate(kernels) if kernel), None)
        strides = [stride if place == strided else 1 for place in range(3)]
        shared = {"padding": pad_type, "norm_layer": norm_layer, "norm_kwargs": norm_kwargs}
        spatial = {"dilation": dilation, "group_size": group_size, **shared}
        mid_chs = make_divisible(in_chs * exp_ratio)
        self.dw_start = _depthwise(
            in_chs, dw_kernel_size_start, stride=strides[1], aa_layer=aa_layer, apply_act=False, **spatial
        )
        self.pw_exp = ConvNormAct(in_chs, mid_chs, 1, act_layer=act_layer, **shared)
        self.dw_mid = _depthwise(
            mid_chs, dw_kernel_size_mid, stride=strides[0], aa_layer=aa_layer, act_layer=act_layer, **spatial
        )
        self.se = create_gate(mid_chs, in_chs, se_ratio, se_kwargs, se_layer, act_layer)
        self.pw_proj = ConvNormAct(mid_chs, out_chs, 1, apply_act=False, **shared)
        self.dw_end = _depthwise(out_chs, dw_kernel_size_end, stride=strides[2], apply_act=False, **spatial)
        scaled = layer_scale_init_value is not None
        self.layer_scale = LayerScale2d(out_chs, layer_scale_init_value) if scaled else nn.Identity()

    def forward(self, x):
        shortcut = x
        x = self.dw_mid(self.pw_exp(self.dw_start(x)))  # [N, mid, H / stride, W / stride]
        if self.se is not None:
            x = self.se(x)
        x = self.dw_end(self.pw_proj(x))
        return self._add_shortcut(self.layer_scale(x), shortcut)  # [N, out, H / stride, W / stride]


class MobileAttention(ResidualBlock):
    """Apply a normalisation and attention between the pixels, beside a shortcut.

    Args:
        in_chs: channels of the input.
        out_chs: channels of the output.
        stride: 1; a block of another stride has no shortcut.
        dw_kernel_size: kernel of the convolution that shrinks the images for key and value.
        dilation: dilation of that convolution.
        pad_type: padding of that convolution.
        num_heads: heads of the attention.
        key_dim: channels of a head's query and of the key, with ``use_multi_query``.
        value_dim: channels of the value, with ``use_multi_query``.
        use_multi_query: whether all heads share a key and a value.
        kv_stride: by how much the images shrink for key and value, with ``use_multi_query``.
        noskip: whether there is no shortcut.
        act_layer: not used; blocks of a stage get the same arguments.
        norm_layer: class of the normalisation layers.
        norm_kwargs: arguments of the normalisation layers.
        drop_path_rate: stochastic depth.
        attn_drop: dropout of the attention's weights.
        proj_drop: dropout of the attention's output.
        layer_scale_init_value: first value of the scale of each channel; None for no scale.
        group_size: not used.
        aa_layer: not used.
    """

    def __init__(
        self,
        in_chs,
        out_chs,
        stride=1,
        dw_kernel_size=3,
        dilation=1,
        pad_type="",
        num_heads=8,
        key_dim=64,
        value_dim=64,
        use_multi_query=False,
        kv_stride=1,
        noskip=False,
        act_layer=None,
        norm_layer=BatchNorm2d,
        norm_kwargs=None,
        drop_path_rate=0.0,
        attn_drop=0.0,
        proj_drop=0.0,
        layer_scale_init_value=1e-5,
        group_size=1,
        aa_layer=None,
    ):
        super().__init__(stride == 1 and in_chs == out_chs, noskip, drop_path_rate)
        self.norm, _ = create_norm(in_chs, norm_layer, norm_kwargs)
        drops = {"attn_drop": attn_drop, "proj_drop": proj_drop}
        if use_multi_query:
            self.attn = MultiQueryAttention2d(
                in_chs,
                dim_out=out_chs,
                num_heads=num_heads,
                key_dim=key_dim,
                value_dim=value_dim,
                kv_stride=kv_stride,
                dw_kernel_size=dw_kernel_size,
                dilation=dilation,
                padding=pad_type,
                norm_layer=lambda channels: create_norm(channels, norm_layer, norm_kwargs)[0],
                **drops,
            )
        else:
            self.attn = Attention2d(in_chs, dim_out=out_chs, num_heads=num_heads, bias=False, **drops)
        scaled = layer_scale_init_value is not None
        self.layer_scale = LayerScale2d(out_chs, layer_scale_init_value) if scaled else nn.Identity()

    def forward(self, x):
        return self._add_shortcut(self.layer_scale(self.attn(self.norm(x))), x)
