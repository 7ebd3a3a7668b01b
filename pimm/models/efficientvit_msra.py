"""EfficientViT of Microsoft (https://arxiv.org/abs/2305.07027): attention in windows, one head after another."""

import paddle
import paddle.nn.functional as F
from paddle import nn

from pimm.layers import BnLinear, ConvBn, DistanceBias, SEModule
from pimm.layers.helpers import to_pair
from pimm.layers.pos_embed_rel import resize_distance_biases
from pimm.layers.windows import join_windows, split_windows
from pimm.models.features import feature_map
from pimm.models.interface import ImageModel
from pimm.models.registry import register_variants

_PATCH = 16


class Residual(nn.Layer):
    """A layer ``m`` beside a shortcut."""

    def __init__(self, m):
        super().__init__()
        self.m = m

    def forward(self, x):
        return x + self.m(x)


class ConvMlp(nn.Layer):
    """Two convolutions of one pixel with batch norm, and ReLU between them."""

    def __init__(self, dim, hidden_dim):
        super().__init__()
        self.pw1 = ConvBn(dim, hidden_dim)
        self.act = nn.ReLU()
        self.pw2 = ConvBn(hidden_dim, dim, bn_weight_init=0.0)

    def forward(self, x):
        return self.pw2(self.act(self.pw1(x)))


class PatchMerging(nn.Layer):
    """Halve the size of feature maps: [N, dim, H, W] becomes [N, out_dim, H / 2, W / 2], rounded up."""

    def __init__(self, dim, out_dim):
        super().__init__()
        hidden_dim = 4 * dim
        self.conv1 = ConvBn(dim, hidden_dim)
        self.act = nn.ReLU()
        self.conv2 = ConvBn(hidden_dim, hidden_dim, 3, 2, 1, groups=hidden_dim)
        self.se = SEModule(hidden_dim, 0.25)
        self.conv3 = ConvBn(hidden_dim, out_dim)

    def forward(self, x):
        x = self.act(self.conv2(self.act(self.conv1(x))))
        return self.conv3(self.se(x))


class CascadedGroupAttention(DistanceBias):
    """Attention among all places, in which each head gets a part of the channels and what the head before it returned.

    Args:
        dim: channels.
        key_dim: channels of a head's queries and keys.
        num_heads: heads.
        resolution: rows of places, and columns.
        kernels: for each head, the size of the convolution of its queries.
    """

    def __init__(self, dim, key_dim, num_heads, resolution, kernels):
        super().__init__()
        self.resolution, self.scale, self.num_heads = resolution, key_dim**-0.5, num_heads
        # As many channels of values as there are channels for a head, by way of a ratio as in the paper
        val_dim = int(dim / (key_dim * num_heads) * key_dim)
        self.sizes = [key_dim, key_dim, val_dim]
        self.qkvs = nn.LayerList([ConvBn(dim // num_heads, sum(self.sizes)) for _ in range(num_heads)])
        self.dws = nn.LayerList(
            [
                ConvBn(key_dim, key_dim, kernel, padding=kernel // 2, groups=key_dim)
                for _, kernel in zip(range(num_heads), kernels)
            ]
        )
        self.proj = nn.Sequential(nn.ReLU(), ConvBn(val_dim * num_heads, dim, bn_weight_init=0.0))
        self.create_biases(num_heads, (resolution, resolution))

    def forward(self, x):  # [N, dim, resolution, resolution]
        bias, size = self.attention_bias(), x.shape[2:]
        found = []
        for head, part in enumerate(x.chunk(self.num_heads, axis=1)):
            part = found[-1] + part if found else part
            q, k, v = self.qkvs[head](part).split(self.sizes, axis=1)
            q, k, v = self.dws[head](q).flatten(2) * self.scale, k.flatten(2), v.flatten(2)
            attention = F.softmax(q.matmul(k, transpose_x=True) + bias[head], axis=-1)  # [N, queries, keys]
            found.append(v.matmul(attention, transpose_y=True).unflatten(-1, size))
        return self.proj(paddle.concat(found, axis=1))


class LocalWindowAttention(nn.Layer):
    """Attention in windows of feature maps [N, dim, H, W]; arguments are those of `CascadedGroupAttention`."""

    def __init__(self, *attention):
        super().__init__()
        self.attn = CascadedGroupAttention(*attention)

    def forward(self, x):
        window, (height, width) = self.attn.resolution, x.shape[2:]
        if height == width == window:
            return self.attn(x)
        windows, grid = split_windows(x.transpose([0, 2, 3, 1]), window)
        windows = self.attn(windows.transpose([0, 3, 1, 2])).transpose([0, 2, 3, 1])
        return join_windows(windows, grid)[:, :height, :width].transpose([0, 3, 1, 2])


def _depthwise(dim, bn_weight_init=1.0):
    return ConvBn(dim, dim, 3, 1, 1, groups=dim, bn_weight_init=bn_weight_init)


class EfficientVitBlock(nn.Layer):
    """Attention between pairs of a convolution and two layers; arguments are those of `CascadedGroupAttention`."""

    def __init__(self, dim, *attention):
        super().__init__()
        self.dw0 = Residual(_depthwise(dim, 0.0))
        self.ffn0 = Residual(ConvMlp(dim, 2 * dim))
        self.mixer = Residual(LocalWindowAttention(dim, *attention))
        self.dw1 = Residual(_depthwise(dim, 0.0))
        self.ffn1 = Residual(ConvMlp(dim, 2 * dim))

    def forward(self, x):
        return self.ffn1(self.dw1(self.mixer(self.ffn0(self.dw0(x)))))


def _downsample(dim, out_dim):
    """Return the layers that halve the size of feature maps at the beginning of a stage."""
    return nn.Sequential(
        ("res1", nn.Sequential(Residual(_depthwise(dim)), Residual(ConvMlp(dim, 2 * dim)))),
        ("patchmerge", PatchMerging(dim, out_dim)),
        ("res2", nn.Sequential(Residual(_depthwise(out_dim)), Residual(ConvMlp(out_dim, 2 * out_dim)))),
    )


class EfficientVitStage(nn.Layer):
    """Layers that halve the size, except in the first stage, and blocks.

    Args:
        downsample: these layers.
        blocks: the blocks.
    """

    def __init__(self, downsample, blocks):
        super().__init__()
        self.downsample = downsample
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x):
        return self.blocks(self.downsample(x))


def _patch_embed(in_chans, dim):
    layers = []
    for number in range(1, 5):
        width = dim // 2 ** (4 - number)
        layers.append((f"conv{number}", ConvBn(in_chans, width, 3, 2, 1)))
        if number < 4:
            layers.append((f"relu{number}", nn.ReLU()))
        in_chans = width
    return nn.Sequential(*layers)


class EfficientVitMsra(ImageModel):
    """EfficientViT of Microsoft.

    Args:
        img_size: size of the images; windows are not larger than the feature maps of its shorter side.
        in_chans: channels of the images.
        num_classes: classes; 0 for a net without a classifier.
        embed_dim: channels of each stage.
        key_dim: channels of a head's queries and keys in each stage.
        depth: blocks of each stage.
        num_heads: heads of each stage.
        window_size: largest window of each stage.
        kernels: for each head, the size of the convolution of its queries.
        global_pool: as in `SelectAdaptivePool2d`.
        drop_rate: dropout before the classifier.
    """

    stages_name, classifier_name = "stages", "head"

    def __init__(
        self,
        img_size=224,
        in_chans=3,
        num_classes=1000,
        embed_dim=(64, 128, 192),
        key_dim=(16, 16, 16),
        depth=(1, 2, 3),
        num_heads=(4, 4, 4),
        window_size=(7, 7, 7),
        kernels=(5, 5, 5, 5),
        global_pool="avg",
        drop_rate=0.0,
    ):
        super().__init__()
        self.head_drop_rate = drop_rate  # behind the batch norm of the classifier
        self.patch_embed = _patch_embed(in_chans, embed_dim[0])
        resolution, before = min(to_pair(img_size)) // _PATCH, embed_dim[0]
        stages, self.feature_info = [], []
        for number, (dim, keys, blocks, heads, window) in enumerate(
            zip(embed_dim, key_dim, depth, num_heads, window_size)
        ):
            resolution = (resolution - 1) // 2 + 1 if number else resolution
            attention = (dim, keys, heads, min(window, resolution), kernels)
            downsample = _downsample(before, dim) if number else nn.Identity()
            stages.append(EfficientVitStage(downsample, [EfficientVitBlock(*attention) for _ in range(blocks)]))
            before = dim
            self.feature_info.append(feature_map(f"stages.{number}", number + 1, dim, _PATCH * 2**number))
        self.stages = nn.Sequential(*stages)
        self.num_features = embed_dim[-1]
        self.create_head(num_classes, global_pool)

    def stem(self, x):
        """Return the input of the first stage, [N, channels, H / 16, W / 16]."""
        return self.patch_embed(x)

    def create_classifier(self, num_features, num_classes):
        """Return a new classifier with batch norm."""
        return BnLinear(num_features, num_classes, self.head_drop_rate)

    def get_classifier(self):
        """Return the last layer."""
        return self.head.linear if self.num_classes else self.head

    def no_weight_decay(self):
        """Return the names of the tables of biases."""
        return {name for name, _ in self.named_parameters() if "attention_biases" in name}

    def group_matcher(self, coarse=False):
        """Return the patterns for ``group_with_matcher`` by block, or by stage if ``coarse``."""
        blocks = [(r"^stages\.(\d+).downsample", (0,)), (r"^stages\.(\d+)\.\w+\.(\d+)", None)]
        return {"stem": r"^patch_embed", "blocks": r"^stages\.(\d+)" if coarse else blocks}


def checkpoint_filter_fn(state_dict, model):
    """Leave out the tables of indices, which old weights hold, and resize biases to the windows of the net."""
    return resize_distance_biases(state_dict, model)


_VARIANTS = {
    "efficientvit_m0": {},
    "efficientvit_m1": {"embed_dim": (128, 144, 192), "num_heads": (2, 3, 3), "kernels": (7, 5, 3, 3)},
    "efficientvit_m2": {"embed_dim": (128, 192, 224), "num_heads": (4, 3, 2), "kernels": (7, 5, 3, 3)},
    "efficientvit_m3": {"embed_dim": (128, 240, 320), "num_heads": (4, 3, 4)},
    "efficientvit_m4": {"embed_dim": (128, 256, 384), "num_heads": (4, 4, 4), "kernels": (7, 5, 3, 3)},
    "efficientvit_m5": {
        "embed_dim": (192, 288, 384),
        "depth": (1, 3, 4),
        "num_heads": (3, 3, 4),
        "kernels": (7, 5, 3, 3),
    },
}


register_variants(_VARIANTS, EfficientVitMsra)
