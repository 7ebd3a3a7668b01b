"""YAML as text: values stay as they were written, so that the type of a field decides how they are read."""

from __future__ import annotations

from typing import Any

import yaml

from pimm.errors import ConfigError
from pimm.yaml_file import compose_yaml as compose

__all__ = ["OneLine", "compose", "plain"]


class OneLine(dict):
    """Holds a mapping that is written on one line."""


def plain(node: yaml.Node, above: frozenset[int] = frozenset()) -> Any:
    """Return the texts, lists and mappings of a tree.

    Args:
        node: root of the tree.
        above: identities of the nodes that hold this one.

    Raises:
        ConfigError: a key is given twice.
        RecursionError: a value holds itself.
    """
    if isinstance(node, yaml.ScalarNode):
        return node.value
    if id(node) in above:
        raise RecursionError("a value holds itself")
    above |= {id(node)}
    if isinstance(node, yaml.SequenceNode):
        return [plain(item, above) for item in node.value]
    found: dict[str, Any] = {}
    for name_node, value in node.value:
        name = str(plain(name_node, above))
        if name in found:
            raise ConfigError(f"{repr(name)[1:-1]:.80} is given twice")
        found[name] = plain(value, above)
    return found
