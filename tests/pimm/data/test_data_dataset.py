"""Reading images from folders and tar files, and what is said when that is not possible."""

import io
import os
import tarfile

import numpy as np
import pytest
from image_files import pack, save
from PIL import Image

from pimm.data import AugMixDataset, Dataset, DatasetTar
from pimm.data.dataset import MAX_BROKEN, decode
from pimm.data.readers import load_class_map
from pimm.errors import DataError

COLORS = {"class2": (250, 10, 20), "class10": (30, 200, 40), "Class1": (5, 60, 220)}


@pytest.fixture
def folder(tmp_path):
    """Three classes with files 0.png, 2.png and 10.png each; macOS litter and a note beside them."""
    root = tmp_path / "images"
    for name, color in COLORS.items():
        for number in (0, 2, 10):
            save(root / name / f"{number}.png", color)
    (root / "class2" / "._0.png").write_bytes(b"not an image")
    (root / "class2" / "notes.txt").write_text("not an image either")
    return root


def pixels(dataset):
    return [(np.asarray(image).tolist(), label) for image, label in (dataset[i] for i in range(len(dataset)))]


def test_folder(folder):
    dataset = Dataset(str(folder))
    assert dataset.class_to_idx == {"Class1": 0, "class2": 1, "class10": 2}
    assert [dataset.filename(i) for i in range(4)] == ["Class1/0.png", "Class1/2.png", "Class1/10.png", "class2/0.png"]
    assert dataset.samples[3] == (str(folder / "class2" / "0.png"), 1)
    image, label = dataset[-1]
    assert (image.getpixel((0, 0)), image.mode, image.size, label) == (COLORS["class10"], "RGB", (6, 4), 2)
    assert dataset.filenames([0, 5], basename=True) == ["0.png", "10.png"]
    assert dataset.filenames(absolute=True) == [path for path, _ in dataset.samples]


def test_names_that_differ_in_case_or_zeros_alone_have_an_order(tmp_path):
    with tarfile.open(tmp_path / "images.tar", "w") as archive:
        for name in ("a/01.png", "1/0.png", "A/0.png", "a/1.png", "01/0.png", "001/0.png"):
            archive.addfile(tarfile.TarInfo(name))
    dataset = DatasetTar(tmp_path / "images.tar")
    assert list(dataset.class_to_idx) == ["001", "01", "1", "A", "a"]
    assert dataset.filenames()[-2:] == ["a/01.png", "a/1.png"]


def test_tar_is_read_as_the_folder_is(folder, tmp_path):
    plain, packed = Dataset(folder), DatasetTar(pack(folder, tmp_path / "images.tar"))
    assert packed.class_to_idx == plain.class_to_idx
    assert packed.filenames() == plain.filenames()
    assert pixels(packed) == pixels(plain)
    assert Dataset(packed.root, load_bytes=True)[3][0] == (folder / "class2" / "0.png").read_bytes()


def test_hard_links_in_a_tar_are_the_images_that_they_link_to(folder, tmp_path):
    os.link(folder / "class10" / "0.png", folder / "class2" / "3.png")
    packed = DatasetTar(pack(folder, tmp_path / "images.tar"))
    assert packed.filenames() == Dataset(folder).filenames() and "class2/3.png" in packed.filenames()
    assert pixels(packed) == pixels(Dataset(folder))


def test_class_is_the_folder_that_holds_the_file(folder):
    save(folder / "group" / "class3" / "0.png")
    assert list(Dataset(folder).class_to_idx) == ["Class1", "class2", "class3", "class10"]


def test_linked_folders_count_and_loops_end(folder, tmp_path):
    save(tmp_path / "elsewhere" / "0.png")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "linked" / "back").symlink_to(folder)
    assert Dataset(folder).filenames()[-1] == "linked/0.png"
    assert len(Dataset(folder)) == 10


def test_images_without_class_folders_are_one_class(tmp_path):
    save(tmp_path / "a.png")
    assert list(Dataset(tmp_path).samples) == [(str(tmp_path / "a.png"), 0)]


def test_class_map(folder, tmp_path):
    (folder / "classes.txt").write_text("class10\nunused\nclass2\nClass1\n")
    assert Dataset(folder, class_map="classes.txt")[0][1] == 3
    assert load_class_map(folder / "classes.txt") == {"class10": 0, "unused": 1, "class2": 2, "Class1": 3}


def no_root(root):
    return root.with_name("imagse")


def empty_root(root):
    (root.parent / "nothing").mkdir()
    return root.parent / "nothing"


def empty_class(root):
    (root / "class4").mkdir()
    return root


def empty_class_in_tar(root):
    return pack(empty_class(root), root.parent / "images.tar")


def stray_image(root):
    save(root / "stray.jpg")
    return root


def compressed_tar(root):
    return pack(root, root.parent / "images.tar.gz", "w:gz")


def cut_tar(root):
    whole = pack(root, root.parent / "images.tar").read_bytes()
    (root.parent / "cut.tar").write_bytes(whole[: len(whole) // 3])
    return root.parent / "cut.tar"


def symbolic_link_in_tar(root):
    (root / "class2" / "3.png").symlink_to(root / "class2" / "0.png")
    return pack(root, root.parent / "images.tar")


def lost_hard_link_in_tar(root):
    member = tarfile.TarInfo("class2/3.png")
    member.type, member.linkname = tarfile.LNKTYPE, "elsewhere.png"
    with tarfile.open(pack(root, root.parent / "images.tar"), "a") as archive:
        archive.addfile(member)
    return root.parent / "images.tar"


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (no_root, r"imagse: no such folder or tar file.*did you mean images"),
        (empty_root, r"nothing: no images found; expected CLASS/NAME"),
        (empty_class, r"class4: a class folder without images"),
        (empty_class_in_tar, r"class4: a class folder without images"),
        (stray_image, r"stray\.jpg: an image beside the class folders"),
        (compressed_tar, r"images\.tar\.gz: not a whole, uncompressed tar"),
        (symbolic_link_in_tar, r"class2/3\.png is a link to .*0\.png.*tar --hard-dereference -h"),
        (lost_hard_link_in_tar, r"class2/3\.png is a link to elsewhere\.png"),
        (cut_tar, r"cut\.tar: not a whole, uncompressed tar"),
    ],
)
def test_unusable_roots_say_why(folder, damage, says):
    with pytest.raises(DataError, match=says):
        Dataset(damage(folder))


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("missing.txt", None, r"missing\.txt: no such class map"),
        ("map.csv", "class2", r"a class map is a \.txt file"),
        ("map.txt", "class2\nclass2", "class2"),
        ("map.txt", b"caf\xe9", r"map\.txt: a class map is text in UTF-8"),
        ("map.txt", "class2\nclass1\nclass10", r"Class1: this class is not in the class map .*did you mean class1"),
    ],
)
def test_unusable_class_maps_say_why(folder, name, text, says):
    if text is not None:
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=says):
        Dataset(folder, class_map=name)


def as_file(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    file.seek(0)
    return file


ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)


@pytest.mark.parametrize(
    ("image", "kind", "expected"),
    [
        (Image.fromarray(ramp), "PNG", np.stack([ramp] * 3, -1)),
        (Image.fromarray(ramp.astype(np.uint16) * 256 + 77), "PNG", np.stack([ramp] * 3, -1)),
        (Image.merge("RGBA", [Image.fromarray(ramp)] * 4), "PNG", np.stack([ramp] * 3, -1)),
        (Image.fromarray(ramp).convert("P"), "PNG", np.stack([ramp] * 3, -1)),
        (Image.fromarray(ramp > 99), "PNG", np.stack([(ramp > 99) * np.uint8(255)] * 3, -1)),
        (Image.new("CMYK", (16, 16), (255, 0, 0, 0)), "JPEG", np.full((16, 16, 3), (0, 255, 255), np.uint8)),
    ],
    ids=["gray", "16-bit", "rgba", "palette", "1-bit", "cmyk"],
)
def test_every_kind_of_image_becomes_rgb(image, kind, expected):
    decoded = decode(as_file(image, kind))
    assert decoded.mode == "RGB"
    np.testing.assert_allclose(np.asarray(decoded), expected, atol=1 if kind == "JPEG" else 0)


@pytest.mark.parametrize(("wanted", "size"), [((100, 80), (100, 80)), ((101, 80), (200, 160)), ((20, 20), (50, 40))])
def test_draft_decodes_no_smaller_than_wanted(wanted, size):
    file = as_file(Image.new("RGB", (400, 320), (50, 100, 150)), "JPEG")
    image = decode(file, draft_size=wanted)
    assert image.size == size
    np.testing.assert_allclose(image.getpixel((9, 9)), (50, 100, 150), atol=3)


def test_broken_images_are_logged_once_and_replaced(folder, caplog):
    (folder / "class2" / "0.png").write_bytes((folder / "class2" / "0.png").read_bytes()[:50])
    (folder / "class2" / "2.png").write_bytes(b"no image at all")
    dataset = Dataset(folder)
    (folder / "class10" / "10.png").unlink()
    for _ in range(2):
        assert [dataset[i][1] for i in range(9)] == [0, 0, 0, 1, 1, 1, 2, 2, 0]
    assert dataset[3][0].getpixel((0, 0)) == COLORS["class2"]
    logged = [record.getMessage() for record in caplog.records]
    assert len(logged) == 3
    for path, line in zip(("class2/0.png", "class2/2.png", "class10/10.png"), logged):
        assert str(folder / path) in line


def test_a_tar_that_shrank_is_noticed(folder, tmp_path):
    dataset = Dataset(pack(folder, tmp_path / "images.tar"))
    with open(dataset.root, "rb+") as file:
        file.truncate(1)
    with pytest.raises(DataError, match=r"not one of its 9 images can be read.*images\.tar ends inside this image"):
        dataset[0]


def test_too_many_broken_images_are_an_error(tmp_path):
    for number in range(MAX_BROKEN + 2):
        save(tmp_path / "a" / f"{number}.png")
    for number in range(MAX_BROKEN + 1):
        (tmp_path / "a" / f"{number}.png").write_bytes(b"broken")
    dataset = Dataset(tmp_path)
    with pytest.raises(DataError, match=rf"more than {MAX_BROKEN} images.* the last is .*{MAX_BROKEN}.png"):
        dataset[0]


def test_augmix_dataset_keeps_the_first_split_clean(folder):
    base = Dataset(folder, transform=(lambda image: 1, lambda value: value + 10, lambda value: value * 2))
    dataset = AugMixDataset(base, num_splits=3)
    assert (len(dataset), dataset[3]) == (9, ((2, 22, 22), 1))
    assert dataset.class_to_idx == base.class_to_idx
    with pytest.raises(DataError, match="three transforms"):
        dataset.transform = abs
