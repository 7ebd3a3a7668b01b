"""Checks of the files that a command will write, before it does any work."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pimm.errors import ConfigError


def check_output_paths(outputs: Mapping[str, str | Path | None], inputs: Mapping[str, str | Path | None]) -> None:
    """Refuse output paths that would destroy a file of the user, or cannot be written.

    Args:
        outputs: the files that a command will write, by the name of the argument; None for an argument not given.
        inputs: the files that it reads, in the same form.

    Raises:
        ConfigError: an output is one of the inputs or another output, also through a symbolic or a hard link; it is
            a folder or a device; or its folder does not exist.
    """
    read = {name: Path(path) for name, path in inputs.items() if path is not None}
    written: dict[str, Path] = {}
    for name, path in outputs.items():
        if path is None:
            continue
        path = Path(path)
        for other, other_path in read.items():
            if is_same_file(path, other_path):
                raise ConfigError(f"{name} {path} is the file {other} and would replace what it is made from")
        for other, other_path in written.items():
            if is_same_file(path, other_path):
                raise ConfigError(f"{name} {path} is the file {other} too; each needs a file of its own")
        if os.path.exists(path) and not os.path.isfile(path):
            raise ConfigError(f"{name} {path} is {'a folder' if path.is_dir() else 'no regular file'}; name a file")
        if not os.path.isdir(Path(os.path.realpath(path)).parent):
            raise ConfigError(f"{name} {path} cannot be written: there is no folder {path.parent}")
        written[name] = path


def is_same_file(first: Path, second: Path) -> bool:
    """Return whether two paths lead to one file, which need not exist yet."""
    if os.path.exists(first) and os.path.exists(second):  # unlike Path.exists, False for a name that is too long
        return os.path.samefile(first, second)
    return os.path.realpath(first) == os.path.realpath(second)
