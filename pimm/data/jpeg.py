"""JPEGs decoded by simplejpeg and scaled by an operator of this project: Pillow's pixels, in less time."""

from __future__ import annotations

import functools
import io
import logging

import numpy as np
from PIL import Image

from pimm.data.pixels import convert, decode, open_image
from pimm.ops.backend import cpu_backend
from pimm.ops.resize import resize_part

_logger = logging.getLogger(__name__)

_IS_CUBIC = {Image.BILINEAR: False, Image.BICUBIC: True}  # of the filters that the operator has
_SAMPLE_SIZE = (83, 58)  # width and height, with blocks and chroma samples that lie over the borders


class DecodedJpeg:
    """Holds the pixels of a JPEG for a transform that scales the image, or a part of it, before it does anything else.

    ``size``, ``width``, ``height`` and ``crop`` are those of a PIL image.

    Args:
        pixels: bytes [height, width, 4], of which the first three are red, green and blue.
        info: that of the PIL image.
    """

    def __init__(self, pixels, info):
        self.pixels = pixels
        self.info = info
        self.height, self.width = pixels.shape[:2]
        self.size = self.width, self.height

    def crop(self, box):
        """Return the part between left, top, right and bottom, which lie inside the image."""
        left, top, right, bottom = box
        return DecodedJpeg(self.pixels[top:bottom, left:right], self.info)

    def resize(self, size, resample, part=None):
        """Return the image, or a part of it, scaled as a PIL image.

        Args:
            size: width and height of the scaled image.
            resample: one of Pillow's filters.
            part: left, top, width and height of the part; None for all.
        """
        left, top, width, height = part = part or (0, 0, *size)
        if resample in _IS_CUBIC and size != self.size and not scales_columns_first(self.size, size):
            scaled = _to_pil(resize_part(self.pixels, size, part, _IS_CUBIC[resample]))
        else:
            scaled = _to_pil(np.ascontiguousarray(self.pixels)).resize(size, resample)
            scaled = scaled.crop((left, top, left + width, top + height))
        scaled.info = dict(self.info)
        return scaled


def decode_for_resize(file, draft_size=None, mode="RGB"):
    """Decode an image file for a transform that scales the image first; the arguments are those of ``decode``.

    Returns:
        ``DecodedJpeg`` where that is faster and gives the same pixels, otherwise a PIL image.

    Raises:
        Exception: whatever ``decode`` raises.
    """
    decoder = fast_decoder()
    if decoder is None or mode != "RGB":
        return decode(file, draft_size, mode)
    image = open_image(file, draft_size, mode)  # Pillow refuses what it always refused
    if image.format == "JPEG" and image.mode == "RGB":
        image.fp.seek(0)  # Pillow's own, because the file may be one that does not seek
        try:
            return DecodedJpeg(_pixels(decoder, image.fp.read(), image.size), image.info)
        except ValueError:  # also for what is odd or damaged, of which Pillow decodes a part, or says what is wrong
            _logger.debug("simplejpeg leaves an image to Pillow", exc_info=True)
    image.load()
    return convert(image, mode)


@functools.cache
def fast_decoder():
    """Return the module simplejpeg; None without it, without the operators, or where pixels are not those of Pillow."""
    try:
        import simplejpeg
    except (ImportError, ValueError):  # the latter where it was built for another numpy
        return None
    if cpu_backend() == "paddle":
        return None
    if not all(_is_equal(simplejpeg, content) for content in _samples()):
        _logger.warning("simplejpeg gives other pixels than Pillow on this machine: Pillow decodes all images")
        return None
    return simplejpeg


def scales_columns_first(before, after):
    """Return whether Pillow scales the height before the width, which rounds otherwise; newer versions do so at times.

    Args:
        before: width and height of the image.
        after: those of the scaled image.
    """
    dropped_x, dropped_y = before[0] - after[0], before[1] - after[1]
    return dropped_y > 0 and dropped_y > 2 * dropped_x


def _pixels(decoder, content, size):
    """Return the pixels of a JPEG, bytes [height, width, 4].

    Args:
        decoder: the module simplejpeg.
        content: of the file.
        size: width and height: those of the image, or as Pillow's ``draft`` makes them.

    Raises:
        ValueError: the decoder cannot decode the file, warns of it, or gives another size.
    """
    pixels = decoder.decode_jpeg(content, "RGBX", min_width=size[0], min_height=size[1])
    if pixels.shape[1::-1] != size:
        raise ValueError(f"a JPEG of {size} was decoded to {pixels.shape}")
    return pixels


def _to_pil(pixels):
    return Image.frombytes("RGB", pixels.shape[1::-1], pixels, "raw", "RGBX")  # which ``frombuffer`` takes for a mode


def _samples():
    """Yield small JPEGs: each way to sample colours, baseline and progressive."""
    width, height = _SAMPLE_SIZE
    ramps = np.stack(np.meshgrid(np.arange(width) * 3, np.arange(height) * 4, [60]), -1)[..., 0, :]
    noise = np.random.default_rng(0).integers(-40, 40, ramps.shape)
    image = Image.fromarray((ramps + noise).clip(0, 255).astype(np.uint8))
    for subsampling in ("4:4:4", "4:2:2", "4:2:0"):
        for progressive in (False, True):
            file = io.BytesIO()
            image.save(file, "JPEG", quality=90, subsampling=subsampling, progressive=progressive)
            yield file.getvalue()


def _is_equal(decoder, content):
    """Return whether a JPEG has Pillow's pixels, in full, as a draft, and scaled by each filter."""
    for draft_size in (None, (40, 28)):
        expected = decode(io.BytesIO(content), draft_size)
        try:
            found = DecodedJpeg(_pixels(decoder, content, expected.size), {})
        except ValueError:
            return False
        for size in (expected.size, (31, 24)):
            if any(found.resize(size, each).tobytes() != expected.resize(size, each).tobytes() for each in _IS_CUBIC):
                return False
    return True
