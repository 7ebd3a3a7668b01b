"""TinyViT (https://arxiv.org/abs/2207.10666): a stage of inverted residuals, and stages of attention in windows."""

import itertools

import paddle.nn.functional as F
from paddle import nn

from pimm.layers import (
    ConvBn,
    DistanceBias,
    DropPath,
    LayerNorm2d,
    Linear,
    NormMlpClassifierHead,
    calculate_drop_path_rates,
)
from pimm.layers.pos_embed_rel import resize_distance_biases
from pimm.layers.windows import join_windows, split_windows
from pimm.models.features import feature_map
from pimm.models.headed import StagedModel
from pimm.models.initial_values import init_truncated
from pimm.models.registry import register_variants


def _depthwise(dim, kernel, stride=1):
    return ConvBn(dim, dim, kernel, stride, kernel // 2, groups=dim)


class PatchEmbed(nn.Layer):
    """Two convolutions of stride two: [N, in_chans, H, W] becomes [N, out_chs, H / 4, W / 4]."""

    def __init__(self, in_chans, out_chs):
        super().__init__()
        self.conv1 = ConvBn(in_chans, out_chs // 2, 3, 2, 1)
        self.act = nn.GELU()
        self.conv2 = ConvBn(out_chs // 2, out_chs, 3, 2, 1)

    def forward(self, x):
        return self.conv2(self.act(self.conv1(x)))


class MBConv(nn.Layer):
    """Inverted residual.

    Args:
        dim: channels.
        expand_ratio: channels inside relative to ``dim``.
        drop_path: probability of leaving out the branch.
    """

    def __init__(self, dim, expand_ratio, drop_path):
        super().__init__()
        inner = int(dim * expand_ratio)
        self.conv1 = ConvBn(dim, inner)
        self.act1 = nn.GELU()
        self.conv2 = _depthwise(inner, 3)
        self.act2 = nn.GELU()
        self.conv3 = ConvBn(inner, dim, bn_weight_init=0.0)
        self.act3 = nn.GELU()
        self.drop_path = DropPath(drop_path)

    def forward(self, x):
        branch = self.act2(self.conv2(self.act1(self.conv1(x))))
        return self.act3(x + self.drop_path(self.conv3(branch)))


class PatchMerging(nn.Layer):
    """Halve the size of feature maps: [N, dim, H, W] becomes [N, out_dim, H / 2, W / 2], rounded up."""

    def __init__(self, dim, out_dim):
        super().__init__()
        self.conv1 = ConvBn(dim, out_dim)
        self.act1 = nn.GELU()
        self.conv2 = _depthwise(out_dim, 3, 2)
        self.act2 = nn.GELU()
        self.conv3 = ConvBn(out_dim, out_dim)

    def forward(self, x):
        return self.conv3(self.act2(self.conv2(self.act1(self.conv1(x)))))


class ConvLayer(nn.Layer):
    """The first stage: inverted residuals."""

    def __init__(self, dim, expand_ratio, drop_path):
        super().__init__()
        self.blocks = nn.Sequential(*(MBConv(dim, expand_ratio, rate) for rate in drop_path))

    def forward(self, x):
        return self.blocks(x)


class NormMlp(nn.Layer):
    """Normalisation and two layers with GELU between them."""

    def __init__(self, dim, hidden_dim, drop):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fc1 = Linear(dim, hidden_dim)
        self.act = nn.GELU()
        self.drop1 = nn.Dropout(drop)
        self.fc2 = Linear(hidden_dim, dim)
        self.drop2 = nn.Dropout(drop)

    def forward(self, x):
        x = self.drop1(self.act(self.fc1(self.norm(x))))
        return self.drop2(self.fc2(x))


class Attention(DistanceBias):
    """Attention among the places of square windows, [N, window_size ** 2, dim]."""

    def __init__(self, dim, num_heads, window_size):
        super().__init__()
        self.num_heads, self.scale = num_heads, (dim // num_heads) ** -0.5
        self.norm = nn.LayerNorm(dim)
        self.qkv = Linear(dim, 3 * dim)
        self.proj = Linear(dim, dim)
        self.create_biases(num_heads, (window_size, window_size))

    def forward(self, x):
        qkv = self.qkv(self.norm(x)).reshape([0, 0, self.num_heads, -1]).transpose([0, 2, 1, 3])
        q, k, v = qkv.chunk(3, axis=-1)  # [N, num_heads, places, dim / num_heads]
        attention = F.softmax((q * self.scale).matmul(k, transpose_y=True) + self.attention_bias(), axis=-1)
        return self.proj(attention.matmul(v).transpose([0, 2, 1, 3]).flatten(2))


class TinyVitBlock(nn.Layer):
    """Attention in windows, a convolution and two layers, on feature maps [N, H, W, dim].

    Args:
        dim: channels.
        num_heads: heads.
        window_size: rows, and columns, of a window.
        mlp_ratio: width of the layers relative to ``dim``.
        drop: dropout of the layers.
        drop_path: probability of leaving out a branch.
        local_conv_size: kernel of the convolution.
    """

    def __init__(self, dim, num_heads, window_size, mlp_ratio, drop, drop_path, local_conv_size):
        super().__init__()
        self.window_size = window_size
        self.attn = Attention(dim, num_heads, window_size)
        self.drop_path1 = DropPath(drop_path)
        self.mlp = NormMlp(dim, int(dim * mlp_ratio), drop)
        self.drop_path2 = DropPath(drop_path)
        self.local_conv = _depthwise(dim, local_conv_size)

    def _attend(self, x):
        height, width = x.shape[1:3]
        windows, grid = split_windows(x, self.window_size)
        windows = self.attn(windows.flatten(1, 2)).unflatten(1, [self.window_size, self.window_size])
        return join_windows(windows, grid)[:, :height, :width]

    def forward(self, x):
        x = x + self.drop_path1(self._attend(x))
        x = self.local_conv(x.transpose([0, 3, 1, 2])).transpose([0, 2, 3, 1])
        return x + self.drop_path2(self.mlp(x))


class TinyVitStage(nn.Layer):
    """Layers that halve the size of feature maps, and blocks, each with its own ``drop_path``.

    Args:
        dim: channels of the input.
        out_dim: channels of the output.
        drop_path: for each block, the probability of leaving out a branch.
        block: further arguments of `TinyVitBlock`.
    """

    def __init__(self, dim, out_dim, drop_path, **block):
        super().__init__()
        self.downsample = PatchMerging(dim, out_dim)
        self.blocks = nn.Sequential(*(TinyVitBlock(out_dim, drop_path=rate, **block) for rate in drop_path))

    def forward(self, x):
        x = self.downsample(x).transpose([0, 2, 3, 1])
        return self.blocks(x).transpose([0, 3, 1, 2])


class TinyVit(StagedModel):
    """TinyViT.

    Args:
        in_chans: channels of the images.
        num_classes: classes; 0 for a net without a classifier.
        global_pool: as in `SelectAdaptivePool2d`.
        embed_dims: channels of each stage.
        depths: blocks of each stage.
        num_heads: heads of each stage; the first has no attention.
        window_sizes: rows, and columns, of a window in each stage.
        mlp_ratio: width of layers relative to the channels.
        drop_rate: dropout before the classifier.
        proj_drop_rate: dropout of layers.
        drop_path_rate: probability of leaving out a branch in the last block, and less in those before it.
        mbconv_expand_ratio: channels inside inverted residuals relative to those outside.
        local_conv_size: kernel of the convolution in a block of attention.
    """

    norm_name = ""

    def __init__(
        self,
        in_chans=3,
        num_classes=1000,
        global_pool="avg",
        embed_dims=(96, 192, 384, 768),
        depths=(2, 2, 6, 2),
        num_heads=(3, 6, 12, 24),
        window_sizes=(7, 7, 14, 7),
        mlp_ratio=4.0,
        drop_rate=0.0,
        proj_drop_rate=0.0,
        drop_path_rate=0.1,
        mbconv_expand_ratio=4.0,
        local_conv_size=3,
    ):
        super().__init__()
        self.patch_embed = PatchEmbed(in_chans, embed_dims[0])
        rates = iter(calculate_drop_path_rates(drop_path_rate, sum(depths)))
        stages, self.feature_info = [], []
        for number, (dim, depth) in enumerate(zip(embed_dims, depths)):
            of_stage = list(itertools.islice(rates, depth))
            if number == 0:
                stages.append(ConvLayer(dim, mbconv_expand_ratio, of_stage))
            else:
                block = {
                    "num_heads": num_heads[number],
                    "window_size": window_sizes[number],
                    "mlp_ratio": mlp_ratio,
                    "drop": proj_drop_rate,
                    "local_conv_size": local_conv_size,
                }
                stages.append(TinyVitStage(embed_dims[number - 1], dim, of_stage, **block))
            self.feature_info.append(feature_map(f"stages.{number}", number + 1, dim, 4 * 2**number))
        self.stages = nn.Sequential(*stages)
        self.num_classes, self.num_features = num_classes, embed_dims[-1]
        self.head = NormMlpClassifierHead(
            self.num_features, num_classes, pool_type=global_pool, drop_rate=drop_rate, norm_layer=_norm
        )
        self.head_hidden_size = self.head.num_features
        init_truncated(self)

    def stem(self, x):
        """Return the input of the first stage, [N, channels, H / 4, W / 4]."""
        return self.patch_embed(x)

    def no_weight_decay(self):
        """Return the names of the tables of biases."""
        return {name for name, _ in self.named_parameters() if "attention_biases" in name}

    def group_matcher(self, coarse=False):
        """Return the patterns for ``group_with_matcher`` by block, or by stage if ``coarse``."""
        blocks = [(r"^stages\.(\d+).downsample", (0,)), (r"^stages\.(\d+)\.\w+\.(\d+)", None)]
        return {"stem": r"^patch_embed", "blocks": r"^stages\.(\d+)" if coarse else blocks}


def _norm(channels):
    return LayerNorm2d(channels, eps=1e-5)


def checkpoint_filter_fn(state_dict, model):
    """Leave out the tables of indices, which old weights hold, and resize biases to the windows of the net."""
    return resize_distance_biases(state_dict, model)


_LARGE = {"embed_dims": (96, 192, 384, 576), "num_heads": (3, 6, 12, 18)}
_VARIANTS = {
    "tiny_vit_5m_224": {"embed_dims": (64, 128, 160, 320), "num_heads": (2, 4, 5, 10), "drop_path_rate": 0.0},
    "tiny_vit_11m_224": {"embed_dims": (64, 128, 256, 448), "num_heads": (2, 4, 8, 14), "drop_path_rate": 0.1},
    "tiny_vit_21m_224": {**_LARGE, "drop_path_rate": 0.2},
    "tiny_vit_21m_384": {**_LARGE, "window_sizes": (12, 12, 24, 12)},
    "tiny_vit_21m_512": {**_LARGE, "window_sizes": (16, 16, 32, 16)},
}


register_variants(_VARIANTS, TinyVit)
