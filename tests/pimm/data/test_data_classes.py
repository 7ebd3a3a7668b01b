"""Numbers and names of classes, and labels: what a data set must have in common with the training of a net."""

import numpy as np
import paddle
import pytest
from image_files import pack, png, save, write_tar
from PIL import Image

from pimm.data import (
    AugMixDataset,
    FastCollateMixup,
    ImageDataset,
    IterableImageDataset,
    Mixup,
    check_class_names,
    class_names,
    create_loader,
    mixup_batch,
    mixup_target,
)
from pimm.data.class_map import load_class_map, natural_order
from pimm.data.imagenet import imagenet_classes
from pimm.data.loader import default_collate, fast_collate
from pimm.errors import DataError
from pimm.utils.labels import class_labels, stack_labels

PETS = ["cat", "cow", "dog", "emu"]


def folders(root, names, images=1):
    for name in names:
        for number in range(images):
            save(root / name / f"{number}.png")
    return root


def a_list(root, labels):
    save(root / "1.png")
    (root / "list.txt").write_text("".join(f"1.png {label}\n" for label in labels))
    return root / "list.txt"


# Names that a checkpoint keeps


def test_names_of_classes_by_index(tmp_path):
    assert class_names(ImageDataset(folders(tmp_path / "a", PETS))) == PETS
    assert class_names(ImageDataset(a_list(tmp_path / "b", [3, 1]))) == ["0", "1", "2", "3"]
    with_map = ImageDataset(tmp_path / "a", class_map={"cat": 4, "cow": 0, "dog": 1, "emu": 2})
    assert class_names(with_map) == ["cow", "dog", "emu", "3", "cat"]


SAME = {
    "the same folders": (PETS, lambda root: ImageDataset(folders(root, PETS))),
    "augmented splits": (PETS, lambda root: AugMixDataset(ImageDataset(folders(root, PETS)))),
    "a tar file": (PETS, lambda root: ImageDataset(pack(folders(root, PETS), root.parent / "x.tar"))),
    "shards": (
        PETS,
        lambda root: IterableImageDataset(pack(folders(root, PETS), root.parent / "x.tar")),
    ),
    "a map with a class without images": (
        PETS,
        lambda root: ImageDataset(folders(root, PETS[:3]), class_map={name: index for index, name in enumerate(PETS)}),
    ),
    "a list of some": (PETS, lambda root: ImageDataset(a_list(root, [2, 0]))),
    "webdataset with some": (
        PETS,
        lambda root: ImageDataset(write_tar(root.parent / "x.tar", {"1.png": png(), "1.cls": b"3"})),
    ),
    "numbers of a list": (["0", "1", "2", "3"], lambda root: ImageDataset(a_list(root, [2, 0]))),
    "folders for numbers": (["0", "1", "2", "3"], lambda root: ImageDataset(folders(root, PETS))),
    "folders named by numbers": (["0", "1", "2"], lambda root: ImageDataset(folders(root, ["0", "1", "2"]))),
    "only their number": (4, lambda root: ImageDataset(folders(root, PETS))),
    "a list below their number": (9, lambda root: ImageDataset(a_list(root, [8, 2]))),
    "one class without folders": (1, lambda root: ImageDataset(a_list(root, [0]).parent)),
    "gaps": (
        ["cow", "1", "cat"],
        lambda root: ImageDataset(folders(root, ["cat", "cow"]), class_map={"cow": 0, "cat": 2}),
    ),
}


@pytest.mark.parametrize(("expected", "make"), SAME.values(), ids=SAME)
def test_the_same_classes(tmp_path, expected, make):
    check_class_names(expected, make(tmp_path / "images"))


OTHER = {
    "renamed": (PETS, ["cat", "cow", "dig", "emu"], "dog is missing; dig is new"),
    "one missing": (PETS, ["cat", "cow", "emu"], "dog is missing; emu has number 2 and had 3"),
    "the last missing": (PETS, PETS[:3], "emu is missing"),
    "one more": (
        PETS,
        [*PETS, "ant"],
        "ant is new; cat has number 1 and had 0; cow has number 2 and had 1; dog has number 3 and had 2, and 1 more",
    ),
    "one missing of unknown names": (4, PETS[:3], r"3 classes \(cat, cow, dog\), and the training had 4"),
    "one more than unknown names": (3, PETS, "4 classes, and the training had 3"),
    "one missing of numbers": (["0", "1", "2", "3"], PETS[:3], r"3 classes \(cat, cow, dog\), and the training had 4"),
    "folders named by other numbers": (["0", "1", "2"], ["0", "1", "3"], "2 is missing; 3 is new"),
    "folders for names": (
        PETS,
        ["0", "1", "2", "3"],
        "cat, cow, dog and 1 more are missing; 0, 1, 2 and 1 more are new",
    ),
}


@pytest.mark.parametrize("form", ["folder", "tar"])
@pytest.mark.parametrize(("expected", "names", "says"), OTHER.values(), ids=OTHER)
def test_other_classes(tmp_path, expected, names, says, form):
    root = folders(tmp_path / "images", names)
    images = ImageDataset(root if form == "folder" else pack(root, tmp_path / "images.tar"))
    with pytest.raises(DataError, match=f"images.*: its classes are not those of the training: {says}") as caught:
        check_class_names(expected, images)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("expected", [PETS, 4, ["0", "1"]])
def test_a_folder_without_class_folders_is_no_test(tmp_path, expected):
    save(tmp_path / "1.png")
    with pytest.raises(DataError, match=r"images without class folders, expected .*/CLASS/NAME for the \d classes"):
        check_class_names(expected, ImageDataset(tmp_path))


@pytest.mark.parametrize("expected", [PETS, 4, ["0", "1", "2", "3"]])
def test_a_list_with_more_classes(tmp_path, expected):
    with pytest.raises(DataError, match="5 classes, and the training had 4"):
        check_class_names(expected, ImageDataset(a_list(tmp_path, [4, 0])))


def test_a_class_map_with_another_order(tmp_path):
    images = ImageDataset(folders(tmp_path, PETS), class_map={"cat": 1, "cow": 0, "dog": 2, "emu": 3})
    with pytest.raises(DataError, match="training: cow has number 0 and had 1; cat has number 1 and had 0"):
        check_class_names(PETS, images)


def test_a_reader_of_ones_own_without_classes_is_not_compared():
    class Numbers:
        def __len__(self):
            return 1

        def __getitem__(self, index):
            return Image.new("RGB", (2, 2)), 0

    check_class_names(PETS, ImageDataset("", Numbers()))


# Class maps


@pytest.mark.parametrize("form", ["folder", "tar", "shards"])
def test_an_empty_class_folder_is_numbered_by_the_map(tmp_path, form):
    root = folders(tmp_path / "images", ["cat", "dog"])
    (root / "cow" / "deep").mkdir(parents=True)
    if form == "shards":
        (tmp_path / "shards").mkdir()
        for name in ("cat", "dog", "cow"):
            pack(root / name, tmp_path / "shards" / f"{name}.tar")
        root = tmp_path / "shards"
    elif form == "tar":
        root = pack(root, tmp_path / "images.tar")
    reader = "tar" if form == "shards" else None
    images = ImageDataset(root, reader, class_map={"cat": 2, "cow": 1, "dog": 0})
    assert [target for _, target in images] == [2, 0]
    assert images.class_to_idx == {"cat": 2, "cow": 1, "dog": 0}
    for class_map in (None, {"cat": 0, "dog": 1}) if form != "shards" else (None,):
        with pytest.raises(DataError, match=r"cow(: a class folder| is a tar file) without images"):
            ImageDataset(root, reader, class_map=class_map)


def test_some_of_imagenets_synsets(tmp_path, caplog):
    synsets = [line.split()[0] for line in imagenet_classes()]
    assert load_class_map("imagenet") == {synset: index for index, synset in enumerate(synsets)}
    root = folders(tmp_path / "images", [synsets[index] for index in (3, 17, 999)])
    assert [target for _, target in ImageDataset(root)] == [0, 1, 2]
    assert caplog.messages == [
        f"{root}: 3 of ImageNet's 1000 classes, numbered from 0 to 2 here; weights trained on all of ImageNet need "
        "ImageNet's own numbers: class_map=imagenet"
    ]
    caplog.clear()
    assert [target for _, target in ImageDataset(root, class_map="imagenet")] == [3, 17, 999]
    folders(tmp_path / "other", ["n00000001", synsets[0]])  # of ImageNet-21k, say
    folders(tmp_path / "pets", PETS)
    for name in ("other", "pets"):
        ImageDataset(tmp_path / name)
    assert not caplog.messages


def test_all_of_imagenets_synsets_have_imagenets_numbers(tmp_path, caplog):
    synsets = [line.split()[0] for line in imagenet_classes()]
    for synset in synsets:
        (tmp_path / "images" / synset).mkdir(parents=True)
        (tmp_path / "images" / synset / "1.png").touch()
    assert ImageDataset(tmp_path / "images").class_to_idx == load_class_map("imagenet")
    assert not caplog.messages


def test_a_file_named_imagenet_goes_first(tmp_path):
    (tmp_path / "imagenet").mkdir()
    assert len(load_class_map("imagenet", tmp_path)) == 1000


def test_natural_order_of_long_numbers():
    assert sorted(["a" + "9" * 5000, "a10", "a9"], key=natural_order)[:2] == ["a9", "a10"]


# Labels


def test_labels_have_one_form():
    for labels in (np.array([2, 0, 1]), np.array([[2], [0], [1]])):
        assert class_labels(labels).tolist() == [2, 0, 1]
        assert class_labels(paddle.to_tensor(labels)).tolist() == [2, 0, 1]
    for shape in ([3, 2], [1, 3], [3, 1, 1], []):
        with pytest.raises(DataError, match="class indices have the shape"):
            class_labels(np.zeros(shape, np.int64))


def test_labels_of_samples_are_stacked_to_one_form():
    for labels in ([1, 2], [np.array([1]), np.array([2])], [np.int32(1), np.int64(2)], [paddle.to_tensor([1])] * 2):
        stacked = stack_labels(labels)
        assert (stacked.shape, stacked.dtype) == ((2,), np.int64)
    assert stack_labels([np.zeros(3, np.int64)] * 2).shape == (2, 3)
    assert stack_labels([np.float32([0.5])] * 2).shape == (2, 1)  # a share, not a class
    for wrong in ([2**63, 2**63], [2**70], ["cat"], [None]):
        with pytest.raises(DataError, match="a label is no number, or larger than any class index"):
            stack_labels(wrong)


@pytest.mark.parametrize("collate", [fast_collate, default_collate])
def test_collating_labels_as_paddles_own_data_sets_give_them(collate):
    samples = [(np.zeros((3, 2, 2), np.uint8), np.array([label])) for label in (4, 2)]
    assert collate(samples)[1].tolist() == [4, 2]


def test_a_loader_of_labels_in_columns():
    class Columns(paddle.io.Dataset):
        transform = None

        def __len__(self):
            return 4

        def __getitem__(self, index):
            return np.zeros((3, 4, 4), np.uint8), np.array([index])

    ((_, labels),) = create_loader(Columns(), 4, 4, num_workers=0)
    assert labels.tolist() == [0, 1, 2, 3]


def soft(labels, share, num_classes=4, smoothing=0.1):
    one_hot = np.eye(num_classes)[labels] * (1 - smoothing) + smoothing / num_classes
    return one_hot * share + one_hot[::-1] * (1 - share)


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
def test_mixing_labels_in_columns_is_mixing_labels(mode):
    labels = np.array([3, 0, 1, 1])
    images = np.random.default_rng(0).integers(0, 256, (4, 3, 4, 4)).astype(np.uint8)
    results = []
    for shape in ([4], [4, 1]):
        given = labels.reshape(shape)
        np.random.seed(3)
        mixed = Mixup(num_classes=4, mode=mode)(paddle.to_tensor(images).astype("float32"), paddle.to_tensor(given))
        np.random.seed(3)
        collated = FastCollateMixup(num_classes=4, mode=mode)(list(zip(images, given)))
        np.random.seed(3)
        batch = mixup_batch(paddle.to_tensor(images).astype("float32"), paddle.to_tensor(given), num_classes=4)
        results.append([np.asarray(value) for value in (*mixed, *collated, *batch)])
    for flat, column in zip(*results):
        np.testing.assert_array_equal(flat, column)
    assert results[0][1].shape == (4, 4)
    np.testing.assert_allclose(results[0][1], results[0][3], atol=1e-6)
    for shape in ([4], [4, 1]):
        target = mixup_target(paddle.to_tensor(labels.reshape(shape)), 4, 0.3, 0.1)
        np.testing.assert_allclose(target.numpy(), soft(labels, 0.3), atol=1e-6)


def test_mixing_refuses_labels_of_other_shapes_and_classes():
    images = np.zeros((2, 3, 4, 4), np.uint8)
    with pytest.raises(DataError, match=r"labels of shape \[2, 2\]; class indices have the shape"):
        FastCollateMixup(num_classes=4)(list(zip(images, np.zeros((2, 2), np.int64))))
    with pytest.raises(DataError, match=r"labels of shape \[2, 2\]"):
        mixup_target(paddle.zeros([2, 2], "int64"), 4)
    for wrong in (4, -1):
        with pytest.raises(DataError, match=f"mixup has 4 classes, from 0 on, and met the label {wrong}"):
            FastCollateMixup(num_classes=4)(list(zip(images, [0, wrong])))


def test_labels_that_are_no_classes_stay_as_they_are():
    images = np.zeros((2, 3, 4, 4), np.uint8)
    dense = np.float32([[0, 1, 0.5], [1, 0, 0]])
    np.testing.assert_array_equal(fast_collate(list(zip(images, dense)))[1], dense)
    splits = [((image, image), label) for image, label in zip(images, dense)]
    np.testing.assert_array_equal(fast_collate(splits)[1], np.concatenate([dense, dense]))
