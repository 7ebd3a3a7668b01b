"""StarNet (https://arxiv.org/abs/2403.19967), with the names, state names and numbers of timm."""

from __future__ import annotations

from paddle import nn

from pimm.errors import ConfigError
from pimm.layers import BatchNorm2d, Conv2d, DropPath, calculate_drop_path_rates
from pimm.layers.weight_init import trunc_normal_, zeros_
from pimm.models.features import feature_map
from pimm.models.headed import StemModel
from pimm.models.registry import register_variants


def conv_bn(ins, outs, kernel_size=1, stride=1, groups=1, with_bn=True):
    """Return a convolution ``conv`` with a bias and, if ``with_bn``, a batch norm ``bn``."""
    parts = [("conv", Conv2d(ins, outs, kernel_size, stride, kernel_size // 2, groups=groups))]
    if with_bn:
        parts.append(("bn", BatchNorm2d(outs)))
    return nn.Sequential(*parts)


class Block(nn.Layer):
    """Multiply two projections of the input, one of them after an activation, between depthwise convolutions."""

    def __init__(self, dim, mlp_ratio=3, drop_path=0.0, act_layer=nn.ReLU6):
        super().__init__()
        self.dwconv = conv_bn(dim, dim, 7, groups=dim)
        self.f1 = conv_bn(dim, mlp_ratio * dim, with_bn=False)
        self.f2 = conv_bn(dim, mlp_ratio * dim, with_bn=False)
        self.g = conv_bn(mlp_ratio * dim, dim)
        self.dwconv2 = conv_bn(dim, dim, 7, groups=dim, with_bn=False)
        self.act = act_layer()
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x):
        shortcut, x = x, self.dwconv(x)
        x = self.act(self.f1(x)) * self.f2(x)
        return shortcut + self.drop_path(self.dwconv2(self.g(x)))


class StarNet(StemModel):
    """Classify images with a StarNet.

    Args:
        base_dim: channels of the first stage; they double with each stage.
        depths: blocks of each stage.
        mlp_ratio: channels inside a block for each channel.
        drop_rate: dropout before the classifier.
        drop_path_rate: stochastic depth of the last block; it grows linearly over the blocks.
        act_layer: class of the activations.
        num_classes: classes; 0 for a net that returns the pooled features.
        in_chans: channels of the images.
        global_pool: pooling of the head.
        output_stride: 32.

    Raises:
        ConfigError: for another ``output_stride``.
    """

    norm_name = "norm"

    def __init__(
        self,
        base_dim=32,
        depths=(3, 3, 12, 5),
        mlp_ratio=4,
        drop_rate=0.0,
        drop_path_rate=0.0,
        act_layer=nn.ReLU6,
        num_classes=1000,
        in_chans=3,
        global_pool="avg",
        output_stride=32,
    ):
        super().__init__()
        if output_stride != 32:
            raise ConfigError(f"output_stride is {output_stride!r:.80}; valid is 32, for this net")
        self.in_chans, self.drop_rate = in_chans, drop_rate
        width = 32
        self.stem = nn.Sequential(conv_bn(in_chans, width, 3, 2), act_layer())
        rates, stages, self.feature_info = calculate_drop_path_rates(drop_path_rate, depths, stagewise=True), [], []
        for number in range(len(depths)):
            dim = base_dim * 2**number
            blocks = [Block(dim, mlp_ratio, rate, act_layer) for rate in rates[number]]
            stages.append(nn.Sequential(conv_bn(width, dim, 3, 2), *blocks))
            width = dim
            self.feature_info.append(feature_map(f"stages.{number}", number + 1, dim, 4 * 2**number))
        self.stages = nn.Sequential(*stages)
        self.num_features = width
        self.norm = BatchNorm2d(width)
        self.create_head(num_classes, global_pool)
        for layer in self.sublayers():
            if isinstance(layer, (nn.Conv2D, nn.Linear)):
                trunc_normal_(layer.weight, std=0.02)
        if num_classes:
            zeros_(self.head.bias)

    def group_matcher(self, coarse=False):
        """Return the patterns of the parameters' names by depth, of stages or of blocks."""
        blocks = r"^stages\.(\d+)" if coarse else r"^stages\.(\d+)\.(\d+)"
        return {"stem": r"^stem\.\d+", "blocks": [(blocks, None), (r"norm", (99999,))]}


VARIANTS = {
    "starnet_s1": {"base_dim": 24, "depths": (2, 2, 8, 3)},
    "starnet_s2": {"base_dim": 32, "depths": (1, 2, 6, 2)},
    "starnet_s3": {"base_dim": 32, "depths": (2, 2, 8, 4)},
    "starnet_s4": {"base_dim": 32, "depths": (3, 3, 12, 5)},
    "starnet_s050": {"base_dim": 16, "depths": (1, 1, 3, 1), "mlp_ratio": 3},
    "starnet_s100": {"base_dim": 20, "depths": (1, 2, 4, 1), "mlp_ratio": 4},
    "starnet_s150": {"base_dim": 24, "depths": (1, 2, 4, 2), "mlp_ratio": 3},
}


register_variants(VARIANTS, StarNet)
