"""Cut images into patches and turn each into a vector, under timm's names."""

import math

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn

from pimm.errors import ConfigError
from pimm.layers.conv import Conv2d
from pimm.layers.helpers import to_pair
from pimm.layers.resample import resize_matrix


class PatchEmbed(nn.Layer):
    """Turn each patch of an image into a vector by one convolution.

    Args:
        img_size: height and width of images, or one number for both; None for any.
        patch_size: the same of patches.
        in_chans: channels of images.
        embed_dim: size of the vectors.
        norm_layer: class of a normalisation of the vectors.
        flatten: whether the result is [N, patches, embed_dim], instead of [N, embed_dim, rows, columns].
        output_fmt: order of the axes in place of ``flatten``: ``NCHW``, ``NHWC``, ``NLC`` or ``NCL``.
        bias: whether the convolution has a bias.
        strict_img_size: whether images of another size than ``img_size`` are refused.
        dynamic_img_pad: whether images are padded on the right and at the bottom to whole patches.

    Raises:
        ConfigError: for images that do not fit.
    """

    def __init__(
        self,
        img_size=224,
        patch_size=16,
        in_chans=3,
        embed_dim=768,
        norm_layer=None,
        flatten=True,
        output_fmt=None,
        bias=True,
        strict_img_size=True,
        dynamic_img_pad=False,
    ):
        super().__init__()
        self.patch_size = to_pair(patch_size)
        self.flatten = flatten and output_fmt is None
        self.output_fmt = output_fmt or "NCHW"
        self.strict_img_size, self.dynamic_img_pad = strict_img_size, dynamic_img_pad
        self._set_img_size(img_size)
        self.proj = Conv2d(in_chans, embed_dim, self.patch_size, stride=self.patch_size, bias=bias)
        self.norm = norm_layer(embed_dim) if norm_layer else nn.Identity()

    def _set_img_size(self, img_size):
        self.img_size = self.grid_size = self.num_patches = None
        if img_size is not None:
            self.img_size = to_pair(img_size)
            self.grid_size = tuple(side // patch for side, patch in zip(self.img_size, self.patch_size))
            self.num_patches = self.grid_size[0] * self.grid_size[1]

    def set_input_size(self, img_size=None, patch_size=None):
        """Change the sizes of images and of patches; kernels are resized. None keeps a size."""
        if patch_size is not None and to_pair(patch_size) != self.patch_size:
            old, self.patch_size = self.proj, to_pair(patch_size)
            self.proj = Conv2d(
                old.in_channels,
                old.out_channels,
                self.patch_size,
                stride=self.patch_size,
                bias=old.bias is not None,
            )
            self.proj.weight.set_value(resample_patch_embed(old.weight, self.patch_size))
            if old.bias is not None:
                self.proj.bias.set_value(old.bias)
        self._set_img_size(img_size or self.img_size)

    def feat_ratio(self, as_scalar=True):
        """Return the size of patches: the larger side, or both sides."""
        return max(self.patch_size) if as_scalar else self.patch_size

    def dynamic_feat_size(self, img_size):
        """Return how many rows and columns of patches an image of this height and width has."""
        rounded = math.ceil if self.dynamic_img_pad else math.floor
        return tuple(rounded(side / patch) for side, patch in zip(img_size, self.patch_size))

    def _check(self, size):
        if self.img_size is None or not paddle.in_dynamic_mode():
            return
        if self.strict_img_size:
            if tuple(size) != self.img_size:
                wanted = _by(self.img_size)
                raise ConfigError(f"the net takes images of {wanted} pixels, not of {_by(size)}: give img_size")
        elif not self.dynamic_img_pad and any(side % patch for side, patch in zip(size, self.patch_size)):
            raise ConfigError(f"images of {_by(size)} pixels are no whole patches of {_by(self.patch_size)} pixels")

    def forward(self, x):
        size = x.shape[2:]
        self._check(size)
        if self.dynamic_img_pad:
            bottom, right = (-side % patch for side, patch in zip(size, self.patch_size))
            x = F.pad(x, [0, right, 0, bottom])
        x = self.proj(x)
        return self.norm(x.flatten(2).transpose([0, 2, 1]) if self.flatten else nchw_to(x, self.output_fmt))


def _by(size):
    return "x".join(map(str, size))


_ORDERS = {
    "NCHW": lambda x: x,
    "NHWC": lambda x: x.transpose([0, 2, 3, 1]),
    "NLC": lambda x: x.flatten(2).transpose([0, 2, 1]),
    "NCL": lambda x: x.flatten(2),
}


def nchw_to(x, fmt):
    """Return images [N, C, H, W] in another order of axes: ``NCHW``, ``NHWC``, ``NLC`` or ``NCL``."""
    return _ORDERS[fmt](x)


def resample_patch_embed(patch_embed, new_size, interpolation="bicubic", antialias=True):
    """Return the kernels of a patch embedding for patches of another size (https://arxiv.org/abs/2212.08013).

    The results on resized patches are nearest to those on the patches themselves: the pseudo-inverse of resizing.

    Args:
        patch_embed: the kernels, [O, C, height, width], a tensor or an array; the result is of the same kind.
        new_size: height and width of the new patches.
        interpolation: how images are resized.
        antialias: whether resizing filters what becomes smaller.
    """
    old_size = tuple(patch_embed.shape[2:])
    if old_size == tuple(new_size):
        return patch_embed
    rows, columns = (resize_matrix(old, new, interpolation, antialias) for old, new in zip(old_size, new_size))
    inverse = np.linalg.pinv(np.kron(rows, columns))  # [old places, new places]
    kernels = np.asarray(patch_embed, np.float64)
    found = (kernels.reshape(*kernels.shape[:2], -1) @ inverse).reshape(*kernels.shape[:2], *new_size)
    found = found.astype("float32")
    return found if isinstance(patch_embed, np.ndarray) else paddle.to_tensor(found)
