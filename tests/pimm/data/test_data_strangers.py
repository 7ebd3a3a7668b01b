"""Files of strangers: whatever their numbers claim, reading them ends soon, with one line or a warning."""

import io
import json
import os
import pickle
import socket
import struct
import tarfile
import time
import zipfile

import numpy as np
import pytest
from image_files import png, red, save, write_tar
from tar_headers import header, pad, pax

from pimm.data import ImageDataset, add_img_extensions, create_dataset, index_cache, set_img_extensions
from pimm.data.bounded import brief, parse_json
from pimm.data.class_map import MAX_CLASSES, load_class_map
from pimm.data.folder_index import MAX_VISITS, index_folder
from pimm.errors import ConfigError, DataError

SECONDS = 5


@pytest.fixture(autouse=True)
def soon(tmp_path, monkeypatch):
    """Every case ends soon, and leaves the user's cache and the endings as they were."""
    monkeypatch.setenv("PIMM_CACHE_DIR", str(tmp_path / "cache"))
    started = time.monotonic()
    yield
    set_img_extensions((".png", ".jpg", ".jpeg"))
    assert time.monotonic() - started < SECONDS


def refused(call, says=""):
    """The message of the DataError that ``call`` ends in: one line of less than 400 characters."""
    with pytest.raises(DataError, match=says) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message and len(message) < 400
    return message


IMAGE = header(size=len(png())) + pad(png())
END = bytes(1024)

TARS = {
    "negative size": header(size=-512),
    "large negative size": header(size=-(2**80)),
    "size past the end": header(size=2**40),
    "size past 64 bits": header(size=2**70),
    "negative size of a folder": header("a", size=-512, kind=tarfile.DIRTYPE),
    "negative size of an unknown kind": header(size=-1024, kind=b"Z"),
    "size of a long name": header(size=2**40, kind=tarfile.GNUTYPE_LONGNAME),
    "negative size of a long name": header(size=-512, kind=tarfile.GNUTYPE_LONGNAME),
    "size of an extended header": header(size=2**34, kind=tarfile.XHDTYPE),
    "negative size of an extended header": header(size=-(2**20), kind=tarfile.XHDTYPE),
    "size of a global header": header(size=2**34, kind=tarfile.XGLTYPE),
    "negative size in an extended header": pax({"size": b"-512"}, IMAGE),
    "very negative size in an extended header": pax({"size": b"-1000000"}, IMAGE),
    "large size in an extended header": pax({"size": b"1" + b"0" * 30}, IMAGE),
    "size of 5,000 digits in an extended header": pax({"size": b"9" * 5000}, IMAGE),
    "long names without an end": header(kind=tarfile.GNUTYPE_LONGNAME) * 3000,
    "extended headers without an end": pax({"a": b"b"}) * 3000,
    "a sparse file": pax({"GNU.sparse.map": b"0,9", "GNU.sparse.size": b"-9", "GNU.sparse.major": b"0"}, IMAGE),
    "a sparse file of many parts": pax(
        {"GNU.sparse.major": b"1", "GNU.sparse.minor": b"0"}, header(size=512) + pad(b"9" * 99)
    ),
    "an old sparse file": header(size=-512, kind=tarfile.GNUTYPE_SPARSE),
    "a damaged header": IMAGE + b"\xff" * 512 + IMAGE,
    "a wrong checksum": IMAGE + header()[:-1] + b"\1" + IMAGE,
    "a header that is cut": IMAGE + header()[:200],
}


@pytest.mark.parametrize("before", [b"", IMAGE], ids=["first", "second"])
@pytest.mark.parametrize("content", TARS.values(), ids=TARS)
def test_impossible_tars_are_refused(tmp_path, content, before):
    (tmp_path / "x.tar").write_bytes(before + content + END)
    refused(lambda: ImageDataset(tmp_path / "x.tar"), r"x\.tar: not a whole, uncompressed tar file \(.+\)")


@pytest.mark.parametrize("content", [TARS["negative size"], TARS["negative size in an extended header"]])
def test_impossible_tars_inside_tars_and_shards_are_refused(tmp_path, content):
    write_tar(tmp_path / "x.tar", {"inner.tar": IMAGE + content + END})
    refused(lambda: ImageDataset(tmp_path / "x.tar"), r"x\.tar: not a whole")
    refused(lambda: create_dataset("wds", tmp_path, search_split=False), r"x\.tar: not a whole")


def test_a_tar_without_the_zeros_at_its_end_is_whole(tmp_path):
    (tmp_path / "x.tar").write_bytes(IMAGE + header("b/2.png", len(png((7, 0, 0)))) + pad(png((7, 0, 0))))
    dataset = ImageDataset(tmp_path / "x.tar")
    assert [(red(image), target) for image, target in dataset] == [(9, 0), (7, 1)]


def test_archives_of_paddles_own_data_sets(tmp_path):
    for name in ("cifar-10-python.tar.gz", "102flowers.tgz"):
        (tmp_path / name).write_bytes(IMAGE + header(size=-512) + END)
    for name in ("imagelabels.mat", "setid.mat"):
        (tmp_path / name).write_bytes(b"")
    for name in ("cifar10", "flowers"):
        says = f"paddle/{name}: cannot read .*: ReadError: a/1.png claims a size of -512 bytes"
        refused(lambda name=name: create_dataset(f"paddle/{name}", tmp_path, "train"), says)


def nested(depth):
    content = png()
    name = "a/1.png"
    for _ in range(depth):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w") as archive:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        content, name = file.getvalue(), "b.tar"
    return content


def test_tars_in_tars(tmp_path):
    (tmp_path / "x.tar").write_bytes(nested(8))
    assert ImageDataset(tmp_path / "x.tar").filenames() == ["b/" * 7 + "a/1.png"]
    (tmp_path / "x.tar").write_bytes(nested(400))
    refused(lambda: ImageDataset(tmp_path / "x.tar"), r"x\.tar: more than 8 tar files inside each other")


@pytest.mark.parametrize(
    ("name", "path"),
    [("/b/1.png", "b/1.png"), ("./b//1.png", "b/1.png"), ("a/../b/1.png", "b/1.png"), ("//b/1.png", "b/1.png")],
)
def test_names_in_tars_stay_inside(tmp_path, name, path):
    write_tar(tmp_path / "x.tar", {"a/1.png": png(), name: png()})
    dataset = ImageDataset(tmp_path / "x.tar")
    assert (dataset.filenames(), dataset.class_to_idx) == (["a/1.png", path], {"a": 0, "b": 1})


@pytest.mark.parametrize("name", ["../../b/1.png", "../1.png", "a/../../b/1.png", "..", "../b.tar"])
def test_a_class_that_leads_out_of_a_tar_does_not_vanish(tmp_path, name):
    write_tar(tmp_path / "x.tar", {"a/1.png": png(), name: png()})
    refused(lambda: ImageDataset(tmp_path / "x.tar"), r"x\.tar: .* leads out of the tar file; pack the folder")


BRACKETS = b"[" * 100_000
MAPS = {
    "json brackets": ("map.json", BRACKETS, "its lists are nested too deep"),
    "json braces": ("map.json", b'{"a":' * 100_000, "its lists are nested too deep"),
    "json digits": ("map.json", b'{"a": ' + b"9" * 5000 + b"}", "map.json"),
    "json twice": ("map.json", b'{"a": 0, "a": 1}', "a is named twice"),
    "json float": ("map.json", b'{"a": 1.0}', r"class a has index 1\.0"),
    "json infinite": ("map.json", b'{"a": Infinity}', "class a has index inf"),
    "json long name": ("map.json", json.dumps({"a" * 9999: -1}).encode(), r"class a{57}\.\.\. has index -1"),
    "json list of lists": ("map.json", b'[["a"]]', "a class map holds class names"),
    "json large": ("map.json", b'{"a": 1099511627776}', r"class a has index 1099511627776; .* from 0 to 9999999"),
    "json wide": ("map.json", f'{{"a": {2**64 + 1}}}'.encode(), "class a has index 18446744073709551617"),
    "json empty": ("map.json", b"[]", "and at least one"),
    "pickle memo": ("map.pkl", b"\x80\x02}r\xff\xff\xff\x0f.", "a class map holds class names"),
    "pickle length": ("map.pkl", b"\x80\x04\x8e" + struct.pack("<Q", 2**33) + b".", "this class map is damaged"),
    "pickle code": ("map.pkl", b"cos\nsystem\n(S'true'\ntR.", "this class map is damaged"),
    "pickle large": ("map.pkl", pickle.dumps({"a": 2**40}), "class a has index 1099511627776"),
    "pickle wide": ("map.pkl", pickle.dumps({"a": 10**70}), "class a has index a number of 233 bits"),
    "pickle keys": ("map.pkl", pickle.dumps({("a", 1): 0}), r"map\.pkl"),
    "pickle twice": ("map.pkl", pickle.dumps({"1": 0, 1: 1}), "a class is named twice: 1"),
    "pickle list": ("map.pkl", pickle.dumps([["a"]]), "a class map holds class names"),
    "text twice": ("map.txt", b"a\nb\na\n", "a class is named twice: a"),
    "text zeros": ("map.txt", bytes(999), r"map\.txt|images"),
}


@pytest.mark.parametrize(("name", "content", "says"), MAPS.values(), ids=MAPS)
def test_impossible_class_maps_are_refused(tmp_path, name, content, says):
    save(tmp_path / "images" / "a" / "1.png")
    (tmp_path / name).write_bytes(content)
    refused(lambda: ImageDataset(tmp_path / "images", class_map=tmp_path / name), says)


def test_a_class_map_in_pickle_holds_numbers_of_any_size_of_integer(tmp_path):
    (tmp_path / "map.pkl").write_bytes(pickle.dumps({"a": 300, "b": MAX_CLASSES - 1}, protocol=2))
    assert load_class_map("map.pkl", tmp_path) == {"a": 300, "b": MAX_CLASSES - 1}


WIDE_LABELS = [
    str(2**32 + 1),
    str(2**40),
    str(2**63),
    str(2**64 + 1),
    "9" * 5000,
    str(MAX_CLASSES),
    "0" * 5000 + "9" * 11,
]


@pytest.mark.parametrize("label", WIDE_LABELS, ids=lambda label: label[:20])
def test_labels_beyond_any_class_are_refused(tmp_path, label):
    says = "too large for a class index, which is at most 9999999"
    write_tar(tmp_path / "x.tar", {"1.png": png(), "1.cls": label.encode()})
    refused(lambda: ImageDataset(tmp_path / "x.tar"), says)
    write_tar(tmp_path / "y.tar", {"1.png": png(), "1.json": b'{"k": "%s"}' % label.encode()})
    refused(lambda: ImageDataset(tmp_path / "y.tar", target_key="k"), says)
    save(tmp_path / "1.png")
    (tmp_path / "list.txt").write_text(f"1.png 0\n1.png {label}\n")
    refused(lambda: ImageDataset(tmp_path / "list.txt"), rf"list\.txt:2: .*{says}")
    if len(label) < 20:
        refused(lambda: load_class_map({"a": int(label)}), "class a has index")


def test_the_largest_label_is_kept(tmp_path):
    write_tar(tmp_path / "x.tar", {"1.png": png(), "1.cls": b"0009999999"})
    assert ImageDataset(tmp_path / "x.tar")[0][1] == 9_999_999


JSONS = {
    "brackets": (BRACKETS, "no class can be read from it: its lists are nested too deep"),
    "digits": (b'{"k": ' + b"9" * 5000 + b"}", "class"),
    "no json": (b"\xff\xfe", "no class can be read from it"),
    "a list": (b"[1]", "has no class beside it"),
    "an object": (b'{"k": {"a": 1}}', "is no class index, 0 or more"),
    "a long text": (b'{"k": "' + b"x" * 9999 + b'"}', "is no class index, 0 or more"),
}


@pytest.mark.parametrize(("content", "says"), JSONS.values(), ids=JSONS)
def test_impossible_labels_in_json_are_refused(tmp_path, content, says):
    write_tar(tmp_path / "x.tar", {"1.png": png(), "1.json": content})
    refused(lambda: ImageDataset(tmp_path / "x.tar", target_key="k"), says)


@pytest.mark.parametrize("class_map", [None, {"cat": 0}])
def test_long_labels_are_named_in_one_line(tmp_path, class_map):
    for label in ("x" * 9999, "9" * 9999, "é" * 5000):
        (tmp_path / "list.txt").write_text(f"1.png\t{label}\n")
        refused(lambda: ImageDataset(tmp_path / "list.txt", class_map=class_map), r"list\.txt:1: ")
        write_tar(tmp_path / "x.tar", {"1.png": png(), "1.cls": label.encode()})
        refused(lambda: ImageDataset(tmp_path / "x.tar", class_map=class_map), r"x\.tar: ")
    (tmp_path / "list.txt").write_text("x" * 9999)
    refused(lambda: ImageDataset(tmp_path / "list.txt"), r"list\.txt:1: .* is not 'path label'")


def test_descriptions_of_shards_are_bounded(tmp_path):
    write_tar(tmp_path / "x.tar", {"1.png": png(), "1.cls": b"0"})
    names = [b'"x.tar"', b"[1]", b'["\\u0000"]', b"{}"]
    for content in (BRACKETS, *(b'{"splits": {"train": {"filenames": %s}}}' % text for text in names)):
        (tmp_path / "info.json").write_bytes(content)
        refused(lambda: ImageDataset(tmp_path, "tar", split="train"), r"info\.json: not the description")
    (tmp_path / "info.json").unlink()
    many = "x-{0..99999999999}.tar"
    refused(lambda: ImageDataset(tmp_path, "tar", split=many), "spells out more than 1000000 tar files")


def test_what_is_no_regular_file_is_passed_over(tmp_path, caplog):
    save(tmp_path / "a" / "1.png")
    os.mkfifo(tmp_path / "a" / "9.jpg")
    (tmp_path / "a" / "zero.png").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "a" / "s.png"))
        dataset = ImageDataset(tmp_path)
    assert dataset.filenames() == ["a/1.png"]
    for name in ("9.jpg", "zero.png", "s.png"):
        assert f"{tmp_path}/a/{name} is no regular file and is passed over" in caplog.text


def test_a_listed_fifo_is_an_image_that_cannot_be_read(tmp_path, caplog):
    save(tmp_path / "1.png", (5, 0, 0))
    os.mkfifo(tmp_path / "9.png")
    (tmp_path / "list.txt").write_text("9.png 0\n1.png 1\n")
    image, target = ImageDataset(tmp_path / "list.txt")[0]
    assert (red(image), target) == (5, 1)
    assert "9.png is no regular file" in caplog.text


def test_links_that_double_end(tmp_path):
    """Forty folders, each with two links to the next, are 2**40 paths."""
    for level in range(40):
        (tmp_path / f"far-{level}").mkdir()
        for name in ("x", "y"):
            (tmp_path / f"far-{level}" / name).symlink_to(tmp_path / f"far-{level + 1}")
    save(tmp_path / "far-40" / "1.png")
    (tmp_path / "images").symlink_to(tmp_path / "far-0")
    refused(lambda: index_folder(tmp_path / "images"), rf"links lead to this folder by more than {MAX_VISITS} paths")


def test_folders_that_all_link_to_each_other_end(tmp_path):
    for name in range(12):
        save(tmp_path / str(name) / "1.png")
        for other in range(12):
            (tmp_path / str(name) / f"to-{other}").symlink_to(tmp_path / str(other))
    refused(lambda: index_folder(tmp_path), f"more than {MAX_VISITS} paths")


def kept_index(tmp_path):
    for number in range(3):
        save(tmp_path / "images" / "a" / f"{number}.png")
    for path in (tmp_path / "images", tmp_path / "images" / "a"):
        os.utime(path, (1e9, 1e9))
    ImageDataset(tmp_path / "images", cache_index=True)
    return tmp_path / "images" / ".pimm_index.folder.npz"


def packed(path):
    """Zeros deflated to a thousandth, as 6 GiB would be to 6 MiB."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("names.npy", npy((16 << 20,)) + bytes(16 << 20))


def overlapping(path):
    """Many names for the same bytes."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("names.npy", npy((1 << 20,)) + bytes(1 << 20))
        archive.filelist += [archive.filelist[0]] * 500


def claiming(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("names.npy", npy((2**40,)) + bytes(99))


def npy(shape):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return file.getvalue()


def fifo(path):
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("damage", [packed, overlapping, claiming])
def test_a_kept_index_that_unpacks_to_gigabytes_is_made_anew(tmp_path, damage, monkeypatch, caplog):
    path = kept_index(tmp_path)
    damage(path)
    loaded = []
    monkeypatch.setattr(index_cache.np, "load", lambda *args, **options: loaded.append(1))
    assert ImageDataset(tmp_path / "images").filenames() == ["a/0.png", "a/1.png", "a/2.png"]
    assert not loaded  # not before the sizes are known
    assert f"{path} is damaged and will be made anew: " in caplog.text


def test_a_kept_index_that_is_no_file_is_left_alone(tmp_path):
    fifo(kept_index(tmp_path))
    assert len(ImageDataset(tmp_path / "images", cache_index=True)) == 3


SPANS = {
    "negative size": lambda arrays: arrays["spans"].__setitem__((0, 1), -1),
    "past the end": lambda arrays: arrays["spans"].__setitem__((0, 1), 2**62),
    "far start": lambda arrays: arrays["spans"].__setitem__((0, 0), 2**62),
    "no such file": lambda arrays: arrays["file_ids"].__setitem__(0, 7),
    "an order that is none": lambda arrays: arrays["natural"].__setitem__(0, 0),
    "no such label": lambda arrays: arrays["label_ids"].__setitem__(0, 99),
    "no such shard": lambda arrays: arrays["shard_ends"].__setitem__(0, 99),
}


@pytest.mark.parametrize("damage", SPANS.values(), ids=SPANS)
def test_a_kept_index_that_points_outside_its_tar_is_made_anew(tmp_path, damage, caplog):
    root = write_tar(tmp_path / "x.tar", {"1.png": png(), "1.cls": b"4", "0.png": png((7, 0, 0)), "0.cls": b"6"})
    os.utime(root, (1e9, 1e9))
    ImageDataset(root, cache_index=True)
    path = tmp_path / ".pimm_index.x.tar.tar.npz"
    with np.load(path) as file:
        arrays = {name: file[name].copy() for name in file.files}
    damage(arrays)
    np.savez(path, **arrays)
    dataset = ImageDataset(root)
    assert [(red(image), target) for image, target in dataset] == [(7, 6), (9, 4)]
    assert f"{path} is damaged and will be made anew" in caplog.text


@pytest.mark.parametrize("form", ["folder", "tar"])
def test_images_with_other_endings_are_counted(tmp_path, form, caplog):
    names = [
        "a/1.png",
        "a/2.TIF",
        "a/3.tif",
        "a/4.gif",
        "b/1.png",
        "b/5.webp",
        "b/notes.txt",
        "b/Thumbs.db",
        "b/.x.gif",
    ]
    if form == "folder":
        root = tmp_path / "images"
        for name in names:
            save(root / name)
    else:
        root = write_tar(tmp_path / "images.tar", {name: png() for name in names})
    for _ in range(2):  # the second time from the kept index
        os.utime(root, (1e9, 1e9))
        for folder in ("a", "b") if form == "folder" else ():
            os.utime(root / folder, (1e9, 1e9))
        caplog.clear()
        assert ImageDataset(root, cache_index=True).filenames() == ["a/1.png", "b/1.png"]
        assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
            f"{root}: 4 images are left out for their endings: 2 .tif, 1 .gif, 1 .webp; "
            "add_img_extensions takes .gif .tif .webp too (--img-extensions, DATASET.IMG_EXTENSIONS)"
        ]
    add_img_extensions((".tif", ".gif", ".webp"))
    caplog.clear()
    assert len(ImageDataset(root)) == 6
    assert "left out" not in caplog.text


def test_a_class_whose_images_have_other_endings_says_so(tmp_path):
    save(tmp_path / "a" / "1.png")
    save(tmp_path / "b" / "1.tiff")
    refused(lambda: ImageDataset(tmp_path), r"b: a class folder without images; .*left out for their endings: 1 \.tiff")


def test_short_texts_of_long_values():
    assert brief("a\nb\x07") == "a?b?"
    assert brief("x" * 99) == "x" * 57 + "..."
    assert (brief(-12), brief(10**70)) == ("-12", "a number of 233 bits")
    with pytest.raises(ValueError, match="nested too deep"):
        parse_json(BRACKETS)
    assert parse_json('{"a": 1, "a": 2}') == {"a": 2}
    with pytest.raises(ConfigError):
        set_img_extensions(())
