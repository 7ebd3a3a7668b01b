"""The settings of CoAtNet, MaxViT and their mixtures, and the table of all variants; names and numbers are timm's."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

from pimm.errors import ConfigError
from pimm.layers import to_pair
from pimm.messages import did_you_mean


@dataclass(frozen=True)
class MaxxVitTransformerCfg:
    """Settings of the blocks with attention.

    Attributes:
        dim_head: channels of a head.
        head_first: whether queries, keys and values lie side by side for each head, instead of all queries first;
            for attention in windows and grids.
        expand_ratio: hidden channels for each channel.
        expand_first: whether attention has the channels of the output, instead of those of the input.
        shortcut_bias: whether the convolution of a shortcut has a bias.
        attn_bias: whether the layers of attention have a bias.
        attn_drop, proj_drop: dropout of the attention and of linear layers.
        pool_type: pooling that shrinks the image: ``max``, ``max2``, ``avg`` or ``avg2``.
        rel_pos_type: bias of relative positions: ``bias``, ``bias_tf`` or ``mlp``; another word for none.
        rel_pos_dim: hidden channels of ``mlp``.
        partition_ratio: pixels of an image for each window along a side, if ``window_size`` is None.
        window_size, grid_size: sizes of windows and grids, in pixels of the feature map.
        no_block_attn: whether there is no attention in windows, but in grids alone.
        init_values: initial value of the layer scales; None for no layer scale.
        act_layer, norm_layer, norm_layer_cl: names of the activations and of normalisation, [N, C, H, W] and
            [N, H, W, C].
        norm_eps: number that the normalisation adds to the variance.
    """

    dim_head: int = 32
    head_first: bool = True
    expand_ratio: float = 4.0
    expand_first: bool = True
    shortcut_bias: bool = True
    attn_bias: bool = True
    attn_drop: float = 0.0
    proj_drop: float = 0.0
    pool_type: str = "avg2"
    rel_pos_type: str = "bias"
    rel_pos_dim: int = 512
    partition_ratio: int = 32
    window_size: tuple[int, int] | None = None
    grid_size: tuple[int, int] | None = None
    no_block_attn: bool = False
    init_values: float | None = None
    act_layer: str = "gelu"
    norm_layer: str = "layernorm2d"
    norm_layer_cl: str = "layernorm"
    norm_eps: float = 1e-6

    def with_windows(self, img_size):
        """Return these settings with sizes of windows and grids, for images of a size."""
        default = tuple(side // self.partition_ratio for side in img_size)
        window_size = to_pair(self.window_size or default)
        return replace(self, window_size=window_size, grid_size=to_pair(self.grid_size or window_size))


@dataclass(frozen=True)
class MaxxVitConvCfg:
    """Settings of the blocks of convolutions.

    Attributes:
        block_type: ``mbconv`` or ``convnext``.
        expand_ratio: hidden channels for each channel.
        expand_output: whether hidden channels are counted from the output's, instead of the input's; for ``mbconv``.
        kernel_size: size of the kernels of ``mbconv``.
        group_size: channels of a group of the convolution in the middle; 0 for one group.
        pre_norm_act: whether an activation follows the first normalisation.
        output_bias: whether the last convolution, and that of the shortcut, have a bias.
        stride_mode: what shrinks the image: ``pool``, the first convolution ``1x1``, or the middle one ``dw``.
        pool_type: pooling of the shortcut, as in `MaxxVitTransformerCfg`.
        downsample_pool_type: pooling of the stride mode ``pool``.
        padding: padding of the convolutions; ``same`` for TensorFlow's.
        attn_early: whether the channel attention comes before the normalisation.
        attn_layer: name of the channel attention.
        attn_act_layer: name of the activation inside of the channel attention.
        attn_ratio: channels inside of the channel attention for each channel.
        init_values: initial value of the layer scale of ``convnext``; None for no layer scale.
        act_layer: name of the activations.
        norm_layer: name of the normalisation; "" for the one of the block's type.
        norm_eps: number that the normalisation adds to the variance; None for that of the block's type.
    """

    block_type: str = "mbconv"
    expand_ratio: float = 4.0
    expand_output: bool = True
    kernel_size: int = 3
    group_size: int = 1
    pre_norm_act: bool = False
    output_bias: bool = True
    stride_mode: str = "dw"
    pool_type: str = "avg2"
    downsample_pool_type: str = "avg2"
    padding: str = ""
    attn_early: bool = False
    attn_layer: str = "se"
    attn_act_layer: str = "silu"
    attn_ratio: float = 0.25
    init_values: float | None = 1e-6
    act_layer: str = "gelu"
    norm_layer: str = ""
    norm_eps: float | None = None

    def __post_init__(self):
        if self.block_type not in _NORM_OF:
            raise ConfigError(f"conv_block_type is {self.block_type!r:.80}; valid are {', '.join(_NORM_OF)}")
        norm_layer, norm_eps = _NORM_OF[self.block_type]
        object.__setattr__(self, "norm_layer", self.norm_layer or norm_layer)
        object.__setattr__(self, "norm_eps", norm_eps if self.norm_eps is None else self.norm_eps)


_NORM_OF = {"mbconv": ("batchnorm2d", 1e-5), "convnext": ("layernorm2d", 1e-6)}  # by type of block


@dataclass(frozen=True)
class MaxxVitCfg:
    """Settings of a net.

    Attributes:
        embed_dim, depths: channels and number of blocks of each stage.
        block_type: type of each stage's blocks, or types, of which the last one is repeated: ``C`` convolutions,
            ``T`` attention of all pixels, ``M`` convolutions with attention in windows and grids, ``PM`` the same with
            both attentions side by side.
        stem_width: channels of the stem, or of its two convolutions.
        stem_bias: whether the convolutions of the stem have a bias.
        conv_cfg, transformer_cfg: settings of the blocks.
        head_hidden_size: width of a hidden layer before the classifier; None for no hidden layer.
        weight_init: initial values: ``vit_eff``, ``normal``, ``trunc_normal``, ``xavier_normal``, or "" for those of
            the layers.
    """

    embed_dim: tuple[int, ...] = (96, 192, 384, 768)
    depths: tuple[int, ...] = (2, 3, 5, 2)
    block_type: tuple = ("C", "C", "T", "T")
    stem_width: int | tuple[int, int] = 64
    stem_bias: bool = False
    conv_cfg: MaxxVitConvCfg = field(default_factory=MaxxVitConvCfg)
    transformer_cfg: MaxxVitTransformerCfg = field(default_factory=MaxxVitTransformerCfg)
    head_hidden_size: int | None = None
    weight_init: str = "vit_eff"

    def with_changes(self, **changes):
        """Return these settings with changes, of which ``conv_*`` and ``transformer_*`` are those of the blocks.

        Raises:
            ConfigError: for an unknown setting.
        """
        parts = {"conv_": self.conv_cfg, "transformer_": self.transformer_cfg}
        for prefix, part in parts.items():
            names = [name for name in changes if name.startswith(prefix)]
            own = {name[len(prefix) :]: changes.pop(name) for name in names if name not in _PARTS}
            parts[prefix] = _replace(part, own, prefix)
        return _replace(self, {"conv_cfg": parts["conv_"], "transformer_cfg": parts["transformer_"], **changes})


_PARTS = ("conv_cfg", "transformer_cfg")


def _replace(cfg, changes, prefix=""):
    known = [one.name for one in fields(cfg)]
    for name in changes:
        if name not in known:
            hint = did_you_mean(prefix + name, [prefix + one for one in known])
            raise ConfigError(f"MaxxVit has no argument {(prefix + name)!r:.80}{hint}")
    return replace(cfg, **changes)


def _rw_coat(conv=None, transformer=None, **kwargs):
    """Return the settings of a CoAtNet of timm's own."""
    conv_cfg = {"stride_mode": "pool", "pre_norm_act": True, "attn_act_layer": "relu", **(conv or {})}
    return _rw(conv_cfg, transformer, **kwargs)


def _rw_max(conv=None, transformer=None, **kwargs):
    """Return the settings of a MaxViT of timm's own."""
    return _rw({"attn_ratio": 1 / 16, **(conv or {})}, transformer, **kwargs)


def _rw(conv, transformer, **kwargs):
    conv_cfg = MaxxVitConvCfg(**{"expand_output": False, "output_bias": False, "act_layer": "silu", **conv})
    transformer_cfg = MaxxVitTransformerCfg(**{"expand_first": False, **(transformer or {})})
    return MaxxVitCfg(conv_cfg=conv_cfg, transformer_cfg=transformer_cfg, **kwargs)


def _next(conv_init=1e-6, transformer=None, **kwargs):
    """Return the settings of a net with blocks of ConvNeXt."""
    conv_cfg = MaxxVitConvCfg(block_type="convnext", expand_output=False, init_values=conv_init)
    own = {"expand_first": False, "init_values": 1e-6, "rel_pos_type": "mlp", **(transformer or {})}
    return MaxxVitCfg(conv_cfg=conv_cfg, transformer_cfg=MaxxVitTransformerCfg(**own), **kwargs)


def _tf(embed_dim, depths, stem_width):
    """Return the settings of a MaxViT of the paper's, which was trained with TensorFlow."""
    return MaxxVitCfg(
        embed_dim=embed_dim,
        depths=depths,
        block_type=("M",) * 4,
        stem_width=stem_width,
        stem_bias=True,
        head_hidden_size=embed_dim[-1],
        conv_cfg=MaxxVitConvCfg(norm_eps=1e-3, act_layer="gelu_tanh", padding="same"),
        transformer_cfg=MaxxVitTransformerCfg(
            norm_eps=1e-5, act_layer="gelu_tanh", head_first=False, rel_pos_type="bias_tf"
        ),
    )


def _size(width, depths, stem_width, block_type=None):
    dims = tuple(width << stage for stage in range(4))
    return {
        "embed_dim": dims,
        "depths": depths,
        "stem_width": stem_width,
        **({"block_type": block_type} if block_type else {}),
    }


_C = {  # sizes of CoAtNets
    "nano": _size(64, (3, 4, 6, 3), (32, 64)),
    "0": _size(96, (2, 3, 7, 2), (32, 64)),
    "1": _size(96, (2, 6, 14, 2), (32, 64)),
    "2": _size(128, (2, 6, 14, 2), (64, 128)),
    "3": _size(192, (2, 6, 14, 2), (96, 192)),
}
_M = {  # sizes of MaxViTs
    "pico": _size(32, (2, 2, 5, 2), (24, 32), ("M",) * 4),
    "nano": _size(64, (1, 2, 3, 1), (32, 64), ("M",) * 4),
    "tiny": _size(64, (2, 2, 5, 2), (32, 64), ("M",) * 4),
    "small": _size(96, (2, 2, 5, 2), (32, 64), ("M",) * 4),
    "base": _size(96, (2, 6, 14, 2), (32, 64), ("M",) * 4),
}
_BIASED = {"output_bias": True, "attn_ratio": 0.25}
_EARLY = {"attn_early": True}
_UNBIASED = {"shortcut_bias": False}
_DW = {"stride_mode": "dw"}
_DW_SILU = {"stride_mode": "dw", "attn_act_layer": "silu"}
_MLP = {"rel_pos_type": "mlp"}
_MAX_POOL = {"pool_type": "max"}
_GRID = {"no_block_attn": True}
_TEST = {"embed_dim": (32, 64, 96, 128), "stem_width": (16, 32)}

MODEL_CFGS = {
    "coatnet_pico_rw": _rw_max(_BIASED, **{**_C["nano"], "depths": (2, 3, 5, 2)}),
    "coatnet_nano_rw": _rw_max({"stride_mode": "pool", **_BIASED}, **_C["nano"]),
    "coatnet_0_rw": _rw_coat(_EARLY, _UNBIASED, **_C["0"]),
    "coatnet_1_rw": _rw_coat({**_DW, **_EARLY}, _UNBIASED, **_C["1"]),
    "coatnet_2_rw": _rw_coat(_DW_SILU, **_C["2"]),
    "coatnet_3_rw": _rw_coat(_DW_SILU, {"init_values": 1e-6}, **_C["3"]),
    "coatnet_bn_0_rw": _rw_coat({**_DW, **_EARLY}, {**_UNBIASED, "norm_layer": "batchnorm2d"}, **_C["0"]),
    "coatnet_rmlp_nano_rw": _rw_max(_BIASED, {**_MLP, "rel_pos_dim": 384}, **_C["nano"]),
    "coatnet_rmlp_0_rw": _rw_coat(_DW, _MLP, **_C["0"]),
    "coatnet_rmlp_1_rw": _rw_coat(
        {**_EARLY, **_MAX_POOL}, {**_UNBIASED, **_MAX_POOL, **_MLP, "rel_pos_dim": 384}, **_C["1"]
    ),
    "coatnet_rmlp_1_rw2": _rw_coat(_DW, _MLP, **_C["1"]),
    "coatnet_rmlp_2_rw": _rw_coat(_DW_SILU, {"init_values": 1e-6, **_MLP}, **_C["2"]),
    "coatnet_rmlp_3_rw": _rw_coat(_DW_SILU, {"init_values": 1e-6, **_MLP}, **_C["3"]),
    "coatnet_nano_cc": _rw_coat(**_C["nano"], block_type=("C", "C", ("C", "T"), ("C", "T"))),
    "coatnext_nano_rw": _next(1e-5, {"init_values": None, "rel_pos_type": "bias"}, weight_init="normal", **_C["nano"]),
    "coatnet_0": MaxxVitCfg(**_size(96, (2, 3, 5, 2), 64), head_hidden_size=768),
    "coatnet_1": MaxxVitCfg(**_size(96, (2, 6, 14, 2), 64), head_hidden_size=768),
    "coatnet_2": MaxxVitCfg(**_size(128, (2, 6, 14, 2), 128), head_hidden_size=1024),
    "coatnet_3": MaxxVitCfg(**_size(192, (2, 6, 14, 2), 192), head_hidden_size=1536),
    "coatnet_4": MaxxVitCfg(**_size(192, (2, 12, 28, 2), 192), head_hidden_size=1536),
    "coatnet_5": MaxxVitCfg((256, 512, 1280, 2048), (2, 12, 28, 2), stem_width=192, head_hidden_size=2048),
    "maxvit_pico_rw": _rw_max(**_M["pico"]),
    "maxvit_nano_rw": _rw_max(**_M["nano"]),
    "maxvit_tiny_rw": _rw_max(**_M["tiny"]),
    "maxvit_tiny_pm": _rw_max(**{**_M["tiny"], "block_type": ("PM",) * 4}),
    "maxvit_rmlp_pico_rw": _rw_max(transformer=_MLP, **_M["pico"]),
    "maxvit_rmlp_nano_rw": _rw_max(transformer=_MLP, **_M["nano"]),
    "maxvit_rmlp_tiny_rw": _rw_max(transformer=_MLP, **_M["tiny"]),
    "maxvit_rmlp_small_rw": _rw_max(transformer={**_MLP, "init_values": 1e-6}, **_M["small"]),
    "maxvit_rmlp_base_rw": _rw_max(transformer=_MLP, head_hidden_size=768, **_M["base"]),
    "maxxvit_rmlp_nano_rw": _next(weight_init="normal", **_M["nano"]),
    "maxxvit_rmlp_tiny_rw": _next(**_M["tiny"]),
    "maxxvit_rmlp_small_rw": _next(**{**_M["small"], "stem_width": (48, 96)}),
    "maxxvitv2_nano_rw": _next(
        transformer={**_GRID, "rel_pos_type": "bias"},
        weight_init="normal",
        **_size(96, (1, 2, 3, 1), (48, 96), ("M",) * 4),
    ),
    "maxxvitv2_rmlp_base_rw": _next(transformer=_GRID, **_size(128, (2, 6, 12, 2), (64, 128), ("M",) * 4)),
    "maxxvitv2_rmlp_large_rw": _next(
        transformer=_GRID, head_hidden_size=1280, **_size(160, (2, 6, 16, 2), (80, 160), ("M",) * 4)
    ),
    "maxvit_tiny_tf": _tf((64, 128, 256, 512), (2, 2, 5, 2), 64),
    "maxvit_small_tf": _tf((96, 192, 384, 768), (2, 2, 5, 2), 64),
    "maxvit_base_tf": _tf((96, 192, 384, 768), (2, 6, 14, 2), 64),
    "maxvit_large_tf": _tf((128, 256, 512, 1024), (2, 6, 14, 2), 128),
    "maxvit_xlarge_tf": _tf((192, 384, 768, 1536), (2, 6, 14, 2), 192),
    "test_maxvit": _rw_max(depths=(1, 1, 1, 1), block_type=("M",) * 4, **_TEST),
    "test_coatnet": _rw_max({"stride_mode": "pool", **_BIASED}, depths=(1, 1, 2, 1), **_TEST),
}

_OTHER_SIZES = {  # image sizes in names; others are 256 for ``maxvit`` and ``maxxvit``, and 224
    "coatnet_rmlp_2_rw": (224, 384),
    "maxvit_tiny_rw": (224, 256),
    "maxvit_rmlp_small_rw": (224, 256),
    "maxvit_rmlp_base_rw": (224, 384),
    "maxxvitv2_rmlp_base_rw": (224, 384),
    "maxxvitv2_rmlp_large_rw": (224,),
    **{f"maxvit_{size}_tf": (224, 384, 512) for size in ("tiny", "small", "base", "large", "xlarge")},
}


def _names(name):
    """Return the names of models with settings of this name: one for each image size."""
    if name.startswith("test_"):
        return [name]
    sizes = _OTHER_SIZES.get(name, (224,) if name.startswith("coat") else (256,))
    return [f"{name}_{size}" for size in sizes]


VARIANTS = {model: cfg for name, cfg in MODEL_CFGS.items() for model in _names(name)}
