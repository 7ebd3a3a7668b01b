"""The kept index of a data set: the same as a new one, never used when stale or damaged, and never in the way."""

import multiprocessing
import os

import numpy as np
import pytest
from damage import empty, flip_a_bit
from image_files import png, save, write_tar

from pimm.data import ImageDataset, add_img_extensions, folder_index, index_cache, set_img_extensions, tar_index
from pimm.data.class_map import natural_order
from pimm.data.folder_index import index_folder
from pimm.data.index_cache import MIN_IMAGES, is_worth_keeping
from pimm.data.samples import PathTable, TextTable
from pimm.errors import DataError

KEPT = ".pimm_index.folder.npz"


@pytest.fixture(autouse=True)
def user_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PIMM_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "indexes"


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "images"
    for path in ("b/10.png", "b/9.png", "a/x/1.png", "a/x/deep/1.png", "a/é 1.png"):
        save(root / path)
    return aged(root)


@pytest.fixture
def tar(tmp_path):
    labels = {"1.png": png(), "1.cls": b"3", "0.png": png(), "0.cls": b"5"}
    return aged(write_tar(tmp_path / "images.tar", labels))


def aged(root, seconds=100):
    """Let the last change of all below be some time ago."""
    for path, _, _ in os.walk(root):
        at = os.stat(path).st_mtime - seconds
        os.utime(path, (at, at))
    if root.is_file():
        os.utime(root, (at := root.stat().st_mtime - seconds, at))
    return root


def found(root, **options):
    dataset = ImageDataset(root, **options)
    return dataset.filenames(), dataset.samples.targets.tolist(), dataset.class_to_idx


def forbidden(*args, **options):
    raise AssertionError("looked at the files although there is an index")


def forbid_looking(patch):
    patch.setattr(folder_index, "_list_tree", forbidden)
    patch.setattr(tar_index, "_scan", forbidden)


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_a_kept_index_is_the_one_that_was_made(kind, request, monkeypatch):
    root = request.getfixturevalue(kind)
    new = found(root, cache_index=False)
    assert found(root, cache_index=True) == new
    with monkeypatch.context() as patch:
        forbid_looking(patch)
        assert found(root) == new
        with pytest.raises(AssertionError):
            found(root, cache_index=False)


def test_what_a_kept_index_of_tars_holds_is_read(tar, monkeypatch):
    images = [np.asarray(image) for image, _ in ImageDataset(tar, cache_index=True)]
    assert (tar.parent / ".pimm_index.images.tar.tar.npz").is_file()
    forbid_looking(monkeypatch)
    np.testing.assert_array_equal([np.asarray(image) for image, _ in ImageDataset(tar)], images)


def test_small_trees_and_fresh_ones_are_not_littered(folder):
    index_folder(folder)
    os.utime(folder / "b")
    index_folder(folder, cache_index=True)
    assert KEPT not in os.listdir(folder)


@pytest.mark.parametrize(
    ("images", "age", "cache_index", "kept"),
    [
        (MIN_IMAGES, 3, None, True),
        (MIN_IMAGES - 1, 3, None, False),
        (MIN_IMAGES, 1, None, False),  # may change again within the same tick of the clock
        (MIN_IMAGES, -9, None, False),
        (1, 3, True, True),
        (1, 1, True, False),
        (MIN_IMAGES, 3, False, False),
    ],
)
def test_when_an_index_is_kept(images, age, cache_index, kept):
    assert is_worth_keeping(images, 1000 - age, 1000, cache_index) is kept


def new_file(root):
    save(root / "b" / "11.png")


def new_class(root):
    save(root / "c" / "1.png")


def lost_file(root):
    (root / "a" / "x" / "deep" / "1.png").unlink()
    (root / "a" / "x" / "deep").rmdir()


def renamed_file(root):
    (root / "a" / "x" / "1.png").rename(root / "a" / "x" / "2.png")


def renamed_class(root):
    (root / "b").rename(root / "d")


def moved_class(root):
    (root / "b").rename(root / "a" / "b")


def other_class_of_the_same_name(root):
    save(root.parent / "other" / "7.png")
    (root / "b").rename(root.parent / "b")
    (root.parent / "other").rename(root / "b")


def other_extensions(root):
    save(root.parent / "x.png")
    (root.parent / "x.png").rename(root / "b" / "1.webp")
    aged(root, 0)
    add_img_extensions(".webp")


@pytest.mark.parametrize(
    "change",
    [
        new_file,
        new_class,
        lost_file,
        renamed_file,
        renamed_class,
        moved_class,
        other_class_of_the_same_name,
        other_extensions,
    ],
)
def test_a_stale_index_is_noticed(folder, change):
    before = found(folder, cache_index=True)
    change(folder)
    try:
        now = found(folder)
        assert now == found(folder, cache_index=False)
        assert now != before
    finally:
        set_img_extensions((".png", ".jpg", ".jpeg"))


def test_an_index_of_another_format_is_made_anew(folder, monkeypatch):
    found(folder, cache_index=True)
    monkeypatch.setattr(index_cache, "FORMAT", index_cache.FORMAT + 1)
    forbid_looking(monkeypatch)
    with pytest.raises(AssertionError):
        found(folder)


def test_a_stale_index_of_tars_is_noticed(tar):
    found(tar, cache_index=True)
    write_tar(tar, {"1.png": png(), "1.cls": b"4", "0.png": png(), "0.cls": b"6"})  # of the same size
    assert found(tar)[1] == [6, 4]
    found(aged(tar), cache_index=True)
    write_tar(tar.parent / "more.tar", {"2.png": png(), "2.cls": b"1"})
    assert found(tar.parent, reader="tar")[1] == [6, 4, 1]
    assert found(tar)[1] == [6, 4]


def test_an_index_by_another_key_is_made_anew(tmp_path):
    files = {"1.png": png(), "1.json": b'{"a": 3, "b": 4}'}
    root = aged(write_tar(tmp_path / "images.tar", files))
    for key, target in (("a", 3), ("b", 4), ("a", 3)):
        assert found(root, target_key=key, cache_index=True)[1] == [target]


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def pickled(path):
    np.save(path.with_suffix(".npy"), np.array([{}], object), allow_pickle=True)
    path.with_suffix(".npy").rename(path)


def with_arrays(path, **changes):
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    arrays.update(changes)
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})


def outside(path, folder):
    """Let the first folder with images be another one; all arrays keep making sense."""
    with np.load(path) as file:
        folders = list(TextTable(file["folders"], file["folders_ends"]))
    folders[folders.index("b")] = folder
    table = TextTable.of(folders)
    with_arrays(path, folders=table.data, folders_ends=table.ends)


DAMAGES = {
    "cut": cut,
    "flipped": flip_a_bit,
    "emptied": empty,
    "pickled": pickled,
    "lost an array": lambda path: with_arrays(path, names=None),
    "other names": lambda path: with_arrays(path, names=np.zeros(3, np.uint8)),
    "no such folder": lambda path: with_arrays(path, folder_ids=np.full(5, 99, np.int32)),
    "fewer paths": lambda path: with_arrays(path, folder_ids=np.zeros(4, np.int32)),
    "no header": lambda path: with_arrays(path, made_from=None),
    "flat": lambda path: with_arrays(path, stamps=np.array(3)),
    "folders by fractions": lambda path: with_arrays(path, folder_ids=np.zeros(5)),
    "names in a table": lambda path: with_arrays(path, names_ends=np.zeros((5, 1), np.int64)),
    "wide letters": lambda path: with_arrays(path, names=np.zeros(30, np.int64)),
    "a path out of the root": lambda path: outside(path, "../" * 9),
    "a path from the top": lambda path: outside(path, "/etc"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_index_is_made_anew(folder, damage):
    expected = found(folder, cache_index=True)
    whole = (folder / KEPT).stat().st_size
    damage(folder / KEPT)
    assert found(folder, cache_index=True) == expected
    assert (folder / KEPT).stat().st_size == whole


def test_a_root_that_cannot_be_written_has_its_index_in_the_users_cache(folder, user_cache, monkeypatch, caplog):
    (folder / KEPT / "in the way").mkdir(parents=True)
    expected = found(folder, cache_index=True)
    assert len(list(user_cache.iterdir())) == 1
    with monkeypatch.context() as patch:
        forbid_looking(patch)
        assert found(folder) == expected
    monkeypatch.setenv("PIMM_CACHE_DIR", str(folder / "b" / "9.png"))
    with caplog.at_level("INFO"):
        assert found(folder, cache_index=True) == expected
    assert "is not kept, and will be made anew" in caplog.text


def test_many_processes_at_once(folder):
    expected = found(folder, cache_index=False)
    with multiprocessing.get_context("fork").Pool(4) as pool:
        everyone = pool.starmap(index_folder, [(folder, True)] * 12)
    assert [list(index.paths) for index in everyone] == [expected[0]] * 12
    assert [name for name in os.listdir(folder) if name.startswith(".")] == [KEPT]


TREES = [
    ["b/1.png", "a/2.png", "a/10.png"],
    ["a/x.png", "a/b/x.png", "a/a.png", "a/c.png"],  # beside a folder of images
    ["a/1.png", "A/1.png", "a/2.png", "A/2.png", "01/1.png", "1/1.png"],
    ["a/x.png", "a b/x.png", "a-b/x.png", "a1/x.png", "a12/x.png", "a2/x.png", "9/x.png", "10/x.png", "!/x.png"],
    ["n1/d/2.png", "n1/d/1.png", "n10/c/1.png", "n2/e/1.png"],
]


@pytest.mark.parametrize("paths", TREES)
def test_the_order_is_the_natural_one_of_whole_paths(tmp_path, paths):
    for path in paths:
        save(tmp_path / path)
    assert list(index_folder(tmp_path).paths) == sorted(paths, key=natural_order)


def test_linked_folders_each_count_and_loops_end(folder):
    (folder / "c").symlink_to(folder / "b")
    (folder / "a" / "x" / "up").symlink_to(folder)
    (folder / "d").symlink_to(folder / "d")  # no folder at all
    index = index_folder(folder)
    assert [path for path in index.paths if path.startswith("c/")] == ["c/9.png", "c/10.png"]
    assert (len(index.paths), index.empty) == (7, [])


def test_a_folder_that_vanishes_is_an_error(folder):
    with pytest.raises(DataError, match="gone: this folder cannot be read: No such file"):
        index_folder(folder / "gone")


def test_folders_without_images_are_named(folder):
    (folder / "c" / "d").mkdir(parents=True)
    (folder / "a" / "y").mkdir()
    for _ in range(2):
        assert index_folder(aged(folder), cache_index=True).empty == ["a/y", "c", "c/d"]
    assert (folder / KEPT).is_file()


def test_tables_are_sequences_and_small():
    texts = ["", "é", "\udce9", "a b", ""]
    table = TextTable.of(texts)
    assert (list(table), table[-2], table[np.int64(1)]) == (texts, "a b", "é")
    with pytest.raises(IndexError):
        table[5]
    paths = [f"n{number:08}/n{number:08}_{image}.JPEG" for number in range(9) for image in range(100)]
    table = PathTable.of(paths)
    assert list(table) == paths
    taken = table.names.data.nbytes + table.names.ends.nbytes + table.folder_ids.nbytes
    assert taken == sum(len(os.path.basename(path)) + 8 + 4 for path in paths)


def test_samples_are_a_list_of_paths_and_classes(folder):
    samples = ImageDataset(folder).samples
    everything = list(samples)
    assert everything[-1] == samples[-1] == (str(folder / "b" / "10.png"), 1)
    assert (samples[1:3], len(samples)) == (everything[1:3], 5)
