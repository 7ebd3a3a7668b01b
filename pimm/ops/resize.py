"""Scaling of photographs, several times as fast as Pillow's and with the same pixels."""

from __future__ import annotations

import ctypes

import numpy as np

from .backend import cpu_backend
from .build import load_library


def resize_part(
    pixels: np.ndarray, size: tuple[int, int], part: tuple[int, int, int, int], is_cubic: bool
) -> np.ndarray:
    """Return a part of a scaled image, [height, width, 4] in bytes, with the pixels that Pillow would give.

    Pillow must scale the width first, as it does unless far more of the height is dropped. The function needs the
    operators: ``cpu_backend()`` is not "paddle".

    Args:
        pixels: bytes [height, width, 4]; rows may be further apart.
        size: width and height of the scaled image.
        part: left, top, width and height of the part of the scaled image.
        is_cubic: whether the filter is Pillow's BICUBIC; otherwise it is BILINEAR.

    Raises:
        ValueError: the pixels are no bytes of four channels side by side, or the part does not lie in the image.
    """
    left, top, width, height = part
    if pixels.dtype != np.uint8 or pixels.shape[2:] != (4,) or pixels.strides[1:] != (4, 1) or not pixels.size:
        raise ValueError(f"pixels are {pixels.dtype} {list(pixels.shape)}, not bytes [height, width, 4]")
    if min(left, top) < 0 or min(width, height) < 1 or left + width > size[0] or top + height > size[1]:
        raise ValueError(f"the part {part} does not lie in an image of {size[0]} x {size[1]}")
    out = np.empty((height, width, 4), np.uint8)
    load_library().pimm_resize_part(
        ctypes.c_void_p(pixels.ctypes.data),
        ctypes.c_int64(pixels.strides[0]),
        _integers(pixels.shape[1], pixels.shape[0]),
        _integers(*size),
        _integers(*part),
        int(is_cubic),
        cpu_backend().encode(),
        ctypes.c_void_p(out.ctypes.data),
    )
    return out


def _integers(*values: int) -> ctypes.Array:
    return (ctypes.c_int * len(values))(*values)
