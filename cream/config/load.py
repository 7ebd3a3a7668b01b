"""Settings read from YAML files and the command line.

A value is taken as text and becomes what its field's type says, so that ``1e-4``, ``(0.05,0.2)`` and ``None``,
which plain YAML leaves as strings, mean what they look like.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from cream.config.keys import ALIASES, INERT, KEYS, KNOWN, SECTIONS, put, siblings
from cream.config.rules import check_settings, is_first_process
from cream.config.schema import Config
from cream.fields import convert, listed, shown
from cream.recipes import FOLDER, find_recipe, recipe_name
from cream.yaml_text import compose, plain
from pimm.errors import ConfigError
from pimm.messages import did_you_mean

_log = logging.getLogger(__name__)

COMMAND_LINE = "command line"

# Files that are looked for beside the YAML file that names them, and then from the working directory.
BESIDE = (
    *("RESUME_PATH", "RETRAIN_CFG", "NET.INITIAL_WEIGHTS", "KD.CHECKPOINT"),
    *("SUPERNET.LATENCY_TABLE", "SUPERNET.SPACE"),
)


class _Setting(NamedTuple):
    """Holds a key as it was given, its value as text or lists of text, and where it stands."""

    name: str
    raw: Any
    place: str


def load_config(path: str | Path | None = None, overrides: Sequence[str] = (), beside: bool = True) -> Config:
    """Read the settings of a YAML file, changed by overrides.

    Args:
        path: YAML file, or the name of a recipe such as ``demo/search``; None for the defaults.
        overrides: texts ``KEY=VALUE`` or ``SECTION.KEY=VALUE``.
        beside: look for the files that the YAML file names beside it first. The record of a run names its files from
            the working directory, and the folder of the run holds results with such names.

    Raises:
        ConfigError: unknown key, wrong type, value out of range, or values that contradict each other.
        OSError: the file cannot be read.
    """
    cfg, places, inert = Config(), {}, {}
    for name, raw, place in [*(_read(path, beside) if path is not None else ()), *map(_override, overrides)]:
        name = ALIASES.get(name, name)
        if name in INERT:
            inert[name] = raw
            _warn_of_inert(name, raw, place)
        elif name in KEYS:
            put(cfg, name, _value(name, raw, place))
        elif name in SECTIONS:
            raise ConfigError(f"{place}: {name} is a section; name one of its keys, such as {siblings(name)[0]}")
        else:
            raise ConfigError(f"{place}: unknown key {shown(name, quote='')}{_hint(name)}")
        places[name] = place
    check_settings(cfg, places, inert)
    return cfg


def _hint(name: str) -> str:
    """Say which known keys are near a wrong one."""
    hint = did_you_mean(name, KNOWN, cutoff=0.75)
    if hint:
        return hint
    leaves = {known.rpartition(".")[2]: known for known in KNOWN}
    hint = did_you_mean(name.upper().rpartition(".")[2], leaves)
    if hint:
        return re.sub(r"\w+(?=\?$)", lambda leaf: leaves[leaf[0]], hint)
    near = siblings(name.rpartition(".")[0])
    return f"; known are {listed(near)}" if near else f"; known sections are {listed(sorted(SECTIONS))}"


def _warn_of_inert(name: str, raw: Any, place: str) -> None:
    if is_first_process() and str(raw).lower() not in (value.lower() for value in INERT[name].quiet):
        _log.warning("%s: %s has no effect here: %s", place, name, INERT[name].why)


def _read(named: str | Path, beside: bool) -> Iterator[_Setting]:
    path = find_recipe(named)
    root = compose(path)
    if root is None:
        return iter(())
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError(f"{path}: holds no settings; must be lines of the form KEY: VALUE")
    found = _settings(root, "", path)
    return (_find_beside(setting, path) for setting in found) if beside else found


def _settings(node: yaml.MappingNode, prefix: str, path: str | Path) -> Iterator[_Setting]:
    seen = set()
    for name_node, value in node.value:
        place = f"{path}, line {name_node.start_mark.line + 1}"
        if not isinstance(name_node, yaml.ScalarNode):
            raise ConfigError(f"{place}: a list or a section stands where the name of a key must be")
        name = f"{prefix}{name_node.value}"
        if name in seen:
            raise ConfigError(f"{place}: {shown(name, quote='')} is given twice")
        seen.add(name)
        if name not in SECTIONS:
            yield _Setting(name, _raw_of(name, value, place), place)
        elif isinstance(value, yaml.MappingNode):
            yield from _settings(value, f"{name}.", path)
        elif _raw_of(name, value, place) != "":
            raise ConfigError(f"{place}: {name} is a section; must hold keys, not a value")


def _find_beside(setting: _Setting, path: Path) -> _Setting:
    """Return a setting with the path of the file that it names where this file lies beside ``path``; else the setting.

    Recipes name each other by name, so that the record of a run outlives the installation that the run used.
    """
    if setting.name not in BESIDE or not isinstance(setting.raw, str) or not setting.raw:
        return setting
    beside = path.parent / setting.raw
    if not os.path.exists(beside):
        return setting
    return setting._replace(raw=recipe_name(os.path.normpath(beside)) if FOLDER in path.parents else str(beside))


def _raw_of(name: str, node: yaml.Node, place: str) -> Any:
    try:
        return plain(node)
    except ConfigError as error:
        raise ConfigError(f"{place}: {shown(name, quote='')}.{error}") from None
    except RecursionError:
        raise ConfigError(f"{place}: {shown(name, quote='')} holds itself, or lists inside lists without end") from None


def _override(text: str) -> _Setting:
    name, equals, value = text.partition("=")
    if not equals:
        file = (
            f"; a file of settings is given by --cfg {shown(text, quote='')}"
            if text.endswith((".yaml", ".yml"))
            else ""
        )
        raise ConfigError(
            f"{COMMAND_LINE}: {shown(text)} is no setting; must be KEY=VALUE or SECTION.KEY=VALUE, in quotes if with "
            f"spaces{file}"
        )
    return _Setting(name.strip(), value.strip(), COMMAND_LINE)


def _value(name: str, raw: Any, place: str) -> Any:
    try:
        return convert(raw, KEYS[name].kind, KEYS[name].rule)
    except ValueError as error:
        raise ConfigError(f"{place}: {name} {error}") from None
