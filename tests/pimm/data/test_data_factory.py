"""create_dataset: which data set a name means, where its split lies, and Paddle's own archives."""

import gzip
import io
import pickle
import struct
import tarfile

import numpy as np
import pytest
import scipy.io
from image_files import pack, png, red, save, write_tar
from PIL import Image

from pimm.data import ImageDataset, IterableImageDataset, create_dataset, create_loader, paddle_datasets
from pimm.errors import ConfigError, DataError

RNG = np.random.default_rng(0)


@pytest.fixture
def root(tmp_path):
    """Splits of one image each: 1 in train, 2 in val, 3 in test.tar; lists beside them."""
    for split, color in (("train", 1), ("val", 2), ("test", 3)):
        save(tmp_path / split / "a" / "0.png", (color, 0, 0))
        (tmp_path / f"{split}_list.txt").write_text(f"{split}/a/0.png {color}\n")
    pack(tmp_path / "test", tmp_path / "test.tar")
    (tmp_path / "test" / "a" / "0.png").unlink()
    (tmp_path / "test" / "a").rmdir()
    (tmp_path / "test").rmdir()
    return tmp_path


@pytest.mark.parametrize(
    ("name", "options", "first"),
    [
        ("", {}, (2, 0)),
        ("folder", {"split": "training"}, (1, 0)),
        ("", {"split": "test"}, (3, 0)),
        ("TAR", {"split": "test"}, (3, 0)),
        ("", {"split": "val", "class_map": {"a": 7}}, (2, 7)),
        ("list", {}, (2, 2)),
        ("list", {"split": "train"}, (1, 1)),
        ("list", {"list_file": "test_list.txt", "split": "train", "class_map": {"3": 4}}, None),
    ],
)
def test_names_and_splits(root, name, options, first):
    dataset = create_dataset(name, root, **options, cache_index=None)
    assert type(dataset) is ImageDataset
    if first is None:  # its image is in the tar file
        assert (dataset.samples[0][1], dataset.class_to_idx) == (4, {"3": 4})
    else:
        assert (red(dataset[0][0]), dataset[0][1]) == first


def test_a_root_without_splits_is_the_split(root):
    assert red(create_dataset("", root / "train", "validation")[0][0]) == 1
    assert len(create_dataset("", root, search_split=False)) == 2
    image, _ = create_dataset("", root, "val", load_bytes=True, input_img_mode="L")[0]
    assert image == png((2, 0, 0))


def test_shards(root):
    (root / "train").rename(root / "folders")
    write_tar(root / "x-train-0.tar", {"1.png": png(), "1.cls": b"3", "2.png": png(), "2.cls": b"1"})
    dataset = create_dataset(
        "wds/x", root, "train", is_training=True, batch_size=2, seed=7, repeats=3, search_split=False
    )
    assert isinstance(dataset, IterableImageDataset)
    assert (dataset.is_training, dataset.batch_size, dataset.seed, dataset.num_samples) == (True, 2, 7, 6)
    assert sorted(dataset[index][1] for index in range(2)) == [1, 3]


@pytest.mark.parametrize(
    ("name", "options", "error", "says"),
    [
        (
            "fodler",
            {},
            ConfigError,
            "fodler: no such data set; did you mean folder.*there are folder, tar, list, wds, pad",
        ),
        ("torch/cifar10", {}, ConfigError, "torch/cifar10: no such data set; did you mean paddle/cifar10"),
        ("paddle/cifar", {}, ConfigError, "paddle/cifar: no such data set of Paddle's; there are cifar10"),
        ("", {"download": True}, ConfigError, "download=True means nothing for the data set ''"),
        ("tar", {"repeats": 2}, ConfigError, "repeats=2 means nothing for the data set 'tar'"),
        ("wds", {"load_bytes": True}, ConfigError, "load_bytes=True means nothing for the data set 'wds'"),
        ("paddle/mnist", {"num_samples": 3}, ConfigError, "num_samples=3 means nothing"),
        ("paddle/mnist", {"class_map": {"a": 1}}, ConfigError, "leave class_map out"),
        ("paddle/mnist", {"split": "holdout"}, ConfigError, "no split holdout; there are train, test"),
        ("", {"trust_remote_code": True}, ConfigError, "no data set here runs code"),
        ("", {"split": "evl"}, DataError, r"no split evl here, but test\.tar, train, val; .* search_split=False"),
        ("", {"split": "train", "cash_index": 1}, ConfigError, "cash_index: the reader folder has no such option"),
    ],
)
def test_mistakes(root, name, options, error, says):
    with pytest.raises(error, match=says):
        create_dataset(name, root, **options)


def add(archive, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def cifar(root, classes):
    """Archives as the University of Toronto's: rows of red, green and blue planes in pickles with keys of bytes."""
    key, name = (b"labels", "cifar-10") if classes == 10 else (b"fine_labels", "cifar-100")
    train, test = ("data_batch_1", "test_batch") if classes == 10 else ("train", "test")
    expected = {}
    with tarfile.open(root / f"{name}-python.tar.gz", "w:gz") as archive:
        for split, file in (("train", train), ("test", test)):
            pixels, labels = RNG.integers(0, 256, (5, 3072)).astype(np.uint8), RNG.integers(0, classes, 5).tolist()
            add(archive, f"{name}-batches-py/{file}", pickle.dumps({b"data": pixels, key: labels}))
            expected[split] = pixels.reshape(5, 3, 32, 32).transpose(0, 2, 3, 1), labels
    return expected


def mnist(root):
    """Files as of Yann LeCun's: big-endian sizes, then bytes. Paddle reads them by the hundred."""
    expected = {}
    for split, name in (("train", "train"), ("test", "t10k")):
        pixels, labels = RNG.integers(0, 256, (100, 28, 28)).astype(np.uint8), RNG.integers(0, 10, 100).astype(np.uint8)
        images = struct.pack(">IIII", 2051, 100, 28, 28) + pixels.tobytes()
        (root / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
        (root / f"{name}-labels-idx1-ubyte.gz").write_bytes(
            gzip.compress(struct.pack(">II", 2049, 100) + labels.tobytes())
        )
        expected[split] = np.repeat(pixels[..., None], 3, -1), labels.tolist()
    return expected


def flowers(root):
    """Files as of Oxford's: JPEGs and MATLAB's lists of labels and splits, numbered from one."""
    colors, labels = RNG.integers(0, 256, (6, 3)), np.array([[102, 3, 3, 1, 50, 9]], np.uint8)
    splits = {"tstid": [2, 5, 1], "trnid": [6], "valid": [3, 4]}
    with tarfile.open(root / "102flowers.tgz", "w:gz") as archive:
        for number, color in enumerate(colors, 1):
            file = io.BytesIO()
            Image.new("RGB", (8, 8), tuple(color.tolist())).save(file, "JPEG", quality=100, subsampling=0)
            add(archive, f"jpg/image_{number:05}.jpg", file.getvalue())
    scipy.io.savemat(root / "imagelabels.mat", {"labels": labels})
    scipy.io.savemat(root / "setid.mat", {name: np.array([ids], np.uint16) for name, ids in splits.items()})
    names = {"train": "tstid", "test": "trnid", "val": "valid"}  # as Paddle has them
    places = {split: np.array(splits[name]) - 1 for split, name in names.items()}
    solid = np.broadcast_to(colors[:, None, None], (6, 8, 8, 3))
    return {split: (solid[ids], (labels[0, ids].astype(int) - 1).tolist()) for split, ids in places.items()}


ARCHIVES = {
    "cifar10": lambda root: cifar(root, 10),
    "cifar100": lambda root: cifar(root, 100),
    "mnist": mnist,
    "fashion_mnist": mnist,
    "flowers": flowers,
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_paddles_data_sets(tmp_path, name):
    expected = ARCHIVES[name](tmp_path)
    for split, (pixels, labels) in expected.items():
        dataset = create_dataset(f"paddle/{name}", tmp_path, split)
        images, targets = zip(*(dataset[index] for index in range(len(dataset))))
        assert ([image.mode for image in images], list(targets)) == (["RGB"] * len(labels), labels)
        np.testing.assert_allclose(np.stack(images).astype(int), pixels, atol=3 if name == "flowers" else 0)
        assert [dataset.samples[index][1] for index in range(len(labels))] == labels
    evaluation = create_dataset(f"paddle/{name}", tmp_path)  # timm's default split is validation
    assert [evaluation[index][1] for index in range(len(evaluation))] == expected.get("val", expected["test"])[1]


def test_arrays_have_no_bytes(tmp_path):
    mnist(tmp_path)
    with pytest.raises(ConfigError, match=r"load_bytes: the images of .* come from no files"):
        create_dataset("paddle/mnist", tmp_path, load_bytes=True)[0]


def test_a_loader_over_paddles_data(tmp_path):
    pixels, labels = mnist(tmp_path)["train"]
    dataset = create_dataset("paddle/fashion_mnist", tmp_path, "train")
    loader = create_loader(dataset, (3, 28, 28), 40, crop_pct=1.0, num_workers=2, mean=(0, 0, 0), std=(1 / 255,) * 3)
    batches = [(images.numpy(), targets.tolist()) for images, targets in loader]
    assert [target for _, targets in batches for target in targets] == labels
    np.testing.assert_allclose(
        np.concatenate([images for images, _ in batches]), pixels.transpose(0, 3, 1, 2), atol=1e-3
    )


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("cifar10", r"cifar-10-python\.tar\.gz: no such file; get it from https://.*or pass download=True"),
        ("fashion_mnist", r"t10k-images-idx3-ubyte\.gz: no such file"),
        ("flowers", r"102flowers\.tgz: no such file"),
    ],
)
def test_missing_archives_say_what_to_get(tmp_path, monkeypatch, name, missing):
    monkeypatch.setattr(paddle_datasets, "get_path_from_url", lambda *args, **options: pytest.fail("downloaded"))
    with pytest.raises(DataError, match=missing):
        create_dataset(f"paddle/{name}", tmp_path)


def test_downloads_happen_when_asked_for_alone(tmp_path, monkeypatch):
    calls = []

    def fetch(url, folder, md5, decompress):
        calls.append((url, md5, decompress))
        expected.update(cifar(tmp_path, 10))
        return f"{folder}/cifar-10-python.tar.gz"

    expected = {}
    monkeypatch.setattr(paddle_datasets, "get_path_from_url", fetch)
    for _ in range(2):
        dataset = create_dataset("paddle/cifar10", tmp_path, "test", download=True)
        assert [dataset[index][1] for index in range(5)] == expected["test"][1]
    url = "https://dataset.bj.bcebos.com/cifar/cifar-10-python.tar.gz"
    assert calls == [(url, "c58f30108f718f92721af3b95e74349a", False)]


def test_a_download_that_fails_is_an_error_with_its_reason(tmp_path, monkeypatch):
    def fail(*args, **options):
        raise RuntimeError("Retry limit reached")

    monkeypatch.setattr(paddle_datasets, "get_path_from_url", fail)
    with pytest.raises(DataError, match=r"cifar-100-python\.tar\.gz: cannot be fetched: Retry limit reached"):
        create_dataset("paddle/cifar100", tmp_path, download=True)


@pytest.mark.parametrize(
    ("name", "damage", "says"),
    [
        ("cifar10", lambda data: data[: len(data) // 2], r"paddle/cifar10: cannot read .*cifar-10-python\.tar\.gz: "),
        ("mnist", lambda data: data[:40], r"paddle/mnist: cannot read .*t10k-images.*EOFError"),
    ],
)
def test_damaged_archives_are_named(tmp_path, name, damage, says):
    ARCHIVES[name](tmp_path)
    path = next(tmp_path.glob("cifar*" if name == "cifar10" else "t10k-images*"))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=says):
        create_dataset(f"paddle/{name}", tmp_path)


def test_flowers_are_unpacked_whole_or_not_at_all(tmp_path):
    flowers(tmp_path)
    (tmp_path / "102flowers").mkdir()  # where another process is about to put them
    archive = tmp_path / "102flowers.tgz"
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"paddle/flowers: cannot read .*102flowers\.tgz"):
        create_dataset("paddle/flowers", tmp_path)
    assert not list((tmp_path / "102flowers").iterdir())
    archive.write_bytes(whole)
    assert len(create_dataset("paddle/flowers", tmp_path, "train")) == 3
    assert len(list((tmp_path / "102flowers" / "jpg").iterdir())) == 6
    assert not list(tmp_path.glob(".unpacking*"))
