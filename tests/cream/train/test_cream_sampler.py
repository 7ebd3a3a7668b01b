"""Which paths are drawn: how often each operation, within which FLOPs, and which stand for the space in evaluation."""

import numpy as np
import paddle
import pytest

from cream.flops import CostTable
from cream.mobile.depths import OPERATION_MFLOPS
from cream.mobile.space import mobile_space
from cream.space import SearchSpace
from cream.train.board import Entry, PrioritizedBoard
from cream.train.sampler import Sampler, normalise
from pimm.errors import ConfigError

SPACE = mobile_space((2, 1, 1, 1, 2))
WEIGHTS = (0.05, 0.2, 0.05, 0.5, 0.05, 0.15)  # the official PRE_PROB
PATHS = 1500


def cost_table():
    """Costs at 224 pixels, without building the net."""
    searched = [
        [list(first), *([list(further)] * (len(stage) - 1))]
        for stage, (first, further) in zip(SPACE.choices[1:-1], OPERATION_MFLOPS)
    ]
    return CostTable([[[8.0]], *searched, [[3.0]]], fixed=4.0)


COSTS = cost_table()


def draw(sampler, n=PATHS, board=None, seed=0):
    rng = np.random.default_rng(seed)
    return [sampler(rng, board) for _ in range(n)]


def shares(paths):
    """Share of each operation among the searched blocks."""
    counts = np.bincount([choice for arch in paths for stage in arch[1:-1] for choice in stage], minlength=6)
    return counts / counts.sum()


# Four standard deviations of a share among PATHS * 7 blocks.
TOLERANCE = 4 * 0.5 / np.sqrt(PATHS * 7)


@pytest.mark.parametrize(
    ("how", "weights", "expected"),
    [
        ("even", WEIGHTS, np.full(6, 1 / 6)),  # as the official code draws, whatever PRE_PROB says
        ("pre_prob", WEIGHTS, np.array(WEIGHTS)),
        ("pre_prob", (1, 1, 2, 0, 0, 4), np.array([1, 1, 2, 0, 0, 4]) / 8),
    ],
)
def test_operations_are_drawn_as_often_as_the_setting_says(how, weights, expected):
    found = shares(draw(Sampler(SPACE, COSTS, 0, 1000, how, weights)))
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)
    assert (found[expected == 0] == 0).all()


def test_weights_of_any_sum_become_probabilities():
    np.testing.assert_allclose(normalise((1, 1, 2, 0, 0, 4), 6), np.array([1, 1, 2, 0, 0, 4]) / 8)


def test_a_full_board_lends_its_frequencies():
    def entry(prec1, arch):
        return Entry(arch, prec1, 1.0, paddle.zeros([1]), paddle.zeros([1]))

    sampler = Sampler(SPACE, COSTS, 0, 1000, "teacher")
    board = PrioritizedBoard(2)
    np.testing.assert_allclose(shares(draw(sampler, board=board)), np.full(6, 1 / 6), atol=TOLERANCE)
    board.add(entry(50, ((0,), (5, 5), (5,), (5,), (5,), (5, 5), (0,))))
    np.testing.assert_allclose(shares(draw(sampler, board=board)), np.full(6, 1 / 6), atol=TOLERANCE)
    board.add(entry(60, ((0,), (2, 5), (5,), (5,), (5,), (5, 5), (0,))))
    np.testing.assert_allclose(shares(draw(sampler, board=board)), np.array([0, 0, 1, 0, 0, 13]) / 14, atol=TOLERANCE)


def test_where_the_boards_operations_reach_no_path_of_a_part_of_the_range_draws_are_even():
    sampler, board = Sampler(SPACE, COSTS, 110, 210, "teacher", bins=2), PrioritizedBoard(1)
    cheapest = ((0,), (0, 0), (0,), (0,), (0,), (0, 0), (0,))
    board.add(Entry(cheapest, 50, 1.0, paddle.zeros([1]), paddle.zeros([1])))
    drawn = draw(sampler, board=board, n=40)
    cheap, dear = ({arch for arch in drawn if (COSTS(arch) > 160) == above} for above in (False, True))
    assert cheap == {cheapest} and len(dear) > 9


@pytest.mark.parametrize(("minimum", "maximum"), [(0, 160), (170, 180), (190, 1000)])
@pytest.mark.parametrize("how", ["even", "pre_prob"])
def test_every_path_lies_within_the_flops_range(how, minimum, maximum):
    paths = draw(Sampler(SPACE, COSTS, minimum, maximum, how, WEIGHTS), n=300)
    costs = [COSTS(arch) for arch in paths]
    assert minimum <= min(costs) and max(costs) <= maximum
    assert len(set(paths)) > 100
    assert all(SPACE.check(arch) == arch and arch[0] == arch[-1] == (0,) for arch in paths)


def test_the_same_stream_draws_the_same_paths():
    """All processes carry the same generator, and a checkpoint its state."""
    sampler = Sampler(SPACE, COSTS, 150, 200, "pre_prob", WEIGHTS)
    assert draw(sampler, n=20) == draw(sampler, n=20)
    assert draw(sampler, n=20) != draw(sampler, n=20, seed=1)
    rng, other = np.random.default_rng(0), np.random.default_rng(1)
    sampler(rng)
    other.bit_generator.state = rng.bit_generator.state
    assert [sampler(rng) for _ in range(5)] == [sampler(other) for _ in range(5)]


@pytest.mark.parametrize(("minimum", "maximum"), [(0, 1000), (160, 190)])
def test_probes_are_fixed_and_spread_over_the_range(minimum, maximum):
    sampler = Sampler(SPACE, COSTS, minimum, maximum)
    probes = sampler.spread(np.random.default_rng(3), 5)
    assert probes == sampler.spread(np.random.default_rng(3), 5)
    costs = [COSTS(arch) for arch in probes]
    assert costs == sorted(costs) and len(set(probes)) == 5
    low, high = max(minimum, COSTS.least), min(maximum, COSTS.most)
    assert minimum <= costs[0] and costs[-1] <= maximum
    assert costs[-1] - costs[0] > (high - low) / 2
    np.testing.assert_allclose(np.diff(costs), (costs[-1] - costs[0]) / 4, rtol=0.1)


def test_a_range_with_fewer_paths_than_probes_gives_those_there_are():
    sampler = Sampler(SPACE, COSTS, COSTS.least - 1e-6, COSTS.least + 1e-6, "pre_prob", (1, 0, 0, 0, 0, 0))
    assert sampler.spread(np.random.default_rng(0), 4) == [((0,), (0, 0), (0,), (0,), (0,), (0, 0), (0,))]


@pytest.mark.parametrize(
    ("minimum", "maximum", "says"),
    [
        (0, 90, "no path costs between SUPERNET.FLOPS_MINIMUM=0 and FLOPS_MAXIMUM=90"),
        (300, 400, "this space reaches from 1[0-9.]+ to 2[0-9.]+"),
    ],
)
def test_a_range_outside_the_space_is_refused_at_once(minimum, maximum, says):
    with pytest.raises(ConfigError, match=says):
        Sampler(SPACE, COSTS, minimum, maximum)


def test_a_range_between_two_paths_is_refused_when_it_is_drawn_from():
    sampler = Sampler(SPACE, COSTS, 170.000001, 170.000002)
    with pytest.raises(ConfigError, match=r"none of 32000 .*170.000001 .*170.000002 .*widen the range"):
        sampler(np.random.default_rng(0))


def test_a_part_of_the_range_without_paths_is_refused_before_one_is_drawn_from_it():
    costs = CostTable([[[1.0, 9.0]]], fixed=0.0)
    space = SearchSpace(choices=((2,),), keeps_shape=((False,),))
    assert set(draw(Sampler(space, costs, 0, 10, bins=2), n=20)) == {((0,),), ((1,),)}
    with pytest.raises(ConfigError, match=r"MINIMUM=2 and FLOPS_MAXIMUM=4 MFLOPs, one of SUPERNET.FLOPS_BINS=5 parts"):
        Sampler(space, costs, 0, 10, bins=5)


def test_as_many_probabilities_as_operations():
    with pytest.raises(ConfigError, match="PRE_PROB has 5 entries; the space offers 6"):
        Sampler(SPACE, COSTS, 0, 1000, "pre_prob", (1, 1, 1, 1, 1))
