"""MetaFormer: PoolFormer, ConvFormer and CAFormer, with the names, state names and numbers of timm.

The nets are of https://arxiv.org/abs/2111.11418 (PoolFormer) and https://arxiv.org/abs/2210.13452 (all others).
"""

from __future__ import annotations

import re

import numpy as np
from paddle import nn

from pimm.errors import ConfigError
from pimm.layers import (
    Conv2d,
    GroupNorm1,
    LayerNorm,
    LayerNorm2d,
    Linear,
    SelectAdaptivePool2d,
    calculate_drop_path_rates,
)
from pimm.models.features import feature_map
from pimm.models.headed import StagedModel
from pimm.models.initial_values import init_truncated
from pimm.models.metaformer_blocks import (
    Attention,
    GroupNorm1NoBias,
    LayerNorm2dNoBias,
    LayerNormNoBias,
    MetaFormerBlock,
    Pooling,
    SepConv,
    SquaredReLU,
    StarReLU,
)
from pimm.models.recompute import checkpoint_seq
from pimm.models.registry import register_variants
from pimm.models.torch_names import torch_names


class Stem(nn.Layer):
    """Apply a 7x7 convolution of stride 4, and normalise."""

    def __init__(self, in_channels, out_channels, norm_layer):
        super().__init__()
        self.conv = Conv2d(in_channels, out_channels, 7, 4, 2)
        self.norm = norm_layer(out_channels) if norm_layer else nn.Identity()

    def forward(self, x):
        return self.norm(self.conv(x))


class Downsampling(nn.Layer):
    """Normalise, and apply a 3x3 convolution of stride 2."""

    def __init__(self, in_channels, out_channels, norm_layer):
        super().__init__()
        self.norm = norm_layer(in_channels) if norm_layer else nn.Identity()
        self.conv = Conv2d(in_channels, out_channels, 3, 2, 1)

    def forward(self, x):
        return self.conv(self.norm(x))


class MlpHead(nn.Layer):
    """Classify by two fully connected layers, with a squared ReLU and a normalisation between them."""

    def __init__(self, dim, num_classes, mlp_ratio=4):
        super().__init__()
        self.fc1 = Linear(dim, mlp_ratio * dim)
        self.act = SquaredReLU()
        self.norm = LayerNorm(mlp_ratio * dim)
        self.fc2 = Linear(mlp_ratio * dim, num_classes)

    def forward(self, x):
        return self.fc2(self.norm(self.act(self.fc1(x))))


class MetaFormerHead(nn.Layer):
    """Pool, normalise and classify.

    Args:
        in_features: channels of the feature maps.
        num_classes: classes; 0 for the input of the classifier.
        pool_type: a pooling that keeps the number of channels, or ``""`` for none.
        norm_layer: class of the normalisation of pooled feature maps, [N, C, 1, 1].
        use_mlp_head: whether the classifier is an `MlpHead`.
        drop_rate: dropout before the classifier.

    Raises:
        ConfigError: for a pooling that changes the number of channels.
    """

    def __init__(self, in_features, num_classes, pool_type, norm_layer, use_mlp_head, drop_rate):
        super().__init__()
        self.num_features, self.use_mlp_head = in_features, use_mlp_head
        self.global_pool = _pooling(pool_type, num_classes)
        self.norm = norm_layer(in_features)
        self.drop = nn.Dropout(drop_rate)
        self.fc = self._classifier(num_classes)

    def _classifier(self, num_classes):
        if not num_classes:
            return nn.Identity()
        return (MlpHead if self.use_mlp_head else Linear)(self.num_features, num_classes)

    def reset(self, num_classes, pool_type=None, reset_other=False, in_features=None):
        """Replace the classifier.

        Args:
            num_classes: classes; 0 for the input of the classifier.
            pool_type: a pooling that keeps the number of channels, or ``""`` for none; None keeps the pooling.
            reset_other: whether to take out the normalisation.
            in_features: channels of the feature maps; None for as many as before.

        Raises:
            ConfigError: for a pooling that changes the number of channels, and for classes without pooling.
        """
        self.global_pool = _pooling(self.global_pool.pool_type if pool_type is None else pool_type, num_classes)
        self.norm = nn.Identity() if reset_other else self.norm
        self.num_features = in_features or self.num_features
        self.fc = self._classifier(num_classes)
        for layer in (self.global_pool, self.norm, self.fc):
            layer.train() if self.training else layer.eval()

    def forward(self, x, pre_logits=False):
        x = self.norm(self.global_pool(x))
        x = self.drop(x.flatten(1) if self.global_pool.pool_type else x)
        return x if pre_logits else self.fc(x)


def _pooling(pool_type, num_classes):
    pool = SelectAdaptivePool2d(pool_type=pool_type)
    if pool.feat_mult() != 1:
        raise ConfigError(f"global_pool {pool_type!r:.80} changes the number of channels; avg, max and avgmax do not")
    if num_classes and not pool_type:
        raise ConfigError("a net without pooling has no classifier: give global_pool, or num_classes=0")
    return pool


class MetaFormerStage(nn.Layer):
    """Halve the feature maps where the number of channels changes, and apply blocks."""

    grad_checkpointing = False

    def __init__(self, blocks, downsample, use_nchw):
        super().__init__()
        self.use_nchw = use_nchw
        self.downsample = downsample or nn.Identity()
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x):
        x = self.downsample(x)
        _, channels, height, width = x.shape
        x = x if self.use_nchw else x.flatten(2).transpose([0, 2, 1])  # [N, H * W, C]
        x = checkpoint_seq(self.blocks, x) if self.grad_checkpointing else self.blocks(x)
        return x if self.use_nchw else x.transpose([0, 2, 1]).reshape([0, channels, height, width])


class MetaFormer(StagedModel):
    """Classify images with a MetaFormer.

    Args:
        in_chans: channels of the images.
        num_classes: classes; 0 for a net that returns the pooled features.
        global_pool: pooling of the head.
        depths: blocks of each stage.
        dims: channels of each stage.
        token_mixers: class of the layer that mixes pixels, one or one for each stage.
        mlp_act: class of the activation between the layers that mix channels.
        mlp_bias: whether these layers have a bias.
        drop_path_rate: stochastic depth of the last block; it grows linearly over the blocks.
        proj_drop_rate: dropout of the branches.
        drop_rate: dropout before the classifier.
        layer_scale_init_values: initial factor of branches, one or one for each stage; None for no factors.
        res_scale_init_values: initial factor of shortcuts, one or one for each stage; None for no factors.
        downsample_norm: class of the normalisation where feature maps shrink; None for none.
        norm_layers: class of the blocks' normalisations, one or one for each stage.
        output_norm: class of the normalisation of pooled feature maps.
        use_mlp_head: whether the classifier is an `MlpHead`.
    """

    norm_name = ""

    def __init__(
        self,
        in_chans=3,
        num_classes=1000,
        global_pool="avg",
        depths=(2, 2, 6, 2),
        dims=(64, 128, 320, 512),
        token_mixers=Pooling,
        mlp_act=StarReLU,
        mlp_bias=False,
        drop_path_rate=0.0,
        proj_drop_rate=0.0,
        drop_rate=0.0,
        layer_scale_init_values=None,
        res_scale_init_values=(None, None, 1.0, 1.0),
        downsample_norm=LayerNorm2dNoBias,
        norm_layers=LayerNorm2dNoBias,
        output_norm=LayerNorm2d,
        use_mlp_head=True,
    ):
        super().__init__()
        self.in_chans, self.num_classes, self.drop_rate = in_chans, num_classes, drop_rate
        self.stem = Stem(in_chans, dims[0], downsample_norm)
        mixers, norms, layer_scales, res_scales = (
            value if isinstance(value, (tuple, list)) else [value] * len(depths)
            for value in (token_mixers, norm_layers, layer_scale_init_values, res_scale_init_values)
        )
        rates, width, stages, self.feature_info = (
            calculate_drop_path_rates(drop_path_rate, depths, True),
            dims[0],
            [],
            [],
        )
        for number, dim in enumerate(dims):
            shared = (dim, mixers[number], mlp_act, mlp_bias, norms[number], proj_drop_rate)
            scales = (layer_scales[number], res_scales[number])
            blocks = [MetaFormerBlock(*shared, rate, *scales) for rate in rates[number]]
            downsample = Downsampling(width, dim, downsample_norm) if width != dim else None
            stages.append(MetaFormerStage(blocks, downsample, mixers[number].use_nchw))
            self.feature_info.append(feature_map(f"stages.{number}", number + 1, dim, 4 * 2**number))
            width = dim
        self.stages = nn.Sequential(*stages)
        self.num_features = self.head_hidden_size = width
        self.head = MetaFormerHead(width, num_classes, global_pool, output_norm, use_mlp_head, drop_rate)
        init_truncated(self, (nn.Conv2D, nn.Linear))

    def group_matcher(self, coarse=False):
        """Return the patterns of the parameters' names by depth, of stages or of blocks."""
        blocks = [(r"^stages\.(\d+)\.downsample", (0,)), (r"^stages\.(\d+)\.blocks\.(\d+)", None)]
        return {"stem": r"^stem", "blocks": r"^stages\.(\d+)" if coarse else blocks}


_POOLFORMER_NAMES = (  # the authors': theirs of the later nets
    ("network.1", "downsample_layers.1"),
    ("network.3", "downsample_layers.2"),
    ("network.5", "downsample_layers.3"),
    ("network.2", "network.1"),
    ("network.4", "network.2"),
    ("network.6", "network.3"),
    ("network", "stages"),
)


def checkpoint_filter_fn(state_dict, model):
    """Return weights under timm's names and of timm's shapes for those of the authors' files; others stay as they are.

    Args:
        state_dict: arrays by name.
        model: the net.
    """
    if "stem.conv.weight" in state_dict:
        return state_dict
    shapes, is_first = dict(torch_names(model)), "network.0.0.mlp.fc1.weight" in state_dict
    out = {}
    for name, value in state_dict.items():
        name = _own_name(name, is_first)
        shape = shapes.get(name)
        out[name] = value.reshape(shape) if shape and value.size == np.prod(shape) else value
    return out


def _own_name(name, is_first):
    if is_first:
        name = re.sub(r"layer_scale_(\d+)", r"layer_scale\1.scale", name)
        for theirs, later in _POOLFORMER_NAMES:
            name = name.replace(theirs, later)
    name = re.sub(r"downsample_layers.(\d+)", r"stages.\1.downsample", name)
    name = name.replace("downsample.proj", "downsample.conv").replace("patch_embed.proj", "patch_embed.conv")
    name = re.sub(r"(\d+).(\d+)", r"\1.blocks.\2", name)
    name = name.replace("stages.0.downsample", "patch_embed").replace("patch_embed", "stem")
    name = name.replace("post_norm", "norm").replace("pre_norm", "norm")
    return re.sub(r"^norm", "head.norm", re.sub(r"^head", "head.fc", name))


_S, _M, _L, _B = (64, 128, 320, 512), (96, 192, 384, 768), (96, 192, 384, 576), (128, 256, 512, 768)
_CA = {
    "token_mixers": (SepConv, SepConv, Attention, Attention),
    "norm_layers": (LayerNorm2dNoBias, LayerNorm2dNoBias, LayerNormNoBias, LayerNormNoBias),
}
_CONV = {"token_mixers": SepConv, "norm_layers": LayerNorm2dNoBias}
_SIZES = {
    "s18": ((3, 3, 9, 3), _S),
    "s36": ((3, 12, 18, 3), _S),
    "m36": ((3, 12, 18, 3), _L),
    "b36": ((3, 12, 18, 3), _B),
}
_POOL_SIZES = {
    "s12": ((2, 2, 6, 2), _S),
    "s24": ((4, 4, 12, 4), _S),
    "s36": ((6, 6, 18, 6), _S),
    "m36": ((6, 6, 18, 6), _M),
    "m48": ((8, 8, 24, 8), _M),
}
_POOL = {
    "downsample_norm": None,
    "mlp_act": nn.GELU,
    "mlp_bias": True,
    "norm_layers": GroupNorm1,
    "res_scale_init_values": None,
    "use_mlp_head": False,
}
_POOLV2 = {"norm_layers": GroupNorm1NoBias, "use_mlp_head": False}


def _family(name, sizes, **kwargs):
    return {f"{name}_{size}": {"depths": depths, "dims": dims, **kwargs} for size, (depths, dims) in sizes.items()}


VARIANTS = {
    **_family("poolformer", _POOL_SIZES, **_POOL, layer_scale_init_values=1e-6),
    **_family("poolformerv2", _POOL_SIZES, **_POOLV2),
    **_family("convformer", _SIZES, **_CONV),
    **_family("caformer", _SIZES, **_CA),
}
for _name in ("poolformer_s12", "poolformer_s24"):
    VARIANTS[_name]["layer_scale_init_values"] = 1e-5


register_variants(VARIANTS, MetaFormer)
