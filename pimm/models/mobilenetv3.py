"""MobileNet V3 (https://arxiv.org/abs/1905.02244), with the names, state names and numbers of timm.

``tf_`` variants pad and normalise as TensorFlow does; ``minimal`` variants have no gates, 5x5 kernels or hard swish.
"""

from dataclasses import dataclass, field, replace
from typing import Optional

from paddle import nn

from pimm.layers import BatchNorm2d, HardSwish, SelectAdaptivePool2d, create_conv2d, hard_sigmoid, norm_act
from pimm.models.efficientnet_blocks import BN_EPS_TF_DEFAULT, resolve_bn_args, round_channels
from pimm.models.efficientnet_builder import EfficientNetBuilder, decode_arch_def, efficientnet_init_weights
from pimm.models.interface import ImageModel
from pimm.models.pretrained_cfg import default_cfg
from pimm.models.registry import register_variants


class MobileNetV3(ImageModel):
    """Classify images with a stem, stages of mobile blocks and the efficient head.

    The efficient head pools first and then applies a convolution without batch norm. The attribute ``num_features``
    counts the channels of the feature maps, ``head_hidden_size`` those of the head convolution, as in timm 1.x.

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
    """

    head_layers = ("conv_head", "act2")

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
    ):
        super().__init__()
        norm_kwargs = norm_kwargs or {}
        self.in_chans, self.drop_rate = in_chans, drop_rate

        stem_size = round_channels(stem_size, channel_multiplier)
        self.conv_stem = create_conv2d(in_chans, stem_size, 3, stride=2, padding=pad_type)
        self.bn1 = norm_layer(stem_size, **norm_kwargs)
        self.act1 = act_layer()

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
        )
        self.blocks = nn.Sequential(*builder(stem_size, block_args))
        self.feature_info = builder.features
        self.num_features = builder.in_chs

        pooled = builder.in_chs * SelectAdaptivePool2d(pool_type=global_pool).feat_mult()
        self.conv_head = create_conv2d(pooled, num_features, 1, padding=pad_type, bias=head_bias)
        self.act2 = act_layer()
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
        return self.act2(self.conv_head(x))  # [N, head_hidden_size, 1, 1]


_LARGE = [
    ["ds_r1_k3_s1_e1_c16_nre"],
    ["ir_r1_k3_s2_e4_c24_nre", "ir_r1_k3_s1_e3_c24_nre"],
    ["ir_r3_k5_s2_e3_c40_se0.25_nre"],
    ["ir_r1_k3_s2_e6_c80", "ir_r1_k3_s1_e2.5_c80", "ir_r2_k3_s1_e2.3_c80"],
    ["ir_r2_k3_s1_e6_c112_se0.25"],
    ["ir_r3_k5_s2_e6_c160_se0.25"],
    ["cn_r1_k1_s1_c960"],
]
_LARGE_NOSKIP = [["ds_r1_k3_s1_e1_c16_nre_noskip"], *_LARGE[1:]]
_LARGE_MINIMAL = [
    ["ds_r1_k3_s1_e1_c16"],
    ["ir_r1_k3_s2_e4_c24", "ir_r1_k3_s1_e3_c24"],
    ["ir_r3_k3_s2_e3_c40"],
    ["ir_r1_k3_s2_e6_c80", "ir_r1_k3_s1_e2.5_c80", "ir_r2_k3_s1_e2.3_c80"],
    ["ir_r2_k3_s1_e6_c112"],
    ["ir_r3_k3_s2_e6_c160"],
    ["cn_r1_k1_s1_c960"],
]
_SMALL = [
    ["ds_r1_k3_s2_e1_c16_se0.25_nre"],
    ["ir_r1_k3_s2_e4.5_c24_nre", "ir_r1_k3_s1_e3.67_c24_nre"],
    ["ir_r1_k5_s2_e4_c40_se0.25", "ir_r2_k5_s1_e6_c40_se0.25"],
    ["ir_r2_k5_s1_e3_c48_se0.25"],
    ["ir_r3_k5_s2_e6_c96_se0.25"],
    ["cn_r1_k1_s1_c576"],
]
_SMALL_MINIMAL = [
    ["ds_r1_k3_s2_e1_c16"],
    ["ir_r1_k3_s2_e4.5_c24", "ir_r1_k3_s1_e3.67_c24"],
    ["ir_r1_k3_s2_e4_c40", "ir_r2_k3_s1_e6_c40"],
    ["ir_r2_k3_s1_e3_c48"],
    ["ir_r3_k3_s2_e6_c96"],
    ["cn_r1_k1_s1_c576"],
]
_SE = {"act_layer": nn.ReLU, "gate_fn": hard_sigmoid, "reduce_mid": True, "divisor": 8}


@dataclass(frozen=True)
class _Variant:
    arch_def: list
    width: float = 1.0
    num_features: int = 1280
    act_layer: type = HardSwish
    interpolation: str = "bilinear"
    head_bias: bool = True
    bn_eps: Optional[float] = None
    se_kwargs: dict = field(default_factory=lambda: dict(_SE))
    tensorflow: bool = False


_VARIANTS = {
    "mobilenetv3_large_075": _Variant(_LARGE, 0.75),
    "mobilenetv3_large_100": _Variant(_LARGE, interpolation="bicubic"),
    "mobilenetv3_small_075": _Variant(_SMALL, 0.75, 1024),
    "mobilenetv3_small_100": _Variant(_SMALL, 1.0, 1024),
    "mobilenetv3_rw": _Variant(
        _LARGE_NOSKIP,
        interpolation="bicubic",
        head_bias=False,
        bn_eps=BN_EPS_TF_DEFAULT,
        se_kwargs={"gate_fn": hard_sigmoid, "reduce_mid": True, "divisor": 1},
    ),
    "tf_mobilenetv3_large_minimal_100": _Variant(_LARGE_MINIMAL, act_layer=nn.ReLU, tensorflow=True),
    "tf_mobilenetv3_small_minimal_100": _Variant(_SMALL_MINIMAL, 1.0, 1024, act_layer=nn.ReLU, tensorflow=True),
}
_VARIANTS.update(
    (f"tf_{name}", replace(_VARIANTS[name], interpolation="bilinear", tensorflow=True))
    for name in ("mobilenetv3_large_075", "mobilenetv3_large_100", "mobilenetv3_small_075", "mobilenetv3_small_100")
)


def _create(variant, **kwargs):
    if variant.tensorflow:
        kwargs = {"bn_eps": BN_EPS_TF_DEFAULT, "pad_type": "same", **kwargs}
    kwargs.setdefault("bn_eps", variant.bn_eps)
    arguments = {
        "block_args": decode_arch_def(variant.arch_def),
        "num_features": variant.num_features,
        "head_bias": variant.head_bias,
        "channel_multiplier": variant.width,
        "act_layer": variant.act_layer,
        "se_kwargs": variant.se_kwargs,
        "norm_kwargs": resolve_bn_args(kwargs),
    }
    return MobileNetV3(**{**arguments, **kwargs})


def _cfg(variant):
    return default_cfg(interpolation=variant.interpolation, centred=variant.tensorflow)


register_variants(_VARIANTS, _create, _cfg)
