"""The mutators and the evolution under NNI's names: what is drawn how often, what is found, and at which cost."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from nni_net import (
    SIZE,
    TRAIN,
    VAL,
    all_paths,
    cream_trainer,
    make_net,
)

from cream.flops import cost_tables
from cream.nni import (
    CreamSupernetTrainingMutator,
    SPOSEvolution,
    SPOSSupernetTrainingMutator,
    evolution,
)
from cream.nni.paths import given_costs
from cream.selection.candidates import Candidate
from cream.space import SKIP
from pimm.errors import CheckpointError, ConfigError

# Draws


def shares_of(sampler, n=2000):
    rng = np.random.default_rng(0)
    return Counter(sampler(rng) for _ in range(n)), n


def assert_drawn_as(sampler, expected):
    counts, n = shares_of(sampler)
    assert set(counts) <= set(expected)
    for arch, share in expected.items():
        assert counts[arch] / n == pytest.approx(share, abs=5 * math.sqrt(share / n)), arch


@pytest.mark.parametrize("bins", [1, 2])
@pytest.mark.parametrize("exact", [True, False])
def test_paths_come_from_all_parts_of_the_range_alike(exact, bins):
    net = make_net()
    table, _ = cost_tables(net, 32)
    low, high = 0.1, 0.16
    mutator = SPOSSupernetTrainingMutator(net, table if exact else lambda arch: table(arch), low, high, bins)
    parts = [[] for _ in range(bins)]
    for arch in all_paths(net.space):
        if low <= table(arch) <= high:
            parts[min(int((table(arch) - low) / (high - low) * bins), bins - 1)].append(arch)
    assert min(map(len, parts)) > 3
    assert_drawn_as(mutator.sampler, {arch: 1 / bins / len(part) for part in parts for arch in part})


def test_operations_are_drawn_by_their_probabilities():
    net = make_net()
    given = (0.1, 0.2, 0.3, 0.4)  # the last for leaving a block out
    mutator = CreamSupernetTrainingMutator(net, "pre_prob", given, CHOICE_NUM=3, sta_num=(2, 2))
    first = np.array(given[:3]) / sum(given[:3])
    expected = {
        ((a, b), (c, d)): first[a] * given[b] * first[c] * given[d]
        for a, c in itertools.product(range(3), repeat=2)
        for b, d in itertools.product((0, 1, 2, SKIP), repeat=2)
    }
    assert_drawn_as(mutator.sampler, expected)
    assert mutator.sample_search() in expected
    assert mutator.sample_search() != mutator.sample_search()


def test_costs_may_be_given_as_nni_does():
    net = make_net()
    table, _ = cost_tables(net, SIZE)
    by_position = [costs for stage in table.choices for costs in stage]
    as_dict = {number: dict(enumerate(costs)) for number, costs in enumerate(by_position)}
    for given in (by_position, as_dict):
        costs = given_costs(net.space, given, table.fixed)
        assert [costs(arch) for arch in all_paths(net.space)] == [table(arch) for arch in all_paths(net.space)]
    assert cream_trainer(net, flops_dict=as_dict, flops_fixed=7.0).flops.fixed == 7.0


def test_bounds_that_are_infinite_are_those_of_the_space():
    net = make_net()
    table, _ = cost_tables(net, SIZE)
    mutator = SPOSSupernetTrainingMutator(net, table, -math.inf, math.inf, 2)
    drawn = Counter(mutator.sample_search() for _ in range(2000))
    assert drawn.keys() == set(all_paths(net.space))
    tried = SPOSSupernetTrainingMutator(net, lambda arch: table(arch), -math.inf, math.inf, 1)
    assert tried.sample_search() in drawn


# Evolution


def quality(arch):
    """Known to the test alone: the path ((2, 1), (0, 2)) is best."""
    wanted = (2, 1, 0, 2)
    return 100.0 - sum((a - b) ** 2 for a, b in zip(itertools.chain(*arch), wanted))


def test_evolution_finds_the_best_path_and_goes_on_after_a_kill(tmp_path, monkeypatch):
    net, scored = make_net(), []

    def score(model, archs, costs, train, val, batches):
        if kill_at is not None and len(scored) + len(archs) > kill_at:
            raise KeyboardInterrupt
        scored.extend(archs)
        return [Candidate(arch, quality(arch), 100.0, 0.0, *(cost(arch) for cost in costs)) for arch in archs]

    monkeypatch.setattr(evolution, "score", score)
    table, _ = cost_tables(net, 32)
    numbers = {"max_epochs": 6, "num_select": 4, "num_population": 10, "num_crossover": 4, "num_mutation": 4}

    def search(file=None):
        found = SPOSEvolution(**numbers, m_prob=0.3, flops_limit=table(((2, 1), (0, 2))), file=file)
        return found.search(net, TRAIN, VAL, resolution=32)

    kill_at = None
    whole = search()
    assert whole[0].arch == ((2, 1), (0, 2)) and len(scored) == len(set(scored)) == len(whole) <= 60
    assert max(candidate.mflops for candidate in whole) <= table(((2, 1), (0, 2)))
    assert whole[0].mparams == sum(np.prod(p.shape) for p in net.active_parameters(whole[0].arch)) / 1e6
    del scored[:]
    kill_at = 17
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "evolution.json")
    kill_at = None
    assert search(tmp_path / "evolution.json") == whole and len(scored) == len(whole)
    net.last.weight.set_value(net.last.weight + 1)
    # The old scores must not be taken in silence.
    with pytest.raises(ConfigError, match="belongs to an evolution with other settings: weights was"):
        search(tmp_path / "evolution.json")


def test_evolution_under_the_least_cost_finds_the_cheapest_path():
    net = make_net()
    table, _ = cost_tables(net, SIZE)
    found = SPOSEvolution(max_epochs=2, num_select=1, num_population=2, num_crossover=1, num_mutation=1)
    found.flops_limit = table.least
    (only,) = found.search(net, TRAIN, VAL, resolution=SIZE, select_batches=1)
    assert table(only.arch) == table.least == min(table(arch) for arch in all_paths(net.space))


def test_an_evolution_at_another_image_size_does_not_mix_costs(tmp_path):
    file, net = tmp_path / "evolution.json", make_net()
    numbers = {"max_epochs": 1, "num_select": 1, "num_population": 2, "num_crossover": 0, "num_mutation": 0}

    def search(resolution):
        return SPOSEvolution(**numbers, file=file).search(net, TRAIN, VAL, resolution=resolution, select_batches=1)

    first = search(SIZE)
    assert search(SIZE) == first
    with pytest.raises(ConfigError, match=r"an evolution with other settings: path .* cost .* and costs"):
        search(2 * SIZE)
    content = file.read_text()
    for part in ('"rng"', '"generations"', '"mflops"'):
        file.write_text(content.replace(part, '"other"'))
        with pytest.raises(CheckpointError, match="is not the state of an evolution: KeyError"):
            search(SIZE)
