"""ConvMixer (https://arxiv.org/abs/2201.09792), with the names, state names and numbers of timm."""

from __future__ import annotations

from paddle import nn

from pimm.layers import BatchNorm2d, Conv2d
from pimm.models.features import feature_map
from pimm.models.headed import StemModel
from pimm.models.registry import register_variants


class Residual(nn.Layer):
    """Add the input to the output of a layer ``fn``."""

    def __init__(self, fn):
        super().__init__()
        self.fn = fn

    def forward(self, x):
        return self.fn(x) + x


class ConvMixer(StemModel):
    """Classify images with a ConvMixer, which keeps one size of feature maps.

    Args:
        dim: channels.
        depth: number of blocks.
        kernel_size: of the depthwise convolutions.
        patch_size: pixels that become one of a feature map, in each direction.
        in_chans: channels of the images.
        num_classes: classes; 0 for a net that returns the pooled features.
        global_pool: pooling of the head.
        drop_rate: dropout before the classifier.
        act_layer: class of the activations.
    """

    stages_name = "blocks"
    default_out_indices = 3  # the last three

    def __init__(
        self,
        dim,
        depth,
        kernel_size=9,
        patch_size=7,
        in_chans=3,
        num_classes=1000,
        global_pool="avg",
        drop_rate=0.0,
        act_layer=nn.GELU,
    ):
        super().__init__()
        self.in_chans, self.num_features, self.drop_rate = in_chans, dim, drop_rate
        self.stem = nn.Sequential(Conv2d(in_chans, dim, patch_size, patch_size), act_layer(), BatchNorm2d(dim))

        def block():
            depthwise = Conv2d(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim)
            mixer = Residual(nn.Sequential(depthwise, act_layer(), BatchNorm2d(dim)))
            return nn.Sequential(mixer, Conv2d(dim, dim, 1), act_layer(), BatchNorm2d(dim))

        self.blocks = nn.Sequential(*(block() for _ in range(depth)))
        self.feature_info = [feature_map(f"blocks.{index}", index + 1, dim, patch_size) for index in range(depth)]
        self.create_head(num_classes, global_pool)

    def group_matcher(self, coarse=False):
        """Return the patterns of the parameters' names by depth."""
        return {"stem": r"^stem", "blocks": r"^blocks\.(\d+)"}


VARIANTS = {
    "convmixer_1536_20": {"dim": 1536, "depth": 20, "kernel_size": 9, "patch_size": 7},
    "convmixer_768_32": {"dim": 768, "depth": 32, "kernel_size": 7, "patch_size": 7, "act_layer": nn.ReLU},
    "convmixer_1024_20_ks9_p14": {"dim": 1024, "depth": 20, "kernel_size": 9, "patch_size": 14},
}


register_variants(VARIANTS, ConvMixer)
