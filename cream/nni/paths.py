"""Checks of the user's net, the costs of its paths, and the paths that a search found."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Callable

import numpy as np

from cream.flops import CostTable, cost_tables
from cream.selection.candidates import Candidate
from cream.space import Arch, SearchSpace
from cream.supernet import SuperNet
from pimm.errors import ConfigError, TrainingError
from pimm.utils import is_main_process, write_text

Cost = Callable[[Arch], float]


def checked(model: SuperNet) -> SuperNet:
    """Return the net if it is a supernet with as many positions as its space; raise ConfigError otherwise."""
    if not isinstance(model, SuperNet):
        raise ConfigError(f"{type(model).__name__} is no cream.supernet.SuperNet: docs/api.md shows how to write one")
    built, described = [len(stage) for stage in model.blocks], [len(stage) for stage in model.space.choices]
    if built != described:
        raise ConfigError(f"the net's stages have {built} positions, but its space describes {described}")
    return model


def check_numbers(space: SearchSpace, choice_num: int | None, sta_num: Sequence[int] | None) -> None:
    """Raise ConfigError where NNI's ``choice_num`` or ``sta_num`` is not that of the space."""
    depths = [len(counts) for counts in space.choices if max(counts) > 1]
    for name, given, own in (("choice_num", choice_num, space.num_operations), ("sta_num", sta_num, depths)):
        if given is not None and not np.array_equal(given, own):
            raise ConfigError(f"{name} is {given}, but the net's space has {own}; leave it out, or give the same")


def path_cost(model: SuperNet, resolution: int | None) -> CostTable:
    """Count the millions of multiply-adds of paths at an image size; raise ConfigError without a size."""
    if resolution is None:
        raise ConfigError("give resolution, the images' size in pixels, so that the FLOPs of paths can be counted")
    return cost_tables(model, resolution)[0]


def given_costs(space: SearchSpace, flops_dict: Mapping | Sequence, flops_fixed: float) -> CostTable:
    """Return the table of costs in NNI's form.

    Args:
        space: the search space.
        flops_dict: for each position in forward order the costs of its choices; lists, or mappings by number.
        flops_fixed: the cost that all paths share.

    Raises:
        ConfigError: the costs belong to another space.
    """

    def listed(values: Mapping | Sequence) -> list:
        return [values[key] for key in sorted(values)] if isinstance(values, Mapping) else list(values)

    rows = [listed(costs) for costs in listed(flops_dict)]
    found, wanted = [len(costs) for costs in rows], [count for stage in space.choices for count in stage]
    if found != wanted:
        raise ConfigError(f"flops_dict has {found} choices at its positions; the net's space has {wanted}")
    positions = iter(rows)
    return CostTable([[next(positions) for _ in stage] for stage in space.choices], flops_fixed, space)


def path_parameters(model: SuperNet, arch: Arch) -> float:
    """Count the millions of trainable parameters of a path."""
    return sum(math.prod(parameter.shape) for parameter in model.active_parameters(arch)) / 1e6


class Found:
    """Holds paths that were scored, the best first, and the net's space."""

    candidates: Sequence[Candidate] = ()
    space: SearchSpace

    @property
    def best_arch(self) -> Arch:
        """The best path; TrainingError before a path is scored."""
        if not self.candidates:
            raise TrainingError("no path has been scored yet: let the training or search finish first")
        return self.candidates[0].arch

    def export(self, file: str | Path) -> None:
        """Write the best path as NNI's ``architecture_final.json``."""
        text = self.space.to_nni_json(self.best_arch)
        if is_main_process():
            write_text(file, text)
