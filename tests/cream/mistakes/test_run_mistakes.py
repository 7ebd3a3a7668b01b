"""Mistakes with runs and checkpoints, and trainings that break down: one line, and nothing lost."""

import subprocess
import sys

import numpy as np
import pytest
from damage import flip_a_bit
from job_lines import ARCH, JOBS, says, write_images

from cream import cli
from pimm.utils.checkpoint import MODEL, list_checkpoints, read_checkpoint, verify_checkpoint

# Runs and checkpoints


def test_a_run_is_not_begun_over_another(run_folder, told):
    before = contents(run_folder)
    message = told("retrain", ARCH, "AUTO_RESUME=False", f"SAVE_PATH={run_folder.parent}", "MODEL=net")
    says(message, [f"{run_folder} holds a run already", "AUTO_RESUME=True resumes it", "another MODEL or SAVE_PATH"])
    assert contents(run_folder) == before


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "log.txt"}


OTHER_SETTINGS = {
    "NET.INPUT_ARCH=[[0],[5],[0],[0],[0],[0],[0]]": "NET.INPUT_ARCH was [[0], [0], [0], [0], [0], [0], [0]] and is [[",
    "OPT=adam": "OPT was sgd and is adam",
    "DATASET.BATCH_SIZE=4": "DATASET.BATCH_SIZE was 8 and is 4",
    "NET.EMA.USE=False": "NET.EMA.USE was True and is False",
}


@pytest.mark.parametrize(("setting", "reason"), OTHER_SETTINGS.items())
def test_a_run_goes_on_with_its_own_settings_alone(setting, reason, run_folder, told):
    before = contents(run_folder)
    message = told("retrain", ARCH, setting, "EPOCHS=3", f"SAVE_PATH={run_folder.parent}", "MODEL=net")
    says(message, [f"{run_folder / 'checkpoint-1'} belongs to a training with other settings", reason, "start anew"])
    assert contents(run_folder) == before


@pytest.mark.parametrize("job", ["search", "retrain"])
def test_unwritable_folder(job, tmp_path, told):
    (tmp_path / "file").write_text("in the way")
    message = told(job, f"SAVE_PATH={tmp_path / 'file'}", *([] if job == "search" else [ARCH]))
    says(message, [f"cannot write into {tmp_path / 'file' / 'mine'}", "SAVE_PATH", "Not a directory"])


@pytest.mark.parametrize("path", ["nowhere", "nowhere.pdparams", "nowhere.pth.tar"])
def test_nothing_to_test(path, told):
    says(told("test", ARCH), ["RESUME_PATH must say what to test: a run's folder"])
    says(told("test", ARCH, f"RESUME_PATH={path}"), [f"RESUME_PATH={path}: nothing is there", "must be a run's folder"])


@pytest.mark.parametrize("path", ["nowhere", "README.md"])
def test_nothing_to_go_on_from(path, told):
    message = told("retrain", ARCH, f"RESUME_PATH={path}")
    says(message, [f"RESUME_PATH={path}: no such folder", "a run's or a checkpoint's, or empty to start anew"])


def test_a_path_that_does_not_act_is_noted(trained, run):
    code, lines = run("retrain", ARCH, f"RESUME_PATH={trained}", "AUTO_RESUME=False", "EPOCHS=1")
    assert code == 0
    assert [line for line in lines if f"RESUME_PATH={trained} is ignored: AUTO_RESUME is False" in line]


def test_the_folder_of_a_run_stands_for_its_best_checkpoint_in_a_test(trained, capsys):
    accuracies = {}
    for path in ("", "model_best", "model_best/ema.pdema", "model_best/model.pdparams"):
        assert cli.test([*JOBS["test"], ARCH, *data_of(trained), f"RESUME_PATH={trained / path}"]) == 0
        accuracies[path] = capsys.readouterr().out
    assert accuracies[""] == accuracies["model_best"] == accuracies["model_best/ema.pdema"]
    assert accuracies["model_best/model.pdparams"] != accuracies["model_best"]  # not the average


def data_of(run):
    """The DATA_DIR that a run has in its ``config.yaml``."""
    return [line.replace(": ", "=") for line in (run / "config.yaml").read_text().splitlines() if "DATA_DIR" in line]


def test_the_folder_of_a_run_stands_for_its_furthest_checkpoint_in_a_training(trained, run):
    code, lines = run("retrain", ARCH, f"RESUME_PATH={trained}", "EPOCHS=3")
    assert code == 0
    assert f"resuming from {trained / 'checkpoint-1'}: epoch 2, batch 0" in lines


@pytest.mark.parametrize("name", ["ema.pdema", "manifest.json"])
def test_damaged_checkpoint(name, run_folder, told):
    flip_a_bit(run_folder / "model_best" / name)
    says(told("test", ARCH, f"RESUME_PATH={run_folder}"), [f"{run_folder / 'model_best' / name} is damaged"])


def test_damaged_checkpoint_to_go_on_from(run_folder, told):
    flip_a_bit(run_folder / "checkpoint-1" / "optimizer.pdopt")
    message = told("retrain", ARCH, f"RESUME_PATH={run_folder / 'checkpoint-1'}", "EPOCHS=3")
    says(message, ["checkpoint-1/optimizer.pdopt is damaged"])


def test_a_run_goes_back_behind_a_damaged_checkpoint(run_folder, run):
    flip_a_bit(run_folder / "checkpoint-1" / MODEL)
    code, lines = run("retrain", ARCH, f"SAVE_PATH={run_folder.parent}", "MODEL=net")
    assert code == 0
    assert [line for line in lines if f"checkpoint-1/{MODEL} is damaged" in line and "checkpoint before it" in line]
    assert f"resuming from {run_folder / 'checkpoint-0'}: epoch 1, batch 0" in lines
    verify_checkpoint(run_folder / "checkpoint-1")


def test_truncated_weights(trained, tmp_path, told):
    path = tmp_path / "net.pdparams"
    path.write_bytes((trained / "model_best" / MODEL).read_bytes()[:5000])
    says(told("test", ARCH, f"RESUME_PATH={path}"), [f"{path} is damaged"])


@pytest.mark.parametrize("job", ["test", "retrain"])
def test_damaged_pytorch_file(job, tmp_path, told):
    path = tmp_path / "net.pth.tar"
    path.write_bytes(b"PK\x03\x04 and nothing more")
    says(told(job, ARCH, f"RESUME_PATH={path}"), [f"{path} is no PyTorch file that can be read"])


def test_folder_that_is_no_checkpoint(tmp_path, told):
    message = told("test", ARCH, f"RESUME_PATH={tmp_path}")
    says(message, [f"{tmp_path} is not a checkpoint: cannot read {tmp_path}/manifest.json"])


def test_checkpoint_of_another_net(trained, told):
    message = told("test", "NET.SELECTION=43", f"RESUME_PATH={trained}")
    parts = ["model_best: does not fit the model", "differences", "missing: blocks.2.1.conv_pw.weight", "more"]
    says(message, [*parts, "shape differs: blocks.2.0.conv_pw.weight [96, 24, 1, 1], the model has [144, 24, 1, 1]"])


def test_checkpoint_of_other_classes(trained, tmp_path, told):
    data = write_images(tmp_path / "data", classes=("apple", "pear", "plum"))
    message = told("test", ARCH, "DATASET.NUM_CLASSES=3", f"DATA_DIR={data}", f"RESUME_PATH={trained}")
    says(message, [f"{data / 'val'}: its classes are not those of the training: plum is new"])


def test_optimizer_state_is_no_net(trained, told):
    says(told("test", ARCH, f"RESUME_PATH={trained / 'model_best' / 'optimizer.pdopt'}"), ["left over:", "more"])


# Training that breaks down


def assert_all_finite(folder):
    """Every checkpoint is whole, and its weights are numbers."""
    for path in list_checkpoints(folder):
        for name, value in read_checkpoint(path).files[MODEL].items():
            assert np.isfinite(value).all(), (path, name)


# The rate 1e6 takes some steps to break a net, 1e30 breaks it with the first.
@pytest.mark.parametrize(("job", "rate"), [("search", "1e6"), ("retrain", "1e6"), ("retrain", "1e30")])
def test_a_loss_that_breaks_down_costs_nothing_saved(job, rate, tmp_path, run, told):
    """With recovery after every batch, and a look at the loss only at the end of the epoch."""
    often = ["RECOVERY_INTERVAL=1", "LOG_INTERVAL=50", *(["CLIP_GRAD=None"] if job == "search" else [ARCH])]
    assert run(job, *often, "LR=0.01")[0] == 0
    folder = tmp_path / "runs" / "mine"
    before = contents(folder)
    message = told(job, *often, "EPOCHS=9", f"LR={rate}")
    says(message, [" at epoch ", "try a lower LR or set CLIP_GRAD", f"the checkpoints before it are in {folder}"])
    assert_all_finite(folder)
    kept = {path for path in before if path.relative_to(folder).parts[0] in ("checkpoint-1", "model_best")}
    assert kept and all(path.read_bytes() == before[path] for path in kept)


def test_the_logs_of_a_failed_run_do_not_mix_with_the_next(tmp_path, told, run):
    told("retrain", ARCH, "DATASET.BATCH_SIZE=17")
    code, lines = run("retrain", ARCH, "MODEL=next", "EPOCHS=1")
    assert code == 0
    assert len([line for line in lines if line.startswith("net [[0]")]) == 1
    assert not (tmp_path / "runs" / "mine").exists()  # a run that cannot start has no log at all


def test_a_mistake_in_a_process_of_its_own(tmp_path):
    command = [sys.executable, "tools/retrain.py", *JOBS["retrain"], ARCH, f"DATA_DIR={tmp_path / 'nowhere'}"]
    done = subprocess.run([*command, f"SAVE_PATH={tmp_path}"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        f"error: DATA_DIR={tmp_path / 'nowhere'} is not a folder; must hold train or train.tar"
    )
    assert "Traceback" not in done.stderr
