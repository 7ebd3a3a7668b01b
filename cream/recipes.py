"""Recipes: the YAML files that come with cream, each found by its name, such as ``demo/search``."""

from __future__ import annotations

import os
from pathlib import Path

from pimm.errors import ConfigError
from pimm.messages import did_you_mean

_PACKAGE = Path(__file__).parent

# An installed package has the files inside; in a clone they are in its configs/, for installations that edit it too.
FOLDER = _PACKAGE / "configs" if (_PACKAGE / "configs").is_dir() else _PACKAGE.parent / "configs"


def recipes() -> dict[str, Path]:
    """Return the path of every recipe by its name: the path below ``configs/``, without ``.yaml``."""
    return {recipe_name(path): path for path in sorted(FOLDER.rglob("*.yaml"))}


def recipe_name(path: str | Path) -> str:
    """Return the name of a recipe for its path, or for a path as in a clone, such as ``configs/demo/search.yaml``."""
    path = Path(path)
    name = path.relative_to(FOLDER) if FOLDER in path.parents else path
    return name.as_posix().removeprefix("configs/").removesuffix(".yaml")


def find_recipe(named: str | Path) -> Path:
    """Return the path of a YAML file: as given where the file exists or no recipe has this name, or else the recipe's.

    Args:
        named: a path, or a name such as ``demo/search``, ``demo/search.yaml`` or ``configs/demo/search.yaml``.

    Raises:
        ConfigError: there is neither, but recipes with names like it.
    """
    if os.path.exists(named) and not os.path.isdir(named):  # a run may have the name of a recipe
        return Path(named)
    known, name = recipes(), recipe_name(named)
    near = did_you_mean(name, known, count=3)
    if name not in known and near:
        raise ConfigError(f"{named!s:.150}: there is no such file, and no recipe of cream has this name{near}")
    return known.get(name, Path(named))
