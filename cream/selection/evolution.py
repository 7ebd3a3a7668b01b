"""Evolution: new paths by mutation and crossover of the best ones, for any space and any score.

Algorithm 1 of Guo et al., Single Path One-Shot Neural Architecture Search with Uniform Sampling
(https://arxiv.org/abs/1904.00420).
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Callable

import numpy as np

from cream.selection.candidates import ORDERS
from cream.space import Arch, SearchSpace, format_arch, parse_arch
from pimm.errors import ConfigError, check_whole

_logger = logging.getLogger(__name__)

# Draws for each wanted path of a generation until one is new and legal; if they fail, the generation has fewer paths.
CHILD_ATTEMPTS, RANDOM_ATTEMPTS = 10, 100

Metrics = Mapping[str, float]  # with "mflops", and the metric that ranks the paths


def evolve(
    space: SearchSpace,
    score: Callable[[Sequence[Arch]], Iterable[Metrics]],
    legal: Callable[[Arch], bool],
    rng: np.random.Generator,
    *,
    population: int = 50,
    top: int = 10,
    crossover: int = 25,
    mutation: int = 25,
    mutation_probability: float = 0.1,
    generations: int = 20,
    by: str = "prec1",
    sample: Callable[[np.random.Generator], Arch] | None = None,
    state: dict | None = None,
    save: Callable[[dict], None] = lambda state: None,
) -> dict:
    """Evolve generations of ``population`` new legal paths each, and return the final state with all scores.

    Every generation after the first has ``mutation`` mutants and ``crossover`` crosses of the ``top`` best paths of
    all generations before it, and sampled paths to fill up; it is smaller where few legal paths are left. The state
    is plain data: ``{"generations": [[path, ...], ...], "scores": {path's text: metrics}, "rng": ..., "by": ...}``.

    Args:
        space: the search space.
        score: yields the metrics of the given paths, in their order.
        legal: returns whether a path satisfies the constraints.
        rng: generator of all draws.
        population, top, crossover, mutation, generations: numbers of paths and generations.
        mutation_probability: probability that a mutation draws a choice anew.
        by: the metric that ranks the paths: ``prec1`` or ``loss``.
        sample: draws the paths that are no children, such as those of the first generation; by default evenly.
        state: the saved state of an interrupted evolution, which is resumed with the same result.
        save: called with the state after every path.

    Raises:
        ConfigError: no legal path is found, or the numbers contradict each other.
    """
    check_numbers(population, top, crossover, mutation, mutation_probability, generations)
    state = {**(state or {"generations": [], "scores": {}, "rng": rng.bit_generator.state}), "by": by}
    rng.bit_generator.state = state["rng"]
    draw = functools.partial(sample or (lambda rng: space.decode(space.sample(rng)[0])), rng)

    def next_generation() -> list[Arch]:
        generation = Generation(legal, state["scores"])
        _add_children(generation, best_paths(state)[:top], space, rng, mutation, mutation_probability, crossover)
        generation.add(draw, population - len(generation.archs), RANDOM_ATTEMPTS)
        return generation.archs

    while True:
        _score_all(state, score, save, generations)
        archs = next_generation() if len(state["generations"]) < generations else []
        if not archs:  # all generations are done, or no further legal path was found
            break
        state["generations"].append([[list(stage) for stage in arch] for arch in archs])
        state["rng"] = rng.bit_generator.state
    if state["scores"]:
        return state
    raise ConfigError("no path that satisfies all constraints was found: widen the constraints")


def _score_all(state: dict, score: Callable, save: Callable, generations: int) -> None:
    """Score the paths of the state that have no score yet, and save the state after each of them."""
    waiting = unscored(state)
    for number, (arch, metrics) in enumerate(zip(waiting, score(waiting)), start=1):
        state["scores"][format_arch(arch)] = dict(metrics)
        save(state)
        place = len(state["generations"]), generations, number, len(waiting)
        _logger.info("generation %d/%d: path %d/%d scored", *place)


def _add_children(
    generation: Generation,
    parents: Sequence[Arch],
    space: SearchSpace,
    rng: np.random.Generator,
    mutation: int,
    mutation_probability: float,
    crossover: int,
) -> None:
    """Add mutants and then crosses of the parents; without parents, add nothing."""
    if not parents:
        return
    mutate = functools.partial(space.mutate, rng=rng, probability=mutation_probability)
    generation.add(lambda: mutate(_pick(parents, rng)), mutation, CHILD_ATTEMPTS)
    generation.add(lambda: space.crossover(_pick(parents, rng), _pick(parents, rng), rng), crossover, CHILD_ATTEMPTS)


def check_numbers(
    population: int, top: int, crossover: int, mutation: int, mutation_probability: float, generations: int
) -> None:
    """Raise ConfigError, before a path is scored, for numbers out of bounds and numbers that contradict each other."""
    counts = {"POPULATION": population, "TOP": top, "CROSSOVER": crossover, "MUTATION": mutation}
    for name, value in {**counts, "GENERATIONS": generations}.items():
        check_whole(f"EVOLUTION.{name}", value, least=int(name not in ("CROSSOVER", "MUTATION")))
    if not 0 <= mutation_probability <= 1:
        raise ConfigError(f"EVOLUTION.MUTATION_PROBABILITY is {mutation_probability}; must be from 0 to 1")
    if not 1 <= top <= population:
        raise ConfigError(f"EVOLUTION.TOP is {top}; must be from 1 to EVOLUTION.POPULATION, which is {population}")
    if crossover + mutation > population:
        raise ConfigError(
            f"EVOLUTION.CROSSOVER={crossover} and EVOLUTION.MUTATION={mutation} must be at least 0, and together at "
            f"most EVOLUTION.POPULATION={population}"
        )


class Generation:
    """Collects the paths of the next generation: legal paths that differ from each other and from ``known`` ones."""

    def __init__(self, legal: Callable[[Arch], bool], known: Iterable[str]):
        self.legal, self.known = legal, {parse_arch(text) for text in known}
        self.archs: list[Arch] = []

    def add(self, draw: Callable[[], Arch], wanted: int, attempts: int) -> None:
        """Add ``wanted`` new legal paths by ``draw``, or fewer if ``attempts`` draws for each path do not find them."""
        end = len(self.archs) + wanted
        for _ in range(attempts * wanted):
            if len(self.archs) == end:
                return
            arch = draw()
            if arch not in self.known and self.legal(arch):
                self.known.add(arch)
                self.archs.append(arch)


def _pick(archs: Sequence[Arch], rng: np.random.Generator) -> Arch:
    return archs[rng.integers(len(archs))]


def unscored(state: Mapping) -> list[Arch]:
    """Return the paths of the last generation that have no score yet."""
    latest = [parse_arch(arch) for arch in state["generations"][-1]] if state["generations"] else []
    return [arch for arch in latest if format_arch(arch) not in state["scores"]]


def best_paths(state: Mapping, generation: int | None = None) -> list[Arch]:
    """Return all scored paths up to a generation (by default the last), the best first, of equals the cheaper first."""
    generations = state["generations"] if generation is None else state["generations"][: generation + 1]
    archs = [parse_arch(arch) for members in generations for arch in members]
    scores = state["scores"]
    scored = [arch for arch in archs if format_arch(arch) in scores]
    order = ORDERS[state.get("by", "prec1")]  # an earlier version ranked by accuracy alone
    return sorted(scored, key=lambda arch: order(scores[format_arch(arch)]))
