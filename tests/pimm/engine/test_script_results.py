"""Validation, inference and averages of what the scripts trained, and mistakes in their options."""

import functools
import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import paddle
import pytest
from image_files import pack
from script_runs import CLASSES, NET, result, train
from tables import rows_of

from pimm.cli import run
from pimm.commands import avg_checkpoints
from pimm.commands import inference as pimm_inference
from pimm.commands import train as pimm_train
from pimm.commands import validate as pimm_validate
from pimm.data import create_dataset, create_loader
from pimm.data.imagenet import imagenet_classes
from pimm.data.samplers import BatchPlan
from pimm.errors import DataError
from pimm.models import average_checkpoints, create_model, load_checkpoint
from pimm.utils import load_arrays
from pimm.utils.safetensors_file import is_safetensors


def test_validation_gives_what_the_training_said(images, trained, tmp_path, capsys):
    last = rows_of(trained / "summary.csv")[-1]
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
    assert [float(row["loss"]) for row in rows_of(tmp_path / "all.csv")] == [entry["loss"] for entry in both]


def test_a_training_in_its_first_epoch_is_validated_by_its_recoveries(images, tmp_path, capsys):
    whole = train(images, tmp_path, "whole", "-b", "4", "--epochs", "1", "--recovery-interval", "2")
    inside = sorted(path.name for path in whole.glob("recovery-*"))
    (tmp_path / "broken").mkdir()
    for name in inside:
        (whole / name).rename(tmp_path / "broken" / name)
    pimm_validate.main([images, "-j", "0", "--checkpoint", str(tmp_path / "broken")])
    found = result(capsys)
    found = found if isinstance(found, list) else [found]
    assert sorted(Path(entry["checkpoint"]).name for entry in found) == inside
    pimm_validate.main([images, "-j", "0", "--checkpoint", str(tmp_path / "broken" / inside[-1])])
    assert result(capsys)["loss"] in [entry["loss"] for entry in found]


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
    assert [json.loads(row["index"]) for row in rows_of(tmp_path / "top.csv")] == order.tolist()
    options = ["--topk", "0", "--results-separate-col", "--fullname", "--output-col", "p", "--results-file", "all"]
    pimm_inference.main([*common, *options, "--no-console-output"])
    table = rows_of(tmp_path / "all.csv")
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
    dark, light = rows_of(tmp_path / "r.csv")
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
    found = {row["filename"]: json.loads(row["prob"]) for row in rows_of(tmp_path / "r.csv")}
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
