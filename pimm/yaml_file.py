"""YAML files that may hold anything: bounded in size, in depth, and in what their aliases unfold to."""

from __future__ import annotations

from pathlib import Path

import yaml

from pimm.errors import ConfigError

MOST_BYTES = 2**18  # a file of settings has a few thousand
MOST_VALUES = 100_000


def compose_yaml(path: str | Path, most_bytes: int = MOST_BYTES) -> yaml.Node | None:
    """Return the root of a file's tree, or None for an empty file.

    Args:
        path: the file.
        most_bytes: the largest size of the file.

    Raises:
        ConfigError: the file is no YAML, is too large, or has aliases that unfold to too many values.
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise ConfigError(f"{path} is larger than {most_bytes // 1024} kB, which is too much for a file of settings")
    try:
        root = yaml.compose(content.decode("utf-8"), Loader=yaml.SafeLoader)
        if root is not None and _unfolded(root, {}) > MOST_VALUES:
            raise ConfigError(f"{path}: its aliases (*NAME) unfold to more than {MOST_VALUES} values")
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(_not_yaml(path, error)) from None
    return root


def _not_yaml(path: str | Path, error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    place = f"{path}, line {mark.line + 1}" if mark else path
    problem = " ".join(str(getattr(error, "problem", None) or error).split())
    return f"{place}: not valid YAML: {problem:.200}"


def _unfolded(node: yaml.Node, known: dict[int, int]) -> int:
    """Return the number of values below a node if every alias were written out; a node within itself counts once."""
    if id(node) in known:
        return known[id(node)]
    known[id(node)] = 1
    children = node.value if isinstance(node, yaml.CollectionNode) else ()
    pairs = isinstance(node, yaml.MappingNode)
    known[id(node)] = 1 + sum(
        sum(_unfolded(part, known) for part in child) if pairs else _unfolded(child, known) for child in children
    )
    return known[id(node)]
