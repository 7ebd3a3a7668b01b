"""Mistakes in settings and data: exit code 2, and one line with what, where and what would be valid."""

import tarfile

import pytest
from job_lines import ARCH, says, write_images

FREE_SPACE = ["SUPERNET.STAGE_DEPTHS=None", "SUPERNET.RESOLUTION=None"]


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
