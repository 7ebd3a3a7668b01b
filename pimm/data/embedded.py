"""The embedded images: a part of Fashion-MNIST, found as ``data/fashion_mnist`` wherever pimm is installed."""

from __future__ import annotations

import os
from pathlib import Path, PurePath

NAME = PurePath("data/fashion_mnist")

# An installed package has the images inside; a clone has them in ``data/``.
_INSIDE = Path(__file__).with_name("fashion_mnist")
FOLDER = _INSIDE if _INSIDE.is_dir() else Path(__file__).parents[2] / NAME


def find_images(root: str | Path) -> str:
    """Return a path as text, or the embedded images' where ``data/fashion_mnist``, or a file of it, does not exist."""
    path = PurePath(root)
    if not os.path.exists(root) and NAME in (path, *path.parents):
        return str(FOLDER / path.relative_to(NAME))
    return os.fspath(root)
