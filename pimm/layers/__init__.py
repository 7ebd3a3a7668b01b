"""Layers that image networks are made of, with timm's names and arguments."""

from pimm.layers import activations
from pimm.layers.activations import *  # noqa: F403
from pimm.layers.attention2d import Attention2d, MultiQueryAttention2d
from pimm.layers.conv import CondConv2d, Conv2d, Conv2dSame, MixedConv2d, create_conv2d
from pimm.layers.create_act import get_act_fn, get_act_layer
from pimm.layers.drop import DropPath, drop_path
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
from pimm.layers.quantize import QUANTED_LAYERS
from pimm.layers.squeeze_excite import SqueezeExcite


__all__ = [
    *activations.__all__,
    "QUANTED_LAYERS",
    "Attention2d",
    "AvgPool2dSame",
    "BatchNorm2d",
    "CondConv2d",
    "Conv2d",
    "Conv2dSame",
    "DropPath",
    "Linear",
    "MaxPool2dSame",
    "MixedConv2d",
    "MultiQueryAttention2d",
    "SelectAdaptivePool2D",
    "SelectAdaptivePool2d",
    "SqueezeExcite",
    "SyncBatchNorm2d",
    "convert_sync_batchnorm",
    "create_conv2d",
    "create_pool2d",
    "drop_path",
    "frozen_batch_norm_statistics",
    "get_act_fn",
    "get_act_layer",
    "get_padding",
    "get_padding_value",
    "get_same_padding",
    "is_static_pad",
    "make_divisible",
    "norm_act",
    "pad_same",
]
