"""FocalNets (https://arxiv.org/abs/2203.11926), with the names, arguments and numbers of timm."""

from __future__ import annotations

import math
import re
from functools import partial

import paddle
from paddle import nn

from pimm.layers import (
    ClassifierHead,
    Conv2d,
    DropPath,
    LayerNorm2d,
    LayerScale2d,
    Mlp,
    NormMlpClassifierHead,
    calculate_drop_path_rates,
)
from pimm.models.features import feature_map
from pimm.models.headed import StagedModel
from pimm.models.initial_values import init_truncated
from pimm.models.recompute import checkpoint_seq
from pimm.models.registry import register_variants
from pimm.models.torch_names import torch_names

_NORM = partial(LayerNorm2d, eps=1e-5)


class FocalModulation(nn.Layer):
    """Multiply each pixel by its context, which depthwise convolutions gather from ever larger windows.

    Args:
        dim: channels.
        focal_window: size of the first kernel.
        focal_level: number of convolutions.
        focal_factor: how much larger each kernel is than the one before it.
        bias: whether the first two convolutions of one pixel have a bias.
        use_post_norm: whether the product is normalised.
        normalize_modulator: whether the context is the mean of all levels, instead of the sum.
        proj_drop: dropout of the output.
        norm_layer: class of the normalisation.
    """

    def __init__(
        self,
        dim,
        focal_window,
        focal_level,
        focal_factor=2,
        bias=True,
        use_post_norm=False,
        normalize_modulator=False,
        proj_drop=0.0,
        norm_layer=LayerNorm2d,
    ):
        super().__init__()
        self.dim, self.focal_level, self.normalize_modulator = dim, focal_level, normalize_modulator
        self.f = Conv2d(dim, 2 * dim + focal_level + 1, 1, bias=bias)
        self.h = Conv2d(dim, dim, 1, bias=bias)
        self.act = nn.GELU()
        self.proj = Conv2d(dim, dim, 1)
        self.proj_drop = nn.Dropout(proj_drop)
        sizes = [focal_factor * level + focal_window for level in range(focal_level)]
        self.focal_layers = nn.LayerList(
            nn.Sequential(Conv2d(dim, dim, size, groups=dim, padding=size // 2, bias=False), nn.GELU())
            for size in sizes
        )
        self.norm = norm_layer(dim) if use_post_norm else nn.Identity()

    def forward(self, x):  # [N, dim, H, W]
        query, context, gates = paddle.split(self.f(x), [self.dim, self.dim, self.focal_level + 1], axis=1)
        gathered = 0
        for level, layer in enumerate(self.focal_layers):
            context = layer(context)
            gathered = gathered + context * gates[:, level : level + 1]
        gathered = gathered + self.act(context.mean([2, 3], keepdim=True)) * gates[:, self.focal_level :]
        if self.normalize_modulator:
            gathered = gathered / (self.focal_level + 1)
        return self.proj_drop(self.proj(self.norm(query * self.h(gathered))))


class FocalNetBlock(nn.Layer):
    """Focal modulation and two convolutions of one pixel, each beside a shortcut.

    Args:
        dim: channels.
        mlp_ratio: hidden channels for each channel.
        focal_level, focal_window, normalize_modulator, proj_drop: as in `FocalModulation`.
        use_post_norm: whether normalisation comes after the layers, instead of before them.
        use_post_norm_in_modulation: ``use_post_norm`` of the `FocalModulation`.
        layerscale_value: initial value of the layer scales; None for no layer scale.
        drop_path: stochastic depth.
        act_layer: class of the activations.
        norm_layer: class of the normalisation.
    """

    def __init__(
        self,
        dim,
        mlp_ratio=4.0,
        focal_level=1,
        focal_window=3,
        use_post_norm=False,
        use_post_norm_in_modulation=False,
        normalize_modulator=False,
        layerscale_value=1e-4,
        proj_drop=0.0,
        drop_path=0.0,
        act_layer=nn.GELU,
        norm_layer=LayerNorm2d,
    ):
        super().__init__()
        before, after = (nn.Identity, norm_layer) if use_post_norm else (norm_layer, nn.Identity)
        scale = nn.Identity if layerscale_value is None else partial(LayerScale2d, init_values=layerscale_value)
        self.norm1 = before(dim)
        self.modulation = FocalModulation(
            dim,
            focal_window,
            focal_level,
            use_post_norm=use_post_norm_in_modulation,
            normalize_modulator=normalize_modulator,
            proj_drop=proj_drop,
            norm_layer=norm_layer,
        )
        self.norm1_post = after(dim)
        self.ls1 = scale(dim)
        self.drop_path1 = DropPath(drop_path) if drop_path > 0.0 else nn.Identity()
        self.norm2 = before(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), act_layer=act_layer, drop=proj_drop, use_conv=True)
        self.norm2_post = after(dim)
        self.ls2 = scale(dim)
        self.drop_path2 = DropPath(drop_path) if drop_path > 0.0 else nn.Identity()

    def forward(self, x):  # [N, dim, H, W]
        x = x + self.drop_path1(self.ls1(self.norm1_post(self.modulation(self.norm1(x)))))
        return x + self.drop_path2(self.ls2(self.norm2_post(self.mlp(self.norm2(x)))))


class Downsample(nn.Layer):
    """A convolution that shrinks the image, and a normalisation.

    Args:
        in_chs: channels of the input.
        out_chs: channels of the output.
        stride: 2 or 4.
        overlap: whether the kernel is larger than the stride.
        norm_layer: class of the normalisation.
    """

    def __init__(self, in_chs, out_chs, stride=4, overlap=False, norm_layer=LayerNorm2d):
        super().__init__()
        kernel_size, padding = {4: (7, 2), 2: (3, 1)}[stride] if overlap else (stride, 0)
        self.proj = Conv2d(in_chs, out_chs, kernel_size, stride=stride, padding=padding)
        self.norm = norm_layer(out_chs)

    def forward(self, x):  # [N, in_chs, H, W]
        return self.norm(self.proj(x))


class FocalNetStage(nn.Layer):
    """Downsampling and blocks.

    Args:
        dim: channels of the input.
        out_dim: channels of the output.
        downsample: whether the image is halved first.
        use_overlap_down: ``overlap`` of the `Downsample`.
        drop_path: stochastic depth of each block.
        norm_layer: class of the normalisation.
        kwargs: further arguments of the blocks.
    """

    def __init__(self, dim, out_dim, downsample, use_overlap_down, drop_path, norm_layer, **kwargs):
        super().__init__()
        self.grad_checkpointing = False
        self.downsample = nn.Identity()
        if downsample:
            self.downsample = Downsample(dim, out_dim, 2, use_overlap_down, norm_layer)
        self.blocks = nn.Sequential(
            *(FocalNetBlock(out_dim, drop_path=rate, norm_layer=norm_layer, **kwargs) for rate in drop_path)
        )

    def forward(self, x):  # [N, dim, H, W]
        x = self.downsample(x)
        return checkpoint_seq(self.blocks, x) if self.grad_checkpointing else self.blocks(x)


class FocalNet(StagedModel):
    """Classify images with stages of focal modulation.

    Args:
        in_chans: channels of the images.
        num_classes: classes; 0 for a net without a classifier.
        global_pool: pooling, as in `ClassifierHead`.
        embed_dim: channels of the first stage; they double from stage to stage.
        depths: number of blocks of each stage.
        mlp_ratio: hidden channels for each channel.
        focal_levels, focal_windows: ``focal_level`` and ``focal_window`` of each stage's `FocalModulation`.
        use_overlap_down: whether the kernels of downsampling are larger than their stride.
        use_post_norm, use_post_norm_in_modulation, normalize_modulator: as in `FocalNetBlock`.
        head_hidden_size: width of a hidden layer before the classifier; None for no hidden layer.
        head_init_scale: factor of the classifier's initial weights.
        layerscale_value: initial value of the layer scales; None for no layer scale.
        drop_rate: dropout before the classifier.
        proj_drop_rate: dropout in blocks.
        drop_path_rate: stochastic depth of the last block; it grows linearly over the blocks.
        norm_layer: class of the normalisation.
    """

    stages_name = "layers"

    def __init__(
        self,
        in_chans=3,
        num_classes=1000,
        global_pool="avg",
        embed_dim=96,
        depths=(2, 2, 6, 2),
        mlp_ratio=4.0,
        focal_levels=(2, 2, 2, 2),
        focal_windows=(3, 3, 3, 3),
        use_overlap_down=False,
        use_post_norm=False,
        use_post_norm_in_modulation=False,
        normalize_modulator=False,
        head_hidden_size=None,
        head_init_scale=1.0,
        layerscale_value=None,
        drop_rate=0.0,
        proj_drop_rate=0.0,
        drop_path_rate=0.1,
        norm_layer=_NORM,
    ):
        super().__init__()
        dims = [embed_dim << i for i in range(len(depths))]
        self.in_chans, self.num_classes, self.num_features, self.embed_dim = in_chans, num_classes, dims[-1], dims
        self.stem = Downsample(in_chans, dims[0], overlap=use_overlap_down, norm_layer=norm_layer)
        rates = calculate_drop_path_rates(drop_path_rate, depths, stagewise=True)
        self.feature_info, layers = [], []
        for i, dim in enumerate(dims):
            stage = FocalNetStage(
                dims[max(i - 1, 0)],
                dim,
                i > 0,
                use_overlap_down,
                rates[i],
                norm_layer,
                mlp_ratio=mlp_ratio,
                focal_level=focal_levels[i],
                focal_window=focal_windows[i],
                use_post_norm=use_post_norm,
                use_post_norm_in_modulation=use_post_norm_in_modulation,
                normalize_modulator=normalize_modulator,
                layerscale_value=layerscale_value,
                proj_drop=proj_drop_rate,
            )
            layers.append(stage)
            self.feature_info.append(feature_map(f"layers.{i}", i + 1, dim, 4 << i))
        self.layers = nn.Sequential(*layers)
        pooling = {"pool_type": global_pool, "drop_rate": drop_rate}
        if head_hidden_size:
            pooling.update(hidden_size=head_hidden_size, norm_layer=norm_layer)
            self.norm = nn.Identity()
            self.head = NormMlpClassifierHead(self.num_features, num_classes, **pooling)
        else:
            self.norm = norm_layer(self.num_features)
            self.head = ClassifierHead(self.num_features, num_classes, **pooling)
        self.head_hidden_size = self.head.num_features
        init_truncated(self, (nn.Conv2D, nn.Linear), head_scale=head_init_scale)

    def group_matcher(self, coarse=False):
        """Return the patterns for ``group_with_matcher`` by block, or by stage if ``coarse``."""
        norm = (r"^norm", (99999,))
        blocks = [(r"^layers\.(\d+).downsample", (0,)), (r"^layers\.(\d+)\.\w+\.(\d+)", None), norm]
        return {"stem": r"^stem", "blocks": [(r"^layers\.(\d+)", None), norm] if coarse else blocks}


def checkpoint_filter_fn(state_dict, model):
    """Return the arrays of the paper's checkpoints under this net's names.

    Args:
        state_dict: arrays by PyTorch's names.
        model: the `FocalNet` that takes them.
    """
    if "stem.proj.weight" in state_dict:
        return state_dict
    shapes, renamed = dict(torch_names(model)), {}
    for name, value in state_dict.items():
        name = re.sub(r"gamma_([0-9])", r"ls\1.gamma", name).replace("patch_embed", "stem")
        name = re.sub(r"layers\.(\d+)\.downsample", lambda found: f"layers.{int(found[1]) + 1}.downsample", name)
        if "norm" in name and name not in shapes:
            name = re.sub(r"norm([0-9])", r"norm\1_post", name)
        name = name.replace("ln.", "norm.").replace("head", "head.fc")
        shape = shapes.get(name)
        fits = shape is not None and value.size == math.prod(shape)
        renamed[name] = value.reshape(shape) if fits else value
    return renamed


def _variant(embed_dim, depth, levels, **kwargs):
    return {"embed_dim": embed_dim, "depths": (2, 2, depth, 2), "focal_levels": (levels,) * 4, **kwargs}


_LARGE = {"use_post_norm": True, "use_overlap_down": True, "layerscale_value": 1e-4}
_WIDE = {**_LARGE, "focal_windows": (5, 5, 5, 5)}
_HUGE = {**_LARGE, "use_post_norm_in_modulation": True}

VARIANTS = {
    "focalnet_tiny_srf": _variant(96, 6, 2),
    "focalnet_small_srf": _variant(96, 18, 2),
    "focalnet_base_srf": _variant(128, 18, 2),
    "focalnet_tiny_lrf": _variant(96, 6, 3),
    "focalnet_small_lrf": _variant(96, 18, 3),
    "focalnet_base_lrf": _variant(128, 18, 3),
    "focalnet_large_fl3": _variant(192, 18, 3, **_WIDE),
    "focalnet_large_fl4": _variant(192, 18, 4, **_LARGE),
    "focalnet_xlarge_fl3": _variant(256, 18, 3, **_WIDE),
    "focalnet_xlarge_fl4": _variant(256, 18, 4, **_LARGE),
    "focalnet_huge_fl3": _variant(352, 18, 3, **_HUGE),
    "focalnet_huge_fl4": _variant(352, 18, 4, **_HUGE),
}


register_variants(VARIANTS, FocalNet)
