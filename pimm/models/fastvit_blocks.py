"""The blocks of FastViT, whose branches become single convolutions for inference."""

from __future__ import annotations

import paddle
from paddle import nn

from pimm.errors import ConfigError
from pimm.layers import BatchNorm2d, Conv2d, ConvNormAct, DropPath, Linear, SEModule
from pimm.layers.attention import attend
from pimm.layers.fuse import conv_with, identity_kernel, sum_branches
from pimm.layers.weight_init import trunc_normal_, zeros_


def _conv_norm(in_chs, out_chs, kernel_size, stride, groups):
    return ConvNormAct(in_chs, out_chs, kernel_size=kernel_size, stride=stride, groups=groups, apply_act=False)


class MobileOneBlock(nn.Layer):
    """Apply the sum of parallel branches, a gate and an activation (https://arxiv.org/abs/2206.04040).

    The branches are a batch norm, where the shape stays, a 1x1 convolution, and larger ones.

    Args:
        in_chs: channels of the input.
        out_chs: channels of the output.
        kernel_size: of the largest convolution.
        stride: of the block.
        depthwise: whether every channel of the input is a group of its own.
        use_se: whether there is a gate.
        act_layer: class of the activation; None for none.
        use_scale_branch: whether there is a 1x1 convolution beside larger ones.
        num_conv_branches: how many convolutions of ``kernel_size``.
    """

    def __init__(
        self,
        in_chs,
        out_chs,
        kernel_size,
        stride=1,
        depthwise=False,
        use_se=False,
        act_layer=nn.GELU,
        use_scale_branch=True,
        num_conv_branches=1,
    ):
        super().__init__()
        self.in_chs, self.kernel_size, self.stride = in_chs, kernel_size, stride
        self.groups = in_chs if depthwise else 1
        geometry = {"stride": stride, "groups": self.groups}
        self.se = SEModule(out_chs, rd_divisor=1) if use_se else nn.Identity()
        self.reparam_conv = self.conv_kxk = self.conv_scale = None
        self.identity = BatchNorm2d(in_chs) if out_chs == in_chs and stride == 1 else None
        if num_conv_branches:
            convs = [_conv_norm(in_chs, out_chs, kernel_size, **geometry) for _ in range(num_conv_branches)]
            self.conv_kxk = nn.LayerList(convs)
        if kernel_size > 1 and use_scale_branch:
            self.conv_scale = _conv_norm(in_chs, out_chs, 1, **geometry)
        self.act = act_layer() if act_layer else nn.Identity()

    def branches(self):
        """Return the convolutions in the order of their sum."""
        return [*([] if self.conv_scale is None else [self.conv_scale]), *(self.conv_kxk or [])]

    def forward(self, x):
        if self.reparam_conv is not None:
            return self.act(self.se(self.reparam_conv(x)))
        outputs = [branch(x) for branch in self.branches()]
        if self.identity is not None:
            outputs.append(self.identity(x))
        out = outputs[0]
        for output in outputs[1:]:
            out = out + output
        return self.act(self.se(out))

    def kernel_and_bias(self):
        """Return the kernel and the bias of the convolution that does what the branches do in evaluation mode."""
        return sum_branches(self.branches(), self.identity, self.in_chs, self.groups, self.kernel_size)

    @paddle.no_grad()
    def reparameterize(self):
        """Replace the branches by one convolution with a bias, which computes the same in evaluation mode."""
        if self.reparam_conv is None:
            self.reparam_conv = conv_with(*self.kernel_and_bias(), stride=self.stride, groups=self.groups)
            _remove(self, "conv_kxk", "conv_scale", "identity")


def _remove(layer, *names):
    for name in names:
        delattr(layer, name)


class ReparamLargeKernelConv(nn.Layer):
    """Apply the sum of a large and a small depthwise convolution (https://arxiv.org/abs/2203.06717).

    The number of output channels is a multiple of the input's, of which each is a group.
    """

    def __init__(self, in_chs, out_chs, kernel_size, stride, small_kernel, use_se=False, act_layer=None):
        super().__init__()
        self.in_chs, self.kernel_size, self.stride = in_chs, kernel_size, stride
        self.reparam_conv = None
        self.large_conv = _conv_norm(in_chs, out_chs, kernel_size, stride, in_chs)
        self.small_conv = _conv_norm(in_chs, out_chs, small_kernel, stride, in_chs)
        self.se = SEModule(out_chs, rd_ratio=0.25) if use_se else nn.Identity()
        self.act = act_layer() if act_layer else nn.Identity()

    def forward(self, x):
        out = self.large_conv(x) + self.small_conv(x) if self.reparam_conv is None else self.reparam_conv(x)
        return self.act(self.se(out))

    @paddle.no_grad()
    def reparameterize(self):
        """Replace both convolutions by one with a bias, which computes the same in evaluation mode."""
        if self.reparam_conv is None:
            branches = [self.large_conv, self.small_conv]
            values = sum_branches(branches, None, self.in_chs, self.in_chs, self.kernel_size)
            self.reparam_conv = conv_with(*values, stride=self.stride, groups=self.in_chs)
            _remove(self, "large_conv", "small_conv")


class PatchEmbed(nn.Layer):
    """Halve feature maps between two stages, and change the number of channels."""

    def __init__(self, patch_size, stride, in_chs, embed_dim, act_layer=nn.GELU, lkc_use_act=False, use_se=False):
        super().__init__()
        large_act = act_layer if lkc_use_act else None
        self.proj = nn.Sequential(
            ReparamLargeKernelConv(in_chs, embed_dim, patch_size, stride, 3, use_se, large_act),
            MobileOneBlock(embed_dim, embed_dim, 1, act_layer=act_layer),
        )

    def forward(self, x):
        return self.proj(x)


class Attention(nn.Layer):
    """Attend from pixels to pixels, with heads of ``head_dim`` numbers."""

    def __init__(self, dim, head_dim=32):
        super().__init__()
        if dim % head_dim:
            raise ConfigError(f"{dim} channels do not make whole heads of {head_dim}")
        self.head_dim = head_dim
        self.qkv = Linear(dim, dim * 3, bias=False)
        self.proj = Linear(dim, dim)

    def forward(self, x):
        _, channels, height, width = x.shape
        pixels = x.flatten(2).transpose([0, 2, 1])  # [N, H * W, C]
        qkv = self.qkv(pixels).reshape([0, 0, 3, channels // self.head_dim, self.head_dim])
        pixels = attend(*qkv.transpose([2, 0, 3, 1, 4]).unbind(0))  # [N, heads, H * W, head_dim]
        pixels = pixels.transpose([0, 2, 1, 3]).flatten(2)
        return self.proj(pixels).transpose([0, 2, 1]).reshape([0, channels, height, width])


class LayerScale2d(nn.Layer):
    """Multiply each channel by a learned number, which begins with ``init_values``."""

    def __init__(self, dim, init_values=1e-5):
        super().__init__()
        self.gamma = self.create_parameter([dim, 1, 1], default_initializer=nn.initializer.Constant(init_values))

    def forward(self, x):
        return x * self.gamma


def _layer_scale(dim, init_values):
    return nn.Identity() if init_values is None else LayerScale2d(dim, init_values)


class RepMixer(nn.Layer):
    """Mix pixels by a depthwise convolution, of which a batch norm of the input is subtracted."""

    def __init__(self, dim, kernel_size=3, layer_scale_init_value=1e-5):
        super().__init__()
        self.dim, self.kernel_size = dim, kernel_size
        self.reparam_conv = None
        shared = {"depthwise": True, "act_layer": None}
        self.norm = MobileOneBlock(dim, dim, kernel_size, use_scale_branch=False, num_conv_branches=0, **shared)
        self.mixer = MobileOneBlock(dim, dim, kernel_size, **shared)
        self.layer_scale = _layer_scale(dim, layer_scale_init_value)

    def forward(self, x):
        if self.reparam_conv is not None:
            return self.reparam_conv(x)
        return x + self.layer_scale(self.mixer(x) - self.norm(x))

    @paddle.no_grad()
    def reparameterize(self):
        """Replace all layers by one convolution with a bias, which computes the same in evaluation mode."""
        if self.reparam_conv is not None:
            return
        (kernel, bias), (norm_kernel, norm_bias) = self.mixer.kernel_and_bias(), self.norm.kernel_and_bias()
        kernel, bias = kernel - norm_kernel, bias - norm_bias
        if isinstance(self.layer_scale, LayerScale2d):
            kernel, bias = kernel * self.layer_scale.gamma.unsqueeze(-1), bias * self.layer_scale.gamma.flatten()
        kernel = kernel + identity_kernel(self.dim, self.dim, self.kernel_size)
        self.reparam_conv = conv_with(kernel, bias, groups=self.dim)
        _remove(self, "mixer", "norm", "layer_scale")


class ConvMlp(nn.Layer):
    """Apply a 7x7 depthwise convolution, and two 1x1 convolutions with an activation between them."""

    def __init__(self, in_chs, hidden_channels, act_layer=nn.GELU, drop=0.0):
        super().__init__()
        self.conv = _conv_norm(in_chs, in_chs, 7, 1, in_chs)
        self.fc1 = Conv2d(in_chs, hidden_channels, 1)
        self.act = act_layer()
        self.fc2 = Conv2d(hidden_channels, in_chs, 1)
        self.drop = nn.Dropout(drop)
        for layer in (self.conv.conv, self.fc1, self.fc2):
            trunc_normal_(layer.weight, std=0.02)
            zeros_(layer.bias)

    def forward(self, x):
        x = self.drop(self.act(self.fc1(self.conv(x))))
        return self.drop(self.fc2(x))


class RepConditionalPosEnc(nn.Layer):
    """Add a depthwise convolution of the input, which tells pixels where they are (https://arxiv.org/abs/2102.10882)."""

    def __init__(self, dim, spatial_shape=(7, 7)):
        super().__init__()
        self.dim, self.spatial_shape = dim, spatial_shape
        self.reparam_conv = None
        self.pos_enc = Conv2d(dim, dim, spatial_shape, 1, spatial_shape[0] // 2, groups=dim)

    def forward(self, x):
        return self.pos_enc(x) + x if self.reparam_conv is None else self.reparam_conv(x)

    @paddle.no_grad()
    def reparameterize(self):
        """Replace the sum by one convolution, which computes the same."""
        if self.reparam_conv is None:
            kernel = self.pos_enc.weight + identity_kernel(self.dim, self.dim, self.spatial_shape)
            self.reparam_conv = conv_with(kernel, self.pos_enc.bias, groups=self.dim)
            _remove(self, "pos_enc")


class RepMixerBlock(nn.Layer):
    """Mix pixels by a `RepMixer`, and channels by a `ConvMlp`."""

    def __init__(self, dim, mlp_ratio, act_layer, norm_layer, kernel_size, proj_drop, drop_path, layer_scale):
        super().__init__()
        self.token_mixer = RepMixer(dim, kernel_size, layer_scale)
        self.mlp = ConvMlp(dim, int(dim * mlp_ratio), act_layer, proj_drop)
        self.layer_scale = _layer_scale(dim, layer_scale)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x):
        x = self.token_mixer(x)
        return x + self.drop_path(self.layer_scale(self.mlp(x)))


class AttentionBlock(nn.Layer):
    """Mix pixels by `Attention`, and channels by a `ConvMlp`."""

    def __init__(self, dim, mlp_ratio, act_layer, norm_layer, kernel_size, proj_drop, drop_path, layer_scale):
        super().__init__()
        self.norm = norm_layer(dim)
        self.token_mixer = Attention(dim)
        self.layer_scale_1 = _layer_scale(dim, layer_scale)
        self.drop_path1 = DropPath(drop_path) if drop_path else nn.Identity()
        self.mlp = ConvMlp(dim, int(dim * mlp_ratio), act_layer, proj_drop)
        self.layer_scale_2 = _layer_scale(dim, layer_scale)
        self.drop_path2 = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x):
        x = x + self.drop_path1(self.layer_scale_1(self.token_mixer(self.norm(x))))
        return x + self.drop_path2(self.layer_scale_2(self.mlp(x)))


MIXERS = {"repmixer": RepMixerBlock, "attention": AttentionBlock}
