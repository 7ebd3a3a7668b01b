"""Draws of paths whose costs lie inside a range."""

import itertools

import numpy as np
import paddle
import pytest

from cream.flops import CostTable
from cream.space import SKIP, SearchSpace
from cream.train.board import Entry, PrioritizedBoard
from cream.train.sampler import BoundedDraws, Sampler
from pimm.errors import ConfigError

SPACE = SearchSpace(((3, 3), (3, 1, 3)), ((False, True), (False, False, True)), draws_skip=True)
COSTS = CostTable(
    [[[1.0, 2.5, 4.0], [0.7, 1.9, 3.3]], [[2.2, 2.9, 5.1], [1.0], [0.4, 1.3, 2.6]]], fixed=10.0, space=SPACE
)
WEIGHTS = (1, 2, 3, 2)
DRAWS = 40_000


def expected(weights, low, high):
    """Return the share of every path inside the range, by enumeration of all paths."""
    shares = {}
    for path in itertools.product(*(zip(*pair) for pair in zip(SPACE.options, SPACE.distribution(weights)))):
        arch = SPACE.decode([option for option, _ in path])
        if low <= COSTS(arch) <= high:
            shares[arch] = np.prod([share for _, share in path])
    total = sum(shares.values())
    return {arch: share / total for arch, share in shares.items()}


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["even", "weighed"])
@pytest.mark.parametrize(("low", "high"), [(0, 100), (15.5, 16.25), (0, 14.85), (23.5, 30), (18.2, 18.25)])
def test_paths_inside_a_range_are_drawn_as_often_as_their_weights_say(weights, low, high):
    sampler = Sampler(SPACE, COSTS, low, high, "pre_prob" if weights else "even", weights)
    draws = sampler._bounded(sampler.probabilities(None), low, high)
    rng, rows = np.random.default_rng(1), []
    while sum(map(len, rows)) < DRAWS:
        rows.append(draws(rng, DRAWS))
    paths, counts = np.unique(np.concatenate(rows)[:DRAWS], axis=0, return_counts=True)
    wanted = expected(weights, low, high)
    found = {
        SPACE.decode([options[i] for options, i in zip(SPACE.options, path)]): n / DRAWS
        for path, n in zip(paths, counts)
    }
    assert found.keys() <= wanted.keys() and len(wanted) > 1
    for arch, share in wanted.items():  # within five standard deviations
        assert abs(found.get(arch, 0) - share) < 5 * np.sqrt(share / DRAWS) + 1e-12


def test_a_range_that_one_path_in_a_hundred_million_costs_is_drawn_from_at_once():
    space = SearchSpace(((3,) * 20,), ((False,) * 20,))
    rng = np.random.default_rng(0)
    costs = CostTable([rng.uniform(1, 2, (20, 3)).tolist()], fixed=0.0, space=space)
    high = costs.least + 0.01 * (costs.most - costs.least)
    sampler = Sampler(space, costs, 0, high)
    assert sampler._bounded(None, 0, high).chances[0][0] < 1e-8
    drawn = [sampler(rng) for _ in range(20)]
    assert max(map(costs, drawn)) <= high and len(set(drawn)) > 1


def test_the_grid_lets_no_path_of_the_range_go():
    """Each range holds the cost of a single path, whose draw must then be possible."""
    rng, weights = np.random.default_rng(0), SPACE.distribution()
    costs = Sampler(SPACE, COSTS, 0, 100).costs
    for path in itertools.islice(itertools.product(*map(range, map(len, SPACE.options))), 0, None, 7):
        cost = sum(column[i] for column, i in zip(costs, path))
        draws = BoundedDraws(costs, weights, cost - 1e-9, cost + 1e-9)
        assert draws.possible
        found = np.concatenate([draws(rng, 500) for _ in range(4)])
        assert list(path) in found.tolist()


def test_the_ends_of_a_range_belong_to_it():
    arch = ((0, 0), (0, 0, 1))
    sampler = Sampler(SPACE, COSTS, COSTS(arch), COSTS(arch))
    drawn = {sampler(np.random.default_rng(seed)) for seed in range(20)}
    assert arch in drawn and {COSTS(path) for path in drawn} == {COSTS(arch)}


def test_ranges_without_a_path():
    with pytest.raises(
        ConfigError, match=r"no path costs between .*=26.1 .*reaches from 14\.2 to 26\.0; move or widen"
    ):
        Sampler(SPACE, COSTS, 26.1, 30)
    with pytest.raises(ConfigError, match="no path costs between"):  # only operations of weight 0 are cheap enough
        Sampler(SPACE, COSTS, 0, 15, "pre_prob", (0, 0, 1, 0))


def test_a_depth_that_is_skipped_counts_among_the_teachers_frequencies():
    board = PrioritizedBoard(1)
    assert board.choice_frequency(SPACE) is None
    board.add(Entry(((0, SKIP), (2, 0, 2)), 50.0, 1.0, paddle.zeros([1]), paddle.zeros([1])))
    np.testing.assert_allclose(board.choice_frequency(SPACE), [1 / 4, 0, 2 / 4, 1 / 4])
