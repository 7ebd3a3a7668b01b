"""MambaOut (https://arxiv.org/abs/2405.07992), with the names, state names and numbers of timm.

Feature maps inside the net are [N, H, W, C].
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import paddle
from paddle import nn

from pimm.errors import ConfigError
from pimm.layers import (
    ClNormMlpClassifierHead,
    Conv2d,
    DropPath,
    LayerNorm,
    LayerScale,
    Linear,
    calculate_drop_path_rates,
    get_act_layer,
)
from pimm.models.features import feature_map
from pimm.models.headed import StagedModel
from pimm.models.initial_values import init_truncated
from pimm.models.recompute import checkpoint_seq
from pimm.models.registry import register_variants


def _channels_first(x):
    return x.transpose([0, 3, 1, 2])


def _channels_last(x):
    return x.transpose([0, 2, 3, 1])


class Stem(nn.Layer):
    """Apply two convolutions of stride 2: [N, in_chs, H, W] becomes [N, H / 4, W / 4, out_chs]."""

    def __init__(self, in_chs, out_chs, mid_norm, act_layer, norm_layer):
        super().__init__()
        self.conv1 = Conv2d(in_chs, out_chs // 2, 3, 2, 1)
        self.norm1 = norm_layer(out_chs // 2) if mid_norm else None
        self.act = act_layer()
        self.conv2 = Conv2d(out_chs // 2, out_chs, 3, 2, 1)
        self.norm2 = norm_layer(out_chs)

    def forward(self, x):
        x = self.conv1(x)
        if self.norm1 is not None:
            x = _channels_first(self.norm1(_channels_last(x)))
        return self.norm2(_channels_last(self.conv2(self.act(x))))


class DownsampleNormFirst(nn.Layer):
    """Normalise, and apply a convolution of stride 2."""

    def __init__(self, in_chs, out_chs, norm_layer):
        super().__init__()
        self.norm = norm_layer(in_chs)
        self.conv = Conv2d(in_chs, out_chs, 3, 2, 1)

    def forward(self, x):
        return _channels_last(self.conv(_channels_first(self.norm(x))))


class Downsample(nn.Layer):
    """Apply a convolution of stride 2, and normalise."""

    def __init__(self, in_chs, out_chs, norm_layer):
        super().__init__()
        self.conv = Conv2d(in_chs, out_chs, 3, 2, 1)
        self.norm = norm_layer(out_chs)

    def forward(self, x):
        return self.norm(_channels_last(self.conv(_channels_first(x))))


_DOWNSAMPLES = {"conv": Downsample, "conv_nf": DownsampleNormFirst}


class MlpHead(nn.Layer):
    """Pool, normalise, and classify by two fully connected layers, with an activation and a normalisation between them.

    Args:
        in_features: channels of the feature maps.
        num_classes: classes; 0 for the input of the classifier.
        pool_type: ``avg``, or ``""`` for none.
        act_layer: class of the activation.
        norm_layer: class of the normalisations.
        drop_rate: dropout before the classifier.

    Raises:
        ConfigError: for another pooling.
    """

    def __init__(self, in_features, num_classes, pool_type, act_layer=nn.GELU, norm_layer=LayerNorm, drop_rate=0.0):
        super().__init__()
        self.pool_type, self.in_features = _checked(pool_type), in_features
        self.num_features = 4 * in_features
        self.norm = norm_layer(in_features)
        hidden = Linear(in_features, self.num_features)
        self.pre_logits = nn.Sequential(("fc", hidden), ("act", act_layer()), ("norm", norm_layer(self.num_features)))
        self.fc = Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        self.head_dropout = nn.Dropout(drop_rate)

    def reset(self, num_classes, pool_type=None, reset_other=False, in_features=None):
        """Replace the classifier.

        Args:
            num_classes: classes; 0 for the input of the classifier.
            pool_type: ``avg``, or ``""`` for none; None keeps the pooling.
            reset_other: whether to take out the other layers too.
            in_features: channels of the feature maps; others than before need ``reset_other``.

        Raises:
            ConfigError: for another pooling, and for other channels while the first normalisation is there.
        """
        self.pool_type = self.pool_type if pool_type is None else _checked(pool_type)
        if reset_other:
            self.norm, self.pre_logits = nn.Identity(), nn.Identity()
            self.num_features = self.in_features
        if in_features not in (None, self.in_features):
            if not isinstance(self.norm, nn.Identity):
                raise ConfigError("the head takes other channels after reset_other alone, which takes out its layers")
            self.in_features = self.num_features = in_features
        self.fc = Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        self.fc.train() if self.training else self.fc.eval()

    def forward(self, x, pre_logits=False):
        x = x.mean([1, 2]) if self.pool_type else x
        x = self.head_dropout(self.pre_logits(self.norm(x)))
        return x if pre_logits else self.fc(x)


def _checked(pool_type):
    if pool_type not in ("", "avg"):
        raise ConfigError(f"global_pool is {pool_type!r:.80}; valid are 'avg', and '' for none")
    return pool_type


class GatedConvBlock(nn.Layer):
    """Mix pixels of some channels by a depthwise convolution, and multiply by a gate.

    Args:
        dim: channels.
        expansion_ratio: channels inside for each channel.
        kernel_size: of the convolution.
        conv_ratio: channels that the convolution mixes for each channel.
        ls_init_value: initial factor of the branch; None for no factor.
        norm_layer: class of the normalisation.
        act_layer: class of the activation.
        drop_path: stochastic depth.
    """

    def __init__(self, dim, expansion_ratio, kernel_size, conv_ratio, ls_init_value, norm_layer, act_layer, drop_path):
        super().__init__()
        hidden, mixed = int(expansion_ratio * dim), int(conv_ratio * dim)
        self.split_indices = [hidden, hidden - mixed, mixed]
        self.norm = norm_layer(dim)
        self.fc1 = Linear(dim, hidden * 2)
        self.act = act_layer()
        self.conv = Conv2d(mixed, mixed, kernel_size, padding=kernel_size // 2, groups=mixed)
        self.fc2 = Linear(hidden, dim)
        self.ls = nn.Identity() if ls_init_value is None else LayerScale(dim)  # timm does not hand on the value
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x):
        gate, kept, mixed = paddle.split(self.fc1(self.norm(x)), self.split_indices, axis=-1)
        mixed = _channels_last(self.conv(_channels_first(mixed)))
        out = self.fc2(self.act(gate) * paddle.concat([kept, mixed], axis=-1))
        return self.drop_path(self.ls(out)) + x


class MambaOutStage(nn.Layer):
    """Halve the feature maps, except in the first stage, and apply blocks."""

    grad_checkpointing = False

    def __init__(self, blocks, downsample):
        super().__init__()
        self.downsample = downsample or nn.Identity()
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x):
        x = self.downsample(x)
        return checkpoint_seq(self.blocks, x) if self.grad_checkpointing else self.blocks(x)


class MambaOut(StagedModel):
    """Classify images with a MambaOut.

    Args:
        in_chans: channels of the images.
        num_classes: classes; 0 for a net that returns the input of the classifier.
        global_pool: pooling of the head.
        depths: blocks of each stage.
        dims: channels of each stage.
        norm_layer: class of the normalisations.
        act_layer: class or name of the activations.
        conv_ratio: channels that the convolutions mix for each channel.
        expansion_ratio: channels inside a block for each channel.
        kernel_size: of the depthwise convolutions.
        stem_mid_norm: whether the stem normalises between its convolutions.
        ls_init_value: whether branches have a learned factor; None for none.
        downsample: ``conv`` to normalise after a convolution of stride 2, ``conv_nf`` to do so before.
        drop_path_rate: stochastic depth of the last block; it grows linearly over the blocks.
        drop_rate: dropout before the classifier.
        head_fn: ``default``, or ``norm_mlp`` for a head that normalises once.

    Raises:
        ConfigError: for another ``downsample``.
    """

    norm_name = ""
    axes = output_fmt = "NHWC"

    def __init__(
        self,
        in_chans=3,
        num_classes=1000,
        global_pool="avg",
        depths: Sequence[int] = (3, 3, 9, 3),
        dims: Sequence[int] = (96, 192, 384, 576),
        norm_layer=LayerNorm,
        act_layer=nn.GELU,
        conv_ratio=1.0,
        expansion_ratio=8 / 3,
        kernel_size=7,
        stem_mid_norm=True,
        ls_init_value=None,
        downsample="conv",
        drop_path_rate=0.0,
        drop_rate=0.0,
        head_fn="default",
    ):
        super().__init__()
        if downsample not in _DOWNSAMPLES:
            raise ConfigError(f"downsample is {downsample!r:.80}; valid are {', '.join(_DOWNSAMPLES)}")
        self.in_chans, self.num_classes, self.drop_rate = in_chans, num_classes, drop_rate
        act_layer = get_act_layer(act_layer) if isinstance(act_layer, str) else act_layer
        self.stem = Stem(in_chans, dims[0], stem_mid_norm, act_layer, norm_layer)
        rates, stages, self.feature_info = calculate_drop_path_rates(drop_path_rate, depths, stagewise=True), [], []
        for number, dim in enumerate(dims):
            shared = (dim, expansion_ratio, kernel_size, conv_ratio, ls_init_value, norm_layer, act_layer)
            halve = _DOWNSAMPLES[downsample](dims[number - 1], dim, norm_layer) if number else None
            stages.append(MambaOutStage([GatedConvBlock(*shared, rate) for rate in rates[number]], halve))
            self.feature_info.append(feature_map(f"stages.{number}", number + 1, dim, 4 * 2**number))
        self.stages = nn.Sequential(*stages)
        self.num_features = dim
        pooling = {"pool_type": global_pool, "norm_layer": norm_layer, "drop_rate": drop_rate}
        if head_fn == "default":
            self.head = MlpHead(dim, num_classes, **pooling)
        else:
            self.head = ClNormMlpClassifierHead(dim, num_classes, hidden_size=dim * 4, **pooling)
        self.head_hidden_size = self.head.num_features
        init_truncated(self, (nn.Conv2D, nn.Linear))

    def group_matcher(self, coarse=False):
        """Return the patterns of the parameters' names by depth, of stages or of blocks."""
        blocks = [(r"^stages\.(\d+)\.downsample", (0,)), (r"^stages\.(\d+)\.blocks\.(\d+)", None)]
        return {"stem": r"^stem", "blocks": r"^stages\.(\d+)" if coarse else blocks}


_HEAD_NAMES = (("head.norm.", "head.pre_logits.norm."), ("head.fc1.", "head.pre_logits.fc."), ("head.fc2.", "head.fc."))


def checkpoint_filter_fn(state_dict, model):
    """Return weights under timm's names for those of the authors' files; others stay as they are."""
    if "stem.conv1.weight" in state_dict:
        return state_dict
    return {_own_name(name): value for name, value in state_dict.items()}


def _own_name(name):
    name = name.replace("downsample_layers.0.", "stem.")
    name = re.sub(r"stages.(\d+).(\d+)", r"stages.\1.blocks.\2", name)
    name = re.sub(r"downsample_layers.(\d+)", r"stages.\1.downsample", name)
    if name.startswith("norm."):
        return f"head.{name}"
    for theirs, ours in _HEAD_NAMES:
        name = name.replace(theirs, ours)
    return name


_RW = {"stem_mid_norm": False, "downsample": "conv_nf", "ls_init_value": 1e-6, "head_fn": "norm_mlp"}
_BASE = {"dims": (128, 256, 512, 768), **_RW}

VARIANTS = {
    "mambaout_femto": {"depths": (3, 3, 9, 3), "dims": (48, 96, 192, 288)},
    "mambaout_kobe": {"depths": (3, 3, 15, 3), "dims": (48, 96, 192, 288)},
    "mambaout_tiny": {},
    "mambaout_small": {"depths": (3, 4, 27, 3)},
    "mambaout_base": {"depths": (3, 4, 27, 3), "dims": (128, 256, 512, 768)},
    "mambaout_small_rw": {"depths": (3, 4, 27, 3), **_RW},
    "mambaout_base_short_rw": {"depths": (3, 3, 25, 3), "expansion_ratio": 3.0, "conv_ratio": 1.25, **_BASE},
    "mambaout_base_tall_rw": {"depths": (3, 4, 30, 3), "expansion_ratio": 2.5, "conv_ratio": 1.25, **_BASE},
    "mambaout_base_wide_rw": {
        "depths": (3, 4, 27, 3),
        "expansion_ratio": 3.0,
        "conv_ratio": 1.5,
        "act_layer": "silu",
        **_BASE,
    },
    "mambaout_base_plus_rw": {
        "depths": (3, 4, 30, 3),
        "expansion_ratio": 3.0,
        "conv_ratio": 1.5,
        "act_layer": "silu",
        **_BASE,
    },
    "test_mambaout": {
        **_RW,
        "depths": (1, 1, 3, 1),
        "dims": (16, 32, 48, 64),
        "expansion_ratio": 3,
        "act_layer": "silu",
        "ls_init_value": 1e-4,
    },
}


register_variants(VARIANTS, MambaOut)
