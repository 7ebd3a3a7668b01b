"""Two layers with an activation between them, and their variants with gates; names and arguments are timm's.

Arguments that all of them share:

    in_features: channels of the input.
    hidden_features: channels after the first layer; None for as many as the input has.
    out_features: channels of the output; None for as many as the input has.
    act_layer, norm_layer: classes of the activation and of a normalisation of the hidden channels.
    bias: whether the layers have biases, or a pair for the first and the second layer.
    drop: dropout after each layer, or a pair.
    use_conv: whether the input is images [N, C, H, W] and layers are 1x1 convolutions, instead of [..., C].
"""

from functools import partial

from paddle import nn

from pimm.errors import ConfigError
from pimm.layers.activations import Swish
from pimm.layers.conv import Conv2d
from pimm.layers.grn import GlobalResponseNorm
from pimm.layers.helpers import to_pair
from pimm.layers.linear import Linear
from pimm.layers.weight_init import normal_, ones_


def _layer(use_conv):
    return partial(Conv2d, kernel_size=1) if use_conv else Linear


def _half(hidden_features):
    if hidden_features % 2:
        raise ConfigError(f"a gate takes half of the hidden features: {hidden_features} is odd")
    return hidden_features // 2


class Mlp(nn.Layer):
    """Two layers with an activation between them; arguments as this module says."""

    def __init__(
        self,
        in_features,
        hidden_features=None,
        out_features=None,
        act_layer=nn.GELU,
        norm_layer=None,
        bias=True,
        drop=0.0,
        use_conv=False,
    ):
        super().__init__()
        hidden_features = hidden_features or in_features
        layer, bias, drop = _layer(use_conv), to_pair(bias), to_pair(drop)
        self.fc1 = layer(in_features, hidden_features, bias=bias[0])
        self.act = act_layer()
        self.drop1 = nn.Dropout(drop[0])
        self.norm = norm_layer(hidden_features) if norm_layer else nn.Identity()
        self.fc2 = layer(hidden_features, out_features or in_features, bias=bias[1])
        self.drop2 = nn.Dropout(drop[1])

    def forward(self, x):
        x = self.norm(self.drop1(self.act(self.fc1(x))))
        return self.drop2(self.fc2(x))


class GluMlp(nn.Layer):
    """`Mlp` in which one half of the hidden channels, activated, multiplies the other (https://arxiv.org/abs/2002.05202).

    Args:
        gate_last: whether the second half is the gate; the other arguments are those that this module names.

    Raises:
        ConfigError: for an odd number of hidden channels.
    """

    def __init__(
        self,
        in_features,
        hidden_features=None,
        out_features=None,
        act_layer=nn.Sigmoid,
        norm_layer=None,
        bias=True,
        drop=0.0,
        use_conv=False,
        gate_last=True,
    ):
        super().__init__()
        hidden_features = hidden_features or in_features
        gated = _half(hidden_features)
        layer, bias, drop = _layer(use_conv), to_pair(bias), to_pair(drop)
        self.channel_axis, self.gate_last = 1 if use_conv else -1, gate_last
        self.fc1 = layer(in_features, hidden_features, bias=bias[0])
        self.act = act_layer()
        self.drop1 = nn.Dropout(drop[0])
        self.norm = norm_layer(gated) if norm_layer else nn.Identity()
        self.fc2 = layer(gated, out_features or in_features, bias=bias[1])
        self.drop2 = nn.Dropout(drop[1])

    def forward(self, x):
        first, second = self.fc1(x).chunk(2, axis=self.channel_axis)
        x = first * self.act(second) if self.gate_last else self.act(first) * second
        return self.drop2(self.fc2(self.norm(self.drop1(x))))


SwiGLUPacked = partial(GluMlp, act_layer=Swish, gate_last=False)


class SwiGLU(nn.Layer):
    """`GluMlp` with swish whose gate is a layer of its own, ``fc1_g``.

    Args:
        align_to: the hidden channels are rounded up to a multiple of it; 0 for no rounding. The other arguments are
            those that this module names.
    """

    def __init__(
        self,
        in_features,
        hidden_features=None,
        out_features=None,
        act_layer=Swish,
        norm_layer=None,
        bias=True,
        drop=0.0,
        align_to=0,
    ):
        super().__init__()
        hidden_features = hidden_features or in_features
        hidden_features += -hidden_features % align_to if align_to else 0
        bias, drop = to_pair(bias), to_pair(drop)
        self.fc1_g = Linear(in_features, hidden_features, bias=bias[0])
        self.fc1_x = Linear(in_features, hidden_features, bias=bias[0])
        self.act = act_layer()
        self.drop1 = nn.Dropout(drop[0])
        self.norm = norm_layer(hidden_features) if norm_layer else nn.Identity()
        self.fc2 = Linear(hidden_features, out_features or in_features, bias=bias[1])
        self.drop2 = nn.Dropout(drop[1])

    def init_weights(self):
        """Let the gate begin as the same number everywhere."""
        if self.fc1_g.bias is not None:
            ones_(self.fc1_g.bias)
        normal_(self.fc1_g.weight, std=1e-6)

    def forward(self, x):
        x = self.drop1(self.act(self.fc1_g(x)) * self.fc1_x(x))
        return self.drop2(self.fc2(self.norm(x)))


class GatedMlp(nn.Layer):
    """`Mlp` with a layer that gates the hidden channels and halves their number, as gMLP has it.

    Args:
        gate_layer: class of that layer, which takes the number of channels; None for no gate. The other arguments are
            those that this module names.

    Raises:
        ConfigError: for a gate of an odd number of hidden channels.
    """

    def __init__(
        self,
        in_features,
        hidden_features=None,
        out_features=None,
        act_layer=nn.GELU,
        norm_layer=None,
        gate_layer=None,
        bias=True,
        drop=0.0,
    ):
        super().__init__()
        hidden_features = hidden_features or in_features
        bias, drop = to_pair(bias), to_pair(drop)
        self.fc1 = Linear(in_features, hidden_features, bias=bias[0])
        self.act = act_layer()
        self.drop1 = nn.Dropout(drop[0])
        gated = _half(hidden_features) if gate_layer else hidden_features
        self.gate = gate_layer(hidden_features) if gate_layer else nn.Identity()
        self.norm = norm_layer(gated) if norm_layer else nn.Identity()
        self.fc2 = Linear(gated, out_features or in_features, bias=bias[1])
        self.drop2 = nn.Dropout(drop[1])

    def forward(self, x):
        x = self.drop1(self.act(self.fc1(x)))
        return self.drop2(self.fc2(self.norm(self.gate(x))))


class ConvMlp(nn.Layer):
    """`Mlp` of images [N, C, H, W] with the normalisation before the activation, and one dropout."""

    def __init__(
        self,
        in_features,
        hidden_features=None,
        out_features=None,
        act_layer=nn.ReLU,
        norm_layer=None,
        bias=True,
        drop=0.0,
    ):
        super().__init__()
        hidden_features, bias = hidden_features or in_features, to_pair(bias)
        self.fc1 = Conv2d(in_features, hidden_features, 1, bias=bias[0])
        self.norm = norm_layer(hidden_features) if norm_layer else nn.Identity()
        self.act = act_layer()
        self.drop = nn.Dropout(drop)
        self.fc2 = Conv2d(hidden_features, out_features or in_features, 1, bias=bias[1])

    def forward(self, x):
        return self.fc2(self.drop(self.act(self.norm(self.fc1(x)))))


class GlobalResponseNormMlp(nn.Layer):
    """`Mlp` with `GlobalResponseNorm`, for images [N, H, W, C], or [N, C, H, W] with ``use_conv``."""

    def __init__(
        self,
        in_features,
        hidden_features=None,
        out_features=None,
        act_layer=nn.GELU,
        bias=True,
        drop=0.0,
        use_conv=False,
    ):
        super().__init__()
        hidden_features = hidden_features or in_features
        layer, bias, drop = _layer(use_conv), to_pair(bias), to_pair(drop)
        self.fc1 = layer(in_features, hidden_features, bias=bias[0])
        self.act = act_layer()
        self.drop1 = nn.Dropout(drop[0])
        self.grn = GlobalResponseNorm(hidden_features, channels_last=not use_conv)
        self.fc2 = layer(hidden_features, out_features or in_features, bias=bias[1])
        self.drop2 = nn.Dropout(drop[1])

    def forward(self, x):
        x = self.grn(self.drop1(self.act(self.fc1(x))))
        return self.drop2(self.fc2(x))
