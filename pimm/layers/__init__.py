"""Layers that image networks are made of, with timm's names and arguments."""

from pimm.layers import activations
from pimm.layers.activations import *  # noqa: F403
from pimm.layers.conv import CondConv2d, Conv2d, Conv2dSame, MixedConv2d, create_conv2d
from pimm.layers.create_act import get_act_fn, get_act_layer
from pimm.layers.drop import DropPath, drop_path
from pimm.layers.fusible import BnLinear, ConvBn, LinearBn
from pimm.layers.helpers import make_divisible
from pimm.layers.linear import Linear
from pimm.layers.norm import (
    BatchNorm2d,
    SyncBatchNorm2d,
    convert_sync_batchnorm,
    frozen_batch_norm_statistics,
    norm_act,
)
from pimm.layers.padding import get_padding, get_padding_value, get_same_padding, is_static_pad, pad_same
from pimm.layers.pool import AvgPool2dSame, MaxPool2dSame, SelectAdaptivePool2D, SelectAdaptivePool2d, create_pool2d
from pimm.layers.pos_embed_rel import (
    DistanceBias,
    RelPosBias,
    RelPosBiasTf,
    RelPosMlp,
    gen_relative_log_coords,
    gen_relative_position_index,
    num_relative_distances,
    resize_rel_pos_bias_table,
)
from pimm.layers.pos_embed_sincos import apply_keep_indices_nlc, apply_rot_embed_cat, freq_bands, pixel_freq_bands
from pimm.layers.quantize import QUANTED_LAYERS
from pimm.layers.rotary_embed import (
    RotaryEmbeddingCat,
    RotaryEmbeddingDinoV3,
    RotaryEmbeddingMixed,
    RotaryEmbeddingMRope,
    create_rope_embed,
)
from pimm.layers.squeeze_excite import SqueezeExcite

__all__ = [
    *activations.__all__,
    "QUANTED_LAYERS",
    "AvgPool2dSame",
    "BatchNorm2d",
    "BnLinear",
    "CondConv2d",
    "Conv2d",
    "Conv2dSame",
    "ConvBn",
    "DistanceBias",
    "DropPath",
    "Linear",
    "LinearBn",
    "MaxPool2dSame",
    "MixedConv2d",
    "RelPosBias",
    "RelPosBiasTf",
    "RelPosMlp",
    "RotaryEmbeddingCat",
    "RotaryEmbeddingDinoV3",
    "RotaryEmbeddingMRope",
    "RotaryEmbeddingMixed",
    "SelectAdaptivePool2D",
    "SelectAdaptivePool2d",
    "SqueezeExcite",
    "SyncBatchNorm2d",
    "apply_keep_indices_nlc",
    "apply_rot_embed_cat",
    "convert_sync_batchnorm",
    "create_conv2d",
    "create_pool2d",
    "create_rope_embed",
    "drop_path",
    "freq_bands",
    "frozen_batch_norm_statistics",
    "gen_relative_log_coords",
    "gen_relative_position_index",
    "get_act_fn",
    "get_act_layer",
    "get_padding",
    "get_padding_value",
    "get_same_padding",
    "is_static_pad",
    "make_divisible",
    "norm_act",
    "num_relative_distances",
    "pad_same",
    "pixel_freq_bands",
    "resize_rel_pos_bias_table",
]
