"""RepGhostNet (https://arxiv.org/abs/2211.06088): GhostNet whose modules add their halves in place of joining them.

Names, state names and numbers are those of timm. `RepGhostNet.convert_to_deploy` makes one convolution of the branches.
"""

from paddle import nn

from pimm.layers import BatchNorm2d
from pimm.layers.fuse import conv_with, fuse_norm, identity_kernel
from pimm.models.ghostnet import GhostBottleneck, GhostNet, conv_norm
from pimm.models.registry import register_variants


class RepGhostModule(nn.Layer):
    """Add a pointwise convolution, normalised, and a depthwise convolution of it.

    Args:
        in_chs: channels of the input.
        out_chs: channels of the output.
        act_layer: class of the activations.
        reparam: whether the pointwise convolution is added beside the depthwise one, as it is in training.
    """

    def __init__(self, in_chs, out_chs, act_layer=nn.ReLU, reparam=True):
        super().__init__()
        self.primary_conv = nn.Sequential(*conv_norm(in_chs, out_chs, 1), act_layer())
        self.fusion_bn = nn.Sequential(*([BatchNorm2d(out_chs)] if reparam else []))
        self.cheap_operation = nn.Sequential(*conv_norm(out_chs, out_chs, 3, groups=out_chs))
        self.relu = act_layer()

    def forward(self, x):
        first = self.primary_conv(x)
        x = self.cheap_operation(first)
        for norm in self.fusion_bn:
            x = x + norm(first)
        return self.relu(x)  # [N, out, H, W]

    def reparameterize(self):
        """Make one depthwise convolution of the depthwise convolution and the normalisation beside it."""
        if not len(self.fusion_bn):
            return
        conv, norm = self.cheap_operation
        identity = identity_kernel(conv.in_channels, conv.groups, conv.kernel_size)
        fused = [fuse_norm(conv.weight, norm), fuse_norm(identity, self.fusion_bn[0])]
        kernel, bias = (sum(values) for values in zip(*fused))
        self.cheap_operation = conv_with(kernel, bias, groups=conv.groups)
        self.fusion_bn = nn.Sequential()


class RepGhostBottleneck(GhostBottleneck):
    """Apply two `RepGhostModule`; arguments are those of `GhostBottleneck`, with ``reparam`` in place of ``gated``."""

    def __init__(self, *args, reparam=True):
        super().__init__(*args, gated=reparam)

    def _create_modules(self, in_chs, mid_chs, out_chs, reparam):
        self.ghost1 = RepGhostModule(in_chs, mid_chs, reparam=reparam)
        self.ghost2 = RepGhostModule(mid_chs, out_chs, nn.Identity, reparam)


class RepGhostNet(GhostNet):
    """Classify images as `GhostNet` does; ``reparam`` tells whether the net has the branches that training needs."""

    last_factor = 2

    def __init__(self, cfgs, *args, reparam=True, **kwargs):
        self.reparam = reparam
        super().__init__(cfgs, *args, **kwargs)

    def create_block(self, index, *sizes):
        """Return a block by its number in the net, and by the first arguments of `RepGhostBottleneck`."""
        return RepGhostBottleneck(*sizes, reparam=self.reparam)


_STAGES = [  # kernel, expanded channels, channels, gate ratio, stride
    [[3, 8, 16, 0, 1]],
    [[3, 24, 24, 0, 2]],
    [[3, 36, 24, 0, 1]],
    [[5, 36, 40, 0.25, 2]],
    [[5, 60, 40, 0.25, 1]],
    [[3, 120, 80, 0, 2]],
    [
        [3, 100, 80, 0, 1],
        [3, 120, 80, 0, 1],
        [3, 120, 80, 0, 1],
        [3, 240, 112, 0.25, 1],
        [3, 336, 112, 0.25, 1],
    ],
    [[5, 336, 160, 0.25, 2]],
    [[5, 480, 160, 0, 1], [5, 480, 160, 0.25, 1], [5, 480, 160, 0, 1], [5, 480, 160, 0.25, 1]],
]
_WIDTHS = (50, 58, 80, 100, 111, 130, 150, 200)  # in per cent
_VARIANTS = {f"repghostnet_{width:03}": {"width": width / 100} for width in _WIDTHS}


def _create(variant, **kwargs):
    return RepGhostNet(_STAGES, **{**variant, **kwargs})


register_variants(_VARIANTS, _create)
