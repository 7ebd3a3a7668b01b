"""Single Path One-Shot's commands on tiny images: supernet, evolution of it and of Cream's, scratch, mistakes."""

import json

import numpy as np
import pytest
import tiny
import yaml
from tables import rows_of

from cream import cli
from cream.build.data import evaluation_loader, make_loader, open_split, training_images
from cream.build.families import search_space
from cream.config.load import load_config
from cream.selection import evolve as evolution_search
from cream.selection.architecture_file import read_architecture
from cream.shuffle.nets import SPOS_ARCH, shuffle_space
from pimm.errors import ConfigError
from pimm.utils import latest_checkpoint, load_arrays, read_checkpoint

SPACE = shuffle_space(depths=(1, 2))
SMALL = {
    "WORKERS": 0,
    "LOG_INTERVAL": 1,
    "EPOCHS": 1,
    "OPT": "momentum",
    "LR": 0.05,
    "DATASET": {"NUM_CLASSES": 3, "BATCH_SIZE": 6, "CROP_PCT": 1.0, "IMAGE_SIZE": 16},
    "SUPERNET": {"FAMILY": "shuffle", "SHUFFLE": {"DEPTHS": [1, 2], "CHANNELS": [24, 32]}},
}
SEARCH = {"METHOD": "single_path", "HOW_TO_PROB": "even", "PROBES": 1, "SELECT_BATCHES": 2}
RANGE = {"FLOPS_MINIMUM": 0.195, "FLOPS_MAXIMUM": 0.22, "FLOPS_BINS": 2}  # the space reaches from 0.1917 to 0.2236
FEW = [f"EVOLUTION.{key}" for key in ("POPULATION=4", "TOP=2", "CROSSOVER=1", "MUTATION=1", "GENERATIONS=2")]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The images, and the settings of a supernet and of training from scratch beside them."""
    folder = tmp_path_factory.mktemp("data")
    tiny.write_images(folder)
    scratch = {**SMALL, "DATA_DIR": str(folder), "SCHED": "linear", "WARMUP_EPOCHS": 0, "COOLDOWN_EPOCHS": 0}
    (folder / "scratch.yaml").write_text(yaml.safe_dump({**scratch, "NET": {"EMA": {"USE": False}}}))
    supernet = {
        **SMALL,
        "SUPERNET": {**SMALL["SUPERNET"], **SEARCH, **RANGE},
        "RETRAIN_CFG": str(folder / "scratch.yaml"),
    }
    (folder / "supernet.yaml").write_text(yaml.safe_dump({**supernet, "DATA_DIR": str(folder)}))
    return folder


@pytest.fixture(scope="module")
def supernet(data, tmp_path_factory):
    """The folder of a trained supernet."""
    folder = tmp_path_factory.mktemp("supernet")
    args = ["--cfg", str(data / "supernet.yaml"), f"SAVE_PATH={folder}", "MODEL=net", "--spos-preprocessing"]
    assert cli.spos_supernet(args) == 0
    return folder / "net"


@pytest.fixture(scope="module")
def evolved(supernet):
    """The folder of a finished evolution over it."""
    assert cli.spos_search([str(supernet), *FEW]) == 0
    return supernet / "evolution"


@pytest.fixture(autouse=True)
def without_report():
    """Only the evolution that all tests share draws one."""
    with tiny.without_report():
        yield


def files_of(folder):
    """What of an evolution's folder may depend on nothing but settings and weights."""
    paths = [folder / name for name in ("evolution.json", "architecture.json", "architecture_final.json")]
    paths += [folder / "candidates.csv", *sorted(folder.glob("generations/*"))]
    return {path.name: path.read_text() for path in paths}


def test_the_supernet_is_trained_as_asked(supernet):
    checkpoint = read_checkpoint(latest_checkpoint(supernet))
    assert checkpoint.files["model.pdparams"]["features.2.3.branch_main.0.weight"].shape == (16, 1, 3, 3)
    sampled = checkpoint.files["state.pdstate"]["step"]["sampled"]
    assert [[len(place) for place in stage] for stage in sampled] == [[4], [4, 4]]
    assert {sum(place) for stage in sampled for place in stage} == {4}  # 24 images, 6 a batch
    assert load_config(supernet / "config.yaml").DATASET.SPOS_PREPROCESSING
    assert not (supernet / "architecture.json").exists()


def test_an_evolution_ends_in_the_files_of_a_search(evolved):
    state = json.loads((evolved / "evolution.json").read_text())["state"]
    result = json.loads((evolved / "architecture.json").read_text())
    rows = rows_of(evolved / "candidates.csv")
    assert len(rows) == len(state["scores"]) == 8
    assert all(0.195 <= float(row["mflops"]) <= 0.22 and not row["outside"] for row in rows)
    assert float(rows[0]["prec1"]) == result["prec1"] == max(one["prec1"] for one in state["scores"].values())
    assert state["scores"][json.dumps(result["arch"])]["loss"] == result["loss"]
    final = (evolved / "architecture_final.json").read_text()
    assert SPACE.from_nni_json(final) == tuple(map(tuple, result["arch"]))
    assert json.loads(final)["LayerChoice3"][result["arch"][1][1]] is True
    recipe = load_config(evolved / "retrain.yaml")
    assert (SPACE.from_nni_json(final), "net_evolution_retrain") == (recipe.NET.INPUT_ARCH, recipe.MODEL)
    assert (recipe.SUPERNET.FAMILY, recipe.SUPERNET.SHUFFLE.CHANNELS) == ("shuffle", (24, 32))
    assert (evolved / "convergence.png").read_bytes()[:4] == b"\x89PNG" and (evolved / "report.html").exists()


def test_every_generation_is_exported_in_nnis_form(evolved):
    scores = json.loads((evolved / "evolution.json").read_text())["state"]["scores"]
    names = sorted(path.name for path in evolved.glob("generations/*"))
    assert names == ["000_000.json", "000_001.json", "001_000.json", "001_001.json"]
    paths = [SPACE.from_nni_json((evolved / "generations" / name).read_text()) for name in names]
    first, _, second, _ = (scores[json.dumps([list(stage) for stage in path])]["prec1"] for path in paths)
    assert first <= second


@pytest.mark.parametrize("finished", [0, 4, 7])
def test_a_killed_evolution_ends_alike(evolved, supernet, tmp_path, monkeypatch, finished):
    """Interrupted after so many paths; 4 end a generation, whose files are not there yet."""
    write, written = evolution_search.write_text, []

    def interrupted(path, text):
        if path.name == "evolution.json":
            written.append(path)
        if len(written) > finished or (finished and path.name != "evolution.json" and len(written) == finished):
            raise KeyboardInterrupt
        write(path, text)

    args = [str(supernet), *FEW, "--output", str(tmp_path / "broken")]
    with monkeypatch.context() as patched:
        patched.setattr(evolution_search, "write_text", interrupted)
        assert cli.spos_search(args) == 130
    assert cli.spos_search(args) == 0
    assert files_of(tmp_path / "broken") == files_of(evolved)


def test_scratch_trains_and_tests_the_result(data, evolved, tmp_path, capsys):
    settings = [f"SAVE_PATH={tmp_path}", "MODEL=net", "EPOCHS=2"]
    architecture = ["--architecture", str(evolved / "architecture_final.json")]
    assert cli.spos_scratch(["--cfg", str(data / "scratch.yaml"), *architecture, *settings]) == 0
    best = max(float(row["eval_prec1"]) for row in rows_of(tmp_path / "net" / "summary.csv"))
    assert f"prec1 {best:.4f}" in capsys.readouterr().out.splitlines()[-1]
    arch = load_config(tmp_path / "net" / "config.yaml").NET.INPUT_ARCH
    assert arch == SPACE.from_nni_json((evolved / "architecture_final.json").read_text())


def test_evolution_over_a_supernet_of_creams_family(data, tmp_path):
    folder = tiny.run_search(data, tmp_path)
    chosen = (folder / "architecture.json").read_text()
    assert cli.spos_search([str(folder), *FEW, "SUPERNET.PARAMS_MAXIMUM=0.0012"]) == 0
    result = json.loads((folder / "evolution" / "architecture.json").read_text())
    space, _ = search_space(load_config(folder / "config.yaml"))
    final = space.from_nni_json((folder / "evolution" / "architecture_final.json").read_text())
    assert final == tuple(map(tuple, result["arch"])) and result["mparams"] <= 0.0012
    assert (folder / "architecture.json").read_text() == chosen  # the search's own choice is still there


def test_weights_without_a_search_are_evolved_by_their_settings(data, supernet, evolved, tmp_path, capsys):
    weights = latest_checkpoint(supernet) / "model.pdparams"
    settings = [f"SAVE_PATH={tmp_path}", "MODEL=none", f"NET.INITIAL_WEIGHTS={weights}", *FEW]
    settings += ["DATASET.SPOS_PREPROCESSING=True", "--output", str(tmp_path / "evolved")]
    assert cli.spos_search(["--cfg", str(data / "supernet.yaml"), *settings]) == 0
    assert files_of(tmp_path / "evolved")["candidates.csv"] == files_of(evolved)["candidates.csv"]
    inherited = load_arrays(tmp_path / "evolved" / "architecture.pdparams")
    np.testing.assert_array_equal(inherited["classifier.0.weight"], load_arrays(weights)["classifier.0.weight"])
    # Scores of images that are shown in another way are not mixed with these.
    settings += ["DATASET.CROP_PCT=0.5"]
    said = mistake(cli.spos_search, ["--cfg", str(data / "supernet.yaml"), *settings], capsys)
    assert "belongs to an evolution with other settings: DATASET.CROP_PCT was" in said


def validation_loader(cfg):
    return evaluation_loader(cfg, open_split(cfg, ("val",)), 16)


@pytest.mark.parametrize("prefetch", [True, False])
def test_images_as_the_authors_show_them(data, prefetch):
    common = [f"DATA_DIR={data}", "DATASET.NUM_CLASSES=3", "DATASET.IMAGE_SIZE=16", "DATASET.CROP_PCT=1.0", "WORKERS=0"]
    common += [f"DATASET.NO_PREFECHTER={not prefetch}", "DATASET.MEAN=(0.1,0.2,0.3)", "DATASET.STD=(0.5,0.5,0.5)"]
    plain, spos = (
        next(iter(validation_loader(load_config(None, [*common, *more]))))[0].numpy()
        for more in ([], ["DATASET.SPOS_PREPROCESSING=True"])
    )
    pixels = (plain * 0.5 + np.array([0.1, 0.2, 0.3], "float32")[:, None, None]) * 255
    np.testing.assert_allclose(spos, pixels[:, ::-1], atol=1e-3)
    assert spos.max() > 200


@pytest.mark.parametrize(
    "text, arch",
    [
        ("[[2, 1, 0, 1], [2, 0, 2, 0], [2, 0, 2, 3, 0, 0, 0, 0], [3, 2, 3, 3]]", SPOS_ARCH),
        ("[2, 1, 0, 1, 2, 0, 2, 0, 2, 0, 2, 3, 0, 0, 0, 0, 3, 2, 3, 3]", SPOS_ARCH),
        ('{"arch": [[2, 1, 0, 1], [2, 0, 2, 0], [2, 0, 2, 3, 0, 0, 0, 0], [3, 2, 3, 3]], "prec1": 7}', SPOS_ARCH),
        (shuffle_space().to_nni_json(SPOS_ARCH), SPOS_ARCH),
    ],
)
def test_architectures_are_read_from_texts_and_files(tmp_path, text, arch):
    path = tmp_path / "architecture"
    path.write_text(text)
    assert read_architecture(text, shuffle_space()) == read_architecture(str(path), shuffle_space()) == arch


def mistake(job, args, capsys):
    """The one line that a command ends with."""
    capsys.readouterr()
    assert job(args) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(said) == 1
    return said[0]


@pytest.mark.parametrize(
    "text, says",
    [
        ("{}", "names its choices LayerChoice1"),
        ("[0, 1", "is no JSON"),
        ("[0, 1]", "has 2 choices, not 3"),
        ("[[0], [1, 4]]", "block 1 of stage 1 has choices 0 to 3, not 4"),
        ('{"arch": [[0]]}', "has 1 stages, not 2"),
        ('{"LayerChoice1": [true, false]}', "this space has 3 choices"),
    ],
)
def test_architecture_files_that_are_none(data, tmp_path, capsys, text, says):
    path = tmp_path / "architecture.json"
    path.write_text(text)
    said = mistake(cli.spos_scratch, ["--cfg", str(data / "scratch.yaml"), "--architecture", str(path)], capsys)
    assert str(path) in said and says in said


@pytest.mark.parametrize(
    "settings, says",
    [
        (["SUPERNET.FAMILY=shufle"], "SUPERNET.FAMILY is 'shufle'; must be one of mobile, shuffle"),
        (["SUPERNET.METHOD=cream"], "SUPERNET.METHOD is cream; must be single_path"),
        (["SUPERNET.HOW_TO_PROB=teacher"], "SUPERNET.HOW_TO_PROB is teacher; must be even"),
        (["SUPERNET.SKIP=True"], "SUPERNET.SKIP has no meaning for nets where SUPERNET.FAMILY is shuffle"),
        (["SUPERNET.SHUFFLE.DEPTHS=[1]"], "DEPTHS has 1 stages and CHANNELS 2"),
        (
            ["SUPERNET.SHUFFLE.CHANNELS=[8, 9]"],
            "must be a list of whole numbers, even numbers, each above",
        ),
        (["SUPERNET.FLOPS_MINIMUM=290", "SUPERNET.FLOPS_MAXIMUM=360"], "no path costs between"),
        (["EVOLUTION.TOP=0"], "EVOLUTION.TOP is '0'; must be a whole number, at least 1"),
    ],
)
def test_settings_of_a_supernet_that_cannot_be(data, tmp_path, capsys, settings, says):
    args = ["--cfg", str(data / "supernet.yaml"), f"SAVE_PATH={tmp_path}", *settings]
    assert says in mistake(cli.spos_supernet, args, capsys)


@pytest.mark.parametrize(
    "settings, says",
    [
        (["SUPERNET.PARAMS_MAXIMUM=0.0001"], "no path of this space satisfies SUPERNET.PARAMS_MAXIMUM=0.0001"),
        (
            ["EVOLUTION.TOP=1"],
            "belongs to an evolution with other settings: EVOLUTION.TOP was 2 and is 1; give another place (--output)",
        ),
        (["SUPERNET.SHUFFLE.RATIOS=[1, 2]"], "SUPERNET.SHUFFLE.RATIOS was (1.0,) in the search and cannot be"),
    ],
)
def test_an_evolution_that_cannot_be(evolved, supernet, capsys, settings, says):
    assert says in mistake(cli.spos_search, [str(supernet), *FEW, *settings], capsys)


def test_a_folder_without_a_search(data, tmp_path, capsys):
    assert "holds no search" in mistake(cli.spos_search, [str(tmp_path)], capsys)
    args = ["--cfg", str(data / "supernet.yaml"), f"SAVE_PATH={tmp_path}"]
    assert "NET.INITIAL_WEIGHTS names no weights" in mistake(cli.spos_search, args, capsys)
    with pytest.raises(SystemExit):
        cli.spos_search([])


def test_held_out_images_are_shown_alike(data):
    cfg = load_config(None, [f"DATA_DIR={data}", "DATASET.NUM_CLASSES=3", "DATASET.SPOS_PREPROCESSING=True"])
    cfg.SUPERNET.SELECT_ON, cfg.SUPERNET.HELD_OUT = "held_out", 6
    train, held = training_images(cfg)
    make_loader(cfg, held, input_size=16, batch_size=2, num_workers=0)
    assert held.transform is not train.transform
    with pytest.raises(ConfigError, match="SPOS_PREPROCESSING"):
        load_config(None, ["DATASET.SPOS_PREPROCESSING=blue"])
