"""The blocks of CoAtNet and MaxViT: convolutions, and convolutions with attention, with timm's names in the state."""

from __future__ import annotations

from functools import partial

from paddle import nn

from pimm.errors import ConfigError
from pimm.layers import (
    Conv2d,
    ConvMlp,
    DropPath,
    LayerScale2d,
    create_attn,
    create_conv2d,
    get_act_layer,
    get_norm_act_layer,
    get_norm_layer,
    make_divisible,
    zeros_,
)
from pimm.models import initial_values
from pimm.models.maxxvit_attention import (
    Downsample2d,
    ParallelPartitionAttention,
    PartitionAttentionCl,
    TransformerBlock2d,
)

_NAMED = {  # scheme of initial values: initializer of weights
    "normal": partial(nn.initializer.Normal, std=0.02),
    "trunc_normal": partial(nn.initializer.TruncatedNormal, std=0.02),
    "xavier_normal": nn.initializer.XavierNormal,
}
SCHEMES = ("", "vit_eff", *_NAMED)


def init_convolutions(part, scheme):
    """Set the initial values of all convolutions of a layer; ``vit_eff`` draws them by the fan out."""
    if scheme not in _NAMED:
        initial_values.init_convolutions(part, "group_fan_out", zero_biases=True)
        return
    for layer in part.sublayers():
        if isinstance(layer, nn.Conv2D):
            _NAMED[scheme]()(layer.weight)
            if layer.bias is not None:
                zeros_(layer.bias)


def init_attention(part, scheme):
    """Set the initial values of all linear layers and convolutions of a layer; ``vit_eff`` is Xavier's uniform."""
    for name, layer in part.named_sublayers():
        if isinstance(layer, (nn.Conv2D, nn.Linear)):
            _NAMED.get(scheme, nn.initializer.XavierUniform)()(layer.weight)
            if layer.bias is None:
                continue
            if scheme not in _NAMED and "mlp" in name:
                nn.initializer.Normal(std=1e-6)(layer.bias)
            else:
                zeros_(layer.bias)


def _groups(group_size, channels):
    if group_size and channels % group_size:
        raise ConfigError(f"conv_group_size is {group_size}; must divide {channels} channels")
    return channels // group_size if group_size else 1


class MbConvBlock(nn.Layer):
    """A convolution in the middle of two of one pixel, with normalisation first and channel attention.

    Args:
        in_chs: channels of the input.
        out_chs: channels of the output.
        stride: 2 to halve the image, or 1.
        cfg: the `MaxxVitConvCfg`.
        drop_path: stochastic depth.
    """

    def __init__(self, in_chs, out_chs, stride=1, cfg=None, drop_path=0.0):
        super().__init__()
        norm_act_layer = partial(get_norm_act_layer(cfg.norm_layer, cfg.act_layer), eps=cfg.norm_eps)
        mid_chs = make_divisible((out_chs if cfg.expand_output else in_chs) * cfg.expand_ratio)
        strides = {mode: stride if mode == cfg.stride_mode else 1 for mode in ("pool", "1x1", "dw")}
        if cfg.stride_mode not in strides:
            raise ConfigError(f"conv_stride_mode is {cfg.stride_mode!r:.80}; valid are {', '.join(strides)}")
        pool = {"padding": cfg.padding}
        self.shortcut = self.down = nn.Identity()
        if stride == 2:
            self.shortcut = Downsample2d(in_chs, out_chs, pool_type=cfg.pool_type, bias=cfg.output_bias, **pool)
        self.pre_norm = norm_act_layer(in_chs, apply_act=cfg.pre_norm_act)
        if strides["pool"] > 1:
            self.down = Downsample2d(in_chs, in_chs, pool_type=cfg.downsample_pool_type, **pool)
        self.conv1_1x1 = create_conv2d(in_chs, mid_chs, 1, stride=strides["1x1"])
        self.norm1 = norm_act_layer(mid_chs)
        self.conv2_kxk = create_conv2d(
            mid_chs,
            mid_chs,
            cfg.kernel_size,
            stride=strides["dw"],
            groups=_groups(cfg.group_size, mid_chs),
            padding=cfg.padding,
        )
        arguments = {}
        if cfg.attn_layer in ("se", "eca"):
            arguments["act_layer"] = get_act_layer(cfg.attn_act_layer)
            arguments["rd_channels"] = int(cfg.attn_ratio * (out_chs if cfg.expand_output else mid_chs))
        attention = create_attn(cfg.attn_layer, mid_chs, **arguments)
        self.se_early = attention if cfg.attn_early else None
        self.norm2 = norm_act_layer(mid_chs)
        self.se = None if cfg.attn_early else attention
        self.conv3_1x1 = create_conv2d(mid_chs, out_chs, 1, bias=cfg.output_bias)
        self.drop_path = DropPath(drop_path) if drop_path > 0.0 else nn.Identity()

    def init_weights(self, scheme):
        """Set the initial values."""
        init_convolutions(self, scheme)

    def forward(self, x):  # [N, in_chs, H, W]
        shortcut = self.shortcut(x)
        x = self.norm1(self.conv1_1x1(self.down(self.pre_norm(x))))
        x = self.conv2_kxk(x)
        x = x if self.se_early is None else self.se_early(x)
        x = self.norm2(x)
        x = x if self.se is None else self.se(x)
        return self.drop_path(self.conv3_1x1(x)) + shortcut


class ConvNeXtBlock(nn.Layer):
    """Depthwise convolution, normalisation and two convolutions of one pixel.

    Args:
        in_chs: channels of the input.
        out_chs: channels of the output.
        stride: 2 to halve the image, or 1.
        cfg: the `MaxxVitConvCfg`.
        drop_path: stochastic depth.
    """

    def __init__(self, in_chs, out_chs, stride=1, cfg=None, drop_path=0.0):
        super().__init__()
        if cfg.stride_mode not in ("pool", "dw"):
            raise ConfigError(f"conv_stride_mode is {cfg.stride_mode!r:.80}; valid are pool, dw")
        by_pool = stride == 2 and cfg.stride_mode == "pool"
        self.shortcut = self.down = nn.Identity()
        if stride == 2:
            self.shortcut = Downsample2d(in_chs, out_chs)
        elif in_chs != out_chs:
            self.shortcut = Conv2d(in_chs, out_chs, 1, bias=cfg.output_bias)
        if by_pool:
            self.down = Downsample2d(in_chs, in_chs, pool_type=cfg.downsample_pool_type)
        own_stride = 1 if by_pool else stride
        self.conv_dw = create_conv2d(in_chs, out_chs, 7, stride=own_stride, depthwise=True, bias=cfg.output_bias)
        self.norm = partial(get_norm_layer(cfg.norm_layer), eps=cfg.norm_eps)(out_chs)
        act_layer = get_act_layer(cfg.act_layer)
        self.mlp = ConvMlp(out_chs, int(cfg.expand_ratio * out_chs), bias=cfg.output_bias, act_layer=act_layer)
        self.ls = LayerScale2d(out_chs, cfg.init_values) if cfg.init_values else nn.Identity()
        self.drop_path = DropPath(drop_path) if drop_path > 0.0 else nn.Identity()

    def forward(self, x):  # [N, in_chs, H, W]
        shortcut = self.shortcut(x)
        x = self.conv_dw(self.down(x))
        return self.drop_path(self.ls(self.mlp(self.norm(x)))) + shortcut


CONVOLUTIONS = {"mbconv": MbConvBlock, "convnext": ConvNeXtBlock}


class MaxxVitBlock(nn.Layer):
    """A block of convolutions, attention inside of windows and attention inside of grids.

    Args:
        dim: channels of the input.
        dim_out: channels of the output.
        stride: 2 to halve the image, or 1.
        conv_cfg, transformer_cfg: the settings of the parts.
        drop_path: stochastic depth.
    """

    def __init__(self, dim, dim_out, stride, conv_cfg, transformer_cfg, drop_path=0.0):
        super().__init__()
        self.conv = CONVOLUTIONS[conv_cfg.block_type](dim, dim_out, stride, conv_cfg, drop_path)
        self.attn_block = None
        if not transformer_cfg.no_block_attn:
            self.attn_block = PartitionAttentionCl(dim_out, transformer_cfg, "block", drop_path)
        self.attn_grid = PartitionAttentionCl(dim_out, transformer_cfg, "grid", drop_path)

    def init_weights(self, scheme):
        """Set the initial values."""
        if self.attn_block is not None:
            init_attention(self.attn_block, scheme)
        init_attention(self.attn_grid, scheme)
        init_convolutions(self.conv, scheme)

    def set_input_size(self, feat_size, window_size, grid_size):
        """Make the attention take windows and grids of other sizes."""
        if self.attn_block is not None:
            self.attn_block.set_partition_size(window_size)
        self.attn_grid.set_partition_size(grid_size)

    def forward(self, x):  # [N, dim, H, W]
        x = self.conv(x).transpose([0, 2, 3, 1])
        x = x if self.attn_block is None else self.attn_block(x)
        return self.attn_grid(x).transpose([0, 3, 1, 2])


class ParallelMaxxVitBlock(nn.Layer):
    """Two blocks of convolutions, and attention inside of windows and inside of grids side by side.

    Arguments are those of `MaxxVitBlock`.
    """

    def __init__(self, dim, dim_out, stride, conv_cfg, transformer_cfg, drop_path=0.0):
        super().__init__()
        convolution = CONVOLUTIONS[conv_cfg.block_type]
        self.conv = nn.Sequential(
            convolution(dim, dim_out, stride, conv_cfg, drop_path),
            convolution(dim_out, dim_out, 1, conv_cfg, drop_path),
        )
        self.attn = ParallelPartitionAttention(dim_out, transformer_cfg, drop_path)

    def init_weights(self, scheme):
        """Set the initial values."""
        init_attention(self.attn, scheme)
        init_convolutions(self.conv, scheme)

    def set_input_size(self, feat_size, window_size, grid_size):
        """Make the attention take windows of another size, which must be that of the grids."""
        if window_size != grid_size:
            raise ConfigError(f"blocks 'PM' need windows as large as grids; got {window_size}, {grid_size}")
        self.attn.set_partition_size(window_size)

    def forward(self, x):  # [N, dim, H, W]
        return self.attn(self.conv(x).transpose([0, 2, 3, 1])).transpose([0, 3, 1, 2])


def create_block(kind, in_chs, out_chs, stride, feat_size, conv_cfg, transformer_cfg, drop_path):
    """Return a block of a kind; see `MaxxVitCfg` for the kinds.

    Args:
        kind: ``C``, ``T``, ``M`` or ``PM``.
        in_chs, out_chs: channels of the input and of the output.
        stride: 2 to halve the image, or 1.
        feat_size: size of the feature maps after the stride.
        conv_cfg, transformer_cfg: the settings of the parts.
        drop_path: stochastic depth.

    Raises:
        ConfigError: for another kind.
    """
    kinds = {
        "C": lambda: CONVOLUTIONS[conv_cfg.block_type](in_chs, out_chs, stride, conv_cfg, drop_path),
        "T": lambda: TransformerBlock2d(in_chs, out_chs, stride, transformer_cfg, feat_size, drop_path),
        "M": lambda: MaxxVitBlock(in_chs, out_chs, stride, conv_cfg, transformer_cfg, drop_path),
        "PM": lambda: ParallelMaxxVitBlock(in_chs, out_chs, stride, conv_cfg, transformer_cfg, drop_path),
    }
    if kind not in kinds:
        raise ConfigError(f"block_type is {kind!r:.80}; valid are {', '.join(kinds)}")
    return kinds[kind]()
