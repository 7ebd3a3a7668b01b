"""JPEGs that simplejpeg decodes and our operator scales: what Pillow gives, for whole, odd and damaged files."""

import io
import random
import sys

import numpy as np
import pytest
from PIL import Image, ImageFile

from pimm.data import Dataset, create_loader, create_transform, jpeg
from pimm.data.jpeg import DecodedJpeg, decode_for_resize, fast_decoder
from pimm.data.pixels import decode
from pimm.data.transforms_factory import resizes_first

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (45, 61, 3)).astype(np.uint8)
EXIF = Image.Exif()
EXIF[0x112] = 6  # turned by 90 degrees, which neither decoder does


@pytest.fixture(autouse=True)
def installed():
    pytest.importorskip("simplejpeg")
    if fast_decoder() is None:
        pytest.skip("Pillow decodes all images here")


def encoded(mode="RGB", size=None, **options):
    file = io.BytesIO()
    image = Image.fromarray(PIXELS).convert(mode)
    image.resize(size or image.size).save(file, "JPEG", **options)
    return file.getvalue()


FAST = {
    "4:4:4": encoded(subsampling="4:4:4"),
    "4:2:2": encoded(subsampling="4:2:2"),
    "4:2:0": encoded(subsampling="4:2:0"),
    "progressive": encoded(progressive=True),
    "progressive 4:4:4": encoded(progressive=True, subsampling="4:4:4"),
    "quality 100": encoded(quality=100),
    "quality 1": encoded(quality=1),
    "RGB in the file": encoded(keep_rgb=True),
    "restarts": encoded(restart_marker_blocks=2),
    "EXIF": encoded(exif=EXIF.tobytes(), dpi=(72, 72)),
    "a large profile": encoded(icc_profile=bytes(70_000)),
    "one pixel": encoded(size=(1, 1)),
    "thin": encoded(size=(2, 300)),
}
PILLOWS = {
    "grey": encoded("L"),
    "CMYK": encoded("CMYK"),
    "truncated": encoded()[:-500],
    "without an end": encoded()[:-2],
    "truncated, progressive": encoded(progressive=True)[:-500],
}


def outcome(read, content):
    """What a decoder makes of a file: pixels and notes, or the error."""
    try:
        image = read(io.BytesIO(content))
    except Exception as error:
        return type(error), str(error).split(" at 0x")[0]
    if isinstance(image, DecodedJpeg):
        return image.size, image.pixels[..., :3].tobytes(), image.info
    return image.size, image.tobytes(), image.info


def by(read, draft_size):
    return lambda file: read(file, draft_size)


@pytest.mark.parametrize("draft_size", [None, (30, 20), (9, 9)])
@pytest.mark.parametrize("content", FAST.values(), ids=FAST)
def test_pixels_are_pillows(content, draft_size):
    assert isinstance(decode_for_resize(io.BytesIO(content), draft_size), DecodedJpeg)
    assert outcome(by(decode_for_resize, draft_size), content) == outcome(by(decode, draft_size), content)


@pytest.mark.parametrize("content", PILLOWS.values(), ids=PILLOWS)
def test_odd_and_damaged_files_are_pillows(content, monkeypatch):
    for load_truncated in (False, True):
        monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", load_truncated)
        assert outcome(decode_for_resize, content) == outcome(decode, content)
    assert not isinstance(decode_for_resize(io.BytesIO(content)), DecodedJpeg)


def test_damaged_files_end_as_with_pillow():
    rng, ends = random.Random(0), set()
    for number in range(300):
        content = bytearray(rng.choice(list(FAST.values())[:8]))
        place = rng.randrange(len(content))
        if number % 3 == 0:
            del content[place:]
        elif number % 3 == 1:
            content[place] = rng.randrange(256)
        else:
            del content[place : place + rng.randrange(1, 9)]
        expected = outcome(decode, bytes(content))
        assert outcome(decode_for_resize, bytes(content)) == expected, (number, place)
        ends.add(expected[0] if isinstance(expected[0], type) else "decoded")
    assert "decoded" in ends and OSError in ends


def test_other_modes_and_transforms_of_others_get_pil_images(tmp_path):
    content = FAST["4:2:0"]
    for mode in ("L", "RGBA", ""):
        image, expected = decode_for_resize(io.BytesIO(content), mode=mode), decode(io.BytesIO(content), mode=mode)
        assert (image.mode, image.tobytes()) == (expected.mode, expected.tobytes())
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "0.jpg").write_bytes(content)
    assert isinstance(Dataset(tmp_path)[0][0], Image.Image)
    assert isinstance(Dataset(tmp_path, transform=lambda image: image)[0][0], Image.Image)
    others = (create_transform(16, crop_border_pixels=3), create_transform(16, tf_preprocessing=True), None)
    assert not any(map(resizes_first, others))


TRANSFORMS = {
    "evaluation": {},
    "evaluation, bicubic": {"interpolation": "bicubic", "crop_pct": 0.95},
    "a filter of Pillow's alone": {"interpolation": "lanczos"},
    "squashed": {"crop_mode": "squash"},
    "bordered": {"crop_mode": "border"},
    "larger than the image": {"input_size": 160, "crop_pct": 0.5},
    "not square": {"input_size": (24, 40)},
    "views": {"tta": 10},
    "training": {"is_training": True, "color_jitter": None, "interpolation": "random"},
    "training with a policy": {"is_training": True, "auto_augment": "rand-m9-mstd0.5"},
    "proportions nearly kept": {"is_training": True, "train_crop_mode": "rkrc"},
    "padded": {"is_training": True, "train_crop_mode": "pad"},
    "not augmented": {"is_training": True, "no_aug": True},
    "the image's own size": {"input_size": (45, 61), "crop_mode": "squash", "crop_pct": 1.0},
}


@pytest.mark.parametrize("options", TRANSFORMS.values(), ids=TRANSFORMS)
def test_transforms_give_the_same_arrays(options):
    transform = create_transform(**{"input_size": 32, **options}, use_prefetcher=True)
    assert resizes_first(transform)
    for name in ("4:2:0", "progressive", "thin", "one pixel"):
        arrays = []
        for read in (decode, decode_for_resize):
            random.seed(1)
            np.random.seed(1)
            arrays.append(transform(read(io.BytesIO(FAST[name]))))
        np.testing.assert_array_equal(*arrays, err_msg=name)


@pytest.mark.parametrize("draft", [False, True])
@pytest.mark.parametrize("is_training", [False, True])
def test_loaders_give_the_same_batches_without_simplejpeg(tmp_path, monkeypatch, is_training, draft, caplog):
    contents = {**FAST, **PILLOWS}
    for number, content in enumerate(contents.values()):
        (tmp_path / f"class{number % 2}").mkdir(exist_ok=True)
        (tmp_path / f"class{number % 2}" / f"{number:02}.jpg").write_bytes(content)
    read, logged = [], []
    for decoder in (fast_decoder(), None):
        monkeypatch.setattr(jpeg, "fast_decoder", lambda decoder=decoder: decoder)
        caplog.clear()
        loader = create_loader(Dataset(tmp_path), 24, 4, is_training=is_training, num_workers=2, draft=draft)
        read.append([(images.numpy(), labels.numpy()) for images, labels in loader])
        logged.append(sorted(message for message in caplog.messages if "cannot be read" in message))
    for (images, labels), (expected, expected_labels) in zip(*read):
        np.testing.assert_array_equal(images, expected)
        np.testing.assert_array_equal(labels, expected_labels)
    assert logged[0] == logged[1] and len(logged[0]) == 3


def test_streams_that_do_not_seek_are_read():
    class Stream(io.RawIOBase):
        def __init__(self, content):
            self.content = io.BytesIO(content)

        def readable(self):
            return True

        def readinto(self, buffer):
            return self.content.readinto(buffer)

    for name, content in {**FAST, **PILLOWS}.items():
        found = outcome(lambda file: decode_for_resize(Stream(file.getvalue())), content)
        assert found == outcome(decode, content), name
    assert isinstance(decode_for_resize(Stream(FAST["4:2:0"])), DecodedJpeg)


def test_notes_of_an_image_stay_with_it():
    image = decode_for_resize(io.BytesIO(FAST["EXIF"])).resize((20, 10), Image.BICUBIC)
    assert image.getexif()[0x112] == 6 and image.info["dpi"] == (72, 72)


def test_a_decoder_with_other_pixels_is_not_taken(monkeypatch, caplog):
    real = sys.modules["simplejpeg"]

    class Other:
        @staticmethod
        def decode_jpeg(content, colors, **options):
            return real.decode_jpeg(content, colors, **options, fastupsample=True, fastdct=True)

    monkeypatch.setitem(sys.modules, "simplejpeg", Other)
    assert fast_decoder.__wrapped__() is None
    assert caplog.messages == ["simplejpeg gives other pixels than Pillow on this machine: Pillow decodes all images"]


def test_without_simplejpeg_or_operators_pillow_decodes(monkeypatch, caplog):
    monkeypatch.setenv("PIMM_CPU_OPS", "paddle")
    assert fast_decoder.__wrapped__() is None
    monkeypatch.delenv("PIMM_CPU_OPS")
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    assert fast_decoder.__wrapped__() is None
    monkeypatch.setattr(jpeg, "fast_decoder", fast_decoder.__wrapped__)
    assert isinstance(decode_for_resize(io.BytesIO(FAST["4:2:0"])), ImageFile.ImageFile)
    assert not caplog.messages
