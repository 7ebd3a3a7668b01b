"""Trainings by the scripts: what they write, how they resume, and the port of a script of timm's."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from image_files import pack
from paths import ROOT
from script_net import load_script
from script_runs import BRIEF, CLASSES, NET, result, train
from tables import rows_of

from pimm import preemption
from pimm.commands import train as pimm_train
from pimm.commands import validate as pimm_validate
from pimm.data import resolve_data_config
from pimm.errors import CheckpointError, ConfigError, DataError
from pimm.scripts import answer_from_checkpoint, build_model
from pimm.utils import CheckpointSaver, load_arrays, read_checkpoint


def test_training_learns_and_writes_its_summary(images, trained, tmp_path, capsys):
    first, second = rows_of(trained / "summary.csv")
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
        last = rows_of(resumed / "summary.csv")
        assert last == rows_of(whole / "summary.csv")[-len(last) :]
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
        row["epoch"] for row in rows_of(train(images, tmp_path, "a", *options, "--no-resume-opt") / "summary.csv")
    ] == ["2"]
    assert [
        row["epoch"] for row in rows_of(train(images, tmp_path, "b", *options, "--start-epoch", "1") / "summary.csv")
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
    assert result(capsys)["loss"] == pytest.approx(float(rows_of(folder / "summary.csv")[0]["eval_loss"]), rel=1e-6)


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
    alone, two = (rows_of(tmp_path / name / "summary.csv")[0] for name in ("alone", "two"))
    for column, value in alone.items():
        assert float(two[column]) == pytest.approx(float(value), rel=1e-4), column


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
    row = rows_of(tmp_path / "run" / "summary.csv")[0]
    assert float(row["eval_top1"]) == metrics["top1"]
    assert float(row["eval_loss"]) == metrics["loss"]
    assert read_checkpoint(tmp_path / "run" / "checkpoint-0").manifest["metric"] == metrics["top1"]


def rates(folder):
    return [float(row["lr"]) for row in rows_of(folder / "summary.csv")]


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
