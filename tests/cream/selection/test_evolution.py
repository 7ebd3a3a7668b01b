"""Evolution by value, on a space that can be counted through: optimum, order, and every break it may meet."""

import contextlib
import itertools
import json

import numpy as np
import paddle
import pytest

from cream.selection import evolve as evolution_search
from cream.selection.evolution import best_paths, evolve, unscored
from cream.selection.evolve import shared_out
from cream.space import SearchSpace, format_arch, parse_arch
from pimm.errors import ConfigError

SPACE = SearchSpace(choices=((4, 4), (3, 4, 2)), keeps_shape=((False, True), (False, False, False)), draws_skip=True)
PATHS = [SPACE.decode(row) for row in itertools.product(*SPACE.options)]
BEST = ((2, 3), (1, 0, 1))
NUMBERS = {"population": 8, "top": 3, "crossover": 3, "mutation": 3, "mutation_probability": 0.3, "generations": 5}


def cost(arch):
    return float(sum(abs(choice) + 1 for stage in arch for choice in stage))


def metrics(arch):
    """The nearer to BEST the better, with many ties."""
    wrong = sum(a != b for one, other in zip(arch, BEST) for a, b in zip(one, other))
    return {"prec1": 100.0 - 10 * wrong, "mflops": cost(arch)}


def legal(arch):
    return cost(arch) <= 13


class Killed(Exception):
    """As a kill ends a process, after so many paths."""


class Run:
    """One evolution, which may be killed while it scores the path of some number; what it scored and saved."""

    def __init__(self, state=None, dies_at=None, seed=3, legal=legal, **numbers):
        self.scored, self.saved, self.dies_at, self.state = [], [], dies_at, None
        options = {**NUMBERS, **numbers, "state": state, "save": self.save}
        with contextlib.suppress(Killed):
            self.state = evolve(SPACE, self.score, legal, np.random.default_rng(seed), **options)

    def score(self, archs):
        for arch in archs:
            if len(self.scored) == self.dies_at:
                raise Killed
            self.scored.append(arch)
            yield metrics(arch)

    def save(self, state):
        self.saved.append(json.dumps(state))


@pytest.fixture(scope="module")
def whole():
    return Run()


@pytest.mark.parametrize("seed", range(4))
def test_the_optimum_of_a_space_is_found_without_scoring_most_of_it(seed):
    found = Run(seed=seed, generations=12)
    assert min(PATHS, key=lambda arch: (-metrics(arch)["prec1"], cost(arch))) == BEST and legal(BEST)
    assert best_paths(found.state)[0] == BEST
    assert len(found.scored) == 12 * 8 <= len(PATHS) / 5


def test_paths_are_legal_and_none_is_scored_twice(whole):
    assert all(legal(arch) for arch in whole.scored)
    assert len(set(whole.scored)) == len(whole.scored)
    assert [len(generation) for generation in whole.state["generations"]] == [8] * 5
    assert [parse_arch(arch) for generation in whole.state["generations"] for arch in generation] == whole.scored


def test_the_best_never_falls_and_the_best_are_those_of_all_generations(whole):
    scores, met = whole.state["scores"], []
    best = []
    for number, generation in enumerate(whole.state["generations"]):
        met += map(parse_arch, generation)
        ranked = sorted(met, key=lambda arch: (-metrics(arch)["prec1"], cost(arch)))  # of equals the cheaper
        assert best_paths(whole.state, number) == ranked
        best.append(scores[format_arch(ranked[0])]["prec1"])
    assert best == sorted(best) and best[0] < best[-1]


def test_children_come_of_the_best(whole):
    """Without mutation or drawing at random a generation holds nothing but the choices of its parents."""
    crossed = Run(population=4, top=2, crossover=4, mutation=0, generations=1).state
    fathers = best_paths(crossed)[:2]
    crossed = Run(json.loads(json.dumps(crossed)), population=4, top=2, crossover=4, mutation=0, generations=2).state
    offered = [set(choices) for choices in zip(*(SPACE.encode(arch) for arch in fathers))]
    children = [SPACE.encode(parse_arch(arch)) for arch in crossed["generations"][1]]
    inherited = [child for child in children if all(choice in own for choice, own in zip(child, offered))]
    assert 1 <= len(inherited) <= 2 ** sum(len(own) == 2 for own in offered)


@pytest.mark.parametrize("dies_at", range(40))
def test_a_killed_evolution_loses_one_path_and_ends_alike(whole, dies_at):
    broken = Run(dies_at=dies_at)
    assert broken.state is None and len(broken.saved) == dies_at == len(broken.scored)
    # The numbers to come are in the state, and not in the seed.
    resumed = Run(json.loads(broken.saved[-1]), seed=99) if broken.saved else Run()
    assert json.dumps(resumed.state) == json.dumps(whole.state)
    assert broken.scored + resumed.scored == whole.scored


def test_a_finished_evolution_scores_nothing_and_a_longer_one_goes_on(whole):
    state = json.loads(json.dumps(whole.state))
    assert Run(state).scored == []
    longer = Run(state, generations=6)
    assert len(longer.scored) == 8 and not unscored(longer.state)
    assert longer.state == Run(generations=6).state


def test_it_ends_where_all_paths_are_known():
    def narrow(arch):
        return cost(arch) <= 6

    few = {arch for arch in PATHS if narrow(arch)}
    found = Run(legal=narrow, generations=60, population=6)
    assert set(found.scored) <= few and len(found.scored) == len(set(found.scored)) > 0.9 * len(few)


@pytest.mark.parametrize(
    "numbers, message",
    [
        ({"legal": lambda arch: False}, "no path that satisfies all constraints was found"),
        ({"top": 9}, "EVOLUTION.TOP is 9; must be from 1 to EVOLUTION.POPULATION, which is 8"),
        ({"crossover": 6}, "CROSSOVER=6 and EVOLUTION.MUTATION=3 must be at least 0, and together at most .*=8"),
    ],
)
def test_mistakes(numbers, message):
    with pytest.raises(ConfigError, match=message):
        Run(**numbers)


@pytest.mark.parametrize("at_once", [1, 2, 10])
@pytest.mark.parametrize("processes", [1, 2, 3, 5])
def test_paths_are_shared_out_and_come_back_in_order(monkeypatch, processes, at_once):
    """Each process in turn, with what the others would add to the sum."""
    metrics_of = {name: i for i, name in enumerate(evolution_search.METRICS)}
    archs, scored, sizes = PATHS[:7], [], []

    def score_path(arch):
        return {name: 100.0 * PATHS.index(arch) + i for name, i in metrics_of.items()}

    def counted(part):
        scored.extend(part)
        sizes.append(len(part))
        return [list(score_path(arch).values()) for arch in part]

    def rows_of_others(part, number):
        share = -(-len(part) // processes)
        rows = np.array([list(score_path(arch).values()) for arch in part])
        rows[number * share : (number + 1) * share] = 0
        return rows

    results, step = [], processes * at_once
    for number in range(processes):
        parts = iter([archs[start : start + step] for start in range(0, len(archs), step)])

        def all_reduce(tensor, number=number, parts=parts):
            return tensor + paddle.to_tensor(rows_of_others(next(parts), number))

        monkeypatch.setattr(evolution_search, "world_size", lambda: processes)
        monkeypatch.setattr(evolution_search, "rank", lambda number=number: number)
        monkeypatch.setattr(evolution_search, "all_reduce_sum", all_reduce)
        results.append(list(shared_out(archs, counted, at_once)))
    assert max(sizes) <= at_once
    assert all(result == [score_path(arch) for arch in archs] for result in results)
    assert sorted(map(PATHS.index, scored)) == list(range(7))  # each by one process alone


def test_paths_may_be_ranked_by_loss():
    losses = {arch: float(i % 7) for i, arch in enumerate(PATHS)}

    def score(archs):
        return [{"prec1": 50 + losses[arch], "loss": losses[arch], "mflops": cost(arch)} for arch in archs]

    options = {**NUMBERS, "generations": 8}
    state = evolve(SPACE, score, legal, np.random.default_rng(0), by="loss", **options)
    ranked = [(losses[arch], cost(arch)) for arch in best_paths(state)]
    assert ranked == sorted(ranked) and ranked[0][0] == 0
    resumed = evolve(SPACE, score, legal, np.random.default_rng(0), by="prec1", state=state, **options)
    assert losses[best_paths(resumed)[0]] == 6  # the same scores, ranked anew by the setting of now
    del state["by"]  # as an earlier version saved it
    assert best_paths(state) == best_paths(resumed)
