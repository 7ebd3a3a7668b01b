"""Rank correlation: coefficients, the choice of paths, and an experiment that survives kills and shares its work."""

import json
import shutil
import subprocess
import sys
import tracemalloc

import numpy as np
import paddle
import pytest
import tiny
from scipy.stats import kendalltau, pearsonr, spearmanr
from tables import rows_of

from cream import cli, jobs
from cream.build.search import search_net
from cream.config.load import load_config
from cream.flops import CostTable
from cream.jobs import rank_correlation
from cream.space import SearchSpace, format_arch
from cream.studies import correlation, ranking
from cream.studies.correlation import compare, correlate
from cream.studies.ranking import (
    check_comparable,
    claimed,
    distinct_names,
    uniform,
    write_report,
)
from cream.train.sampler import Sampler
from pimm.engine import ClassifyStep
from pimm.errors import ConfigError, DataError
from pimm.utils import all_reduce_sum, barrier, is_main_process, rank, single_process, world_size
from pimm.utils.checkpoint import read_manifest

pytestmark = pytest.mark.usefixtures("without_report")

# Statistics


@pytest.mark.parametrize(
    ("predicted", "true", "values"),
    [
        ([1, 2, 3, 4], [10, 20, 30, 40], (1, 1, 1)),
        ([1, 2, 3, 4], [4, 3, 2, 1], (-1, -1, -1)),
        # One of six pairs is discordant: tau = (5 - 1) / 6; rho = 1 - 6 * 2 / (4 * 15).
        ([1, 2, 3, 4], [1, 2, 4, 3], (2 / 3, 0.8, 0.8)),
        # A tie: tau-b = 5 / sqrt(5 * 6); rho and r are those of the ranks, 4.5 / sqrt(4.5 * 5).
        ([1, 2, 3, 3], [1, 2, 3, 4], (5 / 30**0.5, 4.5 / 22.5**0.5, 3.5 / (2.75 * 5) ** 0.5)),
        ([0, 0, 0, 9], [1, 2, 3, 4], (3 / 18**0.5, 6 / 60**0.5, 6 / 60**0.5)),
    ],
)
def test_coefficients_by_hand(predicted, true, values):
    found = correlate(predicted, true)
    assert [found[name].value for name in ("kendall", "spearman", "pearson")] == pytest.approx(values)


def test_coefficients_are_scipys_with_and_without_ties():
    rng = np.random.default_rng(3)
    for true in (rng.normal(size=30), rng.integers(5, size=30)):
        predicted = true + rng.integers(-2, 3, size=30)
        found = correlate(predicted, true)
        for name, reference in (("kendall", kendalltau), ("spearman", spearmanr), ("pearson", pearsonr)):
            assert found[name].value == pytest.approx(reference(predicted, true)[0])


def test_four_thousand_nets_take_bounded_memory(monkeypatch):
    monkeypatch.setattr(correlation, "RESAMPLES", 5)
    rng = np.random.default_rng(3)
    true = rng.integers(1000, size=4000)
    predicted = true + rng.integers(-400, 400, size=4000)
    tracemalloc.start()
    found = correlate(predicted, true)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found["kendall"].value == pytest.approx(kendalltau(predicted, true)[0])
    assert found["kendall"].low < found["kendall"].value < found["kendall"].high
    assert peak < 50e6  # all pairs of 4,000 nets are 128 MB in each array


def test_intervals_are_the_percentiles_of_resampled_pairs():
    rng = np.random.default_rng(5)
    predicted = rng.normal(size=40)
    true = predicted + rng.normal(size=40)
    found = correlate(predicted, true, seed=7)["pearson"]
    draws = np.random.default_rng(7).integers(40, size=(2000, 40))
    resampled = [np.corrcoef(predicted[draw], true[draw])[0, 1] for draw in draws]
    assert (found.low, found.high) == pytest.approx(np.quantile(resampled, [0.025, 0.975]), abs=1e-9)
    assert found.low < found.value < found.high
    perfect = correlate(predicted, 2 * predicted)["kendall"]
    assert (perfect.low, perfect.value, perfect.high) == pytest.approx((1, 1, 1))


def test_a_difference_is_resampled_in_pairs():
    rng = np.random.default_rng(1)
    true = rng.normal(size=30)
    good, bad = true + 0.1 * rng.normal(size=30), true + 3 * rng.normal(size=30)
    found = compare(good, bad, true)["kendall"]
    values = [correlate(predicted, true)["kendall"].value for predicted in (good, bad)]
    assert found.value == pytest.approx(values[0] - values[1])
    assert 0 < found.low < found.value < found.high
    none = compare(good, good, true)["pearson"]
    assert (none.value, none.low, none.high) == (0, 0, 0)  # other resamples on either side would differ


def test_a_constant_has_no_correlation():
    found = correlate([1.0, 1.0, 1.0], [1.0, 2.0, 3.0])
    assert all(np.isnan([one.value, one.low, one.high]).all() for one in found.values())
    assert found["kendall"].as_json() == {"value": None, "low": None, "high": None}


# Paths


def sampler():
    """1000 paths that cost 0 to 27: most are in the middle."""
    costs = [float(cost) for cost in range(10)]
    space = SearchSpace(choices=((10, 10, 10),), keeps_shape=((False,) * 3,))
    return Sampler(space, CostTable([[costs] * 3], 0.0), 0, 100)


def test_paths_are_spread_over_the_costs_or_drawn_as_they_come():
    drawn = sampler()
    spread_costs = [drawn.flops(arch) for arch in drawn.spread(np.random.default_rng(0), 10)]
    uniform_costs = [drawn.flops(arch) for arch in uniform(drawn, np.random.default_rng(0), 100)]
    assert np.diff(spread_costs).min() >= 2 and np.ptp(spread_costs) >= 24
    assert np.mean([abs(cost - 13.5) < 5 for cost in uniform_costs]) > 0.6
    again = [drawn.flops(arch) for arch in uniform(drawn, np.random.default_rng(0), 100)]
    assert again == uniform_costs


def test_names_of_searches_are_as_short_as_tells_them_apart(tmp_path):
    named = distinct_names([tmp_path / "a" / "search", tmp_path / "b" / "search"])
    assert named == ["a/search", "b/search"]
    assert distinct_names([tmp_path / "a" / "search"]) == ["search"]
    with pytest.raises(ConfigError, match="named twice"):
        distinct_names([tmp_path / "a", tmp_path / "a"])


# Processes


@pytest.fixture
def second_of_two(monkeypatch):
    """This process is told that it is the second of two; the first does not exist."""
    monkeypatch.setattr(paddle.distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(paddle.distributed, "get_world_size", lambda: 2)


def test_alone_a_process_is_the_only_one(second_of_two):
    assert (rank(), world_size()) == (1, 2)
    with single_process():
        assert (rank(), world_size(), is_main_process()) == (0, 1, True)
        barrier()  # would wait for ever
        assert all_reduce_sum(paddle.to_tensor([3.0])).tolist() == [3.0]
    assert (rank(), world_size()) == (1, 2)


HOLD = """
import fcntl, sys
file = open(sys.argv[1], "w")
fcntl.lockf(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def test_a_claim_keeps_other_processes_off_until_its_holder_dies(tmp_path):
    path = tmp_path / "result.json"
    lock = tmp_path / ".result.json.lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"held\n"
    with claimed(path) as mine:
        assert not mine
    holder.kill()
    holder.communicate()
    with claimed(path) as mine:
        assert mine


# The experiment


@pytest.fixture(scope="module")
def searches(tmp_path_factory):
    """Two searches of one space."""
    data = tmp_path_factory.mktemp("data")
    tiny.write_images(data)
    return [
        tiny.run_search(data, tmp_path_factory.mktemp(name), f"SEED={seed}") for seed, name in enumerate(("a", "b"))
    ]


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("".join(f"{one.replace('=', ': ')}\n" for one in tiny.RECIPE if not one.startswith("DATASET")))
    return path


def settings(*more):
    return load_config(None, [*tiny.RECIPE, "NET.EMA.USE=False", "RECOVERY_INTERVAL=2", *more])


def results(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.glob("paths/*/*.json")}


@pytest.fixture(scope="module")
def whole(searches, tmp_path_factory):
    """The experiment without a break."""
    folder = tmp_path_factory.mktemp("whole")
    rank_correlation(searches, settings(), folder, n=3)
    return folder


def test_each_search_is_scored_on_the_same_paths_which_are_trained_once(searches, whole):
    rows = rows_of(whole / "ranking.csv")
    names = distinct_names(searches)
    assert list(rows[0]) == ["path", "arch", "mflops", "mparams", "trained", *(f"inherited {name}" for name in names)]
    assert len({row["arch"] for row in rows}) == len(rows) == 3
    columns = {name: [float(row[name]) for row in rows] for name in rows[0] if name not in ("path", "arch")}
    assert columns["mflops"] == sorted(columns["mflops"])
    summary = json.loads((whole / "correlation.json").read_text())
    for name in names:
        expected = correlate(columns[f"inherited {name}"], columns["trained"])["kendall"].as_json()
        assert summary["coefficients"][name]["kendall"] == expected
    both = columns[f"inherited {names[0]}"], columns[f"inherited {names[1]}"]
    assert list(summary["coefficients"]) == [*names, "mflops", " - ".join(names), " with ".join(names)]
    assert summary["coefficients"][" with ".join(names)]["pearson"] == correlate(*both)["pearson"].as_json()
    assert columns[f"inherited {names[0]}"] != columns[f"inherited {names[1]}"]
    assert (whole / "ranking.png").read_bytes().startswith(b"\x89PNG")


def test_inherited_accuracies_are_those_of_the_searchs_own_choice(searches, whole, tmp_path):
    folder = shutil.copytree(searches[0], tmp_path / "search")
    jobs.select(folder, ["SUPERNET.SELECT_RANDOM=40"])  # all 18 there are
    chosen = {row["arch"]: row["loss"] for row in rows_of(folder / "candidates.csv")}
    weights = read_manifest(searches[0] / "checkpoint-0")["files"]["model.pdparams"]["sha256"][:12]
    scored = [json.loads(text) for name, text in results(whole).items() if f"inherited-{weights}" in name]
    assert len(scored) == 3
    assert [str(one["loss"]) for one in scored] == [chosen[format_arch(one["arch"])] for one in scored]


def test_accuracies_that_are_all_alike_are_told(tmp_path, caplog):
    same = {"mflops": 1.0, "trained": 10.0, "inherited a": 10.0}
    write_report(tmp_path, [{**same, "mflops": cost} for cost in (1.0, 2.0, 3.0)], ["a"])
    for name in ("a", "training from scratch"):
        assert f"all paths have 10.00% by {name}: nothing to rank (a moving average lags)" in caplog.messages


def test_a_killed_experiment_goes_on_as_if_nothing_had_happened(searches, whole, tmp_path, monkeypatch):
    plain_step, plain_retrain, trained = ClassifyStep.__call__, jobs.retrain, []

    def retrain(cfg):
        trained.append(cfg.MODEL)
        return plain_retrain(cfg)

    monkeypatch.setattr(jobs, "retrain", retrain)
    for steps in (3, 9):  # the first path breaks off, then it goes on and the second breaks off
        left = [steps]

        def step(self, *args, left=left):
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            return plain_step(self, *args)

        monkeypatch.setattr(ClassifyStep, "__call__", step)
        with pytest.raises(KeyboardInterrupt):
            rank_correlation(searches, settings(), tmp_path, n=3)
    monkeypatch.setattr(ClassifyStep, "__call__", plain_step)
    rank_correlation(searches, settings(), tmp_path, n=3)
    assert trained == ["002", "002", "001", "001", "000"]  # the dearest first, none that was done
    assert results(tmp_path) == results(whole)
    for name in ("ranking.csv", "correlation.json"):
        assert (tmp_path / name).read_text() == (whole / name).read_text()


def test_a_process_of_several_works_without_the_others(searches, whole, tmp_path, second_of_two):
    rank_correlation(searches[:1], settings(), tmp_path, n=3)
    expected = results(whole)
    assert results(tmp_path).items() <= expected.items()
    assert len([name for name in results(tmp_path) if name.endswith("trained.json")]) == 3


def test_another_search_is_compared_later_without_training(searches, whole, tmp_path, monkeypatch):
    folder = shutil.copytree(whole, tmp_path / "again")
    for path in (*folder.glob("paths/*/inherited*"), folder / "ranking.csv"):
        path.unlink()
    monkeypatch.setattr(jobs, "retrain", None)
    rank_correlation(searches, settings(), folder, n=3)
    assert (folder / "ranking.csv").read_text() == (whole / "ranking.csv").read_text()


def test_more_trainings_are_added_to_the_first_and_tell_what_can_be_foretold(searches, whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "again")
    found = rank_correlation(searches[:1], settings(), folder, n=3, trainings=3)
    rows, first = rows_of(folder / "ranking.csv"), rows_of(whole / "ranking.csv")
    trained = [[float(row[f"trained {k}"]) for row in rows] for k in (1, 2, 3)]
    assert trained[0] == [float(row["trained"]) for row in first]
    assert [float(row["trained"]) for row in rows] == pytest.approx([sum(column) / 3 for column in zip(*trained)])
    others = [(second + third) / 2 for second, third in zip(*trained[1:])]
    assert str(found["one training"]) == str(correlate(trained[0], others))  # NaN among them is itself
    losses = [json.loads(path.read_text())["loss"] for path in sorted(folder.glob("paths/000/**/trained.json"))]
    assert len(set(losses)) == 3  # each with a seed of its own
    with pytest.raises(ConfigError, match="must be at least 1"):
        rank_correlation(searches[:1], settings(), folder, n=3, trainings=0)


@pytest.mark.parametrize(
    ("n", "seed", "more", "says"),
    [
        (3, 0, ["EPOCHS=3"], "with another recipe: EPOCHS was 2 and is 3"),
        (3, 0, ["OPT=sgd"], "with another recipe: OPT was momentum and is sgd"),
        (3, 0, ["CLIP_GRAD=1"], "with another recipe: CLIP_GRAD was None and is 1.0"),
        (3, 0, ["MIN_LR=0.01"], "with another recipe: MIN_LR was 1e-05 and is 0.01"),
        (4, 0, [], "with other paths"),
        (3, 1, [], "with other paths"),
        (2, 0, [], "must be at least 3"),
        (19, 0, [], "only 18 different paths were found in the FLOPs range; must be 19"),
    ],
)
def test_one_folder_holds_one_experiment(n, seed, more, says, searches, whole):
    with pytest.raises(ConfigError, match=says):
        rank_correlation(searches, settings(*more), whole, n=n, how="uniform" if seed else "spread", seed=seed)


@pytest.mark.parametrize("content", ["", "[" * 100_000, "[]", "{}", '{"paths": 1}', '{"paths": [], "recipe": 1}'])
def test_a_damaged_file_of_an_experiment_is_named(content, tmp_path):
    path = tmp_path / "experiment.json"
    path.write_text(content)
    with pytest.raises((ConfigError, DataError), match=r"experiment.json (is damaged|does not describe an experiment)"):
        ranking.check_same_experiment(path, [((0,),)], {"LR": 1})
    if not content.startswith("{"):
        with pytest.raises(DataError, match=r"is damaged: .* remove it, and its work is done again"):
            ranking.share_out({path: dict})


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("SUPERNET.RESOLUTION=32", "a and b differ in cost of paths: their scores cannot be compared"),
        ("DATASET.NUM_CLASSES=4", "a and b differ in number of classes: "),
        ("SUPERNET.FLOPS_MAXIMUM=1", "a and b differ in FLOPs range: "),
    ],
)
def test_searches_that_mean_other_things_by_a_path_are_not_compared(override, says, searches):
    configs = [load_config(searches[0] / "config.yaml", more) for more in ([], [override])]
    pair = {name: search_net(cfg) for name, cfg in zip("ab", configs)}
    check_comparable({"a": pair["a"], "c": pair["a"]})
    with pytest.raises(ConfigError, match=says):
        check_comparable(pair)


def test_the_command_prints_the_coefficients_of_each_search(searches, whole, recipe, tmp_path, capsys):
    args = ["--cfg", str(recipe), "--paths", "3", "--output", str(tmp_path / "rank"), "EPOCHS=1", "NET.EMA.USE=False"]
    assert cli.rank_correlation([str(searches[0]), *args, *[a for a in tiny.RECIPE if a.startswith("DATASET")]]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["search", "mflops"]
    assert all(name in lines[0] for name in correlation.COEFFICIENTS)
