"""Patches of a convolutional net's feature maps, under timm's name."""

import math

import paddle.nn.functional as F
from paddle import nn

from pimm.errors import ConfigError
from pimm.layers.conv import Conv2d
from pimm.layers.helpers import to_pair
from pimm.layers.patch_embed import nchw_to


class HybridEmbed(nn.Layer):
    """Turn the feature maps of a net, or patches of them, into vectors.

    Args:
        backbone: the net; of a list of feature maps, the last is taken.
        img_size: height and width of images, or one number for both.
        patch_size: the same of patches of feature maps.
        feature_ratio: how many times images are as large as the feature maps.
        feature_dim: channels of the feature maps.
        in_chans: has no effect: the net has its own.
        embed_dim: size of the vectors.
        bias: whether the convolution of patches has a bias.
        proj: whether there is such a convolution; without it ``feature_dim`` must be ``embed_dim``.
        flatten: whether the result is [N, patches, embed_dim], instead of [N, embed_dim, rows, columns].
        output_fmt: order of the axes in place of ``flatten``, as in `PatchEmbed`.
        strict_img_size: has no effect.
        dynamic_img_pad: whether feature maps are padded on the right and at the bottom to whole patches.

    Raises:
        ConfigError: for feature maps that are no whole patches, and for channels that do not fit.
    """

    def __init__(
        self,
        backbone,
        img_size=224,
        patch_size=1,
        feature_ratio=16,
        feature_dim=None,
        in_chans=3,
        embed_dim=768,
        bias=True,
        proj=True,
        flatten=True,
        output_fmt=None,
        strict_img_size=True,
        dynamic_img_pad=False,
    ):
        super().__init__()
        self.backbone = backbone
        self.patch_size, self.feature_ratio = to_pair(patch_size), to_pair(feature_ratio)
        self.flatten, self.output_fmt = flatten and output_fmt is None, output_fmt or "NCHW"
        self.strict_img_size, self.dynamic_img_pad = strict_img_size, dynamic_img_pad
        self.set_input_size(img_size)
        if not proj and feature_dim != embed_dim:
            raise ConfigError(f"without proj, embed_dim must be the {feature_dim} channels of feature maps")
        self.proj = (
            Conv2d(feature_dim, embed_dim, self.patch_size, self.patch_size, bias=bias) if proj else nn.Identity()
        )

    def set_input_size(self, img_size=None, patch_size=None):
        """Change the size of images, an even number of feature maps' places each; patches keep their size.

        Raises:
            ConfigError: for another size of patches, and for feature maps that are no whole patches.
        """
        if patch_size is not None and to_pair(patch_size) != self.patch_size:
            raise ConfigError("patches of feature maps keep their size: create another model")
        self.img_size = to_pair(img_size or self.img_size)
        self.feature_size = tuple(-(-side // ratio) for side, ratio in zip(self.img_size, self.feature_ratio))
        pairs = tuple(zip(self.feature_size, self.patch_size))
        if not self.dynamic_img_pad and any(side % patch for side, patch in pairs):
            raise ConfigError(f"feature maps of {self.feature_size} places are no whole patches of {self.patch_size}")
        self.grid_size = tuple(side // patch for side, patch in pairs)
        self.num_patches = self.grid_size[0] * self.grid_size[1]

    def feat_ratio(self, as_scalar=True):
        """Return how many times images are as large as the grid of patches: the larger number, or both."""
        ratios = tuple(ratio * patch for ratio, patch in zip(self.feature_ratio, self.patch_size))
        return max(ratios) if as_scalar else ratios

    def dynamic_feat_size(self, img_size):
        """Return how many rows and columns of patches an image of this height and width has."""
        rounded = math.ceil if self.dynamic_img_pad else math.floor
        sides = zip(img_size, self.feature_ratio, self.patch_size)
        return tuple(rounded(side // ratio / patch) for side, ratio, patch in sides)

    def set_grad_checkpointing(self, enable=True):
        """Compute the net's activations again in the backward pass, or keep them."""
        if hasattr(self.backbone, "set_grad_checkpointing"):
            self.backbone.set_grad_checkpointing(enable)

    def forward(self, x):
        x = self.backbone(x)
        x = x[-1] if isinstance(x, (list, tuple)) else x
        if self.dynamic_img_pad:
            bottom, right = (-side % patch for side, patch in zip(x.shape[2:], self.patch_size))
            x = F.pad(x, [0, right, 0, bottom])
        x = self.proj(x)
        return x.flatten(2).transpose([0, 2, 1]) if self.flatten else nchw_to(x, self.output_fmt)
