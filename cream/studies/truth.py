"""True accuracies of the nets of a space, from a file: NAS-Bench-Macro's table, or a table that this project wrote."""

from __future__ import annotations

import csv
import json
import lzma
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Optional, Union

import numpy as np

from cream.space import Arch, SearchSpace, parse_arch
from pimm.errors import ConfigError, DataError
from pimm.utils import file_sha256


@dataclass(frozen=True)
class Truth:
    """The accuracies of nets after training.

    Args:
        accuracies: for each path the top-1 in percent of each training.
        mflops: for each path its cost, where the file has costs.
        sha256: hash of the file.
    """

    accuracies: Mapping[Arch, tuple[float, ...]]
    mflops: Mapping[Arch, float]
    sha256: str

    def draw(self, space: SearchSpace, allows: Callable[[Arch], bool], n: int, seed: int) -> list[Arch]:
        """Draw n paths of different nets, all paths equally likely.

        Args:
            space: the space, which says which paths are the same net.
            allows: whether a path may be drawn.
            n: number of paths.
            seed: the seed of the draw.

        Raises:
            ConfigError: there are fewer than n different nets.
        """
        archs = [arch for arch in sorted(self.accuracies) if allows(arch)]
        order = np.random.default_rng(seed).permutation(len(archs))
        drawn: dict[Arch, Arch] = {}
        for index in order:
            drawn.setdefault(space.net_of(archs[index]), archs[index])
        if len(drawn) < n:
            raise ConfigError(f"the file of accuracies has {len(drawn)} different nets in the FLOPs range; must be {n}")
        return list(drawn.values())[:n]

    def of(self, archs: list[Arch]) -> np.ndarray:
        """Return the accuracies of paths, [paths, trainings]."""
        return np.array([self.accuracies[arch] for arch in archs])

    def costs(self, archs: list[Arch], otherwise: Callable[[Arch], float]) -> np.ndarray:
        """Return the MFLOPs of paths, [paths], from the file, or by ``otherwise`` where the file has none."""
        return np.array([self.mflops[arch] if self.mflops else otherwise(arch) for arch in archs])


def read_truth(path: Path, space: SearchSpace) -> Truth:
    """Read the accuracies of paths from a file.

    A file named ``*.json`` or ``*.json.xz`` has NAS-Bench-Macro's form, with a digit of the code for each position:
    ``{"02012100": {"test_acc": [89.5, 88.9, 89.2], "flops": 47327744}, ...}``. A file named ``*.csv`` has the columns
    ``arch`` and ``trained``, or ``trained 1``, ``trained 2``, ... for several trainings, and may have ``mflops``: the
    table ``ranking.csv`` is such a file.

    Raises:
        ConfigError: the name has another ending, or an architecture is no path of the space.
        DataError: the file is damaged, or has another form.
        OSError: the file cannot be read.
    """
    endings = {".json": _read_codes, ".json.xz": _read_codes, ".csv": _read_table}
    reader = next((read for ending, read in endings.items() if path.name.endswith(ending)), None)
    if reader is None:
        raise ConfigError(f"{path} must be named {', '.join(f'*{ending}' for ending in endings)}")
    accuracies, mflops = {}, {}
    for place, arch, values, cost in reader(path):
        if not values or not all(math.isfinite(value) and 0 <= value <= 100 for value in values):
            raise DataError(f"{path}: {place} has accuracies {values!r:.80}; must be percentages")
        try:
            known = space.check(space.decode(arch) if isinstance(arch, list) else parse_arch(arch))
        except ConfigError as error:
            raise ConfigError(f"{path}: {place}: {error}") from None
        accuracies[known] = values
        if cost is not None:
            mflops[known] = cost
    if len({len(values) for values in accuracies.values()}) != 1 or len(mflops) not in (0, len(accuracies)):
        raise DataError(f"{path} must hold architectures, all with as many trainings, and all or none with costs")
    return Truth(accuracies, mflops, file_sha256(path))


Entry = tuple[str, Union[str, list[int]], tuple[float, ...], Optional[float]]  # place, path, accuracies, MFLOPs


def _read_codes(path: Path) -> list[Entry]:
    """Return the entries of NAS-Bench-Macro's table."""
    content = path.read_bytes()
    try:
        table = json.loads(lzma.decompress(content) if path.suffix == ".xz" else content)
        return [
            (
                f"code {code!r:.40}",
                [int(digit) for digit in code],
                tuple(map(float, entry["test_acc"])),
                float(entry["flops"]) / 1e6 if "flops" in entry else None,
            )
            for code, entry in table.items()
        ]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, lzma.LZMAError, EOFError) as error:
        raise DataError(
            f'{path} is not of NAS-Bench-Macro\'s form, {{"02012100": {{"test_acc": [89.5, ...]}}, ...}}: {error!s:.80}'
        ) from None


def _read_table(path: Path) -> list[Entry]:
    """Return the entries of a CSV table."""
    with open(path, newline="", encoding="utf-8") as file:
        try:
            rows = list(csv.DictReader(file))
            names = list(rows[0]) if rows else []
            columns = [name for name in names if str(name).startswith("trained ")] or ["trained"]
            return [
                (
                    f"line {line}",
                    row["arch"],
                    tuple(float(row[name]) for name in columns),
                    float(row["mflops"]) if "mflops" in row else None,
                )
                for line, row in enumerate(rows, start=2)
            ]
        except (ValueError, LookupError, TypeError, csv.Error) as error:
            raise DataError(
                f"{path} must be a table with columns arch and trained, or trained 1, trained 2, ...: {error!s:.80}"
            ) from None
