"""Image files become PIL images of 8 bits a channel."""

from __future__ import annotations

import numpy as np
from PIL import Image

from pimm.errors import DataError

_WIDE_MODES = ("I", "F")  # and all that begin with "I;16"
_BITS_PER_SAMPLE = 258  # a tag of TIFF files
# In these formats "I" is what Pillow gives for grey of more than 8 bits, scaled to 16; since 10.3 PNG files are "I;16".
_FORMATS_OF_16_BITS = ("PNG", "PPM")


def decode(file, draft_size=None, mode="RGB"):
    """Decode an image file to 8-bit RGB or another of Pillow's modes.

    Args:
        file: binary file.
        draft_size: (width, height): let the JPEG decoder scale by 1/2, 1/4 or 1/8 as long as the image stays at least
            that large; faster, and the pixels differ a little from those of decoding in full.
        mode: Pillow's mode to convert to; empty leaves the file's own.

    Raises:
        DataError: for pixels whose range the format does not give.
        Exception: whatever Pillow raises for a damaged file.
    """
    image = open_image(file, draft_size, mode)
    image.load()
    return convert(image, mode)


def open_image(file, draft_size=None, mode="RGB"):
    """Read the header of an image file, and return the PIL image, with size and mode of the draft if one is wanted.

    The arguments are those of ``decode``.
    """
    image = Image.open(file)
    if draft_size is not None:
        image.draft(mode if mode in ("RGB", "L") else None, draft_size)
    return image


def convert(image, mode="RGB"):
    """Convert a PIL image to one of Pillow's modes, scaling grey of more than 8 bits to 8; none leaves it as it is.

    Raises:
        DataError: as ``to_8_bits``.
    """
    if not mode or image.mode == mode:
        return image
    if mode in _WIDE_MODES or mode.startswith("I;16"):
        return image.convert(mode)
    return to_8_bits(image).convert(mode)


def to_8_bits(image):
    """Scale a grey image of 1 bit, or of more than 8, to 8 bits by its format's range; leave others as they are.

    Of more than 8 bits the upper ones are kept; Pillow's conversion would clip at 255, or take the value modulo 256.

    Raises:
        DataError: for 32-bit and floating-point pixels, of which no format says which value is white.
    """
    if image.mode == "1":
        return image.convert("L")
    if image.mode.startswith("I;16"):
        bits = _bits_of_tiff(image) or 16
    elif image.mode == "I" and image.format in _FORMATS_OF_16_BITS:
        bits = 16
    elif image.mode in _WIDE_MODES:
        kind = "floating-point" if image.mode == "F" else "32-bit or signed"
        raise DataError(f"{kind} pixels, of which nothing says which value is white; store them with 8 or 16 bits")
    else:
        return image
    return Image.fromarray((np.asarray(image) >> (bits - 8)).clip(0, 255).astype(np.uint8))


def _bits_of_tiff(image):
    """Return the bits of a pixel in a TIFF file, which may be 12 in Pillow's 16; None for other formats."""
    bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE)
    return max(bits) if isinstance(bits, tuple) else bits
