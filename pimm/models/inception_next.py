"""InceptionNeXt (https://arxiv.org/abs/2303.16900), with the names, arguments and numbers of timm."""

from __future__ import annotations

from functools import partial

import paddle
from paddle import nn

from pimm.errors import ConfigError
from pimm.layers import (
    BatchNorm2d,
    Conv2d,
    ConvMlp,
    DropPath,
    LayerNorm,
    Linear,
    SelectAdaptivePool2d,
    calculate_drop_path_rates,
    create_conv2d,
    get_padding,
)
from pimm.models.features import feature_map, limit_strides
from pimm.models.headed import StagedModel
from pimm.models.initial_values import init_truncated
from pimm.models.recompute import checkpoint_seq
from pimm.models.registry import register_variants


class InceptionDWConv2d(nn.Layer):
    """Depthwise convolutions of a square, a row and a column, each of some channels; the other channels stay.

    Args:
        in_chs: channels.
        square_kernel_size: side of the square kernel.
        band_kernel_size: length of the kernels of a row and of a column.
        branch_ratio: share of the channels that each convolution takes.
        dilation: dilation of the kernels.
    """

    def __init__(self, in_chs, square_kernel_size=3, band_kernel_size=11, branch_ratio=0.125, dilation=1):
        super().__init__()
        dim = int(in_chs * branch_ratio)
        square, band = (get_padding(size, dilation=dilation) for size in (square_kernel_size, band_kernel_size))
        row, column = (1, band_kernel_size), (band_kernel_size, 1)
        self.dwconv_hw = Conv2d(dim, dim, square_kernel_size, padding=square, dilation=dilation, groups=dim)
        self.dwconv_w = Conv2d(dim, dim, row, padding=(0, band), dilation=(1, dilation), groups=dim)
        self.dwconv_h = Conv2d(dim, dim, column, padding=(band, 0), dilation=(dilation, 1), groups=dim)
        self.parts = [in_chs - 3 * dim, dim, dim, dim]

    def forward(self, x):  # [N, in_chs, H, W]
        same, square, row, column = paddle.split(x, self.parts, axis=1)
        return paddle.concat([same, self.dwconv_hw(square), self.dwconv_w(row), self.dwconv_h(column)], axis=1)


class MlpClassifierHead(nn.Layer):
    """Pooling, a hidden layer with activation and normalisation, and the classifier ``fc2``.

    Args:
        in_features: channels of the feature maps.
        num_classes: classes; 0 for no classifier.
        pool_type: pooling, as in `SelectAdaptivePool2d`.
        mlp_ratio: hidden numbers for each channel.
        drop: dropout before the classifier.

    Raises:
        ConfigError: without pooling.
    """

    def __init__(self, in_features, num_classes=1000, pool_type="avg", mlp_ratio=3, drop=0.0):
        super().__init__()
        self.in_features, self.num_features = in_features, int(mlp_ratio * in_features)
        self._set_pooling(pool_type)
        self.fc1 = Linear(in_features * self.global_pool.feat_mult(), self.num_features)
        self.act = nn.GELU()
        self.norm = LayerNorm(self.num_features, eps=1e-6)
        self.fc2 = Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        self.drop = nn.Dropout(drop)

    def _set_pooling(self, pool_type):
        if not pool_type:
            raise ConfigError("InceptionNeXt cannot do without pooling: give another global_pool than ''")
        self.global_pool = SelectAdaptivePool2d(pool_type=pool_type)

    def reset(self, num_classes, pool_type=None, reset_other=False, in_features=None):
        """Replace the classifier.

        Args:
            num_classes: classes; 0 for no classifier.
            pool_type: pooling; None keeps it.
            reset_other: whether to take out the hidden layer.
            in_features: channels of the feature maps; None keeps their number.

        Raises:
            ConfigError: if the hidden layer does not take what the pooling returns.
        """
        keeps = not reset_other and not isinstance(self.fc1, nn.Identity)
        width = self.global_pool.feat_mult() * self.in_features
        if pool_type is not None:
            self._set_pooling(pool_type)
        self.in_features = in_features or self.in_features
        pooled = self.in_features * self.global_pool.feat_mult()
        if keeps and pooled != width:
            raise ConfigError(f"the head takes {width} numbers, not {pooled}: give global_pool at creation")
        if not keeps:
            self.fc1, self.act, self.norm = nn.Identity(), nn.Identity(), nn.Identity()
            self.num_features = pooled
        self.fc2 = Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def forward(self, x, pre_logits=False):  # [N, in_features, H, W]
        x = self.fc1(self.global_pool(x).flatten(1))
        x = self.drop(self.norm(self.act(x)))
        return x if pre_logits else self.fc2(x)


class MetaNeXtBlock(nn.Layer):
    """A token mixer, a normalisation and two convolutions of one pixel, beside a shortcut.

    Args:
        dim: channels.
        dilation: dilation of the token mixer.
        token_mixer: class of the token mixer.
        norm_layer: class of the normalisation.
        mlp_ratio: hidden channels for each channel.
        act_layer: class of the activations.
        ls_init_value: initial value of the layer scale; 0 for no layer scale.
        drop_path: stochastic depth.
    """

    def __init__(
        self,
        dim,
        dilation=1,
        token_mixer=InceptionDWConv2d,
        norm_layer=BatchNorm2d,
        mlp_ratio=4,
        act_layer=nn.GELU,
        ls_init_value=1e-6,
        drop_path=0.0,
    ):
        super().__init__()
        self.token_mixer = token_mixer(dim, dilation=dilation)
        self.norm = norm_layer(dim)
        self.mlp = ConvMlp(dim, int(mlp_ratio * dim), act_layer=act_layer)
        self.gamma = None
        if ls_init_value:
            self.gamma = self.create_parameter([dim], default_initializer=nn.initializer.Constant(ls_init_value))
        self.drop_path = DropPath(drop_path) if drop_path > 0.0 else nn.Identity()

    def forward(self, x):  # [N, dim, H, W]
        shortcut, x = x, self.mlp(self.norm(self.token_mixer(x)))
        x = x if self.gamma is None else x * self.gamma.reshape([1, -1, 1, 1])
        return self.drop_path(x) + shortcut


class MetaNeXtStage(nn.Layer):
    """A downsampling convolution after a normalisation, and blocks.

    Args:
        in_chs: channels of the input.
        out_chs: channels of the output.
        stride: stride of the downsampling.
        dilation: dilations of the downsampling and of the blocks.
        drop_path_rates: stochastic depth of each block.
        norm_layer: class of the normalisation.
        block: further arguments of `MetaNeXtBlock`.
    """

    def __init__(self, in_chs, out_chs, stride, dilation, drop_path_rates, norm_layer, **block):
        super().__init__()
        self.grad_checkpointing = False
        self.downsample = nn.Identity()
        if stride > 1 or dilation[0] != dilation[1]:
            padding = "same" if dilation[1] > 1 else 0
            arguments = {"stride": stride, "dilation": dilation[0], "padding": padding, "bias": True}
            self.downsample = nn.Sequential(norm_layer(in_chs), create_conv2d(in_chs, out_chs, 2, **arguments))
        block = {**block, "dilation": dilation[1], "norm_layer": norm_layer}
        self.blocks = nn.Sequential(*(MetaNeXtBlock(out_chs, drop_path=rate, **block) for rate in drop_path_rates))

    def forward(self, x):  # [N, in_chs, H, W]
        x = self.downsample(x)
        return checkpoint_seq(self.blocks, x) if self.grad_checkpointing else self.blocks(x)


class MetaNeXt(StagedModel):
    """Classify images with stages of `MetaNeXtBlock` and a hidden layer before the classifier.

    Args:
        in_chans: channels of the images.
        num_classes: classes; 0 for a net without a classifier.
        global_pool: pooling: ``avg``, ``max``, ``avgmax`` or ``catavgmax``.
        output_stride: product of all strides, beyond which strides become dilations: 8, 16 or 32.
        depths, dims: number of blocks and channels of each stage.
        token_mixers: class of the token mixers, or a list with one for each stage.
        norm_layer: class of the normalisation.
        act_layer: class of the activations.
        mlp_ratios: hidden channels for each channel, a number or one for each stage.
        drop_rate: dropout before the classifier.
        drop_path_rate: stochastic depth of the last block; it grows linearly over the blocks.
        ls_init_value: initial value of the layer scales; 0 for no layer scale.
    """

    norm_name = ""
    pool_when_pruned = "avg"

    def __init__(
        self,
        in_chans=3,
        num_classes=1000,
        global_pool="avg",
        output_stride=32,
        depths=(3, 3, 9, 3),
        dims=(96, 192, 384, 768),
        token_mixers=InceptionDWConv2d,
        norm_layer=BatchNorm2d,
        act_layer=nn.GELU,
        mlp_ratios=(4, 4, 4, 3),
        drop_rate=0.0,
        drop_path_rate=0.0,
        ls_init_value=1e-6,
    ):
        super().__init__()
        count = len(depths)
        token_mixers, mlp_ratios = (
            value if isinstance(value, (tuple, list)) else [value] * count for value in (token_mixers, mlp_ratios)
        )
        self.in_chans, self.num_classes, self.drop_rate = in_chans, num_classes, drop_rate
        self.stem = nn.Sequential(Conv2d(in_chans, dims[0], 4, stride=4), norm_layer(dims[0]))
        rates = calculate_drop_path_rates(drop_path_rate, depths, stagewise=True)
        strides = [2 if index else 1 for index in range(count)]
        self.feature_info, stages = [], []
        for i, (stride, dilation, total) in enumerate(limit_strides(strides, output_stride, 4)):
            stage = MetaNeXtStage(
                dims[max(i - 1, 0)],
                dims[i],
                stride,
                (dilation, dilation * strides[i] // stride),
                rates[i],
                norm_layer,
                token_mixer=token_mixers[i],
                act_layer=act_layer,
                mlp_ratio=mlp_ratios[i],
                ls_init_value=ls_init_value,
            )
            stages.append(stage)
            self.feature_info.append(feature_map(f"stages.{i}", i + 1, dims[i], total))
        self.stages = nn.Sequential(*stages)
        self.num_features = dims[-1]
        self.head = MlpClassifierHead(self.num_features, num_classes, pool_type=global_pool, drop=drop_rate)
        self.head_hidden_size = self.head.num_features
        init_truncated(self, (nn.Conv2D, nn.Linear))

    def get_classifier(self):
        """Return the last layer."""
        return self.head.fc2

    def group_matcher(self, coarse=False):
        """Return the patterns for ``group_with_matcher`` by block, or by stage if ``coarse``."""
        blocks = [(r"^stages\.(\d+)\.downsample", (0,)), (r"^stages\.(\d+)\.blocks\.(\d+)", None)]
        return {"stem": r"^stem", "blocks": r"^stages\.(\d+)" if coarse else blocks}


VARIANTS = {
    "inception_next_atto": {
        "depths": (2, 2, 6, 2),
        "dims": (40, 80, 160, 320),
        "token_mixers": partial(InceptionDWConv2d, band_kernel_size=9, branch_ratio=0.25),
    },
    "inception_next_tiny": {"depths": (3, 3, 9, 3), "dims": (96, 192, 384, 768)},
    "inception_next_small": {"depths": (3, 3, 27, 3), "dims": (96, 192, 384, 768)},
    "inception_next_base": {"depths": (3, 3, 27, 3), "dims": (128, 256, 512, 1024)},
}


register_variants(VARIANTS, MetaNeXt)
