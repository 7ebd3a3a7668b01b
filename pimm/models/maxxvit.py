"""CoAtNet (https://arxiv.org/abs/2106.04803), MaxViT (https://arxiv.org/abs/2204.01697) and mixtures of both.

The names, arguments and numbers are timm's; ``_rw`` variants and those with blocks of ConvNeXt are timm's own.
"""

from __future__ import annotations

import math
from functools import partial

from paddle import nn

from pimm.errors import ConfigError
from pimm.layers import (
    ClassifierHead,
    NormMlpClassifierHead,
    calculate_drop_path_rates,
    create_conv2d,
    get_norm_act_layer,
    get_norm_layer,
    resize_rel_pos_bias_table,
    to_pair,
)
from pimm.models.features import feature_map
from pimm.models.headed import StagedModel
from pimm.models.maxxvit_blocks import SCHEMES, create_block, init_convolutions
from pimm.models.maxxvit_cfg import VARIANTS, MaxxVitCfg
from pimm.models.recompute import checkpoint_seq
from pimm.models.registry import register_variants
from pimm.models.torch_names import torch_names


class Stem(nn.Layer):
    """Two convolutions, of which the first halves the image.

    Args:
        in_chs: channels of the images.
        out_chs: channels, of both convolutions or of each.
        bias: whether the convolutions have a bias.
        cfg: the `MaxxVitConvCfg`.
    """

    stride = 2

    def __init__(self, in_chs, out_chs, bias, cfg):
        super().__init__()
        first, second = to_pair(out_chs)
        norm_act_layer = partial(get_norm_act_layer(cfg.norm_layer, cfg.act_layer), eps=cfg.norm_eps)
        self.out_chs = second
        self.conv1 = create_conv2d(in_chs, first, 3, stride=2, padding=cfg.padding, bias=bias)
        self.norm1 = norm_act_layer(first)
        self.conv2 = create_conv2d(first, second, 3, stride=1, padding=cfg.padding, bias=bias)

    def init_weights(self, scheme):
        """Set the initial values."""
        init_convolutions(self, scheme)

    def forward(self, x):  # [N, in_chs, H, W]
        return self.conv2(self.norm1(self.conv1(x)))  # [N, out_chs, H / 2, W / 2]


class MaxxVitStage(nn.Layer):
    """Blocks, of which the first one halves the image.

    Args:
        in_chs: channels of the input.
        out_chs: channels of the output.
        block_types: the kind of each block.
        feat_size: size of the feature maps after the first block.
        conv_cfg, transformer_cfg: the settings of the blocks.
        drop_path: stochastic depth of each block.
    """

    def __init__(self, in_chs, out_chs, block_types, feat_size, conv_cfg, transformer_cfg, drop_path):
        super().__init__()
        self.grad_checkpointing = False
        blocks = []
        for index, kind in enumerate(block_types):
            ends = (out_chs, out_chs, 1) if index else (in_chs, out_chs, 2)
            blocks.append(create_block(kind, *ends, feat_size, conv_cfg, transformer_cfg, drop_path[index]))
        self.blocks = nn.Sequential(*blocks)

    def set_input_size(self, feat_size, window_size, grid_size):
        """Make the attention take feature maps, windows and grids of other sizes."""
        for block in self.blocks:
            if hasattr(block, "set_input_size"):
                block.set_input_size(feat_size, window_size, grid_size)

    def forward(self, x):  # [N, in_chs, H, W]
        return checkpoint_seq(self.blocks, x) if self.grad_checkpointing else self.blocks(x)


def _kinds(block_type, depth):
    """Return the kind of each of ``depth`` blocks; the last kind of several is repeated."""
    kinds = (block_type,) if isinstance(block_type, str) else tuple(block_type)
    return (kinds + kinds[-1:] * depth)[:depth]


class MaxxVit(StagedModel):
    """Classify images with stages of convolutions and of attention.

    Args:
        cfg: the `MaxxVitCfg`.
        img_size: size of the images.
        in_chans: channels of the images.
        num_classes: classes; 0 for a net without a classifier.
        global_pool: pooling, as in `ClassifierHead`.
        drop_rate: dropout before the classifier.
        drop_path_rate: stochastic depth of the last block; it grows linearly over the blocks.
        kwargs: settings in place of those of ``cfg``; ``conv_*`` and ``transformer_*`` are those of its parts.

    Raises:
        ConfigError: for an unknown setting, and for settings that do not fit each other.
    """

    def __init__(
        self,
        cfg: MaxxVitCfg,
        img_size=224,
        in_chans=3,
        num_classes=1000,
        global_pool="avg",
        drop_rate=0.0,
        drop_path_rate=0.0,
        **kwargs,
    ):
        super().__init__()
        cfg = cfg.with_changes(**kwargs)
        if cfg.weight_init not in SCHEMES:
            raise ConfigError(f"weight_init is {cfg.weight_init!r:.80}; valid are {', '.join(filter(None, SCHEMES))}")
        self.img_size = to_pair(img_size)
        transformer_cfg = cfg.transformer_cfg.with_windows(self.img_size)
        self.partition_ratio = transformer_cfg.partition_ratio
        self.in_chans, self.num_classes, self.drop_rate = in_chans, num_classes, drop_rate
        self.num_features = self.embed_dim = cfg.embed_dim[-1]

        self.stem = Stem(in_chans, cfg.stem_width, cfg.stem_bias, cfg.conv_cfg)
        self.feature_info = [feature_map("stem", 0, self.stem.out_chs, 2)]
        rates = calculate_drop_path_rates(drop_path_rate, cfg.depths, stagewise=True)
        stages, dims = [], (self.stem.out_chs, *cfg.embed_dim)
        for i, depth in enumerate(cfg.depths):
            kinds, ends = _kinds(cfg.block_type[i], depth), dims[i : i + 2]
            stages.append(MaxxVitStage(*ends, kinds, self._stage_size(i), cfg.conv_cfg, transformer_cfg, rates[i]))
            self.feature_info.append(feature_map(f"stages.{i}", i + 1, dims[i + 1], 4 << i))
        self.stages = nn.Sequential(*stages)
        self._create_head(cfg, num_classes, global_pool)
        if cfg.weight_init:
            for part in (self.stem, *(block for stage in self.stages for block in stage.blocks)):
                if hasattr(part, "init_weights"):
                    part.init_weights(cfg.weight_init)

    def _create_head(self, cfg, num_classes, global_pool):
        norm_layer = partial(get_norm_layer(cfg.transformer_cfg.norm_layer), eps=cfg.transformer_cfg.norm_eps)
        pooling = {"pool_type": global_pool, "drop_rate": self.drop_rate}
        if cfg.head_hidden_size:
            pooling.update(hidden_size=cfg.head_hidden_size, norm_layer=norm_layer)
            self.norm = nn.Identity()
            self.head = NormMlpClassifierHead(self.num_features, num_classes, **pooling)
        else:
            self.norm = norm_layer(self.num_features)
            self.head = ClassifierHead(self.num_features, num_classes, **pooling)
        self.head_hidden_size = self.head.num_features

    def _stage_size(self, index):
        """Return the size of a stage's output."""
        size = [side // self.stem.stride for side in self.img_size]
        return tuple(-(-side // (2 << index)) for side in size)

    def set_input_size(self, img_size=None, window_size=None, grid_size=None, partition_ratio=None):
        """Make the net take images of another size.

        Args:
            img_size: the size of the images; None keeps it.
            window_size, grid_size: the sizes of windows and grids; None for those that ``partition_ratio`` gives.
            partition_ratio: pixels of an image for each window along a side; None keeps it.
        """
        if img_size is not None:
            self.img_size = to_pair(img_size)
        if partition_ratio is not None:
            self.partition_ratio = partition_ratio
        default = tuple(side // self.partition_ratio for side in self.img_size)
        window_size, grid_size = to_pair(window_size or default), to_pair(grid_size or default)
        for index, stage in enumerate(self.stages):
            stage.set_input_size(self._stage_size(index), window_size, grid_size)

    def no_weight_decay(self):
        """Return the names of parameters that weight decay leaves alone, beside biases and those of normalisation."""
        parts = ("relative_position_bias_table", "rel_pos.mlp")
        return {name for name, _ in self.named_parameters() if any(part in name for part in parts)}

    def group_matcher(self, coarse=False):
        """Return the patterns for ``group_with_matcher`` by stage."""
        return {"stem": r"^stem", "blocks": [(r"^stages\.(\d+)", None), (r"^norm", (99999,))]}


def checkpoint_filter_fn(state_dict, model):
    """Return the arrays of a checkpoint for this net: tables of biases are resampled, and kernels become matrices.

    Args:
        state_dict: arrays by PyTorch's names.
        model: the `MaxxVit` that takes them.
    """
    shapes, layers, found = dict(torch_names(model)), dict(model.named_sublayers()), {}
    for name, value in state_dict.items():
        shape = shapes.get(name)
        if shape is not None and name.endswith("relative_position_bias_table"):
            window_size = layers[name.rpartition(".")[0]].window_size
            if value.shape != shape or window_size[0] != window_size[1]:
                value = resize_rel_pos_bias_table(value, window_size, shape)
        if shape is not None and value.ndim != len(shape) and value.size == math.prod(shape):
            value = value.reshape(shape)
        found[name] = value
    return found


register_variants(VARIANTS, MaxxVit)
