"""Test-time augmentation: several views of each image, and the mean of a net's outputs for the views.

A loader with ``tta=N`` gives the N views of each image one after the other, each with the image's label, as timm's
validation expects them: ``output, target = reduce_tta(net(images), target, N)``.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from pimm.data.transforms import crop_or_pad
from pimm.errors import ConfigError

_CORNERS = ((0, 0), (0, 1), (1, 0), (1, 1))  # top or bottom, left or right

# (corner, mirrored): the middle and its mirror first, the first N are the views of ``tta=N``
VIEWS = ((None, False), (None, True), *((corner, mirrored) for mirrored in (False, True) for corner in _CORNERS))


class OversampleCrop:
    """Cut the first ``views`` of ``VIEWS`` out of an image, as a list.

    Args:
        center: the ``CenterCropOrPad`` of the middle.
        views: number of views.

    Raises:
        ConfigError: for more views than there are.
    """

    def __init__(self, center, views):
        if not 1 <= views <= len(VIEWS):
            raise ConfigError(f"tta {views}: an image has 1 to {len(VIEWS)} views: the middle, the corners, mirrored")
        self.center = center
        self.views = VIEWS[:views]

    def __call__(self, image):
        return [self._view(image, *view) for view in self.views]

    def _view(self, image, corner, mirrored):
        if corner is None:
            view = self.center(image)
        else:
            height, width = self.center.size
            top, left = corner[0] * (image.height - height), corner[1] * (image.width - width)
            view = crop_or_pad(image, top, left, height, width, self.center.fill, self.center.padding_mode)
        return view.transpose(Image.FLIP_LEFT_RIGHT) if mirrored else view

    def __repr__(self):
        return f"OversampleCrop({self.center}, views={len(self.views)})"


class EachView:
    """Apply a transform to each view, and stack the results to an array [views, ...]."""

    def __init__(self, transform):
        self.transform = transform

    def __call__(self, views):
        return np.stack([np.asarray(self.transform(view)) for view in views])

    def __repr__(self):
        return f"EachView({self.transform})"


class CollateViews:
    """Collate as ``collate_fn`` does, then make an image of each view: [B, views, ...] to [B * views, ...]."""

    def __init__(self, collate_fn):
        self.collate_fn = collate_fn

    def __call__(self, samples):
        images, labels = self.collate_fn(samples)
        return images.reshape(-1, *images.shape[2:]), np.repeat(labels, images.shape[1], axis=0)


def reduce_tta(output, target, tta):
    """Return the mean output of each image's views, [B, ...], and each image's label, [B].

    Args:
        output: of the net, [B * tta, ...].
        target: labels [B * tta].
        tta: number of views; 0 and 1 leave both as they are.
    """
    if tta <= 1:
        return output, target
    return output.reshape([-1, tta, *output.shape[1:]]).mean(1), target[::tta]
