"""The four scripts of timm, on a net of two layers and images of eight pixels."""

import csv
import functools
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import paddle
import pytest
from image_files import pack
from paths import ROOT
from PIL import Image
from script_net import load_script, script_net

from pimm import preemption
from pimm.cli import run
from pimm.commands import avg_checkpoints
from pimm.commands import inference as pimm_inference
from pimm.commands import train as pimm_train
from pimm.commands import validate as pimm_validate
from pimm.data import create_dataset, create_loader, resolve_data_config
from pimm.data.imagenet import imagenet_classes
from pimm.data.samplers import BatchPlan
from pimm.errors import CheckpointError, ConfigError, DataError
from pimm.models import average_checkpoints, create_model, load_checkpoint, registry
from pimm.scripts import answer_from_checkpoint, build_model
from pimm.utils import CheckpointSaver, load_arrays, read_checkpoint
from pimm.utils.safetensors_file import is_safetensors

CLASSES = ("dark", "grey", "light")
NET = ("--model", "script_net", "--num-classes", "3", "-j", "0", "-b", "6", "--device", "cpu")
BRIEF = ("--epochs", "2", "--warmup-epochs", "0", "--lr", "0.1", "--log-interval", "1")


@pytest.fixture(scope="module", autouse=True)
def registered():
    """The net by its name, for these tests alone: others count all models."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry._entrypoints, "script_net", script_net)
        yield


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """``train`` with eight and ``val`` with five images a class, told apart by brightness."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 5)):
        for level, name in enumerate(CLASSES):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.normal(60 + 60 * level, 30, (8, 8, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{name}{number}.png")
    return str(folder)


def train(images, output, name, *options):
    """The folder of a finished training."""
    pimm_train.main([images, *NET, *BRIEF, "--output", str(output), "--experiment", name, *options])
    return Path(output, name)


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def result(capsys):
    """What a script printed after ``--result``."""
    return json.loads(capsys.readouterr().out.rpartition("--result\n")[2])


@pytest.fixture(scope="module")
def trained(images, tmp_path_factory):
    return train(images, tmp_path_factory.mktemp("output"), "net", "--model-ema", "--model-ema-decay", "0.5")


def test_training_learns_and_writes_its_summary(images, trained, tmp_path, capsys):
    first, second = rows(trained / "summary.csv")
    assert list(first) == ["epoch", "train_loss", "eval_loss", "eval_top1", "eval_top5", "lr"]
    assert (first["epoch"], second["epoch"], first["lr"]) == ("0", "1", "0.1")
    assert float(second["lr"]) == pytest.approx(0.05)  # half of a cosine
    assert float(second["eval_loss"]) < float(first["eval_loss"]) < np.log(3) + 0.5
    assert json.loads((trained / "checkpoint-1" / "manifest.json").read_text())["args"]["classes"] == list(CLASSES)
    again = ["--config", str(trained / "args.yaml"), "--output", str(tmp_path), "--experiment", "again"]
    pimm_train.main(again)
    assert (tmp_path / "again" / "summary.csv").read_text() == (trained / "summary.csv").read_text()
    best, other = (entry["validation"]["top1"] for entry in result(capsys))
    assert best == max(float(first["eval_top1"]), float(second["eval_top1"])) >= other


RECIPES = {
    "plain": (),
    "mixing": ("--mixup", "0.4", "--cutmix", "1", "--model-ema", "--drop", "0.3", "--bce-loss", "--reprob", "0.5"),
    "plateau": ("--no-prefetcher", "--mixup", "0.4", "--sched", "plateau", "--patience-epochs", "0", "--opt", "adamw"),
    "grouped": ("--grad-accum-steps", "2", "--sched-on-updates", "--clip-grad", "0.1", "--aa", "rand-m5"),
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_resumed_training_is_the_same_bit_for_bit(images, tmp_path, recipe):
    options = ["-b", "4", "--epochs", "3", "--recovery-interval", "2", *RECIPES[recipe]]
    whole = train(images, tmp_path, "whole", *options)
    inside = sorted(path.name for path in whole.glob("recovery-*"))[0]
    for start in ("checkpoint-0", inside):
        resumed = train(images, tmp_path, f"from-{start}", *options, "--resume", str(whole / start))
        assert rows(resumed / "summary.csv") == rows(whole / "summary.csv")[-len(rows(resumed / "summary.csv")) :]
        ours, theirs = (read_checkpoint(folder / "checkpoint-2").files for folder in (resumed, whole))
        assert ours.keys() == theirs.keys()
        for name in ours:
            np.testing.assert_equal(ours[name], theirs[name], err_msg=f"{start} {name}")


@pytest.mark.parametrize(
    "function, call, left",
    [
        ("random_seed", 4, "recovery-0-3"),  # a batch
        ("random_seed", 7, "recovery-0-6"),  # the last one
        ("evaluate", 1, "recovery-0-6"),
        ("CheckpointSaver.save_checkpoint", 1, "checkpoint-0"),
    ],
)
def test_nothing_is_lost_by_sigterm_whenever_it_comes(images, tmp_path, monkeypatch, function, call, left):
    calls, place, name = [], pimm_train, function
    if "." in function:
        owner, _, name = function.partition(".")
        place = getattr(pimm_train, owner)
    original = getattr(place, name)

    def terminated(*args, **kwargs):
        calls.append(args)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*args, **kwargs)

    options = ["-b", "4", "--drop", "0.3"]
    whole = train(images, tmp_path, "whole", *options)
    with monkeypatch.context() as patch, pytest.raises(preemption.Preempted, match=r"saved in .*broken at epoch"):
        patch.setattr(place, name, terminated)
        train(images, tmp_path, "broken", *options)
    assert (tmp_path / "broken" / left).is_dir()
    broken = train(images, tmp_path, "broken", *options, "--resume", str(tmp_path / "broken"))
    assert (broken / "summary.csv").read_text() == (whole / "summary.csv").read_text()
    ours, theirs = (read_checkpoint(folder / "checkpoint-1").files for folder in (broken, whole))
    for name in theirs:
        np.testing.assert_equal(ours[name], theirs[name], err_msg=name)


def test_going_on_with_weights_alone_or_from_another_epoch(images, trained, tmp_path):
    options = ("--model-ema", "--resume", str(trained), "--epochs", "3")
    assert [
        row["epoch"] for row in rows(train(images, tmp_path, "a", *options, "--no-resume-opt") / "summary.csv")
    ] == ["2"]
    assert [
        row["epoch"] for row in rows(train(images, tmp_path, "b", *options, "--start-epoch", "1") / "summary.csv")
    ] == [
        "1",
        "2",
    ]


def test_batches_of_one_update_are_as_one_large_batch(images, tmp_path):
    options = ("--model-kwargs", "norm=False", "--no-aug", "--epochs", "1")
    weights = [
        load_arrays(train(images, tmp_path, str(size), *options, *more) / "checkpoint-0" / "model.pdparams")
        for size, more in ((4, ("-b", "4", "--grad-accum-steps", "3")), (12, ("-b", "12")))
    ]
    for name in weights[0]:
        np.testing.assert_allclose(weights[0][name], weights[1][name], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("mode", [(), ("--no-prefetcher",)])
def test_images_have_the_models_channels(images, tmp_path, channels, mode, capsys):
    folder = train(images, tmp_path, "net", "--in-chans", str(channels), "--epochs", "1", *mode)
    assert load_arrays(folder / "checkpoint-0" / "model.pdparams")["conv.weight"].shape == (4, channels, 3, 3)
    pimm_validate.main([images, "-j", "0", "--checkpoint", str(folder), *mode])
    assert result(capsys)["loss"] == pytest.approx(float(rows(folder / "summary.csv")[0]["eval_loss"]), rel=1e-6)


def test_validation_gives_what_the_training_said(images, trained, tmp_path, capsys):
    last = rows(trained / "summary.csv")[-1]
    pimm_validate.main([images, "-j", "0", "--checkpoint", str(trained / "checkpoint-1"), "--use-ema", "-b", "6"])
    found = result(capsys)
    assert (found["model"], found["img_size"], found["param_count"]) == ("script_net", 8, 0.0)
    assert found["loss"] == float(last["eval_loss"])
    assert found["top1"] == pytest.approx(float(last["eval_top1"]), abs=1e-4)
    assert found["top1"] + found["top1_err"] == 100
    for name in ("all.csv", "all.json"):
        pimm_validate.main([images, "-j", "0", "--checkpoint", str(trained), "--results-file", str(tmp_path / name)])
    both = json.loads((tmp_path / "all.json").read_text())
    assert {Path(entry["checkpoint"]).name for entry in both} == {"checkpoint-0", "checkpoint-1"}
    assert both[0]["top1"] >= both[1]["top1"]
    assert [float(row["loss"]) for row in rows(tmp_path / "all.csv")] == [entry["loss"] for entry in both]


def test_many_models_by_wildcard_and_by_file(images, trained, tmp_path, capsys):
    (tmp_path / "names.txt").write_text("script_net\n")
    (tmp_path / "script_net.pdparams").write_bytes((trained / "checkpoint-1" / "model.pdparams").read_bytes())
    losses = []
    for names in ("script_n*", str(tmp_path / "names.txt")):
        weights = str(tmp_path / "{model}.pdparams")
        pimm_validate.main([images, "--model", names, "--num-classes", "3", "-j", "0", "--checkpoint", weights])
        losses.append(result(capsys)["loss"])
    assert losses[0] == losses[1]


def test_views_of_each_image_are_averaged(images, trained, capsys):
    losses = []
    for tta in ("0", "1", "2"):
        arguments = [images, "-j", "0", "--checkpoint", str(trained / "checkpoint-1"), "--tta", tta]
        pimm_validate.main(arguments)
        losses.append(result(capsys)["loss"])
    assert losses[0] == losses[1] != losses[2]
    assert losses[2] == pytest.approx(losses[0], rel=0.2)


def test_smaller_batches_where_memory_does_not_suffice(images, trained, monkeypatch, capsys):
    sizes = []

    def evaluate(predict, loader, tta):
        sizes.append(max(len(labels) for _, labels in loader))
        if sizes[-1] > 5:
            raise MemoryError("out of memory")
        return {"loss": 1.0, "top1": 25.0, "top5": 100.0}

    monkeypatch.setattr(pimm_validate, "evaluate", evaluate)
    arguments = [images, "-j", "0", "-b", "12", "--checkpoint", str(trained / "checkpoint-1")]
    with pytest.raises(MemoryError):
        pimm_validate.main(arguments)
    pimm_validate.main([*arguments, "--retry"])
    assert sizes == [12, 12, 8, 6, 4]
    assert result(capsys)["top1_err"] == 75.0


def probabilities(images, checkpoint):
    net = create_model("script_net", num_classes=3)
    load_checkpoint(net, checkpoint)
    net.eval()
    loader = create_loader(create_dataset("", images, "val"), (3, 8, 8), 15, num_workers=0, crop_pct=1.0)
    return paddle.nn.functional.softmax(net(next(iter(loader))[0]), axis=1).numpy()


def test_inference_by_value(images, trained, tmp_path, capsys):
    checkpoint = trained / "checkpoint-1"
    common = [images, "-j", "0", "-b", "4", "--checkpoint", str(checkpoint), "--results-dir", str(tmp_path)]
    options = ["--topk", "2", "--include-index", "--results-format", "csv", "json", "json-record"]
    pimm_inference.main([*common, *options, "--results-file", "top"])
    expected = probabilities(images, checkpoint)
    order = np.argsort(-expected, axis=1)[:, :2]
    by_name = result(capsys)
    assert by_name == json.loads((tmp_path / "top.json").read_text())
    records = json.loads((tmp_path / "top-record.json").read_text())
    assert [record["filename"] for record in records] == [f"{name}{n}.png" for name in CLASSES for n in range(5)]
    np.testing.assert_array_equal([record["index"] for record in records], order)
    np.testing.assert_allclose(
        [record["prob"] for record in records], np.take_along_axis(expected, order, 1), rtol=1e-5
    )
    assert [record["label"] for record in records] == [[CLASSES[index] for index in pair] for pair in order]
    assert [json.loads(row["index"]) for row in rows(tmp_path / "top.csv")] == order.tolist()
    options = ["--topk", "0", "--results-separate-col", "--fullname", "--output-col", "p", "--results-file", "all"]
    pimm_inference.main([*common, *options, "--no-console-output"])
    table = rows(tmp_path / "all.csv")
    assert table[0]["filename"] == "dark/dark0.png"
    np.testing.assert_allclose([[float(row[f"p_{n}"]) for n in range(3)] for row in table], expected, rtol=1e-5)


def test_inference_of_images_without_classes(images, trained, tmp_path):
    folder = tmp_path / "flat"
    folder.mkdir()
    for name in ("dark", "light"):
        os.link(Path(images, "val", name, f"{name}0.png"), folder / f"{name}.png")
    (tmp_path / "names.txt").write_text("night\ndusk\nday\n")
    options = ["--results-dir", str(tmp_path), "--results-file", "r", "--class-map", str(tmp_path / "names.txt")]
    pimm_inference.main([str(folder), "-j", "0", "--checkpoint", str(trained / "checkpoint-1"), *options])
    dark, light = rows(tmp_path / "r.csv")
    expected = probabilities(images, trained / "checkpoint-1")
    assert float(light["prob"]) == pytest.approx(expected[10].max(), rel=1e-5)
    assert [dark["label"], light["label"]] == [("night", "dusk", "day")[expected[row].argmax()] for row in (0, 10)]


def test_classes_of_imagenet_are_labelled_as_asked_also_after_a_training_on_its_folders():
    synsets = [line.split()[0] for line in imagenet_classes()[1::3]]
    for label_type, expected in {"name": "n01443537", "description": "goldfish"}.items():
        args = SimpleNamespace(label_type=label_type, class_map="", classes=synsets, num_classes=len(synsets))
        assert pimm_inference.class_names(args)[0] == expected
    args.classes = ["dog", *synsets]
    assert pimm_inference.class_names(args)[0] == "dog"


def test_inference_leaves_out_what_it_cannot_read(images, trained, tmp_path):
    folder = tmp_path / "any"
    for name in ("a/b", "empty"):
        (folder / name).mkdir(parents=True)
    for target, source in {"a/b/dark.png": "dark/dark0.png", "grey.png": "grey/grey0.png"}.items():
        os.link(Path(images, "val", source), folder / target)
    (folder / "a" / "broken.png").write_bytes(b"no image")
    options = ["--results-dir", str(tmp_path), "--results-file", "r", "--no-console-output", "--topk", "0"]
    pimm_inference.main([str(folder), "-j", "0", "--checkpoint", str(trained / "checkpoint-1"), *options])
    found = {row["filename"]: json.loads(row["prob"]) for row in rows(tmp_path / "r.csv")}
    expected = probabilities(images, trained / "checkpoint-1")
    assert found.keys() == {"dark.png", "grey.png"}
    np.testing.assert_allclose([found["dark.png"], found["grey.png"]], expected[[0, 5]], rtol=1e-5)


def test_results_of_several_processes_stand_by_their_images(images, tmp_path):
    pack(Path(images, "val"), tmp_path / "val.tar")
    for dataset in (create_dataset("wds", tmp_path / "val.tar", "val"), create_dataset("", images, "val")):
        total = 0
        for rank in range(2):
            loader = create_loader(dataset, 8, 4, num_workers=0)
            plan = dataset.batch_plan if hasattr(dataset, "batch_plan") else functools.partial(BatchPlan, len(dataset))
            loader.loader.sampler = plan(4, False, rank, 2)
            shares = [batch.numpy().mean((1, 2, 3))[:, None] for batch, _ in loader]
            places = np.concatenate(loader.sampler.batches_of(0))
            total = total + pimm_inference.gather(shares, places, np.zeros((len(dataset), 1), np.float32))
        alone = [batch.numpy().mean((1, 2, 3))[:, None] for batch, _ in create_loader(dataset, 8, 4, num_workers=0)]
        np.testing.assert_array_equal(total, np.concatenate(alone))


def test_classes_are_known_by_their_indices(images, trained, tmp_path):
    lines = [f"train/{name}/{name}0.png {index}\n" for index, name in ((1, "dark"), (3, "light"))]
    Path(images, "some.txt").write_text("".join(lines))
    folder = train(f"{images}/some.txt", tmp_path, "list", "-b", "2", "--num-classes", "4")
    manifest = json.loads((folder / "checkpoint-1" / "manifest.json").read_text())
    assert manifest["args"]["classes"] == ["0", "1", "2", "3"]


def test_a_class_that_is_missing_does_not_shift_the_others(images, trained, tmp_path):
    for name in ("dark", "light"):
        (tmp_path / "val" / name).mkdir(parents=True)
        os.link(Path(images, "val", name, f"{name}0.png"), tmp_path / "val" / name / "0.png")
    (tmp_path / "train").symlink_to(Path(images, "train"))
    checked = [str(tmp_path), "-j", "0", "--checkpoint", str(trained / "checkpoint-1")]
    with pytest.raises(DataError, match="grey is missing; light has number 1 and had 2"):
        pimm_validate.main(checked)
    with pytest.raises(DataError, match="grey is missing; light has number 1 and had 2"):
        train(str(tmp_path), tmp_path, "shifted")
    (tmp_path / "names.txt").write_text("\n".join(CLASSES))
    pimm_validate.main([*checked, "--class-map", str(tmp_path / "names.txt")])
    (tmp_path / "val" / "light").rename(tmp_path / "val" / "grew")
    with pytest.raises(DataError, match="grey, light are missing; grew is new"):
        pimm_validate.main(checked)


def test_a_training_is_not_begun_over_another(images, trained):
    before = (trained / "summary.csv").read_text()
    with pytest.raises(ConfigError, match=r"holds a training already: --resume .* resumes it"):
        train(images, trained.parent, trained.name)
    assert (trained / "summary.csv").read_text() == before


def test_a_full_disk_costs_nothing_saved(images, tmp_path):
    folder = train(images, tmp_path, "full", "--epochs", "1")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    allowed = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, allowed[1]))
        with pytest.raises(CheckpointError, match="File too large; what was there before is untouched"):
            train(images, tmp_path, "full", "--resume", str(folder))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, allowed)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_kill_before_the_checkpoint_costs_no_row_of_the_summary(images, tmp_path, monkeypatch):
    whole = train(images, tmp_path, "whole", "--epochs", "3")
    save = CheckpointSaver.save_checkpoint

    def killed(self, model, optimizer, args, epoch, **named):
        if epoch == 2:
            raise KeyboardInterrupt
        return save(self, model, optimizer, args, epoch, **named)

    monkeypatch.setattr(CheckpointSaver, "save_checkpoint", killed)
    with pytest.raises(KeyboardInterrupt):
        train(images, tmp_path, "killed", "--epochs", "3")
    monkeypatch.undo()
    resumed = train(images, tmp_path, "killed", "--epochs", "3", "--resume", str(tmp_path / "killed"))
    assert (resumed / "summary.csv").read_text() == (whole / "summary.csv").read_text()


def test_options_given_twice_the_special_one_counts(images, tmp_path):
    runs = {"special": ("--opt-kwargs", "momentum=0.5"), "plain": ("--momentum", "0.5"), "other": ()}
    special, plain, other = (
        load_arrays(train(images, tmp_path, name, *options) / "checkpoint-1" / "model.pdparams")["fc.bias"]
        for name, options in runs.items()
    )
    np.testing.assert_array_equal(special, plain)
    assert (special != other).any()
    args = pimm_train.make_parser().parse_args([images, *NET, "--model-kwargs", "drop_rate=0.25"])
    assert build_model(args, drop_rate=0.0).drop_rate == 0.25


def test_a_checkpoint_answers_for_the_epsilon_of_batch_norm(images, tmp_path):
    small = [images, "--model", "mobilenetv3_small_075", "--num-classes", "3", "--img-size", "8", "--device", "cpu"]
    pimm_train.main(
        [*small, *BRIEF, "-j", "0", "-b", "6", "--bn-eps", "0.25", "--output", str(tmp_path), "--experiment", "net"]
    )
    args = pimm_validate.make_parser().parse_args([images, "--checkpoint", str(tmp_path / "net" / "checkpoint-0")])
    answer_from_checkpoint(args, args.checkpoint)
    assert {layer._epsilon for layer in build_model(args).sublayers() if hasattr(layer, "_epsilon")} == {0.25}


def test_images_without_augmentation_are_scaled_as_for_evaluation(images, monkeypatch):
    monkeypatch.setattr(pimm_train, "create_loader", lambda dataset, size, batch, **options: options["interpolation"])
    found = []
    for options in ((), ("--no-aug",)):
        args = pimm_train.make_parser().parse_args([images, *NET, "--interpolation", "lanczos", *options])
        args.data_dir, args.in_chans, args.distributed = args.data, 3, False
        found.append(pimm_train.create_training_loader(args, resolve_data_config(vars(args)))[0])
    assert found == ["random", "lanczos"]


def test_a_file_of_options_is_read_as_the_command_line(images, tmp_path):
    (tmp_path / "options.yaml").write_text(
        "lr: 1e-3\nscale: [8e-2, 1]\nlr_noise: 0.5\nepochs: 7\nopt_betas: [0.9, 99e-2]\n"
    )
    args = pimm_train.make_parser().parse_args([images, "-c", str(tmp_path / "options.yaml")])
    assert (args.lr, args.scale, args.lr_noise, args.epochs) == (0.001, [0.08, 1.0], [0.5], 7)
    assert args.opt_betas == [0.9, 0.99]


def test_averages_of_checkpoints(trained, images, tmp_path):
    both = [trained / "checkpoint-0", trained / "checkpoint-1"]
    cases = {
        ("-n", "1", "--no-use-ema"): [trained / "model_best"],
        ("--no-use-ema",): both,
        ("--no-sort", "--filter", "checkpoint-1"): both[1:],
    }
    for number, (options, chosen) in enumerate(cases.items()):
        output = tmp_path / (f"{number}.safetensors" if number else "0.pdparams")
        avg_checkpoints.main(["--input", str(trained), "--output", str(output), *options])
        expected = average_checkpoints(chosen, use_ema="--no-use-ema" not in options)
        found = load_arrays(output)
        assert is_safetensors(output) == (output.suffix == ".safetensors")
        for name in expected:
            np.testing.assert_array_equal(found[name], expected[name])
    assert run(functools.partial(avg_checkpoints.main, ["--input", str(trained), "--output", str(output)])) == 2


def test_the_best_of_a_search_that_is_ranked_by_its_loss_are_the_lowest(monkeypatch):
    losses = {"first": 2.0, "second": 0.5, "third": 1.0}
    manifest = {path: {"metric": loss, "args": {"EVAL_METRICS": "loss"}} for path, loss in losses.items()}
    monkeypatch.setattr(avg_checkpoints, "read_manifest", manifest.get)
    assert avg_checkpoints.choose_best(list(losses), 2) == ["second", "third"]


MISTAKES = [
    (pimm_train, ["{images}", *NET, "--aug-split", "1", "--mix-up", "1"], "there is no option --mix-up; did you mean"),
    (pimm_train, ["{images}", *NET, "--drop", "1.5"], "argument --drop: it is from 0 to 1, not 1.5"),
    (pimm_train, ["{images}", *NET, "--model-ema-decay", "2"], "argument --model-ema-decay: it is from 0 to 1, not 2"),
    (pimm_validate, ["{images}", "--checkpoint", "none"], "none: there is no checkpoint here"),
    (pimm_train, ["{images}", *NET, "--torchcompile"], "there is no option --torchcompile"),
    (pimm_train, [*NET], "the images are missing: --data-dir DIR"),
    (pimm_train, ["{images}", *NET, "--model", "mnasnet_050", "--pretrained"], "no pretrained weights"),
    (pimm_train, ["{images}", *NET, "--model", "script_nett"], "unknown model 'script_nett'; did you mean script_net"),
    (pimm_train, ["{images}", *NET, "--num-classes", "2"], "classes up to number 2, the model only 2"),
    (pimm_train, ["{images}", *NET, "--in-chans", "7"], "no image file has 7 channels; --in-chans can be 1, 2, 3, 4"),
    (
        pimm_train,
        ["{images}", *NET, "--in-chans", "4", "--aa", "v0"],
        "--aa has no operations for images of 4 channels",
    ),
    (pimm_train, ["{images}", *NET, "--val-split", ""], "without --val-split there is no top1"),
    (pimm_train, ["{images}", *NET, "--opt", "adamm"], "adamm"),
    (pimm_train, ["{images}", *NET, "--aug-splits", "2", "--mixup", "1"], "goes neither with --mixup"),
    (pimm_train, ["{images}", *NET, "--aug-splits", "2", "--no-prefetcher"], "nor --no-prefetcher"),
    (pimm_train, ["{images}", *NET, "--aug-splits", "1"], "--aug-splits is 2 or more"),
    (pimm_train, ["{images}", *NET, "--lr-noise", "0.1", "0.2", "0.3"], "may end at another; got [0.1, 0.2, 0.3]"),
    (pimm_train, ["{images}", *NET, "--model-kwargs", "foo=1"], "--model script_net has no such option"),
    (pimm_train, ["{images}", *NET, "-b", "0"], "-b/--batch-size: it is at least 1, not 0"),
    (pimm_train, ["{images}", *NET, "-c", "{images}/zero.yaml"], "zero.yaml: grad_accum_steps is 0: it is at least 1"),
    (pimm_train, ["{images}", *NET, "-c", "{images}/one.yaml"], "one.yaml: input_size is 224; it takes 3 values"),
    (pimm_train, ["{images}", *NET, "--resume", "{images}"], "there is no checkpoint in this folder"),
    (pimm_train, ["{images}", *NET, "--conf", "x.yaml"], "--config is written out, or -c"),
    (pimm_train, ["{images}", *NET, "-c", "{images}/flag.yaml"], "amp is 'False'; it can be true and false"),
    (pimm_train, ["{images}", *NET, "-c", "{images}/typo.yaml"], "there is no option epochss; did you mean epochs"),
    (
        pimm_train,
        ["{images}", *NET, "-c", "{images}/choice.yaml"],
        "clip_mode is 'nrom'; it can be 'norm', 'value', 'agc'",
    ),
    (pimm_train, ["{images}", *NET, "--lr", "1e38", "--epochs", "2"], "try a lower --lr or set --clip-grad"),
    (pimm_validate, ["{images}"], "--checkpoint PATH is missing"),
    (pimm_validate, ["{images}", "--checkpoint", "{images}/typo.yaml"], "--model NAME is missing"),
    (pimm_validate, ["{images}", "--model", "zz*", "--checkpoint", "x"], "no model has a name like zz*"),
    (pimm_inference, ["{images}", "--model", "script_net"], "--checkpoint PATH is missing"),
    (pimm_inference, ["{images}", "--pretrained"], "--model NAME is missing"),
    (pimm_validate, ["{images}", "--pretrained"], "--model NAME is missing"),
    (pimm_validate, ["{images}", "--model", "spos*", "--pretrained"], "a name like spos* and pretrained weights"),
    (pimm_validate, ["{images}", "--model", "other/resnet50", "--pretrained"], "valid are hf-hub:ORG/NAME"),
    (avg_checkpoints, ["--input", "{images}"], "has a name like checkpoint-*"),
    (avg_checkpoints, ["--input", "{images}", "-n", "0"], "-n is at least 1, not 0"),
]


@pytest.mark.parametrize("script, arguments, message", MISTAKES)
def test_mistakes_are_told_in_one_line(images, tmp_path, monkeypatch, capsys, script, arguments, message):
    monkeypatch.chdir(tmp_path)
    Path(images, "typo.yaml").write_text("epochss: 3\n")
    Path(images, "flag.yaml").write_text("amp: 'False'\n")
    Path(images, "choice.yaml").write_text("clip_mode: nrom\n")
    Path(images, "zero.yaml").write_text("grad_accum_steps: 0\n")
    Path(images, "one.yaml").write_text("input_size: 224\n")
    try:
        code = run(functools.partial(script.main, [word.replace("{images}", images) for word in arguments]))
    except SystemExit as left:  # argparse
        code = left.code
    assert code == 2
    error = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(error) == 1
    assert message in error[0]


def test_two_processes_train_as_one(images, tmp_path):
    options = ["--no-aug", "--epochs", "1"]
    train(images, tmp_path, "alone", *options, "-b", "12")
    command = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", "2"]
    arguments = [images, *NET, *BRIEF, *options, "-b", "6", "--sync-bn", "--output", str(tmp_path)]
    outcome = subprocess.run(
        [*command, "--log_dir", str(tmp_path / "logs"), "tests/script_net.py", *arguments, "--experiment", "two"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    ours, theirs = (load_arrays(tmp_path / name / "checkpoint-0" / "model.pdparams") for name in ("two", "alone"))
    for name in theirs:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-4, atol=1e-6, err_msg=name)
    for column, value in rows(tmp_path / "alone" / "summary.csv")[0].items():
        assert float(rows(tmp_path / "two" / "summary.csv")[0][column]) == pytest.approx(float(value), rel=1e-4), column


IDIOMS = {"timm": "pimm", 'torch.device("cpu")': "paddle.CPUPlace()", "torch": "paddle"}


def test_the_ported_script_differs_in_idioms_alone():
    porting = load_script("docs/make_porting.py")
    assert porting.main(["--check"]) == 0  # else run docs/make_porting.py
    for old, new in porting.differing_lines():
        for idiom, ported in IDIOMS.items():
            old = old.replace(idiom, ported)
        assert old == new


def test_the_ported_script_runs(images, tmp_path):
    porting = load_script("docs/porting/train_pimm.py")
    for split in ("train", "val"):
        pack(Path(images, split), tmp_path / f"{split}.tar")
    options = ["--data", str(tmp_path), "--output", str(tmp_path / "run"), "--epochs", "1", "--batch-size", "6"]
    metrics = porting.main([*options, "--model", "script_net", "--warmup-epochs", "0", "--lr", "0.01"])
    row = rows(tmp_path / "run" / "summary.csv")[0]
    assert float(row["eval_top1"]) == metrics["top1"]
    assert float(row["eval_loss"]) == metrics["loss"]
    assert read_checkpoint(tmp_path / "run" / "checkpoint-0").manifest["metric"] == metrics["top1"]


def rates(folder):
    return [float(row["lr"]) for row in rows(folder / "summary.csv")]


@pytest.mark.parametrize("schedule", [(), ("--warmup-epochs", "2"), ("--sched-on-updates",), ("--sched", "none")])
def test_a_resumed_training_takes_its_rates_from_its_own_options(images, tmp_path, schedule):
    """More epochs and another rate than before are as if they had been there from the start."""
    first = train(images, tmp_path, "first", *schedule, "--epochs", "1", "--lr", "0.05")
    options = (*schedule, "--epochs", "4", "--lr", "0.01")
    whole = rates(train(images, tmp_path, "whole", *options))
    assert rates(train(images, tmp_path, "on", *options, "--resume", str(first))) == whole[1:]
    anew = train(images, tmp_path, "anew", *options, "--resume", str(first), "--start-epoch", "0")
    assert rates(anew) == whole


def test_more_epochs_have_a_longer_cosine(images, tmp_path):
    train(images, tmp_path, "net", "--epochs", "1", "--lr", "0.05")
    longer = train(images, tmp_path, "net", "--epochs", "4", "--lr", "0.05", "--resume", str(tmp_path / "net"))
    cosine = 0.05 * (1 + np.cos(np.pi * np.arange(4) / 4)) / 2
    np.testing.assert_allclose(rates(longer), cosine, rtol=1e-6)


def test_a_process_without_images_takes_part_in_the_evaluation(images, tmp_path, monkeypatch):
    monkeypatch.setattr(pimm_train, "create_evaluation_loader", lambda *args: [])
    with pytest.raises(DataError, match="no images to evaluate on"):  # the sum over all processes, here of one
        train(images, tmp_path, "net")


def test_an_average_begins_with_the_weights_of_a_training_without_one(images, tmp_path, caplog):
    plain = train(images, tmp_path, "plain", "--epochs", "1")
    options = ("--model-ema", "--model-ema-decay", "1", "--resume", str(plain))
    caplog.clear()
    averaged = train(images, tmp_path, "averaged", *options)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1 and warnings[0].endswith("the moving average starts from the net's own weights")
    ema, start = (
        load_arrays(path) for path in (averaged / "checkpoint-1" / "ema.pdema", plain / "checkpoint-0/model.pdparams")
    )
    np.testing.assert_equal(ema, start)  # of which a decay of one keeps all


def test_a_training_that_cannot_resume_keeps_its_options_and_leaves_no_folder(images, tmp_path):
    train(images, tmp_path, "first", "--epochs", "1")
    options = (tmp_path / "first" / "args.yaml").read_text()
    for name in ("first", "second"):
        with pytest.raises(CheckpointError, match="does not fit this PlateauLRScheduler"):
            train(images, tmp_path, name, "--resume", str(tmp_path / "first"), "--sched", "plateau", "--epochs", "2")
    assert (tmp_path / "first" / "args.yaml").read_text() == options
    assert not (tmp_path / "second").exists()
