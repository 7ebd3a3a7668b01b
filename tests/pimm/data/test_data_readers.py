"""What the readers of tar files and lists find, which class an image has, and what they say of what is wrong."""

import io
import json
import pickle
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from image_files import pack, png, red, save, write_tar
from PIL import Image

from pimm.data import (
    Dataset,
    ImageDataset,
    add_img_extensions,
    create_reader,
    del_img_extensions,
    get_img_extensions,
    is_img_extension,
    set_img_extensions,
)
from pimm.data.class_map import load_class_map
from pimm.data.dataset import MAX_BROKEN
from pimm.data.splits import find_tars
from pimm.errors import ConfigError, DataError


@pytest.fixture
def folder(tmp_path):
    """Images 10 and 20 of class b, 30 of class a (by their red)."""
    root = tmp_path / "images"
    for path, color in {"b/1.png": 10, "b/2.png": 20, "a/1 one.png": 30}.items():
        save(root / path, (color, 0, 0))
    return root


@pytest.fixture
def extensions():
    yield
    set_img_extensions((".png", ".jpg", ".jpeg"))


def contents(dataset):
    return [(red(image), target) for image, target in (dataset[index] for index in range(len(dataset)))]


def class_tars(folder, target):
    """ImageNet's form: a tar file for each class, its images at the top."""
    target.mkdir()
    for name in ("a", "b"):
        pack(folder / name, target / f"{name}.tar")
    return target


def test_a_folder_of_tars_one_for_each_class(folder, tmp_path):
    dataset = ImageDataset(class_tars(folder, tmp_path / "tars"), reader="tar")
    assert dataset.filenames() == ["a/1 one.png", "b/1.png", "b/2.png"] == Dataset(folder).filenames()
    assert dataset.class_to_idx == {"a": 0, "b": 1}
    assert contents(dataset) == contents(Dataset(folder)) == [(30, 0), (10, 1), (20, 1)]


def test_a_tar_of_tars(folder, tmp_path):
    dataset = ImageDataset(pack(class_tars(folder, tmp_path / "tars"), tmp_path / "all.tar"))
    assert dataset.filenames(absolute=True) == ["a/1 one.png", "b/1.png", "b/2.png"]
    assert contents(dataset) == [(30, 0), (10, 1), (20, 1)]


def test_shards_of_class_folders(tmp_path):
    (tmp_path / "shards").mkdir()
    for number, classes in enumerate(("ab", "b")):
        files = {f"{name}/{number}.png": png((10 * number + ord(name) - ord("a"), 0, 0)) for name in classes}
        write_tar(tmp_path / "shards" / f"x-{number}.tar", files)
    dataset = ImageDataset(tmp_path / "shards", reader="tar")
    assert dataset.filenames() == ["x-0/a/0.png", "x-0/b/0.png", "x-1/b/1.png"]
    assert contents(dataset) == [(0, 0), (1, 1), (11, 1)]


WEBDATASET = {
    "x/01.cls": b"7\n",
    "x/01.png": png((1, 0, 0)),
    "x/01.json": b'{"kind": "dog", "number": 4}',
    "x/01.mask.png": png((99, 0, 0)),
    "x/02.PNG": png((2, 0, 0)),
    "x/02.cls": b"0",
    "x/02.json": b'{"kind": "cat", "number": 5}',
}


@pytest.mark.parametrize(
    ("options", "targets", "class_to_idx"),
    [
        ({}, [7, 0], {"0": 0, "7": 7}),
        ({"target_key": "number"}, [4, 5], {"4": 4, "5": 5}),
        ({"target_key": "kind", "class_map": {"cat": 0, "dog": 1}}, [1, 0], {"cat": 0, "dog": 1}),
        ({"class_map": {"7": 1, "0": 3}}, [1, 3], {"7": 1, "0": 3}),
    ],
)
def test_webdataset_layout(tmp_path, options, targets, class_to_idx):
    dataset = ImageDataset(write_tar(tmp_path / "shard.tar", WEBDATASET), **options)
    assert dataset.filenames() == ["x/01.png", "x/02.PNG"]
    assert contents(dataset) == list(zip([1, 2], targets))
    assert dataset.class_to_idx == class_to_idx


@pytest.mark.parametrize(
    ("files", "options", "says"),
    [
        (
            {"1.png": png(), "1.cls": b"cat"},
            {},
            "shard.tar: 'cat' is no class index, 0 or more; names of classes need a class_map",
        ),
        ({"1.png": png(), "2.cls": b"1"}, {}, r"1\.png has no class beside it"),
        ({"1.png": png(), "1.json": b"{}"}, {"target_key": "k"}, r"1\.png has no class beside it"),
        (
            {"1.png": png(), "1.cls": b"cat"},
            {"class_map": {"cats": 0}},
            "cat: this class is not.*did you mean cats",
        ),
        ({"a/1.txt": b""}, {}, "no images found"),
        ({"inner.tar": b"no tar file"}, {}, r"shard\.tar: not a whole, uncompressed tar"),
    ],
)
def test_unusable_tars_say_why(tmp_path, files, options, says):
    with pytest.raises(DataError, match=says):
        ImageDataset(write_tar(tmp_path / "shard.tar", files), **options)


def test_tars_with_and_without_classes_do_not_mix(tmp_path):
    write_tar(tmp_path / "s-1.tar", WEBDATASET)
    write_tar(tmp_path / "s-2.tar", {"b/1.png": png()})
    with pytest.raises(DataError, match=r"s-2 has no \.cls files, which other tar files have"):
        ImageDataset(tmp_path, reader="tar")


def test_a_class_without_images_does_not_vanish(folder, tmp_path):
    write_tar(class_tars(folder, tmp_path / "tars") / "c.tar", {"1.txt": b""})
    with pytest.raises(DataError, match="tars: c is a tar file without images"):
        ImageDataset(tmp_path / "tars", reader="tar")


def test_more_tars_than_stay_open(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("pimm.data.readers._MAX_OPEN", 1)
    dataset = ImageDataset(class_tars(folder, tmp_path / "tars"), reader="tar")
    assert contents(dataset) + contents(dataset) == [(30, 0), (10, 1), (20, 1)] * 2
    assert len(dataset.reader._opened) == 1
    copy = pickle.loads(pickle.dumps(dataset.reader))
    assert (len(copy._opened), Image.open(copy[1][0]).getpixel((0, 0))[0]) == (0, 10)


@pytest.mark.parametrize(
    ("names", "split", "found"),
    [
        (["a-10.tar", "a-9.tar"], "train", ["a-9.tar", "a-10.tar"]),
        (["x-train-0.tar", "x-val-0.tar"], "validation", ["x-val-0.tar"]),
        (["x-train-0.tar", "x-val-0.tar"], "training", ["x-train-0.tar"]),
        (["train.tar", "bus.tar"], "train", ["bus.tar", "train.tar"]),  # classes, not splits
        (["x-08.tar", "x-09.tar", "x-10.tar"], "x-{09..10}.tar", ["x-09.tar", "x-10.tar"]),
        (["x-08.tar", "y-09.tar"], "x-*.tar", ["x-08.tar"]),
    ],
)
def test_which_tars_are_a_split(tmp_path, names, split, found):
    for name in names:
        write_tar(tmp_path / name, {})
    assert find_tars(tmp_path, split) == [str(tmp_path / name) for name in found]


def test_the_description_beside_the_shards_names_them(tmp_path):
    for name in ("p.tar", "q.tar"):
        write_tar(tmp_path / name, {})
    splits = {"validation": {"filenames": ["q.tar"]}, "train": {"filenames": ["p.tar", "r.tar"]}}
    (tmp_path / "info.json").write_text(json.dumps({"splits": splits}))
    assert find_tars(tmp_path, "val") == [str(tmp_path / "q.tar")]
    with pytest.raises(DataError, match=r"no tar file r\.tar here"):
        find_tars(tmp_path, "train")
    (tmp_path / "info.json").write_text("[]")
    with pytest.raises(DataError, match=r"info\.json: not the description of a data set's splits"):
        find_tars(tmp_path, "train")


@pytest.mark.parametrize(
    ("split", "says"),
    [("test", "no tar file of split test here, but x-train"), ("x-{0..1}.tar", r"no tar file x-1\.tar")],
)
def test_missing_tars_say_which(tmp_path, split, says):
    write_tar(tmp_path / "x-train-0.tar", {})
    write_tar(tmp_path / "x-0.tar" if ".tar" in split else tmp_path / "x-val-0.tar", {})
    with pytest.raises(DataError, match=says):
        find_tars(tmp_path, split)


LIST = "b/2.png 3\n\nb/1.png\t0\na/1 one.png 12\n./b/2.png   3\n"


def test_a_list_gives_order_and_classes(folder):
    (folder / "train_list.txt").write_text(LIST)
    dataset = ImageDataset(folder, reader="list", split="training")
    assert dataset.filenames() == ["b/2.png", "b/1.png", "a/1 one.png", "./b/2.png"]
    assert contents(dataset) == [(20, 3), (10, 0), (30, 12), (20, 3)]
    assert dataset.class_to_idx == {"0": 0, "3": 3, "12": 12}
    assert dataset.samples[1] == (str(folder / "b" / "1.png"), 0)


def test_ways_to_say_where_a_list_is(folder, tmp_path):
    (folder / "some.txt").write_text("a/1 one.png 1\n")
    (tmp_path / "far.lst").write_text(f"b/1.png 1\n{folder}/b/2.png 0\n")
    (folder / "val.txt").write_text("b/1.png 2\n")
    assert contents(ImageDataset(folder / "some.txt")) == [(30, 1)]
    assert contents(ImageDataset(folder, reader="list", list_file="some.txt")) == [(30, 1)]
    assert contents(ImageDataset(folder, reader="list", list_file=tmp_path / "far.lst")) == [(10, 1), (20, 0)]
    assert contents(ImageDataset(folder, reader="list", split="validation")) == [(10, 2)]


def test_a_list_by_an_editor_of_windows(folder):
    (folder / "list.txt").write_bytes("\ufeffb/2.png 3\r\nb/1.png\t0\r\n".encode())
    assert contents(ImageDataset(folder / "list.txt")) == [(20, 3), (10, 0)]


def test_images_without_classes_lie_anywhere(folder, tmp_path):
    (folder / "top.png").write_bytes((folder / "b" / "1.png").read_bytes())
    (folder / "empty").mkdir()
    (folder / "list.txt").write_text("b/1.png 7\nb/2.png\na/1 one.png\n")
    pack(folder, tmp_path / "all.tar")
    for root, pixels in ((folder, [30, 10, 20, 10]), (tmp_path / "all.tar", [30, 10, 20, 10])):
        dataset = ImageDataset(root, labelled=False)
        assert sorted(contents(dataset)) == sorted((pixel, -1) for pixel in pixels)
        assert dataset.class_to_idx == {}
    assert contents(ImageDataset(folder / "list.txt", labelled=False)) == [(10, -1), (20, -1), (30, -1)]


def test_a_list_with_names_of_classes(folder):
    (folder / "list.txt").write_text("b/1.png\tbig dog\nb/2.png cat\n")
    dataset = ImageDataset(folder / "list.txt", class_map={"cat": 0, "big dog": 1})
    assert contents(dataset) == [(10, 1), (20, 0)]


@pytest.mark.parametrize(
    ("text", "options", "says"),
    [
        ("b/1.png 0\nb/2.png\n", {}, r"list\.txt:2: 'b/2\.png' is not 'path label'"),
        ("b/1.png 0\n\nb/2.png cat\n", {}, r"list\.txt:3: 'cat' is no class index"),
        ("b/1.png -1\n", {}, r"list\.txt:1: '-1' is no class index"),
        ("b/1.png 1.0\n", {}, r"list\.txt:1: '1\.0' is no class index"),
        (
            "b/1.png cat\nb/1.png dig\n",
            {"class_map": {"cat": 0, "dog": 1}},
            r"list\.txt:2: class 'dig'.*did you mean dog",
        ),
        ("\n", {}, r"list\.txt: an empty list; expected lines 'path label'"),
        (b"caf\xe9.png 1", {}, r"list\.txt: a list is text in UTF-8"),
    ],
)
def test_bad_lists_say_where(folder, text, options, says):
    (folder / "list.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=says):
        ImageDataset(folder / "list.txt", **options)


def test_a_missing_list_says_what_was_looked_for(folder):
    with pytest.raises(DataError, match=r"no list file here; looked for val_list\.txt, val\.txt, valid_list\.txt"):
        ImageDataset(folder, reader="list", split="val")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("map.txt", b"\xef\xbb\xbfa\r\nb\r\n\r\n"),
        ("map.json", b'["a", "b"]'),
        ("map.json", b'{"a": 0, "b": 1}'),
        *(("map.pkl", pickle.dumps({"a": 0, "b": 1}, protocol)) for protocol in range(6)),
        ("map.pkl", b"(dp1\nS'a'\np2\nI0\nsS'b'\np3\nI1\ns."),  # of Python 2
    ],
)
def test_class_maps(folder, name, content):
    (folder / name).write_bytes(content)
    assert load_class_map(name, folder) == {"a": 0, "b": 1}
    assert ImageDataset(folder, class_map=name).class_to_idx == load_class_map({"a": 0, "b": 1})


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("map.csv", b"a,0", r"map\.csv: a class map is a \.txt file.*or one of \.txt, \.json, \.pkl"),
        ("map.txt", b"a\n\nb\n", r"map\.txt: this class map is damaged: line 2 is empty"),
        ("map.json", b"{", r"map\.json: this class map is damaged"),
        ("map.json", b"3", r"map\.json: a class map holds class names and their indices"),
        ("map.json", b'{"a": -1}', r"map\.json: class a has index -1"),
        ("map.json", b'{"a": true}', r"map\.json: class a has index True"),
        ("map.pkl", pickle.dumps({"a": Fraction(1)}), r"map\.pkl: this class map is damaged: it asks for fractions"),
        ("map.pkl", b"", r"map\.pkl: this class map is damaged"),
    ],
)
def test_bad_class_maps_say_why(folder, name, content, says):
    (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=says):
        ImageDataset(folder, class_map=name)


def test_which_files_are_images_can_be_changed(folder, extensions):
    (folder / "b" / "1.png").rename(folder / "b" / "1.WEBP")
    assert ImageDataset(folder).filenames() == ["a/1 one.png", "b/2.png"]
    add_img_extensions(".webp")
    assert (get_img_extensions(), is_img_extension(".WebP")) == ((".png", ".jpg", ".jpeg", ".webp"), True)
    assert ImageDataset(folder).filenames() == ["a/1 one.png", "b/1.WEBP", "b/2.png"]
    del_img_extensions((".png", ".jpg"))
    assert get_img_extensions(as_set=True) == {".jpeg", ".webp"}
    assert ImageDataset(folder / "b").filenames() == ["1.WEBP"]
    for wrong in ((), "png", (".",)):
        with pytest.raises(ConfigError, match="extension"):
            set_img_extensions(wrong)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda root: create_reader("fodler", root), ConfigError, "fodler: no such reader; did you mean folder"),
        (lambda root: create_reader("", None), ConfigError, "needs its root"),
        (
            lambda root: ImageDataset(root, cash_index=1),
            ConfigError,
            "cash_index: the reader folder has no.*cache_index",
        ),
        (
            lambda root: ImageDataset(root.parent / "tars"),
            DataError,
            "no images found but tar files; name the reader 'tar'",
        ),
        (lambda root: ImageDataset(root, [1], class_map={"a": 1}), ConfigError, "class_map: for readers by name"),
        (lambda root: ImageDataset(root / "c"), DataError, "c: no such folder or tar file"),
    ],
)
def test_mistaken_calls_say_what_would_be_right(folder, tmp_path, call, error, says):
    class_tars(folder, tmp_path / "tars")
    with pytest.raises(error, match=says):
        call(folder)


class Numbers:
    """A reader of a user's own: images made on the spot, the last of which is broken."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if index == self.count - 1:
            raise OSError("no such number")
        return Image.new("RGB", (2, 2), (index, 5, 6)), None if index == 1 else index

    def filename(self, index, basename=False, absolute=False):
        return f"number {index}"


def test_a_reader_of_ones_own(caplog):
    dataset = ImageDataset("anywhere", Numbers(3), target_transform=lambda target: 10 * target, input_img_mode="L")
    assert (len(dataset), dataset.root, dataset.filenames()) == (3, "anywhere", ["number 0", "number 1", "number 2"])
    expected = np.asarray(Image.new("RGB", (2, 2), (1, 5, 6)).convert("L"))
    np.testing.assert_array_equal(np.asarray(dataset[1][0]), expected)
    assert [dataset[index][1] for index in range(3)] == [0, -1, 0]
    assert "number 2 cannot be read" in caplog.text


@pytest.mark.parametrize("mode", ["L", "RGBA", ""])
def test_image_modes(tmp_path, mode):
    Image.new("LA", (3, 2), (7, 8)).save(tmp_path / "1.png")
    image, _ = ImageDataset(tmp_path, input_img_mode=mode)[0]
    assert (image.mode, image.getpixel((0, 0))) == {"L": ("L", 7), "RGBA": ("RGBA", (7, 7, 7, 8)), "": ("LA", (7, 8))}[
        mode
    ]


def broken_roots(tmp_path, count):
    """The same broken images as a folder, a tar file, shards and a list, and how many times the message names them."""
    files = {f"c/{number}.png": b"broken" for number in range(count)} | {"c/x.png": png()}
    for name, content in files.items():
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_bytes(content)
    (tmp_path / "folder" / "list.txt").write_text("".join(f"{name} 0\n" for name in files))
    labels = {name.replace(".png", ".cls"): b"0" for name in files}
    (tmp_path / "wds").mkdir()
    write_tar(tmp_path / "one.tar", files)
    write_tar(tmp_path / "wds" / "0.tar", files | labels)
    return {
        "folder": (tmp_path / "folder", "folder"),
        "list": (tmp_path / "folder" / "list.txt", "list"),
        "tar": (tmp_path / "one.tar", "tar"),
        "shards": (tmp_path / "wds", "tar"),
    }


@pytest.mark.parametrize("kind", ["folder", "list", "tar", "shards"])
@pytest.mark.parametrize("broken", [2, MAX_BROKEN + 1])
def test_broken_images_of_every_reader_are_replaced_so_often_and_no_more(tmp_path, caplog, kind, broken):
    root, reader = broken_roots(tmp_path, broken)[kind]
    dataset = ImageDataset(root, reader=reader)
    if broken <= MAX_BROKEN:
        assert contents(dataset) == [(9, 0)] * 3
        assert [record.getMessage().split(" cannot")[0] for record in caplog.records] == dataset.filenames(
            absolute=True
        )[:2]
    else:
        with pytest.raises(DataError, match=rf"more than {MAX_BROKEN} images cannot be read"):
            dataset[0]


def test_bytes_instead_of_images(folder, tmp_path):
    for root in (folder, pack(folder, tmp_path / "images.tar")):
        data, target = ImageDataset(root, load_bytes=True, transform=io.BytesIO)[1]
        assert (data.getvalue(), target) == (png((10, 0, 0)), 1)


def test_workers_of_other_loaders_log_themselves(tmp_path, monkeypatch, caplog):
    """Those of create_loader report to the main process, which logs."""
    for name in ("a", "b", "c"):
        save(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.png").write_bytes(b"broken" if name != "c" else png())
    dataset = ImageDataset(tmp_path)
    for index, holder in enumerate((object(), dataset)):
        monkeypatch.setattr("paddle.io.get_worker_info", lambda holder=holder: SimpleNamespace(dataset=holder))
        dataset.skip(dataset.filename(index, absolute=True), "broken")
    assert [record.getMessage().split(" cannot")[0] for record in caplog.records] == [str(tmp_path / "b.png")]
