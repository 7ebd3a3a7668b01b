"""EfficientViT of MIT (https://arxiv.org/abs/2205.14756): mobile blocks, and linear attention in the last stages.

Names, state names and numbers are those of timm.
"""

from __future__ import annotations

from functools import partial

import paddle
import paddle.nn.functional as F
from paddle import nn

from pimm.errors import ConfigError
from pimm.layers import BatchNorm2d, Conv2d, GELUTanh, HardSwish, Linear, SelectAdaptivePool2d, create_conv2d
from pimm.models.features import feature_map, feature_take_indices
from pimm.models.headed import HeadedModel
from pimm.models.registry import register_variants


class _ConvNorm(nn.Layer):
    """Apply a convolution, a normalisation and an activation; either of the last two may be None."""

    def __init__(self, in_chs, out_chs, kernel_size, stride=1, groups=1, bias=False, norm_layer=None, act_layer=None):
        super().__init__()
        self.conv = create_conv2d(in_chs, out_chs, kernel_size, stride=stride, groups=groups, bias=bias)
        self.norm = norm_layer(out_chs) if norm_layer else nn.Identity()
        self.act = act_layer() if act_layer else nn.Identity()

    def forward(self, x):
        return self.act(self.norm(self.conv(x)))


def _chain(in_chs, parts, norm_layer, act_layer, fewer_norm):
    """Return convolutions in a row, the last without an activation.

    Args:
        in_chs: channels of the input.
        parts: for each convolution its name, channels, kernel, stride, and whether it is depthwise.
        norm_layer: class of the normalisation.
        act_layer: class of the activation.
        fewer_norm: whether all but the last have a bias in place of the normalisation.
    """
    layers, last = [], len(parts) - 1
    for index, (name, out_chs, kernel, stride, depthwise) in enumerate(parts):
        bare = fewer_norm and index < last
        layer = _ConvNorm(
            in_chs,
            out_chs,
            kernel,
            stride,
            groups=in_chs if depthwise else 1,
            bias=bare,
            norm_layer=None if bare else norm_layer,
            act_layer=None if index == last else act_layer,
        )
        layers.append((name, layer))
        in_chs = out_chs
    return nn.Sequential(*layers)


def _separable(ins, mid, outs, stride):
    return [("depth_conv", ins, 3, stride, True), ("point_conv", outs, 1, 1, False)]


def _plain(ins, mid, outs, stride):
    return [("conv1", mid, 3, stride, False), ("conv2", outs, 3, 1, False)]


def _inverted(ins, mid, outs, stride):
    return [
        ("inverted_conv", mid, 1, 1, False),
        ("depth_conv", mid, 3, stride, True),
        ("point_conv", outs, 1, 1, False),
    ]


def _fused(ins, mid, outs, stride):
    return [("spatial_conv", mid, 3, stride, False), ("point_conv", outs, 1, 1, False)]


class _Residual(nn.Layer):
    """Add the input to the output of ``main``, if there is a shortcut."""

    def __init__(self, main, shortcut=True):
        super().__init__()
        self.main, self.has_shortcut = main, shortcut

    def forward(self, x):
        return self.main(x) + x if self.has_shortcut else self.main(x)


def _local_block(parts, in_chs, out_chs, stride=1, expand_ratio=1, **kwargs):
    mid_chs = round(in_chs * expand_ratio)
    main = _chain(in_chs, parts(in_chs, mid_chs, out_chs, stride), **kwargs)
    return _Residual(main, shortcut=stride == 1)


class LiteMLA(nn.Layer):
    """Apply attention that is linear in the number of pixels, by ReLU, at several scales.

    Args:
        channels: channels of the input and of the output.
        dim: channels of a head.
        norm_layer: class of the normalisation after the projection.
        scales: kernels of the depthwise convolutions that give further queries, keys and values.
        eps: added to the sum of the attention's weights.
    """

    def __init__(self, channels, dim, norm_layer, scales=(5,), eps=1e-5):
        super().__init__()
        heads = channels // dim
        width = 3 * heads * dim
        self.dim, self.eps = dim, eps
        self.qkv = _ConvNorm(channels, width, 1)
        self.aggreg = nn.LayerList(
            nn.Sequential(
                Conv2d(width, width, scale, padding=scale // 2, groups=width, bias=False),
                Conv2d(width, width, 1, groups=3 * heads, bias=False),
            )
            for scale in scales
        )
        self.proj = _ConvNorm(heads * dim * (1 + len(scales)), channels, 1, norm_layer=norm_layer)

    def forward(self, x):
        height, width = x.shape[2:]
        qkv = self.qkv(x)
        qkv = paddle.concat([qkv, *(scale(qkv) for scale in self.aggreg)], axis=1)
        qkv = qkv.reshape([0, qkv.shape[1] // (3 * self.dim), 3 * self.dim, -1]).transpose([0, 1, 3, 2])
        query, key, value = paddle.chunk(qkv, 3, axis=-1)  # [N, heads * scales, H * W, dim]
        out = self._attend(F.relu(query), F.relu(key), value).astype(value.dtype)
        out = out.transpose([0, 1, 3, 2]).reshape([0, out.shape[1] * self.dim, height, width])
        return self.proj(out)  # [N, C, H, W]

    def _attend(self, query, key, value):
        """Return the weighted means of the values, in float32, which the sums over all pixels need."""
        with paddle.amp.auto_cast(enable=False):
            query, key, value = (x.astype("float32") for x in (query, key, value))
            value = paddle.concat([value, paddle.ones_like(value[..., :1])], axis=-1)  # ones give the sum of weights
            out = paddle.matmul(query, paddle.matmul(key, value, transpose_x=True))
            return out[..., :-1] / (out[..., -1:] + self.eps)


class EfficientVitBlock(nn.Layer):
    """Apply linear attention, and then an inverted residual, each beside a shortcut."""

    def __init__(self, channels, head_dim, expand_ratio, norm_layer, act_layer):
        super().__init__()
        self.context_module = _Residual(LiteMLA(channels, head_dim, norm_layer))
        self.local_module = _local_block(
            _inverted,
            channels,
            channels,
            expand_ratio=expand_ratio,
            norm_layer=norm_layer,
            act_layer=act_layer,
            fewer_norm=True,
        )

    def forward(self, x):
        return self.local_module(self.context_module(x))


class _Stage(nn.Layer):
    """Blocks in a row."""

    def __init__(self, blocks):
        super().__init__()
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x):
        return self.blocks(x)


class _Head(nn.Layer):
    """Convolve, pool, and classify with a hidden layer.

    Args:
        in_features: channels of the feature maps.
        widths: channels of the convolution, and of the hidden layer.
        num_classes: classes; 0 for none.
        dropout: dropout before the classifier.
        act_layer: class of the activations.
        pool_type: pooling.
        norm_eps: epsilon of the layer normalisation.
    """

    def __init__(self, in_features, widths, num_classes, dropout, act_layer, pool_type, norm_eps):
        super().__init__()
        self.num_features = widths[1]
        self.in_conv = _ConvNorm(in_features, widths[0], 1, norm_layer=BatchNorm2d, act_layer=act_layer)
        self.classifier = nn.Sequential(
            Linear(widths[0], widths[1], bias=False),
            nn.LayerNorm(widths[1], norm_eps),
            act_layer(),
            nn.Dropout(dropout),
            nn.Identity(),
        )
        self.reset(num_classes, pool_type)

    def reset(self, num_classes, pool_type=None):
        """Replace the classifier, and the pooling unless it is None."""
        if pool_type is not None:
            if not pool_type or SelectAdaptivePool2d(pool_type=pool_type).feat_mult() != 1:
                raise ConfigError(f"global_pool is {pool_type!r:.80}; valid are avg, max and avgmax, for this net")
            self.global_pool = SelectAdaptivePool2d(pool_type=pool_type, flatten=True)
        self.classifier[4] = Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        self.train() if self.training else self.eval()

    def take_out_hidden(self, num_features):
        """Leave nothing but the pooling, for feature maps of ``num_features`` channels."""
        self.num_features, self.in_conv = num_features, nn.Identity()
        for index in (0, 1, 2, 4):
            self.classifier[index] = nn.Identity()

    def forward(self, x, pre_logits=False):
        x = self.global_pool(self.in_conv(x))  # [N, widths[0]]
        return self.classifier[:4](x) if pre_logits else self.classifier(x)  # [N, num_classes]


class EfficientVit(HeadedModel):
    """Classify images with a stem, stages of mobile blocks and of linear attention, and a head with a hidden layer.

    Args:
        in_chans: channels of the images.
        widths: channels of the stem and of each stage.
        depths: blocks of the stem and of each stage.
        head_dim: channels of an attention's head.
        expand_ratio: expanded channels of the mobile blocks for each input channel.
        norm_layer: class of the normalisation layers.
        act_layer: class of the activations.
        global_pool: ``avg``, ``max`` or ``avgmax``.
        head_widths: channels of the head's convolution, and of its hidden layer.
        drop_rate: dropout before the classifier.
        num_classes: classes; 0 for a net that returns the input of the classifier.

    Raises:
        ConfigError: for another ``global_pool``.
    """

    head_eps = 1e-5

    def __init__(
        self,
        in_chans=3,
        widths=(),
        depths=(),
        head_dim=32,
        expand_ratio=4,
        norm_layer=BatchNorm2d,
        act_layer=HardSwish,
        global_pool="avg",
        head_widths=(),
        drop_rate=0.0,
        num_classes=1000,
    ):
        super().__init__()
        self.in_chans, self.num_classes, self.num_features = in_chans, num_classes, widths[-1]
        self.head_dim, self.expand_ratio = head_dim, expand_ratio
        layers = {"norm_layer": norm_layer, "act_layer": act_layer}
        first = [("in_conv", _ConvNorm(in_chans, widths[0], 3, 2, **layers))]
        first += [(f"res{index}", self._stem_block(widths[0], **layers)) for index in range(depths[0])]
        self.stem = nn.Sequential(*first)
        self.stages = nn.Sequential(
            *(
                _Stage(self._stage_blocks(index, *sizes, **layers))
                for index, sizes in enumerate(zip(widths, widths[1:], depths[1:]))
            )
        )
        self.feature_info = [
            feature_map(f"stages.{index}", index + 1, width, 2 ** (index + 2)) for index, width in enumerate(widths[1:])
        ]
        self.head = _Head(widths[-1], head_widths, num_classes, drop_rate, act_layer, global_pool, self.head_eps)
        self.head_hidden_size = self.head.num_features

    def _stem_block(self, channels, **layers):
        return _local_block(_separable, channels, channels, fewer_norm=False, **layers)

    def _stage_blocks(self, index, in_chs, out_chs, depth, **layers):
        """Return the blocks of a stage: mobile ones, and in the last two stages attention after the first."""
        attends = index >= 2
        expand = {"expand_ratio": self.expand_ratio}
        blocks = [_local_block(_inverted, in_chs, out_chs, 2, fewer_norm=attends, **expand, **layers)]
        if attends:
            return blocks + [EfficientVitBlock(out_chs, self.head_dim, **expand, **layers) for _ in range(depth)]
        return blocks + [
            _local_block(_inverted, out_chs, out_chs, fewer_norm=False, **expand, **layers) for _ in range(1, depth)
        ]

    def group_matcher(self, coarse=False):
        """Return the patterns for ``group_with_matcher`` by block, or by stage if ``coarse``."""
        blocks = [(r"^stages\.(\d+).downsample", (0,)), (r"^stages\.(\d+)\.\w+\.(\d+)", None)]
        return {"stem": r"^stem", "blocks": r"^stages\.(\d+)" if coarse else blocks}

    def get_classifier(self):
        """Return the last layer."""
        return self.head.classifier[4]

    def reset_classifier(self, num_classes, global_pool=None):
        """Replace pooling and classifier.

        Args:
            num_classes: classes; 0 for a net that returns the input of the classifier.
            global_pool: ``avg``, ``max`` or ``avgmax``; None keeps it.
        """
        self.num_classes = num_classes
        self.head.reset(num_classes, global_pool)

    def prune_intermediate_layers(self, indices=1, prune_norm=False, prune_head=True):
        """Take out the layers that feature maps do not need, and return the numbers of these feature maps.

        Args:
            indices: which feature maps, as in `forward_intermediates`.
            prune_norm: of no effect; there is no last normalisation.
            prune_head: whether to take out the head's layers but the pooling. They go too when stages go.
        """
        taken, last = feature_take_indices(len(self.feature_info), indices)
        shortened = last + 1 < len(self.stages)
        self.keep_stages(last + 1)
        if shortened or prune_head:
            self.num_classes, self.num_features = 0, self.feature_info[last]["num_chs"]
            self.head.take_out_hidden(self.num_features)
            self.head_hidden_size = self.num_features
        return taken


class EfficientVitLarge(EfficientVit):
    """Classify images as `EfficientVit` does, with fused mobile blocks, and attention in the last stage alone.

    Arguments are those of `EfficientVit`, without ``expand_ratio``; ``norm_eps`` is the epsilon of normalisation.
    """

    def __init__(self, *args, norm_layer=BatchNorm2d, act_layer=GELUTanh, norm_eps=1e-7, **kwargs):
        self.head_eps = norm_eps
        super().__init__(*args, norm_layer=partial(norm_layer, eps=norm_eps), act_layer=act_layer, **kwargs)

    def _stem_block(self, channels, **layers):
        return _local_block(_plain, channels, channels, fewer_norm=False, **layers)

    def _stage_blocks(self, index, in_chs, out_chs, depth, **layers):
        """Return the blocks of a stage: fused in the first two, inverted in the others, attention in the last."""
        late, attends = index >= 2, index >= 3
        parts = _inverted if late else _fused
        first = _local_block(parts, in_chs, out_chs, 2, expand_ratio=24 if attends else 16, fewer_norm=late, **layers)
        if attends:
            return [first, *(EfficientVitBlock(out_chs, self.head_dim, 6, **layers) for _ in range(depth))]
        blocks = (
            _local_block(parts, out_chs, out_chs, expand_ratio=4, fewer_norm=late, **layers) for _ in range(depth)
        )
        return [first, *blocks]


def _variant(width, depths, head_dim, head_widths, net=EfficientVit):
    widths = tuple(width * 2**index for index in range(5))
    return {"net": net, "widths": widths, "depths": depths, "head_dim": head_dim, "head_widths": head_widths}


_VARIANTS = {
    "efficientvit_b0": _variant(8, (1, 2, 2, 2, 2), 16, (1024, 1280)),
    "efficientvit_b1": _variant(16, (1, 2, 3, 3, 4), 16, (1536, 1600)),
    "efficientvit_b2": _variant(24, (1, 3, 4, 4, 6), 32, (2304, 2560)),
    "efficientvit_b3": _variant(32, (1, 4, 6, 6, 9), 32, (2304, 2560)),
    "efficientvit_l1": _variant(32, (1, 1, 1, 6, 6), 32, (3072, 3200), EfficientVitLarge),
    "efficientvit_l2": _variant(32, (1, 2, 2, 8, 8), 32, (3072, 3200), EfficientVitLarge),
    "efficientvit_l3": _variant(64, (1, 2, 2, 8, 8), 32, (6144, 6400), EfficientVitLarge),
}


def _create(variant, **kwargs):
    arguments = {**variant, **kwargs}
    return arguments.pop("net")(**arguments)


register_variants(_VARIANTS, _create)
