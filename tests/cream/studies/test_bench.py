"""Supernets judged by accuracies from a file: the file's forms, scores of many paths, and the whole bench."""

import csv
import itertools
import json
import lzma

import numpy as np
import paddle
import pytest
import tiny
from paths import ROOT
from tables import rows_of

from cream import build, cli, jobs
from cream.flops import cost_tables
from cream.mobile.space import load_space
from cream.selection import shared_scoring
from cream.selection.candidates import score
from cream.selection.shared_scoring import score_many
from cream.shuffle.nets import ShuffleSuperNet
from cream.space import SKIP, SearchSpace, format_arch
from cream.studies.bench import Bench, better_judge
from cream.studies.judgement import Bootstrap
from cream.studies.truth import read_truth
from pimm.errors import ConfigError, DataError

SPACE = SearchSpace(choices=((2, 3),), keeps_shape=((False, False),))
CODES = {"02": {"test_acc": [80.0, 82.0], "flops": 3_000_000}, "11": {"test_acc": [70, 71], "flops": 1_500_000}}


# Files of accuracies


@pytest.mark.parametrize("name", ["codes.json", "codes.json.xz", "table.csv"])
def test_accuracies_are_read_from_every_form(name, tmp_path):
    text = json.dumps(CODES).encode()
    table = b'arch,mflops,trained,trained 1,trained 2\n"[[0, 2]]",3,81,80,82\n"[[1, 1]]",1.5,70.5,70,71\n'
    content = {"codes.json": text, "codes.json.xz": lzma.compress(text), "table.csv": table}[name]
    (tmp_path / name).write_bytes(content)
    truth = read_truth(tmp_path / name, SPACE)
    assert truth.accuracies == {((0, 2),): (80.0, 82.0), ((1, 1),): (70.0, 71.0)}
    assert truth.of([((1, 1),), ((0, 2),)]).tolist() == [[70, 71], [80, 82]]
    assert truth.costs([((1, 1),)], None).tolist() == [1.5]


def test_one_training_and_no_costs_will_do(tmp_path):
    (tmp_path / "table.csv").write_text('arch,trained\n"[[0, 2]]",81\n')
    truth = read_truth(tmp_path / "table.csv", SPACE)
    assert truth.of([((0, 2),)]).tolist() == [[81]]
    assert truth.costs([((0, 2),)], lambda arch: 7.0).tolist() == [7]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.txt", "", r"must be named \*.json, \*.json.xz, \*.csv"),
        ("a.json", "{", "not of NAS-Bench-Macro's form"),
        ("a.json", "[]", "not of NAS-Bench-Macro's form"),
        ("a.json", '{"0x": {"test_acc": [1]}}', "not of NAS-Bench-Macro's form"),
        ("a.json", '{"02": {}}', "not of NAS-Bench-Macro's form"),
        ("a.json.xz", "{}", "not of NAS-Bench-Macro's form"),
        ("a.json", "{}", "must hold architectures"),
        ("a.json", '{"02": {"test_acc": []}}', r"code '02' has accuracies \(\); must be percentages"),
        ("a.json", '{"02": {"test_acc": [NaN]}}', r"code '02' has accuracies \(nan,\); must be percentages"),
        ("a.json", '{"021": {"test_acc": [1]}}', "code '021': the row has 3 choices; a path of this space has 2"),
        ("a.json", '{"05": {"test_acc": [1]}}', "code '05': .*block 1 of stage 0 has choices 0 to 2, not 5"),
        ("a.json", '{"02": {"test_acc": [1]}, "11": {"test_acc": [1, 2]}}', "all with as many trainings"),
        ("a.json", '{"02": {"test_acc": [1], "flops": 1}, "11": {"test_acc": [1]}}', "all or none with costs"),
        ("a.csv", "arch\n[[0]]\n", "columns arch and trained"),
        ("a.csv", 'arch,trained\n"[[0, 2]]",x\n', "columns arch and trained"),
        ("a.csv", 'arch,trained\n"[[0, 9]]",5\n', "line 2: .*has choices 0 to 2, not 9"),
        ("a.csv", 'arch,trained\n"[[0, 2]]",101\n', r"line 2 has accuracies \(101.0,\); must be percentages"),
    ],
)
def test_a_file_of_another_form_is_named(name, content, says, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises((ConfigError, DataError), match=says) as error:
        read_truth(tmp_path / name, SPACE)
    assert len(str(error.value)) < 400 + len(str(tmp_path)) and "\n" not in str(error.value)


def test_paths_that_are_the_same_net_are_drawn_once(tmp_path):
    space = load_space(ROOT / "configs" / "spaces" / "nas_bench_macro.yaml")
    codes = ["".join(map(str, code)) for code in itertools.product((0, 1), repeat=8)]
    (tmp_path / "a.json").write_text(json.dumps({code: {"test_acc": [50]} for code in codes}))
    truth = read_truth(tmp_path / "a.json", space)
    different = len({space.net_of(arch) for arch in truth.accuracies})
    # In a stage of 1 + m blocks 2 choices for the first, and 1 to m + 1 nets by how many of the others are identities.
    assert different == (2 * 2) * (2 * 3) * (2 * 3)
    drawn = truth.draw(space, lambda arch: True, different, seed=1)
    assert len({space.net_of(arch) for arch in drawn}) == different
    assert drawn != truth.draw(space, lambda arch: True, different, seed=2)
    few = truth.draw(space, lambda arch: arch[0] == (1, 1), 9, seed=0)
    assert {arch[0] for arch in few} == {(1, 1)}
    with pytest.raises(ConfigError, match=f"has {different} different nets in the FLOPs range; must be 200"):
        truth.draw(space, lambda arch: True, 200, seed=0)


def test_depth_and_net_leave_out_what_computes_nothing():
    space = load_space(ROOT / "configs" / "spaces" / "nas_bench_macro.yaml")
    arch = ((0, 2), (0, 0, 1), (1, 0, 0))
    assert space.depth(arch) == 3  # as the benchmark's authors count: without the identity that changes the shape
    assert space.net_of(arch) == ((0, 2), (0, 1), (1,))
    assert space.net_of(((0, 2), (0, 1, 0), (1, 0, 0))) == space.net_of(arch)
    plain = SearchSpace(choices=((2, 2, 2),), keeps_shape=((False, True, True),))
    assert plain.depth(((1, SKIP, 0),)) == 2
    assert plain.net_of(((1, SKIP, 0),)) == plain.net_of(((1, 0, SKIP),)) == ((1, 0),)


# Scores of many paths


@pytest.fixture(scope="module")
def searches(tmp_path_factory):
    """Two searches with different seeds, in folders of the same name."""
    data = tmp_path_factory.mktemp("data")
    tiny.write_images(data)
    return [tiny.run_search(data, tmp_path_factory.mktemp(name), f"SEED={seed}") for seed, name in enumerate("ab")]


@pytest.fixture(scope="module")
def searched(searches):
    recorded, cfg = build.settings_of_search(searches[0])
    found, _ = build.trained_search(searches[0], recorded)
    return found, build.selection_of(cfg, found)


def all_paths():
    tails = [(SKIP, SKIP), *itertools.product((0, 1), (0, 1)), (0, SKIP), (SKIP, 1)]
    return [((first, *tail),) for tail in tails for first in (1, 0)]


def test_many_paths_score_as_each_alone_and_leave_the_net_as_it_was(searched):
    found, selection = searched
    before = {name: value.numpy().copy() for name, value in found.net.state_dict().items()}
    momenta = [layer._momentum for layer in shared_scoring.batch_norms(found.net)]
    paths = all_paths()
    scores = score_many(found.net, paths, selection.train, selection.loader, selection.batches)
    alone = {candidate.arch: candidate for candidate in selection.score(paths)}
    for arch, one in zip(paths, scores):
        assert one["loss"] == pytest.approx(alone[arch].loss, rel=1e-6)
        assert one["prec1"] == pytest.approx(alone[arch].prec1)
    assert len({one["loss"] for one in scores}) == len(paths)
    for name, value in found.net.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[name], err_msg=name)
    assert [layer._momentum for layer in shared_scoring.batch_norms(found.net)] == momenta


def test_shared_beginnings_are_run_once(searched, monkeypatch):
    found, selection = searched
    runs = []
    position = type(found.net.blocks[0][0])
    plain = position.forward
    monkeypatch.setattr(position, "forward", lambda self, x, choice: runs.append(choice) or plain(self, x, choice))
    paths = all_paths()
    score_many(found.net, paths, selection.train, selection.loader, selection.batches, "eager")
    branches = {path[0][:end] for path in paths for end in (1, 2, 3)}
    batches = selection.batches + len(selection.loader)
    assert len(runs) == batches * len(branches) < batches * 3 * len(paths)


def test_nothing_to_score_on_is_told(searched):
    found, selection = searched
    with pytest.raises(DataError, match="no images"):
        score_many(found.net, all_paths(), selection.train, [], selection.batches)


# The bench


def test_methods_are_compared_over_their_seeds_by_accuracy_and_by_loss():
    true = np.arange(30.0)
    rng = np.random.default_rng(0)

    def rows(noise):
        return [{"prec1": value + noise * rng.normal(), "loss": -value} for value in true]

    scores = {"s0/good": rows(1), "s1/good": rows(1), "s0/bad": rows(40), "s1/bad": rows(40)}
    trainings = np.stack([true, true + 0.1, true[::-1]], axis=1)
    bench = Bench([((i,),) for i in range(30)], trainings[:, :2], true, true % 3, scores, np.inf, Bootstrap(30))
    assert bench.methods() == {"good": ["s0/good", "s1/good"], "bad": ["s0/bad", "s1/bad"]}
    found = bench.judgements()
    assert list(found) == [
        *("good by accuracy", "good by loss", "bad by accuracy", "bad by loss"),
        *("MFLOPs", "number of blocks", "one training"),
    ]
    for label in ("good by loss", "bad by loss", "MFLOPs", "one training"):
        np.testing.assert_allclose(found[label]["tau"], 1)  # less loss is better
    differences = bench.differences(found)
    assert list(differences) == [
        *("good by accuracy - bad by accuracy", "good by loss - bad by loss"),
    ]
    assert differences["good by accuracy - bad by accuracy"]["tau"][0] > 0.4
    np.testing.assert_allclose(differences["good by loss - bad by loss"]["tau"], 0)
    agreement = bench.agreement()
    assert agreement["good by accuracy"][0] > agreement["bad by accuracy"][0]
    np.testing.assert_allclose(agreement["bad by loss"], 1)
    assert better_judge("bad", found) == "bad by loss"
    noisy = Bench(bench.archs, trainings, true, true % 3, scores, np.inf, Bootstrap(30)).judgements()["one training"]
    # The reversed training has tau -1 with the mean of the others, and each of the others 0 with a constant: NaN.
    assert np.isnan(noisy["tau"][0])


def test_estimates_judge_where_all_seeds_of_a_method_have_them():
    true, rng = np.arange(30.0), np.random.default_rng(0)
    rows = [{"prec1": rng.normal(), "loss": rng.normal(), "estimate": -value} for value in true]
    plain = [{"prec1": value, "loss": -value} for value in true]
    scores = {"s0/ours": rows, "s1/ours": rows, "s0/mixed": rows, "s1/mixed": plain}
    bench = Bench([((i,),) for i in range(30)], true[:, None], true, true % 3, scores, np.inf, Bootstrap(30))
    assert bench.judges("ours") == ["accuracy", "loss", "estimate", "loss and estimate"]
    assert bench.judges("mixed") == ["accuracy", "loss"]
    found = bench.judgements()
    np.testing.assert_allclose(found["ours by estimate"]["tau"], 1)
    assert "mixed by estimate" not in found
    differences = bench.differences(found)
    assert {"ours by loss - mixed by loss", "ours by estimate - ours by loss"} <= set(differences)
    assert f"ours by estimate - {better_judge('mixed', found)}" in differences
    assert bench.rows()[3]["estimate s1/ours"] == -3


def test_loss_and_estimate_are_added_up():
    rows = [{"prec1": 0.0, "loss": loss, "estimate": 2 - loss / 2} for loss in (1.0, 3.0, 2.0)]
    archs, ones = [((i,),) for i in range(3)], np.ones(3)
    bench = Bench(archs, ones[:, None], ones, ones, {"search": rows}, np.inf, Bootstrap(3))
    np.testing.assert_array_equal(bench.score("search", "loss and estimate"), [-2.5, -3.5, -3.0])


def test_the_estimate_of_a_search_is_that_of_its_losses(tmp_path):
    tiny.write_images(tmp_path)
    folder = tiny.run_search(tmp_path, tmp_path / "out", "SUPERNET.ESTIMATE=True", "EPOCHS=2")
    _, cfg = build.settings_of_search(folder)
    found, step = build.trained_search(folder, cfg)
    paths = all_paths()[:3]
    assert step.fit.level > 0 and len(step.fit.recent) == 8  # four batches an epoch
    scored = jobs.many_scorer(cfg, found, step.fit)(paths)
    assert [row["estimate"] for row in scored] == [step.fit(arch) for arch in paths]
    assert "estimate" not in jobs.many_scorer(cfg, found)(paths)[0]


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    """Accuracies of 14 paths, by the number of the operations that are not the first, and by depth."""
    path = tmp_path_factory.mktemp("truth") / "truth.csv"
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["arch", "mflops", "trained 1", "trained 2"])
        for i, arch in enumerate(all_paths()):
            writer.writerow([format_arch(arch), i + 1, 50 + (i * 5) % 14, 50 + (i * 5) % 14 + i % 2])
    return path


def test_the_whole_bench(searches, truth, tmp_path, capsys, monkeypatch):
    output = tmp_path / "bench"
    command = [*map(str, searches), "--truth", str(truth), "--output", str(output), "--paths", "12", "--limit", "9"]
    assert cli.rank_correlation(command) == 0
    printed = capsys.readouterr().out
    assert printed == (output / "judgement.md").read_text()
    rows = rows_of(output / "ranking.csv")
    given = {row["arch"]: row for row in rows_of(truth)}
    assert len(rows) == 12
    for row in rows:
        expected = given[row["arch"]]
        assert float(row["mflops"]) == float(expected["mflops"])
        assert float(row["trained"]) == (float(expected["trained 1"]) + float(expected["trained 2"])) / 2
        assert int(row["depth"]) == 3 - row["arch"].count("-1")
    summary = json.loads((output / "judgement.json").read_text())
    assert (summary["nets"], summary["limit_mflops"]) == (12, 9)
    labels = ["search by accuracy", "search by loss", "MFLOPs", "number of blocks", "one training"]
    assert list(summary["statistics"]) == labels  # both folders are seeds of one method
    assert list(summary["seed against seed"]) == labels[:2] and summary["differences"] == {}
    cheap = [row for row in rows if float(row["mflops"]) <= 9]
    best = max(float(row["trained"]) for row in cheap)
    picks = []
    for name in [name for name in rows[0] if name.startswith("loss ")]:
        picks.append(float(min(cheap, key=lambda row, name=name: float(row[name]))["trained"]))
    assert len(picks) == 2
    found = summary["statistics"]["search by loss"]
    assert found["pick"]["value"] == pytest.approx(np.mean(picks))
    assert found["pick misses"]["value"] == pytest.approx(best - np.mean(picks))
    assert (output / "ranking.png").read_bytes().startswith(b"\x89PNG")

    monkeypatch.setattr(jobs, "score_many", lambda *args, **kwargs: pytest.fail("scored again"))
    before = (output / "judgement.json").read_text()
    (output / "judgement.json").unlink()
    assert cli.rank_correlation(command) == 0
    assert (output / "judgement.json").read_text() == before


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--paths", "13"], "belongs to an experiment with other paths"),
        (["--paths", "12", "SUPERNET.SELECT_BATCHES=1"], "another recipe"),
        (["--paths", "2"], "must be at least 3"),
        (["--paths", "15"], "has 14 different nets in the FLOPs range; must be 15"),
        (["--trainings", "2"], "--truth takes the place of --cfg and --trainings"),
        (["--sample", "spread"], "draws paths uniformly"),
    ],
)
def test_what_does_not_go_together_is_told(options, says, searches, truth, tmp_path, capsys):
    command = [str(searches[0]), "--truth", str(truth), "--output", str(tmp_path)]
    if "--paths" in options and options != ["--paths", "2"]:
        assert cli.rank_correlation([*command, "--paths", "12"]) == 0
    with_exit = {"--trainings", "--sample"} & set(options)
    if with_exit:
        with pytest.raises(SystemExit):
            cli.rank_correlation([*command, *options])
    else:
        assert cli.rank_correlation([*command, *options]) == 2
    assert says in capsys.readouterr().err


def test_without_a_file_of_accuracies_a_recipe_is_needed(searches, tmp_path, capsys):
    with pytest.raises(SystemExit):
        cli.rank_correlation([str(searches[0]), "--output", str(tmp_path)])
    assert "--cfg is needed, or --truth in its place" in capsys.readouterr().err


class Batches(list):
    """Batches as a loader gives them."""

    def set_epoch(self, epoch):
        """Do nothing: the batches are always the same."""


def test_many_paths_of_slimmable_blocks_score_as_each_alone():
    paddle.seed(0)
    net = ShuffleSuperNet(num_classes=3, ratios=(0.5, 1.0), depths=(1, 2), channels=(18, 24))
    rng = np.random.default_rng(0)

    def batches(n):
        images = [rng.normal(size=(6, 3, 32, 32)).astype(np.float32) for _ in range(n)]
        return Batches((paddle.to_tensor(x), paddle.to_tensor(rng.integers(3, size=6))) for x in images)

    train, val = batches(3), batches(2)
    archs = [net.space.decode(row) for row in net.space.sample(np.random.default_rng(1), 8)]
    archs = list(dict.fromkeys(archs))
    alone = {one.arch: one for one in score(net, archs, cost_tables(net, 32), train, val, 3)}
    for arch, found in zip(archs, score_many(net, archs, train, val, 3)):
        assert found["loss"] == pytest.approx(alone[arch].loss, rel=1e-5)
        assert found["prec1"] == pytest.approx(alone[arch].prec1)
