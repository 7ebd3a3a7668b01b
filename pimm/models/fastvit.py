"""FastViT (https://arxiv.org/abs/2303.14189) and MobileCLIP's image nets (https://arxiv.org/abs/2311.17049).

Names, state names and numbers are those of timm. `pimm.models.reparameterize.reparameterize_model` makes single
convolutions of the branches.
"""

from __future__ import annotations

import bisect
import re
from functools import partial

import numpy as np
from paddle import nn

from pimm.errors import ConfigError
from pimm.layers import BatchNorm2d, ClassifierHead, LayerNorm2d, calculate_drop_path_rates
from pimm.models.fastvit_blocks import MIXERS, MobileOneBlock, PatchEmbed, RepConditionalPosEnc
from pimm.models.features import feature_map
from pimm.models.headed import HeadedModel
from pimm.models.initial_values import init_truncated
from pimm.models.recompute import checkpoint_seq
from pimm.models.registry import register_variants


def convolutional_stem(in_chs, out_chs, act_layer, use_scale_branch):
    """Return three convolutional blocks, of which the first two halve the images."""
    shared = {"act_layer": act_layer, "use_scale_branch": use_scale_branch}
    return nn.Sequential(
        MobileOneBlock(in_chs, out_chs, 3, 2, **shared),
        MobileOneBlock(out_chs, out_chs, 3, 2, depthwise=True, **shared),
        MobileOneBlock(out_chs, out_chs, 1, **shared),
    )


class FastVitStage(nn.Layer):
    """Halve the feature maps where ``downsample`` says so, encode positions, and apply blocks."""

    grad_checkpointing = False

    def __init__(self, dim, dim_out, downsample, pos_emb, blocks):
        super().__init__()
        self.downsample = downsample or nn.Identity()
        self.pos_emb = pos_emb or nn.Identity()
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x):
        x = self.pos_emb(self.downsample(x))
        return checkpoint_seq(self.blocks, x) if self.grad_checkpointing else self.blocks(x)


class FastVit(HeadedModel):
    """Classify images with a FastViT.

    Args:
        in_chans: channels of the images.
        layers: blocks of each stage.
        token_mixers: how the blocks of each stage mix pixels: ``repmixer`` or ``attention``.
        embed_dims: channels of each stage.
        mlp_ratios: channels inside a block for each channel, of each stage.
        downsamples: whether each stage halves its input.
        se_downsamples: whether there is a gate where a stage does so.
        repmixer_kernel_size: of the convolutions that mix pixels.
        num_classes: classes; 0 for a net that returns the pooled features.
        pos_embs: function that creates the encoding of positions from the number of channels, or None, of each stage.
        down_patch_size: kernel of the convolution that halves.
        down_stride: stride of this convolution.
        drop_rate: dropout before the classifier.
        proj_drop_rate: dropout inside the blocks.
        drop_path_rate: stochastic depth of the last block; it grows linearly over the blocks.
        layer_scale_init_value: initial factor of each branch; None for no factors.
        lkc_use_act: whether an activation follows the convolution that halves.
        stem_use_scale_branch: whether the stem has 1x1 convolutions beside larger ones.
        cls_ratio: channels of the last convolution for each channel of the last stage.
        global_pool: pooling of the head.
        norm_layer: class of the normalisation before attention.
        act_layer: class of the activations.

    Raises:
        ConfigError: for an unknown mixer.
    """

    final_layers = ("final_conv",)
    default_out_indices = (0, 1, 2, 3)  # timm's, also for nets of five stages

    def __init__(
        self,
        in_chans=3,
        layers=(2, 2, 6, 2),
        token_mixers=("repmixer",) * 4,
        embed_dims=(64, 128, 256, 512),
        mlp_ratios=(4,) * 4,
        downsamples=(False, True, True, True),
        se_downsamples=(False,) * 4,
        repmixer_kernel_size=3,
        num_classes=1000,
        pos_embs=(None,) * 4,
        down_patch_size=7,
        down_stride=2,
        drop_rate=0.0,
        proj_drop_rate=0.0,
        drop_path_rate=0.0,
        layer_scale_init_value=1e-5,
        lkc_use_act=False,
        stem_use_scale_branch=True,
        cls_ratio=2.0,
        global_pool="avg",
        norm_layer=BatchNorm2d,
        act_layer=nn.GELU,
    ):
        super().__init__()
        self.in_chans, self.num_classes, self.drop_rate = in_chans, num_classes, drop_rate
        self.stem = convolutional_stem(in_chans, embed_dims[0], act_layer, stem_use_scale_branch)
        rates = calculate_drop_path_rates(drop_path_rate, layers, stagewise=True)
        dim, reduction, stages, self.feature_info = embed_dims[0], 4, [], []
        for number, (width, mixer) in enumerate(zip(embed_dims, token_mixers)):
            if mixer not in MIXERS:
                raise ConfigError(f"token_mixers holds {mixer!r:.80}; valid are {', '.join(MIXERS)}")
            halves = downsamples[number] or dim != width
            down = (down_patch_size, down_stride, dim, width, act_layer, lkc_use_act, se_downsamples[number])
            shared = (width, mlp_ratios[number], act_layer, norm_layer, repmixer_kernel_size, proj_drop_rate)
            stages.append(
                FastVitStage(
                    dim,
                    width,
                    PatchEmbed(*down) if halves else None,
                    pos_embs[number](width) if pos_embs[number] else None,
                    [MIXERS[mixer](*shared, rate, layer_scale_init_value) for rate in rates[number]],
                )
            )
            dim, reduction = width, reduction * (2 if halves else 1)
            self.feature_info.append(feature_map(f"stages.{number}", number + 1, width, reduction))
        self.stages = nn.Sequential(*stages)
        self.num_features = int(dim * cls_ratio)
        self.final_conv = MobileOneBlock(dim, self.num_features, 3, depthwise=True, use_se=True, act_layer=act_layer)
        self.head = ClassifierHead(self.num_features, num_classes, pool_type=global_pool, drop_rate=drop_rate)
        self.head_hidden_size = self.head.num_features
        init_truncated(self)

    def final(self, x):
        """Return the output of the last convolution for that of the last stage."""
        return self.final_conv(x)

    def group_matcher(self, coarse=False):
        """Return the patterns of the parameters' names by depth, of stages or of blocks."""
        blocks = [
            (r"^stages\.(\d+).downsample", (0,)),
            (r"^stages\.(\d+).pos_emb", (0,)),
            (r"^stages\.(\d+)\.\w+\.(\d+)", None),
        ]
        return {"stem": r"^stem", "blocks": r"^stages\.(\d+)" if coarse else blocks}


_OLD_NAMES = (  # Apple's: ours
    ("patch_embed", "stem"),
    ("rbr_conv", "conv_kxk"),
    ("rbr_scale", "conv_scale"),
    ("rbr_skip", "identity"),
    ("conv_exp", "final_conv"),
    ("lkb_origin", "large_conv"),
    ("convffn", "mlp"),
    ("se.reduce", "se.fc1"),
    ("se.expand", "se.fc2"),
)
_TRUNK = "module.visual.trunk."
_IMAGE_ENCODER = "image_encoder.model."


def checkpoint_filter_fn(state_dict, model):
    """Return weights under timm's names for those of Apple's files, also of a whole MobileCLIP; others stay.

    Args:
        state_dict: arrays by name.
        model: the net.
    """
    if "stem.0.conv_kxk.0.conv.weight" in state_dict:
        return state_dict
    if f"{_TRUNK}stem.0.conv_kxk.0.conv.weight" in state_dict:
        return {name[len(_TRUNK) :]: value for name, value in state_dict.items() if name.startswith(_TRUNK)}
    prefix = _IMAGE_ENCODER if f"{_IMAGE_ENCODER}patch_embed.0.rbr_conv.0.conv.weight" in state_dict else ""
    state = {name[len(prefix) :]: value for name, value in state_dict.items() if name.startswith(prefix)}
    found = (re.match(r"network\.(\d+)\.proj", name) for name in state)
    ends = sorted({int(match[1]) for match in found if match})
    out = {}
    for name, value in state.items():
        if name == "head.proj":
            out["head.fc.weight"], out["head.fc.bias"] = value.T, np.zeros(value.shape[1], value.dtype)
        else:
            out[_own_name(name, ends)] = value
    return out


def _own_name(name, ends):
    """Return timm's name for one of Apple's; ``ends`` are the numbers of the layers that halve."""
    for theirs, ours in _OLD_NAMES:
        name = name.replace(theirs, ours)
    name = re.sub(r"layer_scale_(\d)", r"layer_scale_\1.gamma", name)
    name = re.sub(r"layer_scale$", "layer_scale.gamma", name)
    name = re.sub(r"^head\.", "head.fc.", name)
    found = re.match(r"network\.(\d+)(\.proj|\.pe)?", name)
    if not found:
        return name
    stage = f"stages.{bisect.bisect_right(ends, int(found[1]))}"
    part = {".proj": ".downsample.proj", ".pe": ".pos_emb.pos_enc", None: ".blocks"}[found[2]]
    return stage + part + name[found.end() :]


_POS = partial(RepConditionalPosEnc, spatial_shape=(7, 7))
_WITH_ATTENTION = {
    "pos_embs": (None, None, None, _POS),
    "token_mixers": ("repmixer", "repmixer", "repmixer", "attention"),
}
_MOBILECLIP = {
    "mlp_ratios": (3, 3, 3, 3),
    "se_downsamples": (False, False, True, True),
    "lkc_use_act": True,
    **_WITH_ATTENTION,
}
_MOBILECLIP2 = {
    "mlp_ratios": (4,) * 5,
    "se_downsamples": (False,) * 5,
    "downsamples": (False, True, True, True, True),
    "pos_embs": (None, None, None, _POS, _POS),
    "token_mixers": ("repmixer", "repmixer", "repmixer", "attention", "attention"),
    "lkc_use_act": True,
    "norm_layer": partial(LayerNorm2d, eps=1e-5),
    "stem_use_scale_branch": False,
}

VARIANTS = {
    "fastvit_t8": {"layers": (2, 2, 4, 2), "embed_dims": (48, 96, 192, 384), "mlp_ratios": (3, 3, 3, 3)},
    "fastvit_t12": {"layers": (2, 2, 6, 2), "mlp_ratios": (3, 3, 3, 3)},
    "fastvit_s12": {"layers": (2, 2, 6, 2)},
    "fastvit_sa12": {"layers": (2, 2, 6, 2), **_WITH_ATTENTION},
    "fastvit_sa24": {"layers": (4, 4, 12, 4), **_WITH_ATTENTION},
    "fastvit_sa36": {"layers": (6, 6, 18, 6), **_WITH_ATTENTION},
    "fastvit_ma36": {"layers": (6, 6, 18, 6), "embed_dims": (76, 152, 304, 608), **_WITH_ATTENTION},
    "fastvit_mci0": {"layers": (2, 6, 10, 2), **_MOBILECLIP},
    "fastvit_mci1": {"layers": (4, 12, 20, 4), **_MOBILECLIP},
    "fastvit_mci2": {"layers": (4, 12, 24, 4), "embed_dims": (80, 160, 320, 640), **_MOBILECLIP},
    "fastvit_mci3": {"layers": (2, 12, 24, 4, 2), "embed_dims": (96, 192, 384, 768, 1536), **_MOBILECLIP2},
    "fastvit_mci4": {"layers": (2, 12, 24, 4, 4), "embed_dims": (128, 256, 512, 1024, 2048), **_MOBILECLIP2},
}


register_variants(VARIANTS, FastVit)
