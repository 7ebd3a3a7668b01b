"""Layers that image networks are made of, with timm's names and arguments."""

from pimm.layers import activations
from pimm.layers.activations import *  # noqa: F403
from pimm.layers.attention import Attention, attend
from pimm.layers.attention2d import Attention2d, MultiQueryAttention2d
from pimm.layers.attention_pool import AttentionPoolLatent, AttentionPoolPrr
from pimm.layers.attention_pool2d import AttentionPool2d
from pimm.layers.batch_norm_1d import BatchNorm1d
from pimm.layers.blur_pool import BlurPool2d, create_aa, get_aa_layer
from pimm.layers.cbam import CbamModule, LightCbamModule
from pimm.layers.classifier import ClassifierHead, ClNormMlpClassifierHead, NormMlpClassifierHead, create_classifier
from pimm.layers.conv import CondConv2d, Conv2d, Conv2dSame, MixedConv2d, create_conv2d
from pimm.layers.conv_norm_act import ConvNormAct, ConvNormActAa
from pimm.layers.coord_attn import CoordAttn, EfficientLocalAttn, SimpleCoordAttn, StripAttn
from pimm.layers.create_act import create_act_layer, get_act_fn, get_act_layer
from pimm.layers.create_attn import create_attn, get_attn
from pimm.layers.create_norm_act import create_norm_act_layer, get_norm_act_layer
from pimm.layers.diff_attention import DiffAttention, DifferenceOfAttentions
from pimm.layers.drop import DropPath, calculate_drop_path_rates, drop_path
from pimm.layers.drop_block import DropBlock2d, drop_block_2d
from pimm.layers.eca import CecaModule, EcaModule
from pimm.layers.evo_norm import (
    EvoNorm2dB0,
    EvoNorm2dB1,
    EvoNorm2dB2,
    EvoNorm2dS0,
    EvoNorm2dS0a,
    EvoNorm2dS1,
    EvoNorm2dS1a,
    EvoNorm2dS2,
    EvoNorm2dS2a,
    FilterResponseNormAct2d,
    FilterResponseNormTlu2d,
)
from pimm.layers.fusible import BnLinear, ConvBn, LinearBn
from pimm.layers.global_context import GatherExcite, GlobalContext
from pimm.layers.grn import GlobalResponseNorm
from pimm.layers.helpers import make_divisible, to_2tuple, to_pair
from pimm.layers.hybrid_embed import HybridEmbed
from pimm.layers.layer_norm import (
    GroupNorm,
    GroupNorm1,
    LayerNorm,
    LayerNorm2d,
    LayerNorm2dFp32,
    LayerNormFp32,
    RmsNorm,
    RmsNorm2d,
    RmsNorm2dFp32,
    RmsNormFp32,
    SimpleNorm,
    SimpleNorm2d,
    SimpleNorm2dFp32,
    SimpleNormFp32,
    create_norm_layer,
    get_norm_layer,
)
from pimm.layers.layer_scale import LayerScale, LayerScale2d
from pimm.layers.linear import Linear
from pimm.layers.mlp import ConvMlp, GatedMlp, GlobalResponseNormMlp, GluMlp, Mlp, SwiGLU, SwiGLUPacked
from pimm.layers.non_local_attn import BatNonLocalAttn, NonLocalAttn
from pimm.layers.norm import (
    BatchNorm2d,
    SyncBatchNorm2d,
    convert_sync_batchnorm,
    frozen_batch_norm_statistics,
    norm_act,
)
from pimm.layers.norm_and_act import (
    BatchNormAct2d,
    GroupNorm1Act,
    GroupNormAct,
    LayerNormAct,
    LayerNormAct2d,
    RmsNormAct,
    RmsNormAct2d,
)
from pimm.layers.padding import get_padding, get_padding_value, get_same_padding, is_static_pad, pad_same
from pimm.layers.patch_dropout import PatchDropout, PatchDropoutWithIndices
from pimm.layers.patch_embed import PatchEmbed, nchw_to, resample_patch_embed
from pimm.layers.pool import AvgPool2dSame, MaxPool2dSame, SelectAdaptivePool2D, SelectAdaptivePool2d, create_pool2d
from pimm.layers.pos_embed import resample_abs_pos_embed, resample_abs_pos_embed_nhwc
from pimm.layers.pos_embed_rel import (
    DistanceBias,
    RelPosBias,
    RelPosBiasTf,
    RelPosMlp,
    gen_relative_log_coords,
    gen_relative_position_index,
    num_relative_distances,
    resize_bias_table,
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
from pimm.layers.se_module import EffectiveSEModule, SEModule, SqueezeExciteCl
from pimm.layers.selective_kernel import SelectiveKernel
from pimm.layers.separable_conv import SeparableConvNormAct
from pimm.layers.split_attn import SplitAttn
from pimm.layers.squeeze_excite import SqueezeExcite
from pimm.layers.std_conv import ScaledStdConv2d, ScaledStdConv2dSame, StdConv2d, StdConv2dSame
from pimm.layers.weight_init import constant_, lecun_normal_, normal_, ones_, trunc_normal_, trunc_normal_tf_, zeros_

__all__ = [
    "SeparableConvNormAct",
    *activations.__all__,
    "Attention",
    "Attention2d",
    "AttentionPool2d",
    "AttentionPoolLatent",
    "AttentionPoolPrr",
    "AvgPool2dSame",
    "BatNonLocalAttn",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNormAct2d",
    "BlurPool2d",
    "BnLinear",
    "CbamModule",
    "CecaModule",
    "ClNormMlpClassifierHead",
    "ClassifierHead",
    "CondConv2d",
    "Conv2d",
    "Conv2dSame",
    "ConvBn",
    "ConvMlp",
    "ConvNormAct",
    "ConvNormActAa",
    "CoordAttn",
    "DiffAttention",
    "DifferenceOfAttentions",
    "HybridEmbed",
    "DistanceBias",
    "DropBlock2d",
    "DropPath",
    "EcaModule",
    "EffectiveSEModule",
    "EfficientLocalAttn",
    "EvoNorm2dB0",
    "EvoNorm2dB1",
    "EvoNorm2dB2",
    "EvoNorm2dS0",
    "EvoNorm2dS0a",
    "EvoNorm2dS1",
    "EvoNorm2dS1a",
    "EvoNorm2dS2",
    "EvoNorm2dS2a",
    "FilterResponseNormAct2d",
    "FilterResponseNormTlu2d",
    "GatedMlp",
    "GatherExcite",
    "GlobalContext",
    "GlobalResponseNorm",
    "GlobalResponseNormMlp",
    "GluMlp",
    "GroupNorm",
    "GroupNorm1",
    "GroupNorm1Act",
    "GroupNormAct",
    "LayerNorm",
    "LayerNorm2d",
    "LayerNorm2dFp32",
    "LayerNormAct",
    "LayerNormAct2d",
    "LayerNormFp32",
    "LayerScale",
    "LayerScale2d",
    "LightCbamModule",
    "Linear",
    "LinearBn",
    "MaxPool2dSame",
    "MixedConv2d",
    "Mlp",
    "MultiQueryAttention2d",
    "NonLocalAttn",
    "NormMlpClassifierHead",
    "PatchDropout",
    "PatchDropoutWithIndices",
    "PatchEmbed",
    "QUANTED_LAYERS",
    "RelPosBias",
    "RelPosBiasTf",
    "RelPosMlp",
    "RmsNorm",
    "RmsNorm2d",
    "RmsNorm2dFp32",
    "RmsNormAct",
    "RmsNormAct2d",
    "RmsNormFp32",
    "RotaryEmbeddingCat",
    "RotaryEmbeddingDinoV3",
    "RotaryEmbeddingMRope",
    "RotaryEmbeddingMixed",
    "SEModule",
    "ScaledStdConv2d",
    "ScaledStdConv2dSame",
    "SelectAdaptivePool2D",
    "SelectAdaptivePool2d",
    "SelectiveKernel",
    "SimpleCoordAttn",
    "SimpleNorm",
    "SimpleNorm2d",
    "SimpleNorm2dFp32",
    "SimpleNormFp32",
    "SplitAttn",
    "SqueezeExcite",
    "SqueezeExciteCl",
    "StdConv2d",
    "StdConv2dSame",
    "StripAttn",
    "SwiGLU",
    "SwiGLUPacked",
    "SyncBatchNorm2d",
    "apply_keep_indices_nlc",
    "apply_rot_embed_cat",
    "attend",
    "calculate_drop_path_rates",
    "constant_",
    "convert_sync_batchnorm",
    "create_aa",
    "create_act_layer",
    "create_attn",
    "create_classifier",
    "create_conv2d",
    "create_norm_act_layer",
    "create_norm_layer",
    "create_pool2d",
    "create_rope_embed",
    "drop_block_2d",
    "drop_path",
    "freq_bands",
    "frozen_batch_norm_statistics",
    "gen_relative_log_coords",
    "gen_relative_position_index",
    "get_aa_layer",
    "get_act_fn",
    "get_act_layer",
    "get_attn",
    "get_norm_act_layer",
    "get_norm_layer",
    "get_padding",
    "get_padding_value",
    "get_same_padding",
    "is_static_pad",
    "lecun_normal_",
    "make_divisible",
    "nchw_to",
    "norm_act",
    "normal_",
    "num_relative_distances",
    "ones_",
    "pad_same",
    "pixel_freq_bands",
    "resample_abs_pos_embed",
    "resample_abs_pos_embed_nhwc",
    "resample_patch_embed",
    "resize_bias_table",
    "resize_rel_pos_bias_table",
    "to_2tuple",
    "to_pair",
    "trunc_normal_",
    "trunc_normal_tf_",
    "zeros_",
]
