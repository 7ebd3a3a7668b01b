"""Know which module of timm a model belongs to, and the settings of its sets of weights, by tables beside this file.

``docs/make_timm_models.py`` makes the tables from timm itself. They have models that pimm has not, too.
"""

from __future__ import annotations

import functools
import importlib.util
import json
from pathlib import Path

from pimm.models.pretrained_cfg import PretrainedCfg

TABLE = Path(__file__).with_name("timm_models.json")
OLD_NAMES = Path(__file__).with_name("timm_old_names.json")


@functools.cache
def _table() -> dict:
    return json.loads(TABLE.read_text(encoding="utf-8"))


@functools.cache
def _modules() -> dict:
    return {name: module for module, models in _table().items() for name in models}


def timm_module(name: str) -> str | None:
    """Return the module of timm that has the model of this name, or None if timm has no such model."""
    return _modules().get(name)


@functools.cache
def families() -> tuple:
    """List the modules of timm that pimm has, in the order of their names."""
    return tuple(name for name in sorted(_table()) if importlib.util.find_spec(f"pimm.models.{name}"))


def timm_names(module: str) -> list[str]:
    """List the models of a module of timm, in natural order."""
    return list(_table()[module])


def timm_cfgs(name: str) -> dict:
    """Return timm's ``{tag: PretrainedCfg}`` of a model, the default tag first; none for a model that timm has not."""
    found = _table().get(timm_module(name), {}).get(name, {})
    return {tag: PretrainedCfg(**{key: _as_tuple(value) for key, value in cfg.items()}) for tag, cfg in found.items()}


@functools.cache
def old_names() -> dict:
    """Return the names that timm has replaced, ``{module: {old: current, with its tag if it has one}}``."""
    found = json.loads(OLD_NAMES.read_text(encoding="utf-8"))
    return {module: names for module, names in found.items() if module in families()}


@functools.cache
def layer_names(field: str) -> frozenset:
    """Return the names that the table has in a field, ``first_conv`` or ``classifier``, over all models of timm."""
    values = [cfg.get(field) for models in _table().values() for cfgs in models.values() for cfg in cfgs.values()]
    return frozenset(name for value in values if value for name in ([value] if isinstance(value, str) else value))


def _as_tuple(value):
    return tuple(value) if isinstance(value, list) else value
