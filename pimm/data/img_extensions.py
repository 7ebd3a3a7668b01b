"""Which files count as images: by their names' endings, a list that a script may change before it opens a data set."""

from __future__ import annotations

from pimm.errors import ConfigError

IMG_EXTENSIONS = (".png", ".jpg", ".jpeg")

_extensions = IMG_EXTENSIONS


def get_img_extensions(as_set=False):
    """The endings in use, in lower case and with their dots: a tuple, or a set."""
    return set(_extensions) if as_set else _extensions


def is_img_extension(ext):
    """Whether ``ext``, a name's ending with its dot, is one of an image; upper and lower case are the same."""
    return ext.lower() in _extensions


def set_img_extensions(extensions):
    """Take these endings alone. Raises ConfigError for none at all, and for one that is no dot and letters."""
    global _extensions
    extensions = (extensions,) if isinstance(extensions, str) else tuple(extensions)
    if not extensions:
        raise ConfigError("without any extension no file is an image; give at least one, such as '.jpg'")
    for extension in extensions:
        if not (isinstance(extension, str) and extension.startswith(".") and len(extension) > 1):
            raise ConfigError(f"{extension!r} is not an extension; write it as '.jpg'")
    _extensions = tuple(dict.fromkeys(extension.lower() for extension in extensions))


def add_img_extensions(ext):
    """Take these endings too: one, or several."""
    set_img_extensions((*_extensions, *((ext,) if isinstance(ext, str) else ext)))


def del_img_extensions(ext):
    """Take these endings no more: one, or several."""
    dropped = {ext} if isinstance(ext, str) else set(ext)
    set_img_extensions([extension for extension in _extensions if extension not in dropped])
