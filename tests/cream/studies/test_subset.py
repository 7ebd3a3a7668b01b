"""subImageNet: drawn by seed or read from lists in the official form, whole or not at all."""

import pytest

from cream import cli
from cream.studies.subset import Source, choose_images, draw_classes, make_subset, read_class_list, read_image_list
from pimm.data import set_img_extensions
from pimm.data.img_extensions import IMG_EXTENSIONS
from pimm.errors import DataError

CLASSES = [f"n{number:08d}" for number in (7, 12, 30, 44, 51)]


@pytest.fixture
def imagenet(tmp_path):
    """Five classes of twelve training and six validation images."""
    folder = tmp_path / "imagenet"
    for split, count in (("train", 12), ("val", 6)):
        for name in CLASSES:
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                (folder / split / name / f"{name}_{split}{i}.JPEG").write_text(f"{split} {name} {i}")
            (folder / split / name / "notes.txt").write_text("no image")
    return folder


def command(imagenet, output, *more):
    sizes = ["--classes", "3", "--train", "5", "--val", "4"]
    return cli.generate_sub_imagenet(["--data-path", str(imagenet), "--output", str(output), *sizes, *more])


def content(folder):
    """``{path: text}`` of all files below a folder."""
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def images_of(folder, split):
    return {path.relative_to(folder / split): path for path in (folder / split).rglob("*.JPEG")}


def test_a_set_has_so_many_classes_and_images_and_is_the_same_for_a_seed(imagenet, tmp_path, capsys):
    assert command(imagenet, tmp_path / "a") == command(imagenet, tmp_path / "b") == 0
    assert "3 classes, 5 training and 4 validation images each" in capsys.readouterr().out
    names = (tmp_path / "a" / "subclass_list.txt").read_text().split()
    assert names == sorted(names) and set(names) < set(CLASSES) and len(names) == 3
    for split, count in (("train", 5), ("val", 4)):
        assert {
            folder.name: len(list(folder.iterdir())) for folder in (tmp_path / "a" / split).iterdir()
        } == dict.fromkeys(names, count)
        for path in images_of(tmp_path / "a", split).values():
            assert path.is_symlink() and path.read_text().startswith(f"{split} {path.parent.name}")
    assert content(tmp_path / "a") == content(tmp_path / "b")
    command(imagenet, tmp_path / "c", "--seed", "1")
    assert content(tmp_path / "a") != content(tmp_path / "c")


def test_copies_outlive_the_source(imagenet, tmp_path):
    assert command(imagenet, tmp_path / "linked") == command(imagenet, tmp_path / "copied", "--how", "copy") == 0
    before = content(tmp_path / "linked")
    for path in (imagenet / "train").rglob("*.JPEG"):
        path.unlink()
    assert content(tmp_path / "copied") == before != content(tmp_path / "linked")


def test_validation_images_from_the_training_images_are_not_trained_on(imagenet, tmp_path):
    assert command(imagenet, tmp_path / "a", "--val-from", "train") == 0
    train, val = (set(images_of(tmp_path / "a", split)) for split in ("train", "val"))
    assert (len(train), len(val), train & val) == (15, 12, set())
    assert all("_train" in path.name for path in val)


def test_what_is_drawn_for_a_class_does_not_depend_on_the_others(imagenet):
    source = Source(imagenet)
    alone = choose_images(source, CLASSES[1], 5, 4, seed=2)
    (imagenet / "train" / CLASSES[0]).rename(imagenet / "removed")
    assert choose_images(source, CLASSES[1], 5, 4, seed=2) == alone
    assert draw_classes(source, 4, seed=2) == CLASSES[1:]


@pytest.mark.parametrize("val_from", ["val", "train"])
def test_the_lists_of_a_set_make_it_again(imagenet, tmp_path, val_from):
    assert command(imagenet, tmp_path / "a", "--seed", "9", "--val-from", val_from) == 0
    lists = ["--class-list", str(tmp_path / "a" / "subclass_list.txt")]
    lists += ["--image-list", str(tmp_path / "a" / "subimages_list.txt")]
    assert command(imagenet, tmp_path / "b", "--seed", "9", "--val-from", val_from, *lists) == 0
    assert content(tmp_path / "b") == content(tmp_path / "a")


def test_of_the_official_lists_the_first_images_are_for_training(imagenet, tmp_path):
    # A class a line without a last line end, and a Python list of names a line.
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES[:2]))
    listed = {name: [f"{name}_train{i}.JPEG" for i in (3, 1, 0, 2, 7, 5, 4, 8, 9)] for name in CLASSES[:2]}
    (tmp_path / "images.txt").write_text("".join(f"{names}\n" for names in listed.values()))
    lists = ["--class-list", str(tmp_path / "classes.txt"), "--image-list", str(tmp_path / "images.txt")]
    assert command(imagenet, tmp_path / "a", *lists, "--val-from", "train") == 0
    for name, names in listed.items():
        for split, files in (("train", names[:5]), ("val", names[5:])):
            assert {path.name for path in (tmp_path / "a" / split / name).iterdir()} == set(files)


def test_nothing_is_written_over_nor_left_half(imagenet, tmp_path, capsys):
    assert command(imagenet, tmp_path / "a") == 0
    before = content(tmp_path / "a")
    assert command(imagenet, tmp_path / "a", "--seed", "1") == 2
    assert "exists already and is left unchanged" in capsys.readouterr().err
    assert content(tmp_path / "a") == before
    broken = choose_images(Source(imagenet), CLASSES[0], 2, 1, seed=0)
    next(iter((imagenet / "train" / CLASSES[0]).glob(broken.train[1].name))).unlink()
    with pytest.raises(FileNotFoundError):
        make_subset(Source(imagenet), tmp_path / "b", {CLASSES[0]: broken}, "copy")
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--classes", "9"], "train has 5 classes; must have at least 9"),
        (["--train", "13"], "train has 12 images of class"),
        (["--val", "7"], "val has 6 images of class"),
        (["--val", "8", "--val-from", "train"], "train has 12 images of class"),
        (["--data-path", "nowhere"], "nowhere/train is not a folder; must be nowhere/train/CLASS/IMAGE"),
    ],
)
def test_a_source_with_too_little_is_told(imagenet, tmp_path, more, says, capsys):
    assert command(imagenet, tmp_path / "a", *more) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("classes", "images", "says"),
    [
        ("n1\nn1\n", "", "must hold one class a line, each once"),
        ("", "", "must hold one class a line, each once"),
        ("n1\nn2\n", "['a.JPEG']\n", "has 1 lines; must have one for each of the 2 classes"),
        ("n1\n", "a.JPEG\n", "line 1: must be a list of names"),
        ("n1\n", "[1]\n", "line 1: must be a list of names"),
        ("n1\n", "['a.JPEG', 'a.JPEG']\n", "line 1: a name occurs twice"),
    ],
)
def test_lists_of_another_form_are_told(tmp_path, classes, images, says):
    (tmp_path / "classes.txt").write_text(classes)
    (tmp_path / "images.txt").write_text(images)
    with pytest.raises(DataError, match=says):
        read_image_list(tmp_path / "images.txt", read_class_list(tmp_path / "classes.txt"))


def test_a_listed_image_that_is_missing_is_named(imagenet):
    with pytest.raises(DataError, match=rf"train/{CLASSES[0]}/x.JPEG is in the list of images, but not there"):
        choose_images(Source(imagenet), CLASSES[0], 1, 1, seed=0, listed=["x.JPEG"])
    with pytest.raises(DataError, match=r"the list has 1 images of class n00000007; must have at least 2"):
        choose_images(Source(imagenet), CLASSES[0], 2, 1, seed=0, listed=[f"{CLASSES[0]}_train0.JPEG"])


def test_images_of_other_endings(imagenet, tmp_path):
    for path in list((imagenet / "val").rglob("*.JPEG")):
        path.rename(path.with_suffix(".tif"))
    assert command(imagenet, tmp_path / "none") == 2
    try:
        assert command(imagenet, tmp_path / "some", "--img-extensions", ".tif", ".gif") == 0
    finally:
        set_img_extensions(IMG_EXTENSIONS)
    names = [path.suffix for path in (tmp_path / "some" / "val").rglob("*.*")]
    assert names == [".tif"] * 12
