"""Reading the folder of a finished search."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import yaml

from cream import typed
from cream.report.operations import OPERATIONS, Anatomy, Position, read_anatomy
from cream.space import Arch, format_arch, parse_arch
from cream.train.history import HISTORY, read_history
from pimm.errors import CheckpointError

EVOLUTION = "evolution.json"  # the state of an evolution, in the folder of its results
REQUIRED_FILES = ("architecture.json", "candidates.csv", "config.yaml", OPERATIONS)


@dataclass(frozen=True)
class Search:
    """The contents of a search's folder.

    Args:
        folder: the folder.
        result: the selected net, from ``architecture.json``.
        candidates: the rows of ``candidates.csv``, most accurate first.
        anatomy: what the supernet offers, from ``operations.json``.
        summary: a row of metrics for each epoch, from ``summary.csv``; empty if this search trained nothing.
        history: what each epoch recorded, from ``history.jsonl``; empty if this search trained nothing.
        settings: the settings that differ from their defaults, by dotted name, from ``config.yaml``.
        generations: the metrics of each path of each generation, from ``evolution.json``; empty if this search was no
            evolution.
    """

    folder: Path
    result: dict
    candidates: list[dict]
    anatomy: Anatomy
    summary: list[dict[str, float]]
    history: list[dict]
    settings: dict[str, object]
    generations: Sequence[Sequence[dict[str, float]]] = ()

    @property
    def arch(self) -> Arch:
        """The architecture of the selected net."""
        return parse_arch(self.result["arch"])

    @property
    def blocks(self) -> list[tuple[int, int, Position, int]]:
        """The stage, the index in the stage, the position and the choice of each block of the selected net."""
        return [
            (stage, index, position, choice)
            for stage, (positions, path) in enumerate(zip(self.anatomy.stages, self.arch))
            for index, (position, choice) in enumerate(zip(positions, path))
        ]


def read_search(folder: Path) -> Search:
    """Read the folder of a finished search.

    Raises:
        CheckpointError: a file is missing or damaged, or the candidates are from another selection than the result.
    """
    missing = [name for name in REQUIRED_FILES if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(f"{folder} is not the folder of a finished search: it lacks {', '.join(missing)}")
    result = _read(_read_result, folder / "architecture.json")
    candidates = _read(_read_table, folder / "candidates.csv")
    if format_arch(parse_arch(result["arch"])) not in [row.get("arch") for row in candidates]:
        raise CheckpointError(
            f"{folder}: candidates.csv is from a later selection, which found no net; select again with constraints "
            f"that a candidate satisfies ({typed.script('select')})"
        )
    return Search(
        folder,
        result,
        candidates,
        _read(lambda path: read_anatomy(path.parent), folder / OPERATIONS),
        _read(_read_table, folder / "summary.csv") if (folder / "summary.csv").exists() else [],
        _read(read_history, folder / HISTORY) if (folder / HISTORY).exists() else [],
        _read(_read_settings, folder / "config.yaml"),
        _read(_read_generations, folder / EVOLUTION) if (folder / EVOLUTION).exists() else (),
    )


def _read(reader: Callable[[Path], Any], path: Path) -> Any:
    """Read a file with ``reader``; raise CheckpointError that names the file if its contents are not as expected."""
    try:
        return reader(path)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, csv.Error, yaml.YAMLError) as error:
        raise CheckpointError(f"{path} is damaged: {' '.join(str(error).split())[:200]}") from None


def _read_result(path: Path) -> dict:
    result = json.loads(path.read_text(encoding="utf-8"))
    parse_arch(result["arch"])
    return result


def _read_generations(path: Path) -> list[list[dict[str, float]]]:
    """Read the metrics of the paths that each generation of an evolution added."""
    state = json.loads(path.read_text(encoding="utf-8"))["state"]
    return [
        [state["scores"][format_arch(parse_arch(arch))] for arch in generation] for generation in state["generations"]
    ]


def _read_settings(path: Path) -> dict[str, object]:
    """Read the settings of ``config.yaml`` under dotted names."""
    return dict(_flat(yaml.safe_load(path.read_text(encoding="utf-8")) or {}))


def _read_table(path: Path) -> list[dict]:
    """Read the rows of a CSV file; cells that are numbers become numbers."""
    with open(path, newline="", encoding="utf-8") as file:
        return [{name: _number_or_text(text) for name, text in row.items()} for row in csv.DictReader(file)]


def _number_or_text(text: str) -> object:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _flat(tree: dict, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield the values of nested sections under dotted names."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
