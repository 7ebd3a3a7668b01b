"""Which files count as images: by their names' endings, a list that a script may change before it opens a data set."""

from __future__ import annotations

import functools
import logging

from PIL import Image

from pimm.errors import ConfigError

_logger = logging.getLogger(__name__)

IMG_EXTENSIONS = (".png", ".jpg", ".jpeg")

# Endings of images that Pillow reads with a plug-in, or not at all; and endings in Pillow's table that are no images.
_FURTHER_IMAGES = {".heic", ".heif", ".avif", ".jxl", ".webp", ".jfif", ".jpe", ".dng", ".nef", ".cr2", ".arw"}
_NO_IMAGES = {".pdf", ".mpg", ".mpeg", ".ps", ".eps", ".h5", ".hdf", ".grib", ".bufr", ".wmf", ".emf"}

_extensions = IMG_EXTENSIONS


def get_img_extensions(as_set=False):
    """Return the endings in use, in lower case and with their dots: a tuple, or a set."""
    return set(_extensions) if as_set else _extensions


def is_img_extension(ext):
    """Return whether ``ext``, a name's ending with its dot, is one of an image; upper and lower case are the same."""
    return ext.lower() in _extensions


def set_img_extensions(extensions):
    """Take files with these endings, and no others, as images.

    Args:
        extensions: an ending with its dot, such as ``.jpg``, or several.

    Raises:
        ConfigError: for no ending at all, and for one that is not a dot and letters.
    """
    global _extensions
    extensions = (extensions,) if isinstance(extensions, str) else tuple(extensions)
    if not extensions:
        raise ConfigError("without any extension no file is an image; give at least one, such as '.jpg'")
    for extension in extensions:
        if not (isinstance(extension, str) and extension.startswith(".") and len(extension) > 1):
            raise ConfigError(f"{extension!r:.80} is not an extension; write it as '.jpg'")
    _extensions = tuple(dict.fromkeys(extension.lower() for extension in extensions))


def add_img_extensions(ext):
    """Take files with this ending, or these, as images too."""
    set_img_extensions((*_extensions, *((ext,) if isinstance(ext, str) else ext)))


def del_img_extensions(ext):
    """Take files with this ending, or these, as images no more."""
    dropped = {ext} if isinstance(ext, str) else set(ext)
    set_img_extensions([extension for extension in _extensions if extension not in dropped])


def is_other_image(ext):
    """Return whether ``ext``, in lower case, is the ending of an image that is not among those in use."""
    return ext not in _extensions and ext in _known_endings()


def describe_left_out(counts):
    """Return how many images were left out, by ending, and what would take them; empty for none.

    Args:
        counts: ``{ending: number of files}``.
    """
    if not counts:
        return ""
    parts = [f"{count} {ending}" for ending, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    more = ["..."] if len(parts) > 8 else []
    endings = " ".join(sorted(counts)[:8])
    return (
        f"left out for their endings: {', '.join([*parts[:8], *more])}; add_img_extensions takes {endings} too "
        "(--img-extensions, DATASET.IMG_EXTENSIONS)"
    )


def warn_of_left_out(root, counts):
    """Log a warning of images below ``root`` that were left out for their endings, if there are any."""
    if counts:
        _logger.warning("%s: %d images are %s", root, sum(counts.values()), describe_left_out(counts))


@functools.cache
def _known_endings():
    return (set(Image.registered_extensions()) | _FURTHER_IMAGES) - _NO_IMAGES
