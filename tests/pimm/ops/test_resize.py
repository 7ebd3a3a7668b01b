"""Scaling of images: Pillow's pixels, to the bit, for every instruction set."""

import numpy as np
import pytest
from PIL import Image

from pimm.data.jpeg import scales_columns_first
from pimm.ops.resize import resize_part

FILTERS = {Image.BILINEAR: False, Image.BICUBIC: True}


def image_of(rng, width, height, extreme):
    """Noise, or black and white alone, whose cubic sums lie beyond 0 and 255."""
    pixels = rng.integers(0, 256, (height, width, 4), dtype=np.uint8)
    return np.where(pixels > 127, 255, 0).astype(np.uint8) if extreme else pixels


def test_pillows_pixels_on_random_geometries(instruction_set):
    rng, compared = np.random.default_rng(0), 0
    while compared < 120:
        (width, height), size = rng.integers(1, 200, 2).tolist(), tuple(rng.integers(1, 160, 2).tolist())
        if scales_columns_first((width, height), size) or size == (width, height):
            continue
        pixels = image_of(rng, width, height, extreme=compared % 3 == 0)
        left, top = (int(rng.integers(side)) for side in size)
        part = (left, top, int(rng.integers(1, size[0] - left + 1)), int(rng.integers(1, size[1] - top + 1)))
        for resample, is_cubic in FILTERS.items():
            expected = Image.fromarray(pixels[..., :3]).resize(size, resample)
            expected = np.asarray(expected.crop((left, top, left + part[2], top + part[3])))
            found = resize_part(pixels, size, part, is_cubic)[..., :3]
            np.testing.assert_array_equal(found, expected, err_msg=f"{width}x{height} to {size}, {part}")
        compared += 1


@pytest.mark.parametrize("size", [(1, 1), (3000, 1), (1, 900), (2, 3)])
def test_thin_and_tiny_images(instruction_set, size):
    pixels = image_of(np.random.default_rng(1), *size, extreme=False)
    for scaled in ((1, 1), (7, 1), (1, 9), (40, 40)):
        if scaled != size and not scales_columns_first(size, scaled):
            expected = np.asarray(Image.fromarray(pixels[..., :3]).resize(scaled, Image.BICUBIC))
            np.testing.assert_array_equal(resize_part(pixels, scaled, (0, 0, *scaled), True)[..., :3], expected)


def test_a_view_of_a_larger_image_is_read_alone():
    pixels = image_of(np.random.default_rng(2), 90, 70, extreme=False)
    view = pixels[11:60, 20:77]
    expected = resize_part(np.ascontiguousarray(view), (31, 24), (0, 0, 31, 24), True)
    np.testing.assert_array_equal(resize_part(view, (31, 24), (0, 0, 31, 24), True), expected)


@pytest.mark.parametrize(
    ("shape", "dtype", "size", "part"),
    [
        ((8, 8, 3), "uint8", (4, 4), (0, 0, 4, 4)),
        ((8, 8), "uint8", (4, 4), (0, 0, 4, 4)),
        ((0, 8, 4), "uint8", (4, 4), (0, 0, 4, 4)),
        ((8, 8, 4), "int32", (4, 4), (0, 0, 4, 4)),
        ((8, 8, 4), "uint8", (4, 4), (1, 0, 4, 4)),
        ((8, 8, 4), "uint8", (4, 4), (0, -1, 4, 4)),
        ((8, 8, 4), "uint8", (4, 4), (0, 0, 4, 0)),
    ],
)
def test_what_would_be_read_or_written_outside_is_refused(shape, dtype, size, part):
    with pytest.raises(ValueError, match=r"not bytes \[height, width, 4\]|does not lie in an image of 4 x 4"):
        resize_part(np.zeros(shape, dtype), size, part, False)
