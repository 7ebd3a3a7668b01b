"""The blocks of MetaFormer: mixers of pixels, activations and normalisations."""

from __future__ import annotations

import paddle.nn.functional as F
from paddle import nn

from pimm.layers import Conv2d, DropPath, GroupNorm1, LayerNorm, LayerNorm2d, Linear, Mlp
from pimm.layers.attention import attend


class Scale(nn.Layer):
    """Multiply each channel by a learned number; feature maps are [N, C, H, W], or [N, pixels, C]."""

    def __init__(self, dim, init_value=1.0, use_nchw=True):
        super().__init__()
        self.shape = [dim, 1, 1] if use_nchw else [dim]
        self.scale = self.create_parameter([dim], default_initializer=nn.initializer.Constant(init_value))

    def forward(self, x):
        return x * self.scale.reshape(self.shape)


class SquaredReLU(nn.Layer):
    """Return the square of ReLU (https://arxiv.org/abs/2109.08668)."""

    def forward(self, x):
        return F.relu(x).square()


class StarReLU(nn.Layer):
    """Return ``scale * relu(x) ** 2 + bias`` of learned numbers (https://arxiv.org/abs/2210.13452)."""

    def __init__(self):
        super().__init__()
        self.scale = self.create_parameter([1], default_initializer=nn.initializer.Constant(1.0))
        self.bias = self.create_parameter([1], default_initializer=nn.initializer.Constant(0.0))

    def forward(self, x):
        return self.scale * F.relu(x).square() + self.bias


class GroupNorm1NoBias(GroupNorm1):
    """`GroupNorm1` without a bias."""

    def __init__(self, num_channels):
        super().__init__(num_channels, eps=1e-6)
        self.bias = None


class LayerNormNoBias(LayerNorm):
    """`LayerNorm` without a bias."""

    def __init__(self, num_channels):
        super().__init__(num_channels)
        self.bias = None


class LayerNorm2dNoBias(LayerNorm2d):
    """`LayerNorm2d` without a bias."""

    def __init__(self, num_channels):
        super().__init__(num_channels)
        self.bias = None


class Attention(nn.Layer):
    """Attend from pixels to pixels [N, pixels, C], with heads of 32 numbers."""

    head_dim = 32
    use_nchw = False

    def __init__(self, dim, proj_drop=0.0):
        super().__init__()
        self.num_heads = max(dim // self.head_dim, 1)
        width = self.num_heads * self.head_dim
        self.qkv = Linear(dim, width * 3, bias=False)
        self.proj = Linear(width, dim, bias=False)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x):
        qkv = self.qkv(x).reshape([0, 0, 3, self.num_heads, self.head_dim]).transpose([2, 0, 3, 1, 4])
        x = attend(*qkv.unbind(0))  # [N, heads, pixels, head_dim]
        return self.proj_drop(self.proj(x.transpose([0, 2, 1, 3]).flatten(2)))


class SepConv(nn.Layer):
    """Mix pixels by a 7x7 depthwise convolution between 1x1 convolutions, inverted as in MobileNetV2."""

    use_nchw = True

    def __init__(self, dim, proj_drop=0.0):
        super().__init__()
        self.pwconv1 = Conv2d(dim, 2 * dim, 1, bias=False)
        self.act1 = StarReLU()
        self.dwconv = Conv2d(2 * dim, 2 * dim, 7, padding=3, groups=2 * dim, bias=False)
        self.pwconv2 = Conv2d(2 * dim, dim, 1, bias=False)

    def forward(self, x):
        return self.pwconv2(self.dwconv(self.act1(self.pwconv1(x))))


class Pooling(nn.Layer):
    """Mix pixels by average pooling of 3x3, from which the input is subtracted (https://arxiv.org/abs/2111.11418)."""

    use_nchw = True

    def __init__(self, dim, proj_drop=0.0):
        super().__init__()
        self.pool = nn.AvgPool2D(3, 1, 1, exclusive=True)

    def forward(self, x):
        return self.pool(x) - x


class MetaFormerBlock(nn.Layer):
    """Mix pixels, then channels, each with a normalisation before and the shortcut after.

    Args:
        dim: channels.
        token_mixer: class of the layer that mixes pixels.
        mlp_act: class of the activation between the layers that mix channels.
        mlp_bias: whether these layers have a bias.
        norm_layer: class of the normalisations.
        proj_drop: dropout of the branches.
        drop_path: stochastic depth.
        layer_scale: initial factor of each branch; None for no factors.
        res_scale: initial factor of each shortcut; None for no factors.
    """

    def __init__(self, dim, token_mixer, mlp_act, mlp_bias, norm_layer, proj_drop, drop_path, layer_scale, res_scale):
        super().__init__()
        use_nchw = token_mixer.use_nchw

        def scale(init_value):
            return nn.Identity() if init_value is None else Scale(dim, init_value, use_nchw)

        def drop():
            return DropPath(drop_path) if drop_path else nn.Identity()

        self.norm1, self.token_mixer, self.drop_path1 = norm_layer(dim), token_mixer(dim, proj_drop), drop()
        self.layer_scale1, self.res_scale1 = scale(layer_scale), scale(res_scale)
        mlp = Mlp(dim, 4 * dim, act_layer=mlp_act, bias=mlp_bias, drop=proj_drop, use_conv=use_nchw)
        self.norm2, self.mlp, self.drop_path2 = norm_layer(dim), mlp, drop()
        self.layer_scale2, self.res_scale2 = scale(layer_scale), scale(res_scale)

    def forward(self, x):
        x = self.res_scale1(x) + self.layer_scale1(self.drop_path1(self.token_mixer(self.norm1(x))))
        return self.res_scale2(x) + self.layer_scale2(self.drop_path2(self.mlp(self.norm2(x))))
