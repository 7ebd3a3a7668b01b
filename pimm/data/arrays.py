"""PIL images become arrays and tensors, and those become normalised values."""

from __future__ import annotations

import numpy as np
import paddle

from pimm.data.channels import per_channel
from pimm.data.pixels import to_8_bits


class ToNumpy:
    """Turn a PIL image into a uint8 array [channels, height, width]."""

    def __call__(self, image):
        if image.mode != "RGB":
            return np.atleast_3d(np.array(to_8_bits(image), dtype=np.uint8)).transpose(2, 0, 1)
        array = np.empty((3, image.height, image.width), np.uint8)
        for plane, band in zip(array, "RGB"):  # half the time of taking the pixels apart afterwards
            plane.ravel()[:] = np.frombuffer(image.tobytes("raw", band), np.uint8)
        return array


class ToTensor:
    """Turn a PIL image, or an array [channels, height, width], into a tensor on the CPU; values are kept as they are.

    Args:
        dtype: of the tensor.
    """

    def __init__(self, dtype="float32"):
        self.dtype = dtype
        self.to_numpy = ToNumpy()

    def __call__(self, image):
        array = image if isinstance(image, np.ndarray) else self.to_numpy(image)
        return paddle.to_tensor(array.astype(self.dtype, copy=False), place=paddle.CPUPlace())


class MaybePILToTensor:
    """Turn a PIL image into a uint8 tensor [channels, height, width] on the CPU; leave a tensor as it is."""

    def __init__(self):
        self.to_tensor = ToTensor("uint8")

    def __call__(self, image):
        return image if isinstance(image, paddle.Tensor) else self.to_tensor(image)


class MaybeToTensor(MaybePILToTensor):
    """Turn a PIL image into a float32 tensor [channels, height, width] of 0 to 1; leave a tensor as it is."""

    def __call__(self, image):
        return image if isinstance(image, paddle.Tensor) else self.to_tensor(image).astype("float32") / 255


class Normalize:
    """Turn pixels of 0 to 255, channels third from last, into ``(pixel / 255 - mean) / std`` in float32.

    Takes one image or a batch, as uint8 array (gives an array) or as Paddle tensor (computes on its device). For images
    with another number of channels than there are values, the mean of the values counts for each channel.

    Args:
        mean: of each channel, for pixels from 0 to 1.
        std: standard deviation of each channel.
    """

    def __init__(self, mean, std):
        self.mean = mean
        self.std = std
        self._scales = {}  # (channels, place) -> (mean, std) of pixels from 0 to 255

    def __call__(self, images):
        if isinstance(images, np.ndarray):
            mean, std = self._scale(images.shape[-3])
            images = images - mean
            images /= std
            return images
        mean, std = self._scale(images.shape[-3], images.place)
        return (images.astype("float32") - mean) / std

    def _scale(self, channels, place=None):
        """Return mean and std [channels, 1, 1] as arrays, or as tensors on ``place``, which are copied there once."""
        key = channels, str(place)
        if key not in self._scales:
            values = (per_channel(_plain(value), channels) for value in (self.mean, self.std))
            scale = [np.asarray(value, np.float32).reshape(-1, 1, 1) * 255 for value in values]
            self._scales[key] = scale if place is None else [paddle.to_tensor(value, place=place) for value in scale]
        return self._scales[key]


def _plain(values):
    return values.tolist() if isinstance(values, np.ndarray) else values
