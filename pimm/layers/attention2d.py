"""Attention between the pixels of images [N, C, H, W]."""

import paddle
from paddle import nn

from pimm.errors import ConfigError
from pimm.layers.attention import attend
from pimm.layers.conv import Conv2d, create_conv2d
from pimm.layers.norm import BatchNorm2d


def _pixels(x, heads):
    """Return [N, heads * dim, H, W] as [N, heads, H * W, dim]."""
    return x.reshape([0, heads, x.shape[1] // heads, -1]).transpose([0, 1, 3, 2])  # 0 keeps an axis, even if unknown


def _images(x, height, width):
    """Return [N, heads, H * W, dim] as [N, heads * dim, H, W]."""
    heads, dim = x.shape[1], x.shape[3]
    return x.transpose([0, 1, 3, 2]).reshape([0, heads * dim, height, width])


class MultiQueryAttention2d(nn.Layer):
    """Attention whose heads share one key and one value (https://arxiv.org/abs/1911.02150), for MobileNet V4.

    Args:
        dim: channels of the input.
        dim_out: channels of the output; None for ``dim``.
        num_heads: heads of the query.
        key_dim: channels of a head's query and of the key; None for ``dim // num_heads``.
        value_dim: channels of the value; None for ``dim // num_heads``.
        kv_stride: by how much a depthwise convolution shrinks the images that key and value are made of.
        dw_kernel_size: kernel of that convolution.
        dilation: dilation of that convolution.
        padding: padding of that convolution.
        attn_drop: dropout of the attention's weights.
        proj_drop: dropout of the output.
        norm_layer: class of the normalisation after that convolution.
        use_bias: whether the projections have a bias.
    """

    def __init__(
        self,
        dim,
        dim_out=None,
        num_heads=8,
        key_dim=None,
        value_dim=None,
        kv_stride=1,
        dw_kernel_size=3,
        dilation=1,
        padding="",
        attn_drop=0.0,
        proj_drop=0.0,
        norm_layer=BatchNorm2d,
        use_bias=False,
    ):
        super().__init__()
        key_dim, value_dim = key_dim or dim // num_heads, value_dim or dim // num_heads
        self.num_heads, self.attn_drop = num_heads, attn_drop
        shrink = {
            "kernel_size": dw_kernel_size,
            "stride": kv_stride,
            "dilation": dilation,
            "padding": padding,
            "depthwise": True,
        }
        self.query = nn.Sequential(("proj", create_conv2d(dim, num_heads * key_dim, 1, bias=use_bias)))
        self.key, self.value = nn.Sequential(), nn.Sequential()
        for branch, channels in ((self.key, key_dim), (self.value, value_dim)):
            if kv_stride > 1:
                branch.add_sublayer("down_conv", create_conv2d(dim, dim, **shrink))
                branch.add_sublayer("norm", norm_layer(dim))
            branch.add_sublayer("proj", create_conv2d(dim, channels, 1, bias=use_bias))
        self.output = nn.Sequential(
            ("proj", create_conv2d(num_heads * value_dim, dim_out or dim, 1, bias=use_bias)),
            ("drop", nn.Dropout(proj_drop)),
        )
        self.init_weights()

    def init_weights(self):
        """Draw the weights of all convolutions as Glorot does; a net calls this after it has drawn its own values."""
        for layer in self.sublayers():
            if isinstance(layer, nn.Conv2D):
                nn.initializer.XavierUniform()(layer.weight)

    def forward(self, x):
        height, width = x.shape[2:]
        query = _pixels(self.query(x), self.num_heads)  # [N, heads, H * W, key_dim]
        key, value = (
            _pixels(branch(x), 1).expand([-1, self.num_heads, -1, -1]) for branch in (self.key, self.value)
        )  # [N, heads, H * W / kv_stride^2, dim]
        x = attend(query, key, value, dropout=self.attn_drop if self.training else 0.0)
        return self.output(_images(x, height, width))  # [N, dim_out, H, W]


class Attention2d(nn.Layer):
    """Attention of several heads (https://arxiv.org/abs/1706.03762).

    Args:
        dim: channels of the input.
        dim_out: channels of the output; None for ``dim``.
        num_heads: heads, of which ``dim`` is a multiple.
        bias: whether the projections have a bias.
        expand_first: whether the heads together have ``dim_out`` channels in place of ``dim``.
        head_first: whether the channels of the projection are ordered by heads, and then by query, key and value.
        attn_drop: dropout of the attention's weights.
        proj_drop: dropout of the output.

    Raises:
        ConfigError: if the heads do not share the channels evenly.
    """

    def __init__(
        self,
        dim,
        dim_out=None,
        num_heads=32,
        bias=True,
        expand_first=False,
        head_first=False,
        attn_drop=0.0,
        proj_drop=0.0,
    ):
        super().__init__()
        dim_out = dim_out or dim
        dim_attn = dim_out if expand_first else dim
        if dim_attn % num_heads:
            raise ConfigError(f"{num_heads} heads cannot share {dim_attn} channels evenly")
        self.num_heads, self.head_first, self.attn_drop = num_heads, head_first, attn_drop
        self.qkv = Conv2d(dim, dim_attn * 3, 1, bias=bias)
        self.proj = Conv2d(dim_attn, dim_out, 1, bias=bias)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x):
        height, width = x.shape[2:]
        x = self.qkv(x)
        if self.head_first:
            query, key, value = paddle.chunk(_pixels(x, self.num_heads), 3, axis=-1)  # [N, heads, H * W, dim_head]
        else:
            query, key, value = (_pixels(part, self.num_heads) for part in paddle.chunk(x, 3, axis=1))
        x = attend(query, key, value, dropout=self.attn_drop if self.training else 0.0)
        return self.proj_drop(self.proj(_images(x, height, width)))  # [N, dim_out, H, W]
