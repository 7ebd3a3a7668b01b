"""Reading of architectures from NNI's JSON, from a search's JSON, or from a list."""

from __future__ import annotations

import json
from pathlib import Path

from cream.space import Arch, SearchSpace, parse_arch
from pimm.errors import ConfigError


def read_architecture(source: str, space: SearchSpace) -> Arch:
    """Read an architecture of ``space`` from a file, or from the text that such a file would hold.

    The text is NNI's ``architecture_final.json``, a search's ``architecture.json``, lists of lists such as
    ``[[0, 1], [3]]``, or the choices of all stages in one list.

    Raises:
        ConfigError: the text is none of these, or no architecture of the space.
    """
    listed = source.lstrip().startswith(("[", "{"))
    text = source if listed else _read(Path(source))
    try:
        return _arch(text, space)
    except ConfigError as error:
        raise ConfigError(f"{'the architecture' if listed else source}: {error}") from None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is no text; must be an architecture in JSON") from None


def _arch(text: str, space: SearchSpace) -> Arch:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"this is no JSON: {error}") from None
    if isinstance(content, dict):
        return space.check(parse_arch(content["arch"])) if "arch" in content else space.from_nni_json(text)
    if isinstance(content, list) and content and all(type(choice) is int for choice in content):
        positions = sum(map(len, space.choices))
        if len(content) != positions:
            raise ConfigError(f"this list has {len(content)} choices, not {positions}")
        return space.check(space.decode(content))
    return space.check(parse_arch(content))
