"""ByobNet, a residual net whose blocks, stem, gates and head a table chooses ("bring your own blocks")."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from paddle import nn

from pimm.errors import ConfigError
from pimm.layers import (
    AttentionPool2d,
    ClassifierHead,
    ConvNormAct,
    DropBlock2d,
    NormMlpClassifierHead,
    calculate_drop_path_rates,
    get_act_layer,
    get_attn,
    get_norm_act_layer,
    make_divisible,
)
from pimm.layers.helpers import to_pair
from pimm.messages import did_you_mean
from pimm.models.byobnet_blocks import BasicBlock, BottleneckBlock, DarkBlock, EdgeBlock, LayerFn, SelfAttnBlock
from pimm.models.byobnet_rep import MobileOneBlock, RepVggBlock
from pimm.models.byobnet_stem import Stem, create_byob_stem
from pimm.models.features import feature_map, feature_take_indices
from pimm.models.headed import HeadedModel
from pimm.models.initial_values import init_convolutions
from pimm.models.stage_strides import stage_strides

BLOCKS = {
    "basic": BasicBlock,
    "bottle": BottleneckBlock,
    "dark": DarkBlock,
    "edge": EdgeBlock,
    "rep": RepVggBlock,
    "one": MobileOneBlock,
    "self_attn": SelfAttnBlock,
}


@dataclass(frozen=True)
class ByoBlockCfg:
    """Describe blocks of one kind in a row.

    Attributes:
        type: the kind, a key of ``BLOCKS``.
        d: how many blocks.
        c: channels of the output, before the width factor.
        s: stride of the stage, if these blocks are its first.
        gs: channels of a group, 0 or None for no groups, or a function of the channels and the block's number.
        br: channels inside for each channel of the output.
        attn_layer: gate in place of the net's; ``""`` for none.
        attn_kwargs: arguments of the gate in place of the net's.
        self_attn_layer: attention in place of the net's; ``""`` for none.
        self_attn_kwargs: arguments of the attention in place of the net's.
        block_kwargs: further arguments of the blocks in place of the net's.
    """

    type: str
    d: int
    c: float
    s: int = 2
    gs: Any = None
    br: float = 1.0
    attn_layer: str | None = None
    attn_kwargs: dict | None = None
    self_attn_layer: str | None = None
    self_attn_kwargs: dict | None = None
    block_kwargs: dict | None = None


@dataclass(frozen=True)
class ByoModelCfg:
    """Describe a net.

    Attributes:
        blocks: for each stage a `ByoBlockCfg`, or several.
        downsample: shortcut where the shape changes: ``conv1x1``, ``avg``, or ``""`` for none.
        stem_type: as in `create_byob_stem`.
        stem_pool: pooling at the end of the stem.
        stem_chs: channels of the stem, or of each of its convolutions.
        width_factor: factor of all channels.
        num_features: channels of a last convolution; 0 for none.
        zero_init_last: whether the last normalisation of a block begins with zeros.
        fixed_input_size: whether the net needs the size of its images.
        act_layer: name of the activations.
        norm_layer: name or class of the normalisation.
        aa_layer: name of the blur before strides, or nothing.
        head_hidden_size: width inside a head that has one.
        head_type: ``classifier``, ``mlp`` or ``attn_abs``.
        attn_layer: name of the gates, or None.
        attn_kwargs: arguments of the gates.
        self_attn_layer: name of the attention of pixels to pixels, or None.
        self_attn_kwargs: arguments of this attention.
        block_kwargs: further arguments of the blocks.
    """

    blocks: tuple
    downsample: str = "conv1x1"
    stem_type: str = "3x3"
    stem_pool: str | None = "maxpool"
    stem_chs: Any = 32
    width_factor: float = 1.0
    num_features: int = 0
    zero_init_last: bool = True
    fixed_input_size: bool = False
    act_layer: Any = "relu"
    norm_layer: Any = "batchnorm"
    aa_layer: Any = ""
    head_hidden_size: int | None = None
    head_type: str = "classifier"
    attn_layer: str | None = None
    attn_kwargs: dict = field(default_factory=dict)
    self_attn_layer: str | None = None
    self_attn_kwargs: dict = field(default_factory=dict)
    block_kwargs: dict = field(default_factory=dict)


def _classifier_head(cfg, features, num_classes, global_pool, drop_rate, feat_size):
    return ClassifierHead(features, num_classes, pool_type=_or(global_pool, "avg"), drop_rate=drop_rate)


def _mlp_head(cfg, features, num_classes, global_pool, drop_rate, feat_size):
    return NormMlpClassifierHead(
        features,
        num_classes,
        hidden_size=cfg.head_hidden_size,
        pool_type=_or(global_pool, "avg"),
        norm_layer=cfg.norm_layer,
        act_layer=cfg.act_layer,
        drop_rate=drop_rate,
    )


def _attention_head(cfg, features, num_classes, global_pool, drop_rate, feat_size):
    if feat_size is None:
        raise ConfigError("a net with an attention head needs img_size, the size of its images")
    return AttentionPool2d(
        features,
        feat_size=feat_size,
        out_features=num_classes,
        embed_dim=cfg.head_hidden_size,
        qkv_separate=True,
        pool_type=_or(global_pool, "token"),
        drop_rate=drop_rate,
    )


def _or(value, default):
    return default if value is None else value


_HEADS = {"classifier": _classifier_head, "mlp": _mlp_head, "attn_abs": _attention_head}


def layer_functions(cfg, aa_layer):
    """Return the `LayerFn` of a net; ``aa_layer`` is the blur before strides, or nothing."""
    act = get_act_layer(cfg.act_layer)
    conv_norm_act = partial(ConvNormAct, norm_layer=cfg.norm_layer, act_layer=act)
    return LayerFn(
        conv_norm_act=partial(conv_norm_act, aa_layer=aa_layer) if aa_layer else conv_norm_act,
        norm_act=get_norm_act_layer(cfg.norm_layer, act),
        act=act,
        attn=_attention(cfg.attn_layer, cfg.attn_kwargs),
        self_attn=_attention(cfg.self_attn_layer, cfg.self_attn_kwargs),
    )


def _attention(name, kwargs):
    return partial(get_attn(name), **(kwargs or {})) if name else None


def _own_attention(block, cfg, kind):
    """Return ``{kind: function}`` if a block has attention of its own, {} if it has the net's."""
    name, kwargs = getattr(block, f"{kind}_layer"), getattr(block, f"{kind}_kwargs")
    if name is None and kwargs is None:
        return {}
    name = getattr(cfg, f"{kind}_layer") if name is None else name
    return {kind: _attention(name, getattr(cfg, f"{kind}_kwargs") if kwargs is None else kwargs)}


def _drop_blocks(drop_prob, block_size, num_stages):
    """Return what drops areas of the feature maps of each stage: of the last two, or nothing."""
    if not drop_prob:
        return [None] * num_stages
    last = [
        partial(DropBlock2d, drop_prob=drop_prob, block_size=block_size * 2 - 1, gamma_scale=0.25),
        partial(DropBlock2d, drop_prob=drop_prob, block_size=block_size, gamma_scale=1.0),
    ]
    return [None] * (num_stages - 2) + last


class ByobNet(HeadedModel):
    """Classify images with a net that a table describes.

    Args:
        cfg: a `ByoModelCfg`.
        num_classes: classes; 0 for a net that returns the input of the classifier.
        in_chans: channels of the images.
        global_pool: pooling of the head; None for the head's own.
        output_stride: product of all strides, beyond which strides become dilations: 8, 16 or 32.
        img_size: size of the images, a number or (height, width), for nets that need one.
        drop_rate: dropout before the classifier.
        drop_block_rate: share of the areas of feature maps that are dropped in the last two stages.
        drop_block_size: side of such an area.
        drop_path_rate: stochastic depth of the last block; it grows linearly over the blocks.
        kwargs: fields of ``cfg`` to replace.

    Raises:
        ConfigError: for a net that needs ``img_size`` without one, and for unknown heads and blocks.
    """

    def __init__(
        self,
        cfg,
        num_classes=1000,
        in_chans=3,
        global_pool=None,
        output_stride=32,
        img_size=None,
        drop_rate=0.0,
        drop_block_rate=0.0,
        drop_block_size=3,
        drop_path_rate=0.0,
        **kwargs,
    ):
        super().__init__()
        cfg = replace(cfg, **kwargs)
        if cfg.fixed_input_size and img_size is None:
            raise ConfigError("this net needs img_size, the size of its images")
        if cfg.head_type not in _HEADS:
            hint = did_you_mean(cfg.head_type, _HEADS)
            raise ConfigError(f"head_type is {cfg.head_type!r:.80}; valid are {', '.join(_HEADS)}{hint}")
        self.num_classes, self.in_chans, self.drop_rate = num_classes, in_chans, drop_rate
        layers = layer_functions(cfg, cfg.aa_layer)
        size = None if img_size is None else to_pair(img_size)
        self.stem, features = create_byob_stem(
            in_chans, self._stem_widths(cfg), cfg.stem_type, cfg.stem_pool, layer_functions(cfg, None)
        )
        size = _smaller(size, features[-1]["reduction"])
        drop_blocks = _drop_blocks(drop_block_rate, drop_block_size, len(cfg.blocks))
        features, size = self._create_stages(cfg, layers, features, size, output_stride, drop_path_rate, drop_blocks)
        width = features[-1]["num_chs"]
        self.num_features = round(cfg.width_factor * cfg.num_features) or width
        self.final_conv = layers.conv_norm_act(width, self.num_features, 1) if cfg.num_features else nn.Identity()
        self.feature_info = [*features[:-1], {**features[-1], "num_chs": self.num_features, "module": "final_conv"}]
        self.head = _HEADS[cfg.head_type](cfg, self.num_features, num_classes, global_pool, drop_rate, size)
        self._measure_head()
        self._init_weights(cfg.zero_init_last)

    def _stem_widths(self, cfg):
        if isinstance(cfg.stem_chs, (list, tuple)):
            return [round(width * cfg.width_factor) for width in cfg.stem_chs]
        return round(cfg.stem_chs * cfg.width_factor)

    def _create_stages(self, cfg, layers, features, size, output_stride, drop_path_rate, drop_blocks):
        """Set the stages, and return the description of the feature maps and the size of the last.

        Of feature maps of the same size the last is described.
        """
        stages = [[replace(own, d=1) for own in _listed(stage) for _ in range(own.d)] for stage in cfg.blocks]
        rates = calculate_drop_path_rates(drop_path_rate, [len(stage) for stage in stages], stagewise=True)
        wanted = [stage[0].s for stage in stages]
        placed = stage_strides(wanted, output_stride, features[-1]["reduction"])
        in_chs, layers_list = features[-1]["num_chs"], []
        for number, (stage, (stride, dilation, reduction)) in enumerate(zip(stages, placed)):
            blocks = []
            for index, block in enumerate(stage):
                width = make_divisible(block.c * cfg.width_factor)
                first = index == 0
                kwargs = {
                    "in_chs": in_chs,
                    "out_chs": width,
                    "stride": stride if first else 1,
                    "dilation": dilation if first else (dilation[1], dilation[1]),
                    "group_size": block.gs(width, index) if callable(block.gs) else block.gs,
                    "drop_block": drop_blocks[number],
                    "drop_path_rate": rates[number][index],
                }
                blocks.append(_create_block(block, cfg, layers, size, kwargs))
                in_chs = width
                size = _smaller(size, stride) if first else size
            layers_list.append(nn.Sequential(*blocks))
            output = feature_map(f"stages.{number}", number + 1, in_chs, reduction)
            features = [*(features if wanted[number] > 1 else features[:-1]), output]
        self.stages = nn.Sequential(*layers_list)
        return features, size

    def _init_weights(self, zero_init_last):
        init_convolutions(self, "group_fan_out", zero_biases=True, linear_std=0.01)
        for layer in self.sublayers():
            if hasattr(layer, "init_weights"):
                layer.init_weights(zero_init_last)

    def _measure_head(self):
        self.head_hidden_size = self.head.embed_dim if self._has_attention_head() else self.head.num_features

    def _has_attention_head(self):
        return isinstance(self.head, AttentionPool2d)

    def group_matcher(self, coarse=False):
        """Return the patterns of the parameters' names by depth, of stages or of blocks."""
        blocks = r"^stages\.(\d+)" if coarse else r"^stages\.(\d+)\.(\d+)"
        return {"stem": "^stem", "blocks": [(blocks, None), (r"^final_conv", (99999,))]}

    def get_classifier(self):
        """Return the last layer."""
        return self.head.proj if self._has_attention_head() else self.head.fc

    def reset_classifier(self, num_classes, global_pool=None, reset_other=False):
        """Replace pooling and classifier.

        Args:
            num_classes: classes; 0 for a net that returns the input of the classifier.
            global_pool: the pooling, as the head takes it; None keeps it.
            reset_other: whether to take out the other layers of the head too.
        """
        self.num_classes = num_classes
        if self._has_attention_head():
            self.head.reset(num_classes, global_pool)
        else:
            self.head.reset(num_classes, global_pool, reset_other=reset_other, in_features=self.num_features)
        self._measure_head()

    def final(self, x):
        """Return the output of the last convolution for that of the last stage."""
        return self.final_conv(x)

    def forward_intermediates(
        self, x, indices=None, norm=False, stop_early=False, output_fmt="NCHW", intermediates_only=False
    ):
        """Return the output of `forward_features` and a list of feature maps, in forward order.

        The last feature maps are those of the last convolution. Arguments and errors are those of `ImageModel`.
        """
        if output_fmt != "NCHW":
            raise ConfigError(f"output_fmt is {output_fmt!r:.80}; valid is NCHW, for this net")
        taken, last = feature_take_indices(len(self.feature_info), indices)
        taken = {self.feature_info[index]["stage"] for index in taken}
        count = len(self.stages)
        run = self.feature_info[last]["stage"] if stop_early else count
        x, halved = self.stem.forward_intermediates(x) if isinstance(self.stem, Stem) else (self.stem(x), None)
        found = [x if halved is None else halved] if 0 in taken else []
        for number, stage in enumerate(list(self.stages)[:run], start=1):
            x = self._run(stage, x)
            x = self.final(x) if number == self.feature_info[-1]["stage"] else x
            if number in taken:
                found.append(x)
        return found if intermediates_only else (x, found)

    def prune_intermediate_layers(self, indices=1, prune_norm=False, prune_head=True):
        """Take out the layers that feature maps do not need, and return the numbers of these feature maps.

        Arguments and errors are those of `ImageModel`.
        """
        taken, last = feature_take_indices(len(self.feature_info), indices)
        info = self.feature_info[last]
        shortened = last < len(self.feature_info) - 1
        if shortened:
            self.keep_stages(info["stage"])
            self.final_conv, self.num_features = nn.Identity(), info["num_chs"]
        if info["stage"] == 0 and isinstance(self.stem, Stem):
            self.stem.prune_to_tap()
        if prune_head or shortened:
            if self._has_attention_head():
                self.head = ClassifierHead(self.num_features, 0, pool_type="")
            self.reset_classifier(0, "", reset_other=True)
        return taken


def _listed(stage):
    return [stage] if isinstance(stage, ByoBlockCfg) else stage


def _smaller(size, stride):
    return None if size is None else tuple(length // stride for length in size)


def _create_block(block, cfg, layers, size, kwargs):
    if block.type not in BLOCKS:
        raise ConfigError(f"unknown block {block.type!r:.80}; valid are {', '.join(BLOCKS)}")
    own = {**_own_attention(block, cfg, "attn"), **_own_attention(block, cfg, "self_attn")}
    kwargs.update(bottle_ratio=block.br, downsample=cfg.downsample, layers=replace(layers, **own))
    if block.type == "self_attn":
        kwargs["feat_size"] = size
    return BLOCKS[block.type](**kwargs, **(cfg.block_kwargs if block.block_kwargs is None else block.block_kwargs))
