"""Vision transformers of feature maps of convolutional nets (https://arxiv.org/abs/2106.10270), and MobileCLIP's.

MobileCLIP: https://arxiv.org/abs/2311.17049.
"""

from __future__ import annotations

from functools import partial

from paddle import nn

from pimm.layers import ConvNormAct, HybridEmbed, StdConv2dSame
from pimm.models.factory import create_model
from pimm.models.registry import register_variants
from pimm.models.resnetv2 import ResNetV2, create_resnetv2_stem
from pimm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from pimm.models.vision_transformer_variants import named

__all__ = ["ConvStem", "checkpoint_filter_fn"]


class ConvStem(nn.Sequential):
    """Convolutions with normalisation and activation, of which the last has a bias in place of both.

    Args:
        in_chans: channels of images.
        channels: channels of each convolution.
        kernel_size, stride, padding: of each convolution.
        norm_layer: class of the normalisation.
        act_layer: class of the activation.
    """

    def __init__(self, in_chans, channels, kernel_size, stride, padding, norm_layer=nn.BatchNorm2D, act_layer=nn.ReLU):
        super().__init__()
        ends = len(channels) - 1
        for number, settings in enumerate(zip((in_chans, *channels), channels, kernel_size, stride, padding)):
            last = number == ends
            self.add_sublayer(
                str(number),
                ConvNormAct(
                    *settings,
                    bias=last,
                    apply_norm=not last,
                    apply_act=not last,
                    norm_layer=norm_layer,
                    act_layer=act_layer,
                ),
            )


def _bit(layers, in_chans):
    """Return BiT's ResNetV2 of these numbers of blocks, or its stem alone, with TensorFlow's padding."""
    settings = {"stem_type": "same", "preact": False, "conv_layer": partial(StdConv2dSame, eps=1e-8)}
    if not layers:
        return create_resnetv2_stem(in_chans, **settings)[0]
    channels = tuple(256 << stage for stage in range(len(layers)))
    return ResNetV2(layers, channels, num_classes=0, global_pool="", in_chans=in_chans, **settings)


def _bit_embed(layers):
    ratio = 2 ** (len(layers) + 1) if layers else 4
    return partial(_bit, layers), {"feature_ratio": ratio, "feature_dim": 64 * ratio if layers else 64}


def _resnet_embed(name, stages):
    """Return a function that creates the first stages of a ResNet, and the arguments of `HybridEmbed` for them."""

    def create(in_chans):
        return create_model(name, features_only=True, out_indices=[stages], in_chans=in_chans)

    return create, {"feature_ratio": 2 ** (stages + 1), "feature_dim": 128 * 2**stages}


def _mobileclip(in_chans):
    sizes = (4, 2, 2)
    return ConvStem(in_chans, (192, 192, 768), sizes, sizes, (0, 0, 0), act_layer=nn.GELU)


_R26, _R50 = _bit_embed((2, 2, 2, 2)), _bit_embed((3, 4, 6, 3))
_MOBILECLIP = _mobileclip, {"feature_ratio": 16, "feature_dim": 768, "proj": False}
_SMALL = {"embed_dim": 768, "depth": 8, "num_heads": 8, "mlp_ratio": 3}

VARIANTS = {
    **named("vit_tiny_r_s16_p8_224 vit_tiny_r_s16_p8_384", backbone=_bit_embed(()), patch_size=8),
    **named("vit_small_r26_s32_224 vit_small_r26_s32_384 vit_base_r26_s32_224", backbone=_R26, patch_size=1),
    **named("vit_base_r50_s16_224 vit_base_r50_s16_384", backbone=_bit_embed((3, 4, 9)), patch_size=1),
    **named("vit_large_r50_s32_224 vit_large_r50_s32_384", backbone=_R50, patch_size=1),
    **named("vit_small_resnet26d_224", backbone=_resnet_embed("resnet26d", 4), patch_size=1, **_SMALL),
    **named("vit_small_resnet50d_s16_224", backbone=_resnet_embed("resnet50d", 3), patch_size=1, **_SMALL),
    **named("vit_base_resnet26d_224", backbone=_resnet_embed("resnet26d", 4), patch_size=1),
    **named("vit_base_resnet50d_224", backbone=_resnet_embed("resnet50d", 4), patch_size=1),
    **named("vit_base_mci_224", backbone=_MOBILECLIP, patch_size=1, no_embed_class=True),
}


def _create(variant, **kwargs):
    arguments = {**variant, **kwargs}
    create, settings = arguments.pop("backbone")
    backbone = create(in_chans=arguments.get("in_chans", 3))
    arguments.setdefault("embed_layer", partial(HybridEmbed, backbone, **settings))
    return VisionTransformer(**arguments)


register_variants(VARIANTS, _create)
