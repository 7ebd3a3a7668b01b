"""YAML as text: values stay as they were written, so that what they are to be decides how they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from pimm.errors import ConfigError


class OneLine(dict):
    """A mapping that is written on one line."""


def compose(path: str | Path) -> yaml.Node | None:
    """The root of a file's tree, None of an empty one.

    Raises ConfigError with file and line if it is no YAML, OSError if it cannot be read.
    """
    try:
        return yaml.compose(Path(path).read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}, line {mark.line + 1}" if mark else path
        raise ConfigError(f"{place}: not valid YAML: {getattr(error, 'problem', None) or error}") from None


def plain(node: yaml.Node) -> Any:
    """Texts, lists and mappings of a tree.

    Raises ConfigError for a key that is given twice, RecursionError for what holds itself.
    """
    if isinstance(node, yaml.SequenceNode):
        return [plain(item) for item in node.value]
    if isinstance(node, yaml.MappingNode):
        found: dict[str, Any] = {}
        for name_node, value in node.value:
            name = str(plain(name_node))
            if name in found:
                raise ConfigError(f"{name} is given twice")
            found[name] = plain(value)
        return found
    return node.value
