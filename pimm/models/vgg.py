"""VGG, "Very Deep Convolutional Networks for Large-Scale Image Recognition" (https://arxiv.org/abs/1409.1556)."""

from __future__ import annotations

import paddle.nn.functional as F
from paddle import nn

from pimm.errors import ConfigError
from pimm.layers import BatchNorm2d, ClassifierHead, Conv2d
from pimm.models.features import row_features
from pimm.models.headed import HeadedModel
from pimm.models.initial_values import init_convolutions
from pimm.models.interface import RowMixin
from pimm.models.registry import register_variants

_POOL = "M"
_CONVOLUTIONS = {  # channels of the convolutions, and where maxima are pooled
    "vgg11": [64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"],
    "vgg13": [64, 64, "M", 128, 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"],
    "vgg16": [64, 64, "M", 128, 128, "M", *[256] * 3, "M", *[512] * 3, "M", *[512] * 3, "M"],
    "vgg19": [64, 64, "M", 128, 128, "M", *[256] * 4, "M", *[512] * 4, "M", *[512] * 4, "M"],
}


class ConvMlp(nn.Layer):
    """The first two linear layers of VGG's head, as convolutions: the first one's kernel is the whole image.

    Args:
        in_features: channels of the input.
        out_features: channels of the output.
        kernel_size: height and width of the image that the layers were made for; smaller images are scaled up.
        mlp_ratio: channels after the first layer, as a share of ``out_features``.
        drop_rate: dropout between the layers.
        act_layer: class of the activations.
        conv_layer: class of the convolutions.
    """

    def __init__(
        self,
        in_features=512,
        out_features=4096,
        kernel_size=7,
        mlp_ratio=1.0,
        drop_rate=0.2,
        act_layer=nn.ReLU,
        conv_layer=Conv2d,
    ):
        super().__init__()
        self.input_kernel_size, mid_features = kernel_size, int(out_features * mlp_ratio)
        self.fc1 = conv_layer(in_features, mid_features, kernel_size)
        self.act1 = act_layer()
        self.drop = nn.Dropout(drop_rate)
        self.fc2 = conv_layer(mid_features, out_features, 1)
        self.act2 = act_layer()

    def forward(self, x):
        least = self.input_kernel_size
        if min(x.shape[2:]) < least:
            x = F.adaptive_avg_pool2d(x, [max(least, size) for size in x.shape[2:]])
        return self.act2(self.fc2(self.drop(self.act1(self.fc1(x)))))


class VGG(RowMixin, HeadedModel):
    """Convolutions of 3x3 pixels with maximum pooling between them, and three linear layers.

    Args:
        cfg: channels of the convolutions in forward order, and ``M`` for pooling.
        num_classes: classes.
        in_chans: channels of the images.
        output_stride: only 32.
        mlp_ratio: channels after the first linear layer, as a share of 4096.
        act_layer: class of the activations.
        conv_layer: class of the convolutions.
        norm_layer: class of the normalisation after each convolution; None for none.
        global_pool: as in `pimm.layers.SelectAdaptivePool2d`.
        drop_rate: dropout in the head.

    Raises:
        ConfigError: for another ``output_stride``.
    """

    def __init__(
        self,
        cfg,
        num_classes=1000,
        in_chans=3,
        output_stride=32,
        mlp_ratio=1.0,
        act_layer=nn.ReLU,
        conv_layer=Conv2d,
        norm_layer=None,
        global_pool="avg",
        drop_rate=0.0,
    ):
        super().__init__()
        if output_stride != 32:
            raise ConfigError(f"output_stride is {output_stride}; a VGG has 32 alone")
        self.num_classes, self.drop_rate = num_classes, drop_rate
        taps = self._create_features(cfg, in_chans, conv_layer, norm_layer, act_layer)
        self.stages_name = tuple(f"features.{index}" for index in range(len(self.features)))
        self.feature_info = row_features(self.stages_name, taps)
        self.pre_logits = ConvMlp(
            self.num_features, 4096, 7, mlp_ratio, drop_rate, act_layer=act_layer, conv_layer=conv_layer
        )
        self.head = ClassifierHead(4096, num_classes, pool_type=global_pool, drop_rate=drop_rate)
        self.head_hidden_size = self.head.num_features
        init_convolutions(self, zero_biases=True, linear_std=0.01)

    def _create_features(self, cfg, in_chans, conv_layer, norm_layer, act_layer):
        """Create the convolutions, and return where feature maps are: before each pooling and after the last."""
        layers, taps, channels, reduction = [], [], in_chans, 1
        for entry in cfg:
            if entry == _POOL:
                taps.append((f"features.{len(layers) - 1}", channels, reduction))
                layers.append(nn.MaxPool2D(2, 2))
                reduction *= 2
                continue
            layers.append(conv_layer(channels, entry, 3, padding=1))
            channels = entry
            if norm_layer is not None:
                layers.append(norm_layer(channels))
            layers.append(act_layer())
        self.features, self.num_features = nn.Sequential(*layers), channels
        return [*taps, (f"features.{len(layers) - 1}", channels, reduction)]

    @property
    def pre_logits(self):
        """Return the first two linear layers."""
        return self._sub_layers["pre_logits"]

    @pre_logits.setter
    def pre_logits(self, layer):
        self.add_sublayer("pre_logits", layer)

    def forward_head(self, x, pre_logits=False):
        """Return the logits of feature maps, or with ``pre_logits`` the input of the classifier."""
        return self.head(self.pre_logits(x), pre_logits=pre_logits)

    def reset_classifier(self, num_classes, global_pool=None):
        """Replace pooling and classifier; arguments as in `HeadedModel`."""
        self.num_classes = num_classes
        in_features = self.num_features if isinstance(self.pre_logits, nn.Identity) else None
        self.head.reset(num_classes, global_pool, in_features=in_features)
        self.head_hidden_size = self.head.num_features

    def prune_intermediate_layers(self, indices=1, prune_norm=False, prune_head=True):
        """Take out the layers that feature maps do not need, as `ImageModel` does, and the first two linear layers."""
        whole = len(self.features)
        head = self.pre_logits
        self.pre_logits = nn.Identity()
        taken = super().prune_intermediate_layers(indices, prune_norm, prune_head)
        if not prune_head and len(self.features) == whole:
            self.pre_logits = head
        return taken

    def group_matcher(self, coarse=False):
        """Return patterns of the names of parameters: those of the first convolution, and those of each layer."""
        return {"stem": r"^features\.0", "blocks": r"^features\.(\d+)"}


def checkpoint_filter_fn(state_dict, model):
    """Return torchvision's weights under the names here, with the linear layers of the head as convolutions.

    Args:
        state_dict: arrays under PyTorch's names.
        model: ignored.
    """
    renamed = {"classifier.0": "pre_logits.fc1", "classifier.3": "pre_logits.fc2", "classifier.6": "head.fc"}
    shapes = {"classifier.0.weight": (-1, 512, 7, 7), "classifier.3.weight": (-1, 4096, 1, 1)}
    found = {}
    for name, value in state_dict.items():
        layer, _, parameter = name.rpartition(".")
        value = value.reshape(shapes[name]) if name in shapes else value
        found[f"{renamed.get(layer, layer)}.{parameter}"] = value
    return found


register_variants(
    {
        **{name: {"cfg": cfg} for name, cfg in _CONVOLUTIONS.items()},
        **{f"{name}_bn": {"cfg": cfg, "norm_layer": BatchNorm2d} for name, cfg in _CONVOLUTIONS.items()},
    },
    VGG,
)
