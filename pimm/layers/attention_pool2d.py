"""Pooling of feature maps by attention, as CLIP's ResNets do (https://arxiv.org/abs/2103.00020)."""

from __future__ import annotations

import paddle
from paddle import nn

from pimm.errors import ConfigError
from pimm.layers.attention import attend
from pimm.layers.helpers import to_pair
from pimm.layers.linear import Linear
from pimm.layers.pos_embed import resample_abs_pos_embed

_POOLS = ("", "token")


class AttentionPool2d(nn.Layer):
    """Attend from the mean of all pixels, or a class token, to the pixels, and project the result.

    The position embedding, [height * width + 1, in_features], is resampled for feature maps of another size.

    Args:
        in_features: channels of the feature maps.
        feat_size: height and width of the feature maps, or a number for both.
        out_features: numbers of the result, 0 for no projection, None for ``in_features``.
        embed_dim: width of the attention; None for ``in_features``.
        head_dim: numbers of a head.
        num_heads: number of heads, which takes the place of ``head_dim``.
        qkv_bias: whether queries, keys and values have a bias.
        qkv_separate: whether they have layers of their own: ``q``, ``k``, ``v`` in place of ``qkv``.
        pool_type: ``token``, or ``""`` for all pixels as a feature map.
        class_token: whether a learned token asks in place of the mean.
        drop_rate: dropout before the projection.

    Raises:
        ConfigError: for another pooling, and if the heads do not divide the width.
    """

    def __init__(
        self,
        in_features,
        feat_size=7,
        out_features=None,
        embed_dim=None,
        head_dim=64,
        num_heads=None,
        qkv_bias=True,
        qkv_separate=False,
        pool_type="token",
        class_token=False,
        drop_rate=0.0,
    ):
        super().__init__()
        self.in_features, self.embed_dim = in_features, embed_dim or in_features
        parts = num_heads or head_dim
        if self.embed_dim % parts:
            raise ConfigError(f"{self.embed_dim} numbers of attention are not divisible by {parts}")
        self.num_heads = num_heads or self.embed_dim // head_dim
        self.head_dim = self.embed_dim // self.num_heads
        self.feat_size, self.pool_type = to_pair(feat_size), _checked(pool_type)
        std = in_features**-0.5
        self.cls_token = None
        if class_token:
            self.cls_token = self.create_parameter(
                [1, self.embed_dim], default_initializer=nn.initializer.Constant(0.0)
            )
        names = ("q", "k", "v") if qkv_separate else ("qkv",)
        for name in names:
            setattr(self, name, Linear(in_features, self.embed_dim * (3 // len(names)), bias=qkv_bias))
        self.projections = names
        self.drop = nn.Dropout(drop_rate)
        out_features = in_features if out_features is None else out_features
        self.proj = Linear(self.embed_dim, out_features) if out_features else nn.Identity()
        length = self.feat_size[0] * self.feat_size[1] + 1
        self.pos_embed = self.create_parameter(
            [length, in_features], default_initializer=nn.initializer.TruncatedNormal(std=std)
        )
        self.init_weights()

    def init_weights(self, zero_init_last=False):
        """Draw queries, keys and values from a truncated N(0, 1 / sqrt(in_features)), with biases of 0."""
        draw = nn.initializer.TruncatedNormal(std=self.in_features**-0.5)
        for name in self.projections:
            layer = getattr(self, name)
            draw(layer.weight)
            if layer.bias is not None:
                nn.initializer.Constant(0.0)(layer.bias)

    def reset(self, num_classes=None, pool_type=None):
        """Replace the projection by one of ``num_classes``, 0 for none, and the pooling; None keeps them."""
        self.pool_type = self.pool_type if pool_type is None else _checked(pool_type)
        if num_classes is not None:
            self.proj = Linear(self.embed_dim, num_classes) if num_classes else nn.Identity()
            self.proj.train() if self.training else self.proj.eval()

    def forward(self, x, pre_logits=False):
        """Return the projection, [N, out_features], or with ``pre_logits`` its input, of feature maps [N, C, H, W]."""
        height, width = x.shape[2:]
        x = x.flatten(2).transpose([0, 2, 1])  # [N, H * W, C]
        token = x.mean(1, keepdim=True) if self.cls_token is None else self.cls_token.expand([x.shape[0], 1, -1])
        x = paddle.concat([token, x], axis=1)
        x = x + resample_abs_pos_embed(
            self.pos_embed.unsqueeze(0), (height, width), old_size=self.feat_size, num_prefix_tokens=1
        )
        qkv = paddle.concat([getattr(self, name)(x) for name in self.projections], axis=-1)
        qkv = qkv.reshape([0, height * width + 1, 3, self.num_heads, self.head_dim])
        x = attend(*qkv.transpose([2, 0, 3, 1, 4]).unbind(0))  # [N, heads, H * W + 1, head_dim]
        x = self.drop(x.transpose([0, 2, 1, 3]).flatten(2))
        return self._pool(x if pre_logits else self.proj(x), height, width)

    def _pool(self, x, height, width):
        if self.pool_type:
            return x[:, 0]
        return x[:, 1:].transpose([0, 2, 1]).reshape([0, x.shape[2], height, width])


def _checked(pool_type):
    if pool_type not in _POOLS:
        raise ConfigError(f"attention pooling is {pool_type!r:.80}; valid are 'token', and '' for none")
    return pool_type
