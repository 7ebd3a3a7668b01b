"""Mistakes in the commands that people type: exit code 2, and one line with what, where and what would be valid."""

import os
import subprocess
import sys
import tarfile

import numpy as np
import pytest
from damage import flip_a_bit
from paths import ROOT
from PIL import Image

from cream import cli
from pimm.utils.checkpoint import MODEL, list_checkpoints, read_checkpoint, verify_checkpoint

SMALL = ["DATASET.NUM_CLASSES=2", "DATASET.BATCH_SIZE=8", "WORKERS=0", "EPOCHS=2"]
JOBS = {
    "search": [
        *("--cfg", "configs/demo/search.yaml", *SMALL, "LOG_INTERVAL=50", "SUPERNET.META_STA_EPOCH=0"),
        *("SUPERNET.UPDATE_ITER=1", "SUPERNET.POOL_SIZE=2", "SUPERNET.PROBES=1", "SUPERNET.SELECT_BATCHES=1"),
    ],
    "retrain": ["--cfg", "configs/demo/retrain.yaml", *SMALL, "DATASET.IMAGE_SIZE=32", "OPT=sgd", "SCHED=sgd"],
    "test": ["--cfg", "configs/demo/retrain.yaml", *SMALL, "DATASET.IMAGE_SIZE=32"],
}
ARCH = "NET.INPUT_ARCH=[[0],[0],[0],[0],[0],[0],[0]]"
FREE_SPACE = ["SUPERNET.STAGE_DEPTHS=None", "SUPERNET.RESOLUTION=None"]


def write_images(folder, classes=("apple", "pear"), count=8):
    """A data set of noise: ``folder/{train,val}/CLASS/NUMBER.png``."""
    rng = np.random.default_rng(0)
    for path in (folder / split / name for split in ("train", "val") for name in classes):
        path.mkdir(parents=True)
        for number in range(count):
            Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(path / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(autouse=True)
def fresh_logs(monkeypatch):
    monkeypatch.chdir(ROOT)
    yield


@pytest.fixture
def run(images, tmp_path, capsys):
    """Runs a command with small settings; returns its exit code and the lines it wrote to stderr."""

    def run(job, *overrides):
        common = [f"DATA_DIR={images}", f"SAVE_PATH={tmp_path / 'runs'}", "MODEL=mine"]
        capsys.readouterr()
        code = getattr(cli, job)([*JOBS[job], *common, *map(str, overrides)])
        return code, capsys.readouterr().err.splitlines()

    return run


@pytest.fixture
def told(run):
    """Runs a command that must fail with one line; returns this line."""

    def told(job, *overrides):
        code, lines = run(job, *overrides)
        assert code == 2
        assert [line for line in lines if line.startswith("error: ")] == lines[-1:], lines
        assert not [line for line in lines if "Traceback" in line]
        assert len(lines[-1]) < 1000
        return lines[-1]

    return told


def says(message, parts):
    assert [part for part in parts if part not in message] == [], message


# Settings

SETTINGS = {
    "unknown key": ("search", ["EPOCH=3"], ["command line: unknown key EPOCH; did you mean EPOCHS?"]),
    "wrong type": ("retrain", [ARCH, "EPOCHS=many"], ["EPOCHS is 'many'", "a whole number, at least 1"]),
    "range upside down": (
        "search",
        ["SUPERNET.FLOPS_MINIMUM=7"],
        ["SUPERNET.FLOPS_MINIMUM is 7; must be at most SUPERNET.FLOPS_MAXIMUM, which is 6"],
    ),
    "range too high": (
        "search",
        [*FREE_SPACE, "SUPERNET.FLOPS_MINIMUM=3000", "SUPERNET.FLOPS_MAXIMUM=4000"],
        ["SUPERNET.FLOPS_MINIMUM=3000 MFLOPs is out of reach", "ends at 2895"],
    ),
    "range too low": (
        "search",
        [*FREE_SPACE, "SUPERNET.FLOPS_MAXIMUM=1"],
        ["SUPERNET.FLOPS_MAXIMUM=1 MFLOPs is out of reach", "on 64-pixel images, takes about 7"],
    ),
    "range outside a given space": (
        "search",
        ["SUPERNET.FLOPS_MINIMUM=4"],
        [
            "no path costs between SUPERNET.FLOPS_MINIMUM=4 and FLOPS_MAXIMUM=6",
            "from 2.2 to 3.5",
            "; SUPERNET.STAGE_DEPTHS=None fits the depths to the range",
        ],
    ),
    "range without a path": (
        "search",
        ["SUPERNET.FLOPS_MINIMUM=3.0000002", "SUPERNET.FLOPS_MAXIMUM=3.0000003"],
        ["FLOPS_MINIMUM=3.0000002 and FLOPS_MAXIMUM=3.0000003", "from 2.2 to 3.5", "widen the range"],
    ),
    "too few epochs": (
        "search",
        ["SUPERNET.META_STA_EPOCH=5"],
        ["EPOCHS=2", "SUPERNET.META_STA_EPOCH=5", "EPOCHS must be at least 7"],
    ),
    "batch below two slices": (
        "search",
        ["SUPERNET.SLICE=5"],
        ["DATASET.BATCH_SIZE=8 must be at least twice SUPERNET.SLICE=5"],
    ),
    "one probability too many": (
        "search",
        ["SUPERNET.HOW_TO_PROB=pre_prob", "SUPERNET.PRE_PROB=(1,1,1,1,1,1,1)"],
        ["SUPERNET.PRE_PROB has 7 values; must have 6"],
    ),
    "a space that is nowhere": (
        "search",
        ["SUPERNET.STAGE_DEPTHS=None", "SUPERNET.SPACE=missing.yaml"],
        ["command line: SUPERNET.SPACE names missing.yaml: No such file", "must be a file, or the description"],
    ),
    "no recipe": ("search", ["RETRAIN_CFG=missing.yaml"], ["missing.yaml: No such file"]),
    "unknown net": (
        "retrain",
        ["MODEL_SELECTION=72"],
        ["NET.SELECTION=72 is not a published net", "14, 43, 114, 287, 481, 604", "NET.INPUT_ARCH"],
    ),
    "misspelt net": ("test", ["NET.SELECTION=480"], ["NET.SELECTION=480", "did you mean 481?"]),
    "net that is no number": ("test", ["NET.SELECTION=large"], ["NET.SELECTION is 'large'", "a whole number"]),
    "net and architecture": ("retrain", [ARCH, "NET.SELECTION=14"], ["NET.INPUT_ARCH is given", "must be -1"]),
    "a search's settings": (
        "retrain",
        ["SUPERNET.RESOLUTION=32"],
        ["the settings of a search", "a retrain.yaml for the net", "NET.INPUT_ARCH"],
    ),
    "a search's settings, to test": ("test", ["SUPERNET.RESOLUTION=32"], ["the settings of a search"]),
    "a retraining's settings": ("search", [ARCH], ["NET.INPUT_ARCH names one net", "not of a search"]),
    "spaces without quotes": ("retrain", ["NET.INPUT_ARCH=[[0],", "[3]]"], ["'[3]]' is no setting", "in quotes"]),
    "unknown optimizer": ("retrain", [ARCH, "OPT=sdg"], ["unknown optimizer 'sdg'; did you mean sgd?"]),
    "unknown augmentation": ("retrain", [ARCH, "AUGMENTATION.AA=v1"], ["'v1' is none of v0"]),
    "batch of one": ("retrain", [ARCH, "DATASET.BATCH_SIZE=1"], ["one value a channel", "take larger batches"]),
    "batch above the data": (
        "retrain",
        [ARCH, "DATASET.BATCH_SIZE=17"],
        ["16 images do not fill one batch: DATASET.BATCH_SIZE=17 on 1 process;", "choose a batch size of at most 16"],
    ),
}


@pytest.mark.parametrize(("job", "overrides", "parts"), SETTINGS.values(), ids=SETTINGS)
def test_settings(job, overrides, parts, told):
    says(told(job, *overrides), parts)


DEVICES = {
    "search": ("gpu:99", "Paddle finds no gpu:99 here; must be one of cpu"),
    "retrain": ("tpu", "Paddle finds no tpu:0 here; must be one of cpu"),
    "test": ("gpu:x", "must be as cpu, gpu, gpu:1"),
}


@pytest.mark.parametrize(("job", "name", "words"), [(job, *row) for job, row in DEVICES.items()])
def test_a_device_that_there_is_not(job, name, words, told):
    says(told(job, f"DEVICE={name}", *([] if job == "search" else [ARCH])), ["DEVICE is", name, words])


ARCHITECTURES = {
    "'[[0], [3'": "list of lists of whole numbers",
    "[0, 3]": "list of lists of whole numbers",
    "3": "list of lists of whole numbers",
    "abc": "list of lists of whole numbers",
    "{a: 1}": "list of lists of whole numbers",
    "[]": "no stage of them empty",
    "[[0], [], [0]]": "no stage of them empty",
    "[[0], [1.5], [0], [0], [0], [0], [0]]": "list of lists of whole numbers",
    "[[0], [true], [0], [0], [0], [0], [0]]": "list of lists of whole numbers",
    "[[0], [x], [0], [0], [0], [0], [0]]": "list of lists of whole numbers",
    "[[0], [null], [0], [0], [0], [0], [0]]": "list of lists of whole numbers",
    "[[0], [[3]], [0], [0], [0], [0], [0]]": "list of lists of whole numbers",
    "[[0], [-2], [0], [0], [0], [0], [0]]": "whole numbers, -1 skips a block",
    "[[0]]": "5 stages between the first and the last, not 0",
    "[[0], [3], [0]]": "5 stages between the first and the last, not 1",
    "[[0], [3], [3], [3], [3], [3], [3], [0]]": "5 stages between the first and the last, not 6",
    "[[0], [6], [0], [0], [0], [0], [0]]": "block 0 of stage 1 has choices 0 to 5, not 6",
    "[[0], [3, 9], [0], [0], [0], [0], [0]]": "block 1 of stage 1 has choices 0 to 5, not 9",
    "[[3], [0], [0], [0], [0], [0], [0]]": "block 0 of stage 0 has choices 0 to 0, not 3",
    "[[0, 0], [0], [0], [0], [0], [0], [0]]": "stage 0 has 2 blocks, not 1",
    "[[0], [-1], [0], [0], [0], [0], [0]]": "block 0 of stage 1 cannot be skipped: it changes the shape",
}


@pytest.mark.parametrize("layout", ["INPUT_ARCH: {}\n", "NET:\n  SELECTION: -1\n  INPUT_ARCH: {}\n"])
@pytest.mark.parametrize(("text", "reason"), ARCHITECTURES.items(), ids=ARCHITECTURES)
def test_malformed_architecture_in_a_file(text, reason, layout, tmp_path, told):
    path = tmp_path / "net.yaml"
    path.write_text(layout.format(text))
    says(told("retrain", "--cfg", path), [reason])


def test_unknown_architecture_file(told):
    says(told("test", "--cfg", "missing.yaml"), ["missing.yaml: No such file or directory"])


# Data


@pytest.mark.parametrize("job", ["search", "retrain"])
def test_missing_data_folder(job, tmp_path, told):
    message = told(job, f"DATA_DIR={tmp_path / 'nowhere'}", *([] if job == "search" else [ARCH]))
    says(message, [f"DATA_DIR={tmp_path / 'nowhere'} is not a folder", "must hold train or train.tar"])


def test_folder_without_images(tmp_path, told):
    says(told("retrain", ARCH, f"DATA_DIR={tmp_path}"), ["does not hold images; must hold train or train.tar"])


def test_missing_validation_images(images, tmp_path, told):
    (tmp_path / "train").symlink_to(images / "train")
    message = told("retrain", ARCH, f"DATA_DIR={tmp_path}")
    says(message, [f"DATA_DIR={tmp_path}", "must hold val or val.tar or validation or validation.tar"])


def test_empty_class(tmp_path, told):
    data = write_images(tmp_path / "data")
    (data / "train" / "plum").mkdir()
    message = told("search", f"DATA_DIR={data}", "DATASET.NUM_CLASSES=3")
    says(message, [f"{data}/train/plum: a class folder without images", ".png, .jpg, .jpeg"])


@pytest.mark.parametrize("job", ["search", "retrain", "test"])
def test_other_number_of_classes(job, run_folder, told):
    net = [] if job == "search" else [ARCH, "DATASET.NUM_CLASSES=2", f"RESUME_PATH={run_folder}"]
    message = told(job, "DATA_DIR=data/fashion_mnist", "AUTO_RESUME=False", *net)
    says(message, [".tar has 10 classes, but DATASET.NUM_CLASSES is 2"])


def test_other_classes_for_validation(images, tmp_path, told):
    """As many classes, but numbered otherwise: every accuracy would be wrong in silence."""
    data = write_images(tmp_path / "data", classes=("apple", "plum"))
    (tmp_path / "mixed").mkdir()
    (tmp_path / "mixed" / "train").symlink_to(images / "train")
    (tmp_path / "mixed" / "val").symlink_to(data / "val")
    message = told("retrain", ARCH, f"DATA_DIR={tmp_path / 'mixed'}")
    says(message, ["mixed/train and", "mixed/val must hold the same classes; pear is in one of them"])


def test_compressed_tar(images, tmp_path, told):
    for split in ("train", "val"):
        with tarfile.open(tmp_path / f"{split}.tar", "w:gz") as archive:
            archive.add(images / split, split)
    says(told("retrain", ARCH, f"DATA_DIR={tmp_path}"), ["train.tar: not a whole, uncompressed tar file", "'tar cf'"])


@pytest.mark.parametrize("workers", [0, 1])
def test_broken_image_is_replaced_and_named(workers, tmp_path, run):
    data = write_images(tmp_path / "data")
    (data / "train" / "pear" / "3.png").write_bytes(b"not an image")
    code, lines = run("retrain", ARCH, f"DATA_DIR={data}", f"WORKERS={workers}", "EPOCHS=1")
    assert code == 0
    (warning,) = [line for line in lines if "cannot be read" in line]
    assert f"{data}/train/pear/3.png cannot be read and is replaced by the next image" in warning


def test_too_many_broken_images(tmp_path, told):
    data = write_images(tmp_path / "data", count=30)
    for path in (data / "train").rglob("*.png"):
        path.write_bytes(b"not an image")
    message = told("retrain", ARCH, f"DATA_DIR={data}")
    says(message, [f"{data}/train: more than 50 images cannot be read", "is the data set damaged?"])


# Runs and checkpoints


@pytest.fixture(scope="module")
def trained(images, tmp_path_factory):
    """A retrained net's run."""
    os.chdir(ROOT)
    folder = tmp_path_factory.mktemp("trained")
    assert cli.retrain([*JOBS["retrain"], ARCH, f"DATA_DIR={images}", f"SAVE_PATH={folder}", "MODEL=net"]) == 0
    return folder / "net"


@pytest.fixture
def run_folder(trained, tmp_path):
    """A copy of the run, to be damaged."""
    return copy_tree(trained, tmp_path / "net")


def copy_tree(source, target):
    for path in source.rglob("*"):
        if path.is_file():
            copied = target / path.relative_to(source)
            copied.parent.mkdir(parents=True, exist_ok=True)
            copied.write_bytes(path.read_bytes())
    return target


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
