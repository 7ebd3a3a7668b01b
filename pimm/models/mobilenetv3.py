"""MobileNet V3 (https://arxiv.org/abs/1905.02244) and nets with its head, with the names and numbers of timm.

``tf_`` variants pad and normalise as TensorFlow does; ``minimal`` variants have no gates, 5x5 kernels or hard swish.
"""

from paddle import nn

from pimm.layers import BatchNorm2d, SelectAdaptivePool2d, create_conv2d, norm_act
from pimm.models.efficientnet_blocks import BN_EPS_TF_DEFAULT, create_norm, resolve_bn_args, round_channels
from pimm.models.efficientnet_builder import EfficientNetBuilder, decode_arch_def, efficientnet_init_weights
from pimm.models.interface import ImageModel
from pimm.models.mobilenetv3_variants import VARIANTS
from pimm.models.registry import register_variants


class MobileNetV3(ImageModel):
    """Classify images with a stem, stages of mobile blocks and the efficient head.

    The efficient head pools first and then applies a convolution, without batch norm unless ``head_norm``. The
    attribute ``num_features`` counts the channels of the feature maps, ``head_hidden_size`` those of the head
    convolution, as in timm 1.x.

    Args:
        block_args: the blocks by stage, as `decode_arch_def` returns them.
        num_classes: classes; 0 for a net that returns the features of the head.
        in_chans: channels of the images.
        stem_size: channels of the stem, before the width multiplier.
        num_features: channels of the head convolution.
        head_bias: whether the head convolution has a bias.
        channel_multiplier: width multiplier.
        pad_type: padding of all convolutions, such as ``same``.
        act_layer: class of the activations.
        drop_rate: dropout before the classifier.
        drop_path_rate: stochastic depth of the last block; it grows linearly over the blocks.
        se_kwargs: arguments of the squeeze-and-excitation gates.
        norm_layer: class of the normalisation layers.
        norm_kwargs: arguments of the normalisation layers.
        global_pool: ``avg``, ``max``, ``avgmax``, ``catavgmax``, or without pooling ``""``.
        output_stride: product of all strides, beyond which strides become dilations: 8, 16 or 32.
        fix_stem: whether the stem keeps its width whatever the multiplier.
        head_norm: whether the head convolution is followed by a normalisation, and has no bias.
        round_limit: the least share of scaled channels that rounding keeps.
        aa_layer: layer that shrinks images in place of the strided convolutions of blocks, such as ``blurpc``.
        se_layer: class of the gates in place of `SqueezeExcite`, such as ``gc``.
        se_from_exp: whether a gate of ``se_layer`` derives its hidden channels from the expanded ones.
        layer_scale_init_value: first value of the scales of universal and attention blocks; None for no scale.
    """

    head_layers = ("conv_head", "norm_head", "act2")

    def __init__(
        self,
        block_args,
        num_classes=1000,
        in_chans=3,
        stem_size=16,
        num_features=1280,
        head_bias=True,
        channel_multiplier=1.0,
        pad_type="",
        act_layer=nn.ReLU,
        drop_rate=0.0,
        drop_path_rate=0.0,
        se_kwargs=None,
        norm_layer=BatchNorm2d,
        norm_kwargs=None,
        global_pool="avg",
        output_stride=32,
        fix_stem=False,
        head_norm=False,
        round_limit=0.9,
        aa_layer=None,
        se_layer=None,
        se_from_exp=True,
        layer_scale_init_value=None,
    ):
        super().__init__()
        self.in_chans, self.drop_rate = in_chans, drop_rate

        if not fix_stem:
            stem_size = round_channels(stem_size, channel_multiplier, round_limit=round_limit)
        self.conv_stem = create_conv2d(in_chans, stem_size, 3, stride=2, padding=pad_type)
        self.bn1, self.act1 = create_norm(stem_size, norm_layer, norm_kwargs, act_layer)

        builder = EfficientNetBuilder(
            channel_multiplier,
            8,
            None,
            output_stride,
            pad_type,
            act_layer,
            se_kwargs,
            norm_layer,
            norm_kwargs,
            drop_path_rate,
            round_limit,
            aa_layer,
            se_layer,
            se_from_exp,
            layer_scale_init_value,
        )
        self.blocks = nn.Sequential(*builder(stem_size, block_args))
        self.feature_info = builder.features
        self.num_features = builder.in_chs

        pooled = builder.in_chs * SelectAdaptivePool2d(pool_type=global_pool).feat_mult()
        bias = head_bias and not head_norm
        self.conv_head = create_conv2d(pooled, num_features, 1, padding=pad_type, bias=bias)
        self.norm_head, self.act2 = nn.Identity(), act_layer()
        if head_norm:
            self.norm_head, self.act2 = create_norm(num_features, norm_layer, norm_kwargs, act_layer)
        self.create_head(num_classes, global_pool, num_features)
        efficientnet_init_weights(self)

    def group_matcher(self, coarse=False):
        """Return the patterns for ``group_with_matcher`` by block, or by stage if ``coarse``."""
        blocks = r"^blocks\.(\d+)" if coarse else r"^blocks\.(\d+)\.(\d+)"
        return {"stem": r"^conv_stem|bn1", "blocks": blocks}

    def stem(self, x):  # [N, in_chans, H, W]
        """Return the input of the first stage."""
        return norm_act(self.conv_stem(x), self.bn1, self.act1)  # [N, stem_size, H / 2, W / 2]

    def pre_logits(self, x):
        """Return the output of the head convolution for pooled feature maps."""
        return norm_act(self.conv_head(x), self.norm_head, self.act2)  # [N, head_hidden_size, 1, 1]


def create_mobilenetv3(variant, **kwargs):
    """Create the net of a `pimm.models.mobilenetv3_variants.Variant` with further arguments of `MobileNetV3`."""
    if variant.tensorflow:
        kwargs = {"bn_eps": BN_EPS_TF_DEFAULT, "pad_type": "same", **kwargs}
    kwargs.setdefault("bn_eps", variant.bn_eps)
    arguments = {
        "block_args": decode_arch_def(variant.arch_def, variant.depth),
        "stem_size": variant.stem_size,
        "fix_stem": variant.fix_stem,
        "num_features": variant.num_features,
        "channel_multiplier": variant.width,
        "round_limit": variant.round_limit,
        "act_layer": variant.act_layer,
        "se_kwargs": variant.se_kwargs,
        "norm_kwargs": resolve_bn_args(kwargs),
        **variant.options,
    }
    return MobileNetV3(**{**arguments, **kwargs})


register_variants(VARIANTS, create_mobilenetv3)
