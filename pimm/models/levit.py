"""LeViT (https://arxiv.org/abs/2104.01136): attention with biases of distance, after a stem of convolutions.

Models called ``levit_conv`` have convolutions of one pixel on feature maps, the others linear layers on tokens.
"""

import functools

import paddle.nn.functional as F
from paddle import nn

from pimm.errors import ConfigError
from pimm.layers import BnLinear, ConvBn, DistanceBias, DropPath, LinearBn, get_act_layer
from pimm.layers.helpers import to_pair
from pimm.layers.pos_embed_rel import resize_distance_biases
from pimm.models.features import feature_map
from pimm.models.interface import ImageModel
from pimm.models.registry import register_variants

_STEM_STRIDES = {"s16": 16, "s8": 8}
_LevitConv = functools.partial(ConvBn, conv_name="linear")


def _stem(in_chans, channels, stride, act_layer):
    """Return convolutions of stride two, each of twice as many channels as the one before."""
    count = stride.bit_length() - 1
    layers = []
    for number in range(1, count + 1):
        width = channels // 2 ** (count - number)
        layers.append((f"conv{number}", _LevitConv(in_chans, width, 3, 2, 1)))
        if number < count:
            layers.append((f"act{number}", act_layer()))
        in_chans = width
    return nn.Sequential(*layers)


class ToTokens(nn.Layer):
    """Make tokens [N, H * W, C] of feature maps [N, C, H, W]."""

    def forward(self, x):
        return x.flatten(2).transpose([0, 2, 1])


class Downsample(nn.Layer):
    """Leave out tokens of a grid: [N, rows * columns, C] becomes [N, tokens, C].

    Args:
        resolution: rows and columns.
        stride: each how many rows and columns a token is kept.
    """

    def __init__(self, resolution, stride):
        super().__init__()
        self.resolution, self.stride = resolution, stride

    def forward(self, x):
        grid = x.reshape([-1, *self.resolution, x.shape[-1]])
        return grid[:, :: self.stride, :: self.stride].flatten(1, 2)


class Attention(DistanceBias):
    """Attention of LeViT, among all places or, with a stride, of each second place in rows and columns to all.

    Args:
        dim: channels of the input.
        out_dim: channels of the output.
        key_dim: channels of a head's queries and keys.
        num_heads: heads.
        attn_ratio: channels of a head's values relative to those of its keys.
        resolution: rows and columns of places.
        stride: None for attention among all places.
        use_conv: whether the input is [N, dim, H, W], or [N, H * W, dim].
        act_layer: activation before the last layer.
    """

    def __init__(self, dim, out_dim, key_dim, num_heads, attn_ratio, resolution, stride, use_conv, act_layer):
        super().__init__()
        layer = _LevitConv if use_conv else LinearBn
        self.use_conv, self.num_heads, self.scale = use_conv, num_heads, key_dim**-0.5
        val_dim = int(attn_ratio * key_dim)
        if stride:
            self.sizes = [key_dim, val_dim]
            down = nn.AvgPool2D(1, stride) if use_conv else Downsample(resolution, stride)
            self.kv = layer(dim, num_heads * sum(self.sizes))
            self.q = nn.Sequential(("down", down), ("ln", layer(dim, num_heads * key_dim)))
        else:
            self.sizes = [key_dim, key_dim, val_dim]
            self.qkv = layer(dim, num_heads * sum(self.sizes))
        last = layer(num_heads * val_dim, out_dim, bn_weight_init=1.0 if stride else 0.0)
        self.proj = nn.Sequential(("act", act_layer()), ("ln", last))
        self.out_resolution = tuple(-(-size // (stride or 1)) for size in resolution)
        self.create_biases(num_heads, resolution, stride or 1)

    def _heads(self, x, sizes):
        """Return queries, keys and values of heads, [N, num_heads, places, channels]."""
        if self.use_conv:
            x = x.reshape([0, self.num_heads, x.shape[1] // self.num_heads, -1]).transpose([0, 1, 3, 2])
        else:
            x = x.reshape([0, 0, self.num_heads, -1]).transpose([0, 2, 1, 3])
        return x.split(sizes, axis=-1) if len(sizes) > 1 else [x]

    def forward(self, x):
        if hasattr(self, "qkv"):
            q, k, v = self._heads(self.qkv(x), self.sizes)
        else:
            k, v = self._heads(self.kv(x), self.sizes)
            (q,) = self._heads(self.q(x), self.sizes[:1])
        attention = q.matmul(k, transpose_y=True) * self.scale + self.attention_bias()
        x = F.softmax(attention, axis=-1).matmul(v)
        if self.use_conv:
            x = x.transpose([0, 1, 3, 2]).flatten(1, 2).unflatten(-1, self.out_resolution)
        else:
            x = x.transpose([0, 2, 1, 3]).flatten(2)
        return self.proj(x)


class LevitMlp(nn.Layer):
    """Two layers with batch norm, and an activation between them."""

    def __init__(self, dim, hidden_dim, use_conv, act_layer):
        super().__init__()
        layer = _LevitConv if use_conv else LinearBn
        self.ln1 = layer(dim, hidden_dim)
        self.act = act_layer()
        self.ln2 = layer(hidden_dim, dim, bn_weight_init=0.0)

    def forward(self, x):
        return self.ln2(self.act(self.ln1(x)))


class LevitDownsample(nn.Layer):
    """Attention with a stride, and layers beside a shortcut."""

    def __init__(self, dim, out_dim, key_dim, resolution, use_conv, act_layer, attn_act_layer, drop_path):
        super().__init__()
        self.attn_downsample = Attention(
            dim, out_dim, key_dim, dim // key_dim, 4.0, resolution, 2, use_conv, attn_act_layer
        )
        self.mlp = LevitMlp(out_dim, int(out_dim * 2.0), use_conv, act_layer)
        self.drop_path = DropPath(drop_path)

    def forward(self, x):
        x = self.attn_downsample(x)
        return x + self.drop_path(self.mlp(x))


class LevitBlock(nn.Layer):
    """Attention and layers, each beside a shortcut."""

    def __init__(
        self, dim, key_dim, num_heads, attn_ratio, mlp_ratio, resolution, use_conv, act_layer, attn_act_layer, drop_path
    ):
        super().__init__()
        self.attn = Attention(dim, dim, key_dim, num_heads, attn_ratio, resolution, None, use_conv, attn_act_layer)
        self.drop_path1 = DropPath(drop_path)
        self.mlp = LevitMlp(dim, int(dim * mlp_ratio), use_conv, act_layer)
        self.drop_path2 = DropPath(drop_path)

    def forward(self, x):
        x = x + self.drop_path1(self.attn(x))
        return x + self.drop_path2(self.mlp(x))


class LevitStage(nn.Layer):
    """Attention with a stride, except in the first stage, and blocks.

    Args:
        in_dim: channels of the input.
        dim: channels of the output.
        depth: number of blocks.
        resolution: rows and columns of the input.
        key_dim: channels of a head's queries and keys.
        num_heads: heads of a block.
        attn_ratio: channels of a head's values relative to those of its keys.
        mlp_ratio: width of the layers relative to ``dim``.
        shrinks: whether the stage begins with attention with a stride.
        common: further arguments of all layers.
    """

    def __init__(self, in_dim, dim, depth, resolution, key_dim, num_heads, attn_ratio, mlp_ratio, shrinks, common):
        super().__init__()
        self.downsample = nn.Identity() if common["use_conv"] else ToTokens()
        if shrinks:
            self.downsample = LevitDownsample(in_dim, dim, key_dim, resolution, **common)
            resolution = self.downsample.attn_downsample.out_resolution
        self.resolution = resolution
        self.blocks = nn.Sequential(
            *(LevitBlock(dim, key_dim, num_heads, attn_ratio, mlp_ratio, resolution, **common) for _ in range(depth))
        )

    def forward(self, x):
        return self.blocks(self.downsample(x))


class Levit(ImageModel):
    """LeViT without distillation.

    Args:
        img_size: size of the images.
        in_chans: channels of the images.
        num_classes: classes; 0 for a net without a classifier.
        embed_dim: channels of each stage.
        key_dim: channels of a head's queries and keys.
        depth: blocks of each stage.
        num_heads: heads of each stage, or of all.
        attn_ratio: channels of a head's values relative to those of its keys.
        mlp_ratio: width of the layers relative to the channels.
        stem_type: ``s16`` or ``s8``: by how much the stem shrinks images.
        act_layer: name of the activation.
        attn_act_layer: name of the activation of attention; None for the same.
        use_conv: whether layers are convolutions of feature maps, or linear layers of tokens.
        global_pool: ``avg``, or ``""`` for none.
        drop_rate: dropout before the classifier.
        drop_path_rate: probability of leaving out a branch.
    """

    stages_name = "stages"

    def __init__(
        self,
        img_size=224,
        in_chans=3,
        num_classes=1000,
        embed_dim=(192,),
        key_dim=64,
        depth=(12,),
        num_heads=(3,),
        attn_ratio=2.0,
        mlp_ratio=2.0,
        stem_type="s16",
        act_layer="hard_swish",
        attn_act_layer=None,
        use_conv=False,
        global_pool="avg",
        drop_rate=0.0,
        drop_path_rate=0.0,
    ):
        super().__init__()
        if stem_type not in _STEM_STRIDES:
            raise ConfigError(f"stem_type is {stem_type!r:.80}; valid are {', '.join(_STEM_STRIDES)}")
        stride, act = _STEM_STRIDES[stem_type], get_act_layer(act_layer)
        common = {
            "use_conv": use_conv,
            "act_layer": act,
            "attn_act_layer": get_act_layer(attn_act_layer) if attn_act_layer else act,
            "drop_path": drop_path_rate,
        }
        num_heads = to_pair(num_heads) if isinstance(num_heads, (tuple, list)) else (num_heads,) * len(depth)
        self.use_conv, self.drop_rate = use_conv, drop_rate
        self.num_features = self.head_hidden_size = embed_dim[-1]
        resolution = tuple(size // stride for size in to_pair(img_size))
        stages, self.feature_info, before = [], [], embed_dim[0]
        for number, (dim, blocks, heads) in enumerate(zip(embed_dim, depth, num_heads)):
            stages.append(
                LevitStage(before, dim, blocks, resolution, key_dim, heads, attn_ratio, mlp_ratio, number > 0, common)
            )
            before, resolution = dim, stages[-1].resolution
            self.feature_info.append(feature_map(f"stages.{number}", number + 1, dim, stride * 2**number))
        self.add_sublayer("stem", _stem(in_chans, embed_dim[0], stride, act))
        self.stages = nn.Sequential(*stages)
        self.reset_classifier(num_classes, global_pool)

    @property
    def stem(self):
        """Return the layers before the stages."""
        return self._sub_layers["stem"]

    def feature_map(self, x, number):
        """Return the output of a stage as a feature map, [N, channels, H, W]."""
        return x if self.use_conv else x.transpose([0, 2, 1]).unflatten(-1, self.stages[number - 1].resolution)

    def no_weight_decay(self):
        """Return the names of the tables of biases."""
        return {name for name, _ in self.named_parameters() if "attention_biases" in name}

    def group_matcher(self, coarse=False):
        """Return the patterns for ``group_with_matcher`` by block, or by stage if ``coarse``."""
        blocks = [(r"^stages\.(\d+)\.downsample", (0,)), (r"^stages\.(\d+)\.blocks\.(\d+)", None)]
        return {"stem": r"^stem", "blocks": r"^stages\.(\d+)" if coarse else blocks}

    def get_classifier(self):
        """Return the classifier."""
        return self.head

    def reset_classifier(self, num_classes, global_pool=None):
        """Replace pooling and classifier.

        Args:
            num_classes: classes; 0 for a net that returns pooled features.
            global_pool: ``avg``, or ``""`` for none; None keeps it.

        Raises:
            ConfigError: for another ``global_pool``, and for classes without pooling.
        """
        if global_pool not in (None, "", "avg"):
            raise ConfigError(f"global_pool is {global_pool!r:.80}; valid for LeViT are avg and an empty text")
        self.global_pool = self.global_pool if global_pool is None else global_pool
        if num_classes and not self.global_pool:
            raise ConfigError("a net without pooling has no classifier: give global_pool, or num_classes=0")
        self.num_classes = num_classes
        self.head = self._new_head()

    def _new_head(self):
        head = BnLinear(self.num_features, self.num_classes, self.drop_rate) if self.num_classes else nn.Identity()
        head.train() if self.training else head.eval()
        return head

    def pool(self, x):
        """Return pooled features [N, num_features], or the output of the last stage if nothing is pooled."""
        if not self.global_pool:
            return x
        return x.mean(axis=[2, 3]) if self.use_conv else x.mean(axis=1)

    def forward_head(self, x, pre_logits=False):
        """Return the logits of what `forward_features` returns, or with ``pre_logits`` the pooled features."""
        x = self.pool(x)
        return x if pre_logits else self.head(x)


class LevitDistilled(Levit):
    """LeViT with a second classifier, for what a teacher says. Logits are the mean of both.

    ``distilled_training`` makes the net return the logits of both in training.
    """

    distilled_training = False

    def set_distilled_training(self, enable=True):
        """Return the logits of both classifiers in training, or their mean."""
        self.distilled_training = enable

    def get_classifier(self):
        """Return both classifiers."""
        return self.head, self.head_dist

    def reset_classifier(self, num_classes, global_pool=None):
        """Replace pooling and both classifiers; arguments and errors as in `Levit`."""
        super().reset_classifier(num_classes, global_pool)
        self.head_dist = self._new_head()

    def forward_head(self, x, pre_logits=False):
        """Return the mean of the logits of both classifiers, in distilled training both, or the pooled features."""
        x = self.pool(x)
        if pre_logits:
            return x
        logits, of_teacher = self.head(x), self.head_dist(x)
        return (logits, of_teacher) if self.distilled_training and self.training else (logits + of_teacher) / 2


def checkpoint_filter_fn(state_dict, model):
    """Leave out the tables of indices, which old weights hold, and resize biases to the images of the net."""
    return resize_distance_biases(state_dict, model)


_VARIANTS = {
    "128s": {"embed_dim": (128, 256, 384), "key_dim": 16, "num_heads": (4, 6, 8), "depth": (2, 3, 4)},
    "128": {"embed_dim": (128, 256, 384), "key_dim": 16, "num_heads": (4, 8, 12), "depth": (4, 4, 4)},
    "192": {"embed_dim": (192, 288, 384), "key_dim": 32, "num_heads": (3, 5, 6), "depth": (4, 4, 4)},
    "256": {"embed_dim": (256, 384, 512), "key_dim": 32, "num_heads": (4, 6, 8), "depth": (4, 4, 4)},
    "384": {"embed_dim": (384, 512, 768), "key_dim": 32, "num_heads": (6, 9, 12), "depth": (4, 4, 4)},
    "512": {"embed_dim": (512, 768, 1024), "key_dim": 64, "num_heads": (8, 12, 16), "depth": (4, 4, 4)},
    "256d": {"embed_dim": (256, 384, 512), "key_dim": 32, "num_heads": (4, 6, 8), "depth": (4, 8, 6)},
    "512d": {"embed_dim": (512, 640, 768), "key_dim": 64, "num_heads": (8, 10, 12), "depth": (4, 8, 6)},
    "384_s8": {"embed_dim": (384, 512, 768), "key_dim": 32, "num_heads": (6, 9, 12), "depth": (4, 4, 4)},
    "512_s8": {"embed_dim": (512, 640, 896), "key_dim": 64, "num_heads": (8, 10, 14), "depth": (4, 4, 4)},
}
for _name in ("512", "256d", "512d", "384_s8", "512_s8"):
    _VARIANTS[_name]["act_layer"] = "silu"
for _name in ("384_s8", "512_s8"):
    _VARIANTS[_name]["stem_type"] = "s8"
for _name in ("512", "256d", "512d", "512_s8"):
    _VARIANTS[_name]["distilled"] = False


def _create(variant, **kwargs):
    arguments = {**variant, **kwargs}
    return (LevitDistilled if arguments.pop("distilled", True) else Levit)(**arguments)


register_variants({f"levit_{name}": variant for name, variant in _VARIANTS.items()}, _create)
register_variants({f"levit_conv_{name}": {**variant, "use_conv": True} for name, variant in _VARIANTS.items()}, _create)
