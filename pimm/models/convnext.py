"""ConvNeXt (https://arxiv.org/abs/2201.03545) and ConvNeXt V2 (https://arxiv.org/abs/2301.00808), as timm has them.

Variants ``atto`` to ``nano``, ``_ols`` (overlapping stem) and ``_hnf`` (normalisation before pooling) are timm's own.
"""

from __future__ import annotations

import re
from functools import partial

import numpy as np
from paddle import nn

from pimm.errors import ConfigError
from pimm.layers import (
    ClassifierHead,
    Conv2d,
    DropPath,
    GlobalResponseNormMlp,
    LayerNorm,
    LayerNorm2d,
    Mlp,
    NormMlpClassifierHead,
    RmsNorm,
    RmsNorm2d,
    SimpleNorm,
    SimpleNorm2d,
    calculate_drop_path_rates,
    create_conv2d,
    get_act_layer,
    get_norm_layer,
    make_divisible,
)
from pimm.models.features import feature_map, limit_strides
from pimm.models.headed import StagedModel, with_head_norm
from pimm.models.initial_values import init_truncated
from pimm.models.recompute import checkpoint_seq
from pimm.models.registry import register_variants
from pimm.models.torch_names import torch_names


class ConvNeXtBlock(nn.Layer):
    """Depthwise convolution, normalisation and two fully connected layers, beside a shortcut.

    Args:
        dim: channels.
        kernel_size: size of the depthwise kernel.
        dilation: dilation of the depthwise convolution.
        mlp_ratio: hidden channels for each channel.
        conv_mlp: whether the fully connected layers are convolutions of one pixel, [N, C, H, W], instead of linear.
        conv_bias: whether the depthwise convolution has a bias.
        use_grn: whether the hidden channels are normalised by their response over the image, as in V2.
        ls_init_value: initial value of the layer scale; None for no layer scale.
        act_layer: class of the activations.
        norm_layer: class of the normalisation.
        drop_path: stochastic depth.
    """

    def __init__(
        self,
        dim,
        kernel_size=7,
        dilation=1,
        mlp_ratio=4,
        conv_mlp=False,
        conv_bias=True,
        use_grn=False,
        ls_init_value=1e-6,
        act_layer="gelu",
        norm_layer=None,
        drop_path=0.0,
    ):
        super().__init__()
        norm_layer = norm_layer or (LayerNorm2d if conv_mlp else LayerNorm)
        mlp_layer = GlobalResponseNormMlp if use_grn else Mlp
        self.use_conv_mlp = conv_mlp
        self.conv_dw = create_conv2d(dim, dim, kernel_size, dilation=dilation, depthwise=True, bias=conv_bias)
        self.norm = norm_layer(dim)
        self.mlp = mlp_layer(dim, int(mlp_ratio * dim), act_layer=get_act_layer(act_layer), use_conv=conv_mlp)
        self.gamma = None
        if ls_init_value is not None:
            self.gamma = self.create_parameter([dim], default_initializer=nn.initializer.Constant(ls_init_value))
        self.drop_path = DropPath(drop_path) if drop_path > 0.0 else nn.Identity()

    def forward(self, x):  # [N, dim, H, W]
        shortcut = x
        x = self.conv_dw(x)
        if self.use_conv_mlp:
            x = self.mlp(self.norm(x))
        else:
            x = self.mlp(self.norm(x.transpose([0, 2, 3, 1]))).transpose([0, 3, 1, 2])
        if self.gamma is not None:
            x = x * self.gamma.reshape([1, -1, 1, 1])
        return self.drop_path(x) + shortcut


class ConvNeXtStage(nn.Layer):
    """A downsampling convolution after a normalisation, and blocks.

    Args:
        in_chs: channels of the input.
        out_chs: channels of the output.
        kernel_size: size of the blocks' depthwise kernels.
        stride: stride of the downsampling.
        depth: number of blocks.
        dilation: dilations of the downsampling and of the blocks.
        drop_path_rates: stochastic depth of each block.
        norm_layer: class of the normalisation [N, C, H, W] before the downsampling.
        norm_layer_cl: class of the blocks' normalisation.
        block: further arguments of `ConvNeXtBlock`; ``conv_bias`` is for the downsampling, too.
    """

    def __init__(
        self,
        in_chs,
        out_chs,
        kernel_size=7,
        stride=2,
        depth=2,
        dilation=(1, 1),
        drop_path_rates=None,
        norm_layer=LayerNorm2d,
        norm_layer_cl=LayerNorm,
        **block,
    ):
        super().__init__()
        self.grad_checkpointing = False
        self.downsample = nn.Identity()
        if in_chs != out_chs or stride > 1 or dilation[0] != dilation[1]:
            shrinks = stride > 1 or dilation[0] != dilation[1]
            convolution = create_conv2d(
                in_chs,
                out_chs,
                2 if shrinks else 1,
                stride=stride,
                dilation=dilation[0],
                padding="same" if dilation[1] > 1 else 0,
                bias=block.get("conv_bias", True),
            )
            self.downsample = nn.Sequential(norm_layer(in_chs), convolution)
        rates = drop_path_rates or [0.0] * depth
        block = {**block, "dilation": dilation[1], "norm_layer": norm_layer_cl}
        self.blocks = nn.Sequential(*(ConvNeXtBlock(out_chs, kernel_size, drop_path=rate, **block) for rate in rates))

    def forward(self, x):  # [N, in_chs, H, W]
        x = self.downsample(x)
        return checkpoint_seq(self.blocks, x) if self.grad_checkpointing else self.blocks(x)


_NORMS = {  # name: (class for [N, C, H, W], class for [N, H, W, C])
    "layernorm": (LayerNorm2d, LayerNorm),
    "layernorm2d": (LayerNorm2d, LayerNorm),
    "simplenorm": (SimpleNorm2d, SimpleNorm),
    "simplenorm2d": (SimpleNorm2d, SimpleNorm),
    "rmsnorm": (RmsNorm2d, RmsNorm),
    "rmsnorm2d": (RmsNorm2d, RmsNorm),
}


def _norm_layers(norm_layer, conv_mlp, norm_eps):
    """Return the classes of the normalisation outside and inside of blocks."""
    norm_layer = norm_layer or "layernorm"
    if norm_layer in _NORMS:
        outside, channels_last = _NORMS[norm_layer]
        layers = (outside, outside if conv_mlp else channels_last)
    elif conv_mlp:
        layers = (get_norm_layer(norm_layer),) * 2
    else:
        raise ConfigError(f"norm_layer {norm_layer!r:.80} needs conv_mlp=True; without it are {', '.join(_NORMS)}")
    return layers if norm_eps is None else tuple(partial(layer, eps=norm_eps) for layer in layers)


def _patch_stem(in_chans, dim, patch_size, conv_bias, norm_layer, act_layer):
    layers = [Conv2d(in_chans, dim, patch_size, stride=patch_size, bias=conv_bias), norm_layer(dim)]
    return nn.Sequential(*layers), patch_size


def _overlap_stem(in_chans, dim, patch_size, conv_bias, norm_layer, act_layer, tiered=False, act=False):
    middle = make_divisible(dim // 2) if tiered else dim
    layers = [
        Conv2d(in_chans, middle, 3, stride=2, padding=1, bias=conv_bias),
        *([act_layer()] if act else []),
        Conv2d(middle, dim, 3, stride=2, padding=1, bias=conv_bias),
        norm_layer(dim),
    ]
    return nn.Sequential(*layers), 4


_STEMS = {
    "patch": _patch_stem,
    "overlap": _overlap_stem,
    "overlap_tiered": partial(_overlap_stem, tiered=True),
    "overlap_act": partial(_overlap_stem, act=True),
}


class ConvNeXt(StagedModel):
    """Classify images with a stem, four stages of `ConvNeXtBlock`, pooling and normalisation.

    Args:
        in_chans: channels of the images.
        num_classes: classes; 0 for a net without a classifier.
        global_pool: pooling: ``avg``, ``max``, ``avgmax``, or ``""`` for none.
        output_stride: product of all strides, beyond which strides become dilations: 8, 16 or 32.
        depths: number of blocks of each stage.
        dims: channels of each stage.
        kernel_sizes: size of the depthwise kernels, a number or one for each stage.
        ls_init_value: initial value of the layer scale; None for no layer scale.
        stem_type: ``patch``, ``overlap``, ``overlap_tiered`` or ``overlap_act``.
        patch_size: kernel and stride of the ``patch`` stem.
        head_init_scale: factor of the classifier's initial weights.
        head_norm_first: whether the last normalisation comes before the pooling.
        head_hidden_size: width of a hidden layer before the classifier; None for no hidden layer.
        conv_mlp, conv_bias, use_grn, act_layer: as in `ConvNeXtBlock`.
        norm_layer: name of the normalisation; None for ``layernorm``.
        norm_eps: number that the normalisation adds to the variance; None for the layer's own.
        drop_rate: dropout before the classifier.
        drop_path_rate: stochastic depth of the last block; it grows linearly over the blocks.

    Raises:
        ConfigError: for an unknown ``stem_type``, ``output_stride``, or a ``norm_layer`` that needs ``conv_mlp``.
    """

    norm_name = "norm_pre"

    def __init__(
        self,
        in_chans=3,
        num_classes=1000,
        global_pool="avg",
        output_stride=32,
        depths=(3, 3, 9, 3),
        dims=(96, 192, 384, 768),
        kernel_sizes=7,
        ls_init_value=1e-6,
        stem_type="patch",
        patch_size=4,
        head_init_scale=1.0,
        head_norm_first=False,
        head_hidden_size=None,
        conv_mlp=False,
        conv_bias=True,
        use_grn=False,
        act_layer="gelu",
        norm_layer=None,
        norm_eps=None,
        drop_rate=0.0,
        drop_path_rate=0.0,
    ):
        super().__init__()
        if stem_type not in _STEMS:
            raise ConfigError(f"stem_type is {stem_type!r:.80}; valid are {', '.join(_STEMS)}")
        norm_layer, norm_layer_cl = _norm_layers(norm_layer, conv_mlp, norm_eps)
        self.in_chans, self.num_classes, self.drop_rate = in_chans, num_classes, drop_rate
        stem = _STEMS[stem_type](in_chans, dims[0], patch_size, conv_bias, norm_layer, get_act_layer(act_layer))
        self.stem, reduction = stem

        kernel_sizes = kernel_sizes if isinstance(kernel_sizes, (tuple, list)) else (kernel_sizes,) * 4
        rates = calculate_drop_path_rates(drop_path_rate, depths, stagewise=True)
        strides = [2 if reduction == 2 else 1, 2, 2, 2]
        self.feature_info, stages = [], []
        for i, (stride, dilation, total) in enumerate(limit_strides(strides, output_stride, reduction)):
            stage = ConvNeXtStage(
                dims[max(i - 1, 0)],
                dims[i],
                kernel_sizes[i],
                stride,
                depths[i],
                (dilation, dilation * strides[i] // stride),
                rates[i],
                norm_layer,
                norm_layer_cl,
                ls_init_value=ls_init_value,
                conv_mlp=conv_mlp,
                conv_bias=conv_bias,
                use_grn=use_grn,
                act_layer=act_layer,
            )
            stages.append(stage)
            self.feature_info.append(feature_map(f"stages.{i}", i + 1, dims[i], total))
        self.stages = nn.Sequential(*stages)

        self.num_features = dims[-1]
        self._create_head(num_classes, global_pool, head_norm_first, head_hidden_size, norm_layer)
        init_truncated(self, (nn.Conv2D, nn.Linear), head_scale=head_init_scale)

    def _create_head(self, num_classes, global_pool, norm_first, hidden_size, norm_layer):
        pooling = {"pool_type": global_pool, "drop_rate": self.drop_rate}
        if norm_first:
            if hidden_size:
                raise ConfigError("head_norm_first=True takes no head_hidden_size")
            self.norm_pre = norm_layer(self.num_features)
            self.head = ClassifierHead(self.num_features, num_classes, **pooling)
        else:
            pooling.update(hidden_size=hidden_size, norm_layer=norm_layer, act_layer="gelu")
            self.norm_pre = nn.Identity()
            self.head = NormMlpClassifierHead(self.num_features, num_classes, **pooling)
        self.head_hidden_size = self.head.num_features

    def group_matcher(self, coarse=False):
        """Return the patterns for ``group_with_matcher`` by block, or by stage if ``coarse``."""
        blocks = [
            (r"^stages\.(\d+)\.downsample", (0,)),
            (r"^stages\.(\d+)\.blocks\.(\d+)", None),
            (r"^norm_pre", (99999,)),
        ]
        return {"stem": r"^stem", "blocks": r"^stages\.(\d+)" if coarse else blocks}


_CLIP = "visual.trunk."
_RENAMED = (  # of the papers' checkpoints
    (r"downsample_layers\.0\.", "stem."),
    (r"stages\.([0-9]+)\.([0-9]+)", r"stages.\1.blocks.\2"),
    (r"downsample_layers\.([0-9]+)\.([0-9]+)", r"stages.\1.downsample.\2"),
    (r"dwconv", "conv_dw"),
    (r"pwconv", "mlp.fc"),
    (r"grn\.beta", "mlp.grn.bias"),
    (r"grn\.gamma", "mlp.grn.weight"),
    (r"head\.", "head.fc."),
    (r"^norm\.", "head.norm."),
)
_OF_CLIP_HEAD = {
    "visual.head.proj.weight": "head.fc.weight",
    "visual.head.mlp.fc1.weight": "head.pre_logits.fc.weight",
    "visual.head.mlp.fc1.bias": "head.pre_logits.fc.bias",
    "visual.head.mlp.fc2.weight": "head.fc.weight",
}
_LEFT_OUT = ("projectors.", "norms.")  # what a distillation added to the net


def checkpoint_filter_fn(state_dict, model):
    """Return the arrays of the papers' checkpoints, or of a CLIP model's image tower, under this net's names.

    Args:
        state_dict: arrays by PyTorch's names.
        model: the `ConvNeXt` that takes them.
    """
    if "head.norm.weight" in state_dict or "norm_pre.weight" in state_dict:
        return state_dict
    if f"{_CLIP}stem.0.weight" in state_dict:
        return _of_clip(state_dict)
    shapes, renamed = dict(torch_names(model)), {}
    for name, value in state_dict.items():
        if name.startswith(_LEFT_OUT):
            continue
        for pattern, replacement in _RENAMED:
            name = re.sub(pattern, replacement, name)
        if name in shapes and not name.startswith("head."):
            value = value.reshape(shapes[name])  # of GRN, and of linear layers that are convolutions here
        renamed[name] = value
    return with_head_norm(renamed, model)


def _of_clip(state_dict):
    found = {name[len(_CLIP) :]: value for name, value in state_dict.items() if name.startswith(_CLIP)}
    found.update({new: state_dict[old] for old, new in _OF_CLIP_HEAD.items() if old in state_dict})
    if "head.fc.weight" in found:  # a projection, which has no bias
        found["head.fc.bias"] = np.zeros(len(found["head.fc.weight"]), found["head.fc.weight"].dtype)
    return found


_SIZES = {  # name: (depths, dims)
    "zepto": ((2, 2, 4, 2), (32, 64, 128, 256)),
    "atto": ((2, 2, 6, 2), (40, 80, 160, 320)),
    "femto": ((2, 2, 6, 2), (48, 96, 192, 384)),
    "pico": ((2, 2, 6, 2), (64, 128, 256, 512)),
    "nano": ((2, 2, 8, 2), (80, 160, 320, 640)),
    "tiny": ((3, 3, 9, 3), (96, 192, 384, 768)),
    "small": ((3, 3, 27, 3), (96, 192, 384, 768)),
    "base": ((3, 3, 27, 3), (128, 256, 512, 1024)),
    "large": ((3, 3, 27, 3), (192, 384, 768, 1536)),
    "xlarge": ((3, 3, 27, 3), (256, 512, 1024, 2048)),
    "xxlarge": ((3, 4, 30, 3), (384, 768, 1536, 3072)),
    "huge": ((3, 3, 27, 3), (352, 704, 1408, 2816)),
}


def _variant(size, **kwargs):
    depths, dims = _SIZES[size]
    return {"depths": depths, "dims": dims, **kwargs}


_OVERLAP = {"conv_mlp": True, "stem_type": "overlap_tiered"}
_V2 = {"use_grn": True, "ls_init_value": None}
_TEST = {"norm_eps": 1e-5, "depths": (1, 1, 1, 1), "dims": (32, 64, 96, 128)}

VARIANTS = {
    "convnext_zepto_rms": _variant("zepto", conv_mlp=True, norm_layer="simplenorm"),
    "convnext_zepto_rms_ols": _variant("zepto", conv_mlp=True, norm_layer="simplenorm", stem_type="overlap_act"),
    "convnext_atto": _variant("atto", conv_mlp=True),
    "convnext_atto_ols": _variant("atto", **_OVERLAP),
    "convnext_atto_rms": _variant("atto", conv_mlp=True, norm_layer="rmsnorm2d"),
    "convnext_femto": _variant("femto", conv_mlp=True),
    "convnext_femto_ols": _variant("femto", **_OVERLAP),
    "convnext_pico": _variant("pico", conv_mlp=True),
    "convnext_pico_ols": _variant("pico", **_OVERLAP),
    "convnext_nano": _variant("nano", conv_mlp=True),
    "convnext_nano_ols": _variant("nano", conv_mlp=True, stem_type="overlap"),
    "convnext_tiny_hnf": _variant("tiny", conv_mlp=True, head_norm_first=True),
    "convnext_tiny": _variant("tiny"),
    "convnext_small": _variant("small"),
    "convnext_base": _variant("base"),
    "convnext_large": _variant("large"),
    "convnext_large_mlp": _variant("large", head_hidden_size=1536),
    "convnext_xlarge": _variant("xlarge"),
    "convnext_xxlarge": _variant("xxlarge", norm_eps=1e-5),
    "convnextv2_atto": _variant("atto", conv_mlp=True, **_V2),
    "convnextv2_femto": _variant("femto", conv_mlp=True, **_V2),
    "convnextv2_pico": _variant("pico", conv_mlp=True, **_V2),
    "convnextv2_nano": _variant("nano", conv_mlp=True, **_V2),
    "convnextv2_tiny": _variant("tiny", **_V2),
    "convnextv2_small": _variant("small", **_V2),
    "convnextv2_base": _variant("base", **_V2),
    "convnextv2_large": _variant("large", **_V2),
    "convnextv2_huge": _variant("huge", **_V2),
    "test_convnext": {**_TEST, "depths": (1, 2, 4, 2), "dims": (24, 32, 48, 64), "act_layer": "gelu_tanh"},
    "test_convnext2": {**_TEST, "act_layer": "gelu_tanh"},
    "test_convnext3": {**_TEST, "kernel_sizes": (7, 5, 5, 3), "act_layer": "silu"},
}


register_variants(VARIANTS, ConvNeXt)
