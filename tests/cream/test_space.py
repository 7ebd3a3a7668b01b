"""Paths of search spaces: mutation, crossover, and NNI's JSON."""

import json

import numpy as np
import pytest

from cream.flops import CostTable
from cream.mobile.space import mobile_space
from cream.shuffle.nets import CHANNEL_RATIOS, SPOS_ARCH, shuffle_space
from cream.space import SKIP, SearchSpace
from cream.train.sampler import Sampler
from pimm.errors import ConfigError

SKIPPING = SearchSpace(((2,), (3, 3)), ((False,), (False, True)), draws_skip=True)
SPACES = {
    "spos": shuffle_space(),
    "channels": shuffle_space(CHANNEL_RATIOS),
    "cream": mobile_space((1, 2, 3, 2, 1)),
    "skipping": SKIPPING,
}
PATHS = {
    "spos": SPOS_ARCH,
    "channels": shuffle_space(CHANNEL_RATIOS).decode(range(20, 40)),
    "cream": ((0,), (3,), (5, SKIP), (3, 1, SKIP), (0, 2), (4,), (0,)),
    "skipping": ((1,), (2, SKIP)),
}


def drawn(space, first, second=None, probability=None, n=250):
    """Return rows of n mutations of a path, or of n crossovers of two paths."""
    rng = np.random.default_rng(1)
    if second is None:
        return np.stack([space.encode(space.mutate(first, rng, probability)) for _ in range(n)])
    return np.stack([space.encode(space.crossover(first, second, rng)) for _ in range(n)])


@pytest.mark.parametrize("name", SPACES)
def test_mutation_draws_each_choice_anew_with_its_probability(name):
    space, arch = SPACES[name], PATHS[name]
    row = space.encode(arch)
    rows = drawn(space, arch, probability=0.25)
    for position, options in enumerate(space.options):
        kept = 0.75 + 0.25 * (row[position] in options) / len(options)
        assert (rows[:, position] == row[position]).mean() == pytest.approx(kept, abs=0.11)
        assert set(rows[:, position]) <= {*options, row[position]}
    assert (drawn(space, arch, probability=0.0, n=3) == row).all()


def test_mutations_skip_where_the_space_draws_skips():
    assert SKIP in drawn(SKIPPING, ((0,), (0, 0)), probability=1.0)[:, 2]
    assert SKIP not in drawn(SPACES["cream"], SPACES["cream"].decode([0] * 11), probability=1.0)


@pytest.mark.parametrize("name", SPACES)
def test_crossover_takes_half_of_each(name):
    space, first = SPACES[name], PATHS[name]
    second = space.decode([0] * len(space.options))
    rows = drawn(space, first, second)
    differ = space.encode(first) != 0
    assert np.abs((rows == space.encode(first)).mean(axis=0)[differ] - 0.5).max() < 0.13
    assert ((rows == space.encode(first)) | (rows == 0)).all()


def test_equal_generators_make_equal_paths():
    assert (
        drawn(SPACES["spos"], SPOS_ARCH, probability=0.1) == drawn(SPACES["spos"], SPOS_ARCH, probability=0.1)
    ).all()


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda space, rng: space.mutate(SPOS_ARCH[:3], rng, 0.1), "has 3 stages, not 4"),
        (lambda space, rng: space.mutate(SPOS_ARCH, rng, 1.5), "probability of a mutation is 1.5"),
        (lambda space, rng: space.mutate(SPOS_ARCH, rng, float("nan")), "probability of a mutation is nan"),
        (lambda space, rng: space.crossover(SPOS_ARCH, ((4,) * 4, *SPOS_ARCH[1:]), rng), "has choices 0 to 3, not 4"),
        (lambda space, rng: space.crossover(((-2,) * 4, *SPOS_ARCH[1:]), SPOS_ARCH, rng), "0 to 3, not -2"),
        (lambda space, rng: space.mutate(((-1,) * 4, *SPOS_ARCH[1:]), rng, 0.1), "cannot be skipped"),
        (lambda space, rng: space.check(((0.5,) * 4, *SPOS_ARCH[1:])), "has choices 0 to 3, not 0.5"),
        (lambda space, rng: space.check(((True,) * 4, *SPOS_ARCH[1:])), "has choices 0 to 3, not True"),
        (lambda space, rng: space.decode([0] * 19), "the row has 19 choices; a path of this space has 20"),
        (lambda space, rng: space.decode([0] * 21), "the row has 21 choices; a path of this space has 20"),
    ],
)
def test_what_is_no_path_is_refused(call, message):
    with pytest.raises(ConfigError, match=message):
        call(SPACES["spos"], np.random.default_rng(0))


@pytest.mark.parametrize("name", SPACES)
def test_nni_json_there_and_back(name):
    space, arch = SPACES[name], PATHS[name]
    text = space.to_nni_json(arch)
    assert space.from_nni_json(text) == arch
    entries = json.loads(text)
    assert list(entries) == [f"LayerChoice{i + 1}" for i in range(len(space.options))]
    assert [values.index(True) if True in values else SKIP for values in entries.values()] == space.encode(
        arch
    ).tolist()


OFFICIAL = {f"LayerChoice{i + 1}": choice for i, choice in enumerate(choice for stage in SPOS_ARCH for choice in stage)}


def test_nni_json_of_the_authors_net():
    first = SPACES["spos"].to_nni_json(SPOS_ARCH).splitlines()[:2]
    assert first == ["{", '  "LayerChoice1": [false, false, true, false],']


@pytest.mark.parametrize(
    "entries",
    [
        {name: [index == choice for index in range(4)] for name, choice in sorted(OFFICIAL.items())},
        {name: str(choice) for name, choice in OFFICIAL.items()},
        {name.replace("LayerChoice", "default_"): choice for name, choice in OFFICIAL.items()},
        {f"LayerChoice{int(name[11:]) + 20}": choice for name, choice in OFFICIAL.items()},
    ],
    ids=["one-hot, sorted by name", "numbers as text", "other names", "second net of a process"],
)
def test_every_form_that_nni_has_written(entries):
    assert SPACES["spos"].from_nni_json(json.dumps(entries)) == SPOS_ARCH


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('{"LayerChoice1": ' + "1" * 5000 + "}", "is not JSON"),
        ('{"LayerChoice' + "1" * 5000 + '": 0}', "names its choices"),
        ("[1, 2]", "names its choices LayerChoice1, LayerChoice2, ...; this has no names at all"),
        ('{"first": 1}', "this has 'first'"),
        ('{"LayerChoice1": 1}', "this space has 20 choices, each with a number of its own; there are LayerChoice1"),
        (json.dumps({**OFFICIAL, "LayerChoice3": [True, True, False, False]}), "LayerChoice3 is .*at most one of them"),
        (json.dumps({**OFFICIAL, "LayerChoice3": [True, False]}), "must be a list of 4 truth values"),
        (json.dumps({**OFFICIAL, "LayerChoice3": 1.0}), "LayerChoice3 is 1.0"),
        (json.dumps({**OFFICIAL, "LayerChoice3": 4}), "block 2 of stage 0 has choices 0 to 3, not 4"),
        (json.dumps({**OFFICIAL, "LayerChoice3": [False] * 4}), "block 2 of stage 0 cannot be skipped"),
    ],
)
def test_what_nni_json_cannot_be(text, message):
    with pytest.raises(ConfigError, match=message):
        SPACES["spos"].from_nni_json(text)


def test_long_architectures_are_told_in_short_messages():
    space = SearchSpace(((6,), (6, 6)), ((False,), (False, True)))
    for arch in (
        ((0,),) * 500,
        ((0,) * 500, (0, 0)),
        ((10**300,), (0, 0)),
        ((0,), (10**300, 10**300)),
        ((0,), (-1, 0)),
    ):
        with pytest.raises(ConfigError, match=r"architecture \[\[") as error:
            space.check(arch)
        assert len(str(error.value)) < 400


@pytest.mark.parametrize(
    "choices, keeps_shape, message",
    [
        (((2, 2),), ((False,),), r"keeps_shape for each of them, not \[1\] for \[2\]"),
        (((2,), (2,)), ((False,),), r"not \[1\] for \[1, 1\]"),
        ((), (), "a space needs positions"),
        (((),), ((),), "a space needs positions"),
        (((2, 0),), ((False, False),), "operations at a position is 0; must be a whole number of at least 1"),
        (((2.0,),), ((False,),), "operations at a position is 2.0"),
    ],
)
def test_what_is_no_space_is_refused(choices, keeps_shape, message):
    with pytest.raises(ConfigError, match=message):
        SearchSpace(choices, keeps_shape)


def test_a_space_of_lists_is_that_of_tuples():
    space = SearchSpace([[2], [3, 3]], [[False], [False, True]], draws_skip=True)
    assert space == SKIPPING and hash(space) == hash(SKIPPING)


def test_costs_of_another_space_or_path_are_not_added_up():
    costs = [[[1.0, 2.0]], [[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]]]
    table = CostTable(costs, 0.5, SKIPPING)
    assert table(((1,), (2, -1))) == 5.5
    for arch in (((1,),), ((1,), (2,)), ((1,), (2, 0, 0))):
        with pytest.raises(ConfigError, match="has not the positions of the table"):
            table(arch)
    for wrong in (costs[:1], [costs[0], costs[1][:1]], [costs[0], [[1.0, 2.0], [1.0]]]):
        with pytest.raises(ConfigError, match="the costs belong to"):
            CostTable(wrong, 0.5, SKIPPING)
        with pytest.raises(ConfigError, match="the costs belong to another space"):
            Sampler(SKIPPING, CostTable(wrong, 0.5), 0, 100)
    for bounds in ((float("nan"), 9.0), (0.0, float("nan"))):
        with pytest.raises(ConfigError, match=r"the FLOPs range is from .* must be numbers"):
            Sampler(SKIPPING, table, *bounds)
