"""Nets of linear layers across patches and across channels: MLP-Mixer, ResMLP, gMLP and gated mixers.

Papers: https://arxiv.org/abs/2105.01601, https://arxiv.org/abs/2105.03404, https://arxiv.org/abs/2105.08050.
"""

import functools
import math

from paddle import nn

from pimm.layers import (
    DropPath,
    GatedMlp,
    GluMlp,
    LayerNorm,
    Linear,
    Mlp,
    PatchEmbed,
    Swish,
    constant_,
    lecun_normal_,
    normal_,
    ones_,
    zeros_,
)
from pimm.layers.helpers import to_pair
from pimm.models.registry import register_variants
from pimm.models.token_model import TokenModel, block_features


class MixerBlock(nn.Layer):
    """Layers across patches and layers across channels, each with normalisation and beside a shortcut.

    Args:
        dim: channels.
        seq_len: patches.
        mlp_ratio: width of the layers across patches, and of those across channels, relative to ``dim``.
        mlp_layer: class of the layers.
        norm_layer: class of the normalisations.
        act_layer: class of the activations.
        drop: dropout of the layers.
        drop_path: probability of leaving out a branch.
    """

    def __init__(self, dim, seq_len, mlp_ratio, mlp_layer, norm_layer, act_layer, drop, drop_path):
        super().__init__()
        tokens_dim, channels_dim = (int(ratio * dim) for ratio in to_pair(mlp_ratio))
        self.norm1 = norm_layer(dim)
        self.mlp_tokens = mlp_layer(seq_len, tokens_dim, act_layer=act_layer, drop=drop)
        self.drop_path = DropPath(drop_path)
        self.norm2 = norm_layer(dim)
        self.mlp_channels = mlp_layer(dim, channels_dim, act_layer=act_layer, drop=drop)

    def forward(self, x):
        mixed = self.mlp_tokens(self.norm1(x).transpose([0, 2, 1])).transpose([0, 2, 1])
        x = x + self.drop_path(mixed)
        return x + self.drop_path(self.mlp_channels(self.norm2(x)))


class Affine(nn.Layer):
    """Multiply each channel with a learnt number, and add one: the normalisation of ResMLP."""

    def __init__(self, dim):
        super().__init__()
        self.alpha = self.create_parameter([1, 1, dim], default_initializer=nn.initializer.Constant(1.0))
        self.beta = self.create_parameter([1, 1, dim], default_initializer=nn.initializer.Constant(0.0))

    def forward(self, x):
        return self.beta + self.alpha * x


class ResBlock(nn.Layer):
    """A layer across patches and layers across channels, each scaled and beside a shortcut.

    Args:
        dim: channels.
        seq_len: patches.
        mlp_ratio: width of the layers across channels relative to ``dim``.
        mlp_layer: class of the layers.
        norm_layer: class of the normalisations.
        act_layer: class of the activations.
        drop: dropout of the layers.
        drop_path: probability of leaving out a branch.
        init_values: initial scale of the branches.
    """

    def __init__(self, dim, seq_len, mlp_ratio, mlp_layer, norm_layer, act_layer, drop, drop_path, init_values=1e-4):
        super().__init__()
        self.norm1 = norm_layer(dim)
        self.linear_tokens = Linear(seq_len, seq_len)
        self.drop_path = DropPath(drop_path)
        self.norm2 = norm_layer(dim)
        self.mlp_channels = mlp_layer(dim, int(dim * mlp_ratio), act_layer=act_layer, drop=drop)
        scale = nn.initializer.Constant(init_values)
        self.ls1 = self.create_parameter([dim], default_initializer=scale)
        self.ls2 = self.create_parameter([dim], default_initializer=scale)

    def forward(self, x):
        mixed = self.linear_tokens(self.norm1(x).transpose([0, 2, 1])).transpose([0, 2, 1])
        x = x + self.drop_path(self.ls1 * mixed)
        return x + self.drop_path(self.ls2 * self.mlp_channels(self.norm2(x)))


class SpatialGatingUnit(nn.Layer):
    """Multiply a half of the channels with the other half, which a layer across patches mixes.

    Args:
        dim: channels of both halves.
        seq_len: patches.
    """

    def __init__(self, dim, seq_len):
        super().__init__()
        self.norm = nn.LayerNorm(dim // 2)
        self.proj = Linear(seq_len, seq_len)

    def init_weights(self):
        """Begin with a gate that lets everything through."""
        normal_(self.proj.weight, std=1e-6)
        ones_(self.proj.bias)

    def forward(self, x):
        content, gate = x.chunk(2, axis=-1)
        return content * self.proj(self.norm(gate).transpose([0, 2, 1])).transpose([0, 2, 1])


class SpatialGatingBlock(nn.Layer):
    """Layers across channels with a gate across patches, beside a shortcut; arguments as in `ResBlock`."""

    def __init__(self, dim, seq_len, mlp_ratio, mlp_layer, norm_layer, act_layer, drop, drop_path):
        super().__init__()
        self.norm = norm_layer(dim)
        gate = functools.partial(SpatialGatingUnit, seq_len=seq_len)
        self.mlp_channels = mlp_layer(dim, int(dim * mlp_ratio), act_layer=act_layer, gate_layer=gate, drop=drop)
        self.drop_path = DropPath(drop_path)

    def forward(self, x):
        return x + self.drop_path(self.mlp_channels(self.norm(x)))


class MlpMixer(TokenModel):
    """A net of blocks of linear layers.

    Args:
        num_classes: classes; 0 for a net without a classifier.
        img_size: size of the images.
        in_chans: channels of the images.
        patch_size: size of the patches.
        num_blocks: number of blocks.
        embed_dim: channels.
        mlp_ratio: width of layers relative to the channels, as the blocks take it.
        block_layer: class of the blocks.
        mlp_layer: class of the layers in a block.
        norm_layer: class of the normalisations.
        act_layer: class of the activations.
        drop_rate: dropout before the classifier.
        proj_drop_rate: dropout of layers.
        drop_path_rate: probability of leaving out a branch.
        nlhb: whether the classifier begins with biases that give all classes the same probability under sigmoid.
        stem_norm: whether patches are normalised.
        global_pool: ``avg``, or ``""`` for none.
    """

    pools = ("", "avg")

    def __init__(
        self,
        num_classes=1000,
        img_size=224,
        in_chans=3,
        patch_size=16,
        num_blocks=8,
        embed_dim=512,
        mlp_ratio=(0.5, 4.0),
        block_layer=MixerBlock,
        mlp_layer=Mlp,
        norm_layer=LayerNorm,
        act_layer=nn.GELU,
        drop_rate=0.0,
        proj_drop_rate=0.0,
        drop_path_rate=0.0,
        nlhb=False,
        stem_norm=False,
        global_pool="avg",
    ):
        super().__init__()
        self.embed_dim = self.num_features = self.head_hidden_size = embed_dim
        stem_norm = norm_layer if stem_norm else None
        self.stem = PatchEmbed(img_size, patch_size, in_chans, embed_dim, norm_layer=stem_norm)
        patches = self.stem.num_patches
        block = (mlp_ratio, mlp_layer, norm_layer, act_layer, proj_drop_rate, drop_path_rate)
        self.blocks = nn.Sequential(*(block_layer(embed_dim, patches, *block) for _ in range(num_blocks)))
        self.feature_info = block_features(num_blocks, embed_dim, patch_size)
        self.norm = norm_layer(embed_dim)
        self.fc_norm = nn.Identity()
        self.head_drop = nn.Dropout(drop_rate)
        self.reset_classifier(num_classes, global_pool)
        _init_weights(self, -math.log(num_classes) if nlhb else 0.0)

    @property
    def patch_embed(self):
        """Return the layer that makes patches."""
        return self.stem

    def embed(self, x):
        """Return the patches of images, and no further arguments of blocks."""
        return self.stem(x), ()

    def group_matcher(self, coarse=False):
        """Return the patterns for ``group_with_matcher`` by block."""
        return {"stem": r"^stem", "blocks": [(r"^blocks\.(\d+)", None), (r"^norm", (99999,))]}


def _init_weights(model, head_bias):
    """Draw the values of linear layers and of the convolution; the classifier begins with zeros and ``head_bias``."""
    for name, layer in model.named_sublayers():
        if isinstance(layer, nn.Conv2D):
            lecun_normal_(layer.weight, math.prod(layer.weight.shape[1:]))
            zeros_(layer.bias)
        elif name.startswith("head") and isinstance(layer, nn.Linear):
            zeros_(layer.weight)
            constant_(layer.bias, head_bias)
        elif isinstance(layer, nn.Linear):
            nn.initializer.XavierUniform()(layer.weight)
            if layer.bias is not None:
                normal_(layer.bias, std=1e-6) if "mlp" in name else zeros_(layer.bias)
    for layer in model.sublayers():
        if isinstance(layer, SpatialGatingUnit):
            layer.init_weights()


_OLD_NAMES = {"patch_embed.": "stem.", "attn.": "linear_tokens.", "mlp.": "mlp_channels.", "gamma_": "ls"}


def checkpoint_filter_fn(state_dict, model):
    """Return weights under timm's names; ResMLP's authors call layers otherwise, and their vectors have one axis."""
    if "patch_embed.proj.weight" not in state_dict:
        return state_dict
    found = {}
    for name, value in state_dict.items():
        for old, new in _OLD_NAMES.items():
            name = name.replace(old, new)
        found[name] = value.reshape(1, 1, -1) if name.endswith((".alpha", ".beta")) else value
    return found


_GATED_MIXER = {"embed_dim": 384, "mlp_ratio": (1.0, 4.0), "mlp_layer": GluMlp, "act_layer": Swish}
_RES = {"embed_dim": 384, "mlp_ratio": 4, "norm_layer": Affine}
_GATING = {"num_blocks": 30, "mlp_ratio": 6, "block_layer": SpatialGatingBlock, "mlp_layer": GatedMlp}
_RES_6 = functools.partial(ResBlock, init_values=1e-6)
_VARIANTS = {
    "mixer_s32_224": {"patch_size": 32},
    "mixer_s16_224": {},
    "mixer_b32_224": {"patch_size": 32, "num_blocks": 12, "embed_dim": 768},
    "mixer_b16_224": {"num_blocks": 12, "embed_dim": 768},
    "mixer_l32_224": {"patch_size": 32, "num_blocks": 24, "embed_dim": 1024},
    "mixer_l16_224": {"num_blocks": 24, "embed_dim": 1024},
    "gmixer_12_224": {**_GATED_MIXER, "num_blocks": 12},
    "gmixer_24_224": {**_GATED_MIXER, "num_blocks": 24},
    "resmlp_12_224": {**_RES, "num_blocks": 12, "block_layer": ResBlock},
    "resmlp_24_224": {**_RES, "num_blocks": 24, "block_layer": functools.partial(ResBlock, init_values=1e-5)},
    "resmlp_36_224": {**_RES, "num_blocks": 36, "block_layer": _RES_6},
    "resmlp_big_24_224": {**_RES, "patch_size": 8, "num_blocks": 24, "embed_dim": 768, "block_layer": _RES_6},
    "gmlp_ti16_224": {**_GATING, "embed_dim": 128},
    "gmlp_s16_224": {**_GATING, "embed_dim": 256},
    "gmlp_b16_224": {**_GATING, "embed_dim": 512},
}


register_variants(_VARIANTS, MlpMixer)
