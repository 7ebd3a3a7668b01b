"""The engine of test and predict: the same metrics and classes as the eager net, in one process or with workers."""

import json
import logging

import paddle
import pytest
import tiny
from exports import awakened

from cream import cli
from cream.build.families import child_net
from cream.config.load import load_config
from cream.deploy import command
from pimm import create_model
from pimm.commands import lines
from pimm.engine import inference, program_cache
from pimm.utils.serialization import save_arrays

NET = ("NET.SELECTION=14", "DATASET.NUM_CLASSES=3", "DATASET.BATCH_SIZE=2", "WORKERS=0", "DEVICE=cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Images, the weights of Cream-14 and of a model of pimm, and settings for the first of these."""
    folder = tmp_path_factory.mktemp("data")
    tiny.write_images(folder)
    paddle.seed(0)
    _, net = child_net(load_config(None, NET))
    save_arrays(folder / "cream.pdparams", awakened(net).state_dict())
    model = create_model("mobilenetv3_small_050", num_classes=3)
    save_arrays(folder / "pimm.pdparams", awakened(model).state_dict())
    (folder / "test.yaml").write_text(f"DATA_DIR: {folder}\nRESUME_PATH: {folder / 'cream.pdparams'}\n")
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache of programs."""
    monkeypatch.setattr(program_cache, "cache_folder", lambda: tmp_path)
    return tmp_path / "programs"


def programs(cache):
    return len([path for path in cache.iterdir() if path.is_dir()]) if cache.exists() else 0


def numbers(text):
    return {name: float(value) for name, value in (part.split() for part in text.split(", "))}


def test_a_test_gives_the_metrics_of_the_eager_net(data, cache, capsys):
    """Batches of 8 and 7 images."""
    found = {}
    for engine, expected in (("eager", 0), ("auto", 0), ("inference", 1)):
        assert cli.test(["--cfg", str(data / "test.yaml"), *NET, f"ENGINE={engine}"]) == 0
        found[engine] = numbers(capsys.readouterr().out)
        assert programs(cache) == expected
    assert found["inference"] == pytest.approx(found["eager"], abs=2e-4) and found["auto"] == found["eager"]
    assert found["eager"]["loss"] > 0 and found["eager"]["prec1"] in [
        pytest.approx(100 * n / 15, abs=1e-4) for n in range(16)
    ]


def test_an_engine_that_cannot_be_had_ends_a_test_with_one_line(data, capsys):
    assert cli.test(["--cfg", str(data / "test.yaml"), *NET, "ENGINE=eager", "PRECISION=bf16"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        "error: the engine eager computes in fp32; precision bf16 needs the engine inference"
    )


def test_pimm_validate_gives_the_metrics_of_the_eager_net(data, cache, capsys, monkeypatch):
    monkeypatch.setattr(inference, "MIN_IMAGES", 15)
    args = ["--data-dir", str(data), "--split", "val", "--model", "mobilenetv3_small_050", "--num-classes", "3"]
    args += ["--checkpoint", str(data / "pimm.pdparams"), "--img-size", "32", "-b", "8", "--workers", "0"]
    found = []
    for engine, expected in (("eager", 0), ("auto", 1)):
        assert lines.validate([*args, "--engine", engine]) == 0
        found.append(json.loads(capsys.readouterr().out.partition("--result")[2]))
        assert programs(cache) == expected
    loss = [result.pop("loss") for result in found]
    assert found[0] == found[1] and loss[1] == pytest.approx(loss[0], rel=1e-4)


def test_predict_gives_the_classes_of_the_eager_net_with_workers_too(data, cache, capsys, caplog):
    (data / "broken.png").write_bytes(b"no image")
    args = [str(data / "cream.pdparams"), str(data / "val"), str(data / "broken.png"), "--batch-size", "8"]
    printed = []
    for more in (["--engine", "eager", "--workers", "0"], ["--engine", "inference", "--workers", "2"]):
        caplog.clear()
        assert command.predict([*args, *more]) == 0
        printed.append(capsys.readouterr().out)
        [warning] = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        assert warning.startswith(f"{data / 'broken.png'} is left out: cannot identify image file")
    assert programs(cache) == 1 and printed[0] == printed[1] and len(printed[0].splitlines()) == 15
