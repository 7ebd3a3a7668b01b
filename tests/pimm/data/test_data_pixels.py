"""Pixels of every depth and number of channels: 8 bits by the format's range, and values for each channel."""

import io
import random
import struct
import zlib

import numpy as np
import paddle
import pytest
from image_files import png, red, save, write_tar
from PIL import Image

from pimm.data import (
    AugMixDataset,
    Dataset,
    ImageDataset,
    ToNumpy,
    create_loader,
    create_transform,
    dataset,
    resolve_data_config,
)
from pimm.data.arrays import Normalize
from pimm.data.augment_ops import OPS, AugmentOp
from pimm.data.auto_augment import POLICIES
from pimm.data.channels import fill_for, per_channel
from pimm.data.pixels import convert, decode, to_8_bits
from pimm.data.transforms import CenterCropOrPad, Resize, ResizeCenterCrop, ResizeKeepRatio, center_crop_or_pad
from pimm.errors import ConfigError, DataError

RNG = np.random.default_rng(0)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Every upper byte with lower bytes of all kinds; 8 bits of it are the upper ones.
WIDE = (np.arange(256)[:, None] * 256 + np.array([0, 1, 127, 128, 254, 255])).astype(np.uint16)
EIGHT = (WIDE >> 8).astype(np.uint8)


def wide_png():
    """A grey PNG file of 16 bits, made without Pillow, whose versions write different ones."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    height, width = WIDE.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in WIDE)
    start = struct.pack(">IIBBBBB", width, height, 16, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", start) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def wide_pgm(highest=65535):
    height, width = WIDE.shape
    values = np.round(WIDE / 65535 * highest).astype(">u2")
    return b"P5 %d %d %d\n" % (width, height, highest) + values.tobytes()


def tiff(pixels, order="<", bits=None):
    """A grey TIFF file of one strip; ``order`` is that of its bytes."""
    kinds = {"u": 1, "i": 2, "f": 3}
    height, width = pixels.shape
    content = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    if bits == 12:  # two pixels in three bytes
        pairs = pixels.reshape(-1, 2).astype(np.uint32)
        content = np.stack([pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], 1)
        content = content.astype(np.uint8).tobytes()
    tags = {
        256: width,
        257: height,
        258: bits or 8 * pixels.itemsize,
        259: 1,
        262: 1,
        273: 8,
        277: 1,
        278: height,
        279: len(content),
        339: kinds[pixels.dtype.kind],
    }
    folder = struct.pack(order + "H", len(tags))
    folder += b"".join(struct.pack(order + "HHII", tag, 4, 1, value) for tag, value in tags.items())
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return mark + struct.pack(order + "I", 8 + len(content)) + content + folder + bytes(4)


FILES = {
    "png": wide_png(),
    "pgm": wide_pgm(),
    "tiff little": tiff(WIDE, "<"),
    "tiff big": tiff(WIDE, ">"),
    "tiff of 12 bits": tiff(WIDE >> 4, "<", bits=12),
}


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
@pytest.mark.parametrize("content", FILES.values(), ids=FILES)
def test_grey_of_more_than_8_bits_is_scaled(content, mode):
    image = decode(io.BytesIO(content), mode=mode)
    assert image.mode == mode
    for band in image.getbands():
        np.testing.assert_array_equal(image.getchannel(band), np.full_like(EIGHT, 255) if band == "A" else EIGHT)


@pytest.mark.parametrize("highest", [1023, 4095, 40000])
def test_grey_maps_of_another_range_are_scaled(highest):
    values = np.round(WIDE / 65535 * highest) / highest * 255
    np.testing.assert_allclose(decode(io.BytesIO(wide_pgm(highest)), mode="L"), values, atol=1.01)


def test_modes_of_older_versions_of_pillow():
    """Before 10.3 a PNG file of 16 bits is of mode I."""
    for kind in ("PNG", "PPM"):
        image = Image.fromarray(WIDE.astype(np.int32))
        image.format = kind
        assert image.mode == "I"
        np.testing.assert_array_equal(convert(image, "L"), EIGHT)
    for dtype in ("<u2", ">u2"):
        np.testing.assert_array_equal(to_8_bits(Image.fromarray(WIDE.astype(dtype))), EIGHT)


NO_RANGE = {
    "32-bit": (tiff(WIDE.astype(np.uint32)), "32-bit or signed pixels"),
    "signed 32-bit": (tiff(WIDE.astype(np.int32)), "32-bit or signed pixels"),
    "signed 16-bit": (tiff((WIDE >> 1).astype(np.int16)), "32-bit or signed pixels"),
    "float": (tiff(WIDE.astype(np.float32)), "floating-point pixels"),
}


@pytest.mark.parametrize(("content", "says"), NO_RANGE.values(), ids=NO_RANGE)
def test_pixels_without_a_range_are_refused(tmp_path, content, says, caplog):
    for mode in ("RGB", "L"):
        with pytest.raises(DataError, match=f"{says}, of which nothing says which value is white; store them with 8"):
            decode(io.BytesIO(content), mode=mode)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "0.png").write_bytes(content)
    save(tmp_path / "a" / "1.png", (7, 0, 0))
    assert red(Dataset(tmp_path)[0][0]) == 7
    assert f"{tmp_path}/a/0.png cannot be read and is replaced" in caplog.text and says in caplog.text


def test_wide_modes_that_are_asked_for_are_kept():
    image = decode(io.BytesIO(tiff(WIDE.astype(np.float32))), mode="F")
    np.testing.assert_array_equal(image, WIDE.astype(np.float32))
    assert decode(io.BytesIO(tiff(WIDE.astype(np.int32))), mode="").mode == "I"


def test_arrays_of_wide_images_are_scaled_too():
    np.testing.assert_array_equal(ToNumpy()(Image.fromarray(WIDE)), EIGHT[None])
    np.testing.assert_array_equal(ToNumpy()(Image.fromarray(WIDE > 999)), (WIDE > 999)[None] * np.uint8(255))
    with pytest.raises(DataError, match="floating-point pixels"):
        ToNumpy()(Image.fromarray(WIDE.astype(np.float32)))


@pytest.mark.parametrize("is_training", [False, True])
def test_tensorflows_preprocessing_scales_too(is_training):
    transform = create_transform(32, is_training, tf_preprocessing=True, use_prefetcher=True)
    scaled = Image.fromarray(EIGHT).convert("RGB")
    results = []
    for image in (wide_png(), Image.fromarray(WIDE), scaled):
        random.seed(3)
        results.append(transform(image))
    np.testing.assert_array_equal(results[0], results[2])
    np.testing.assert_array_equal(results[1], results[2])
    assert 100 < results[0].mean() < 160  # the middle of the ramp


# Channels


def test_values_for_each_channel():
    assert per_channel((1, 2, 3), 3) == (1, 2, 3)
    assert per_channel([1, 2, 6], 1) == (3,)
    assert per_channel(0.5, 2) == (0.5, 0.5)
    grey, rgb, both = Image.new("L", (1, 1)), Image.new("RGB", (1, 1)), Image.new("LA", (1, 1))
    assert [fill_for(image, (1, 2, 6)) for image in (grey, rgb, both)] == [3, (1, 2, 6), (3, 3)]
    assert [fill_for(image, 7) for image in (grey, rgb, both)] == [7, 7, 7]


def grey_noise(width=24, height=20):
    return Image.fromarray(RNG.integers(0, 256, (height, width)).astype(np.uint8))


@pytest.mark.parametrize("name", OPS)
def test_operations_on_grey_images(name):
    """A grey image gets what an image of three equal channels gets."""
    image = grey_noise()
    results = []
    for each in (image, image.convert("RGB")):
        random.seed(1)
        np.random.seed(1)
        results.append(AugmentOp(name, 1.0, 7, {"translate_const": 9, "img_mean": (128, 128, 128)})(each))
    grey, rgb = results
    assert grey.mode == "L"
    np.testing.assert_allclose(np.asarray(grey, int), np.asarray(rgb, int)[..., 0], atol=1)


SETTINGS = [
    *({"auto_augment": name} for name in (*POLICIES, "rand-m9-inc1", "rand-m9-n4-tweights", "augmix-m5", "augmix-b1")),
    {"color_jitter": (0.4, 0.4, 0.4, 0.1)},
    {"grayscale_prob": 1.0, "gaussian_blur_prob": 1.0},
    {"train_crop_mode": "rkrr"},
    {"re_prob": 1.0, "re_mode": "pixel"},
    {"no_aug": True},
]


@pytest.mark.parametrize("use_prefetcher", [True, False])
@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_training_on_grey_images(options, use_prefetcher):
    image = grey_noise(40, 36)
    transform = create_transform((1, 32, 32), True, use_prefetcher=use_prefetcher, **options)
    random.seed(0)
    np.random.seed(0)
    for _ in range(8):
        assert list(transform(image).shape) == [1, 32, 32]


@pytest.mark.parametrize("use_prefetcher", [True, False])
@pytest.mark.parametrize("crop_mode", ["center", "border", "squash"])
def test_evaluation_of_grey_images(tmp_path, crop_mode, use_prefetcher):
    image = grey_noise(40, 20)
    (tmp_path / "a").mkdir()
    image.save(tmp_path / "a" / "0.png")
    options = {"crop_mode": crop_mode, "crop_pct": 1.0, "mean": MEAN, "std": STD, "use_prefetcher": use_prefetcher}
    images = ImageDataset(tmp_path, input_img_mode="L")
    ((batch, _),) = create_loader(images, (1, 16, 16), 1, num_workers=0, **options)
    pixels = create_transform((3, 16, 16), crop_mode=crop_mode, crop_pct=1.0, use_prefetcher=True)(image)
    assert pixels.shape == (1, 16, 16)
    np.testing.assert_allclose(batch.numpy()[0], (pixels / 255 - np.mean(MEAN)) / np.mean(STD), atol=1e-5)
    if crop_mode == "border":  # above and below, in the mean colour
        assert np.unique(pixels[0, [0, -1]]).tolist() == [round(np.mean([124, 116, 104]))]


def test_normalize_adapts_to_the_channels():
    for channels in (1, 2, 3, 4):
        images = RNG.integers(0, 256, (2, channels, 4, 5)).astype(np.uint8)
        mean, std = (MEAN, STD) if channels == 3 else ([np.mean(MEAN)] * channels, [np.mean(STD)] * channels)
        expected = (images / 255 - np.reshape(mean, (-1, 1, 1))) / np.reshape(std, (-1, 1, 1))
        normalize = Normalize(MEAN, STD)
        for result in (normalize(images), normalize(paddle.to_tensor(images)).numpy(), normalize(images)):
            assert result.shape == images.shape
            np.testing.assert_allclose(result, expected, atol=1e-5)


def test_data_settings_of_one_channel():
    config = resolve_data_config({"in_chans": 1})
    assert (config["mean"], config["std"]) == ((pytest.approx(np.mean(MEAN)),), (pytest.approx(np.mean(STD)),))


# Sizes


@pytest.mark.parametrize("size", [(1, 120), (120, 1), (1, 1), (2, 999), (3000, 2)])
def test_thin_images(size):
    """No side becomes shorter than a pixel, in any way of training and evaluation."""
    image = Image.new("RGB", size, (200, 100, 50))
    makes = [{"crop_mode": mode, "crop_pct": pct} for mode in ("center", "border", "squash") for pct in (0.875, 1.0)]
    makes += [{"is_training": True, "train_crop_mode": mode, "hflip": 0} for mode in ("rrc", "rkrc", "rkrr")]
    makes += [{"tf_preprocessing": True}, {"is_training": True, "tf_preprocessing": True}]
    makes += [{"is_training": True, "no_aug": True}, {"tta": 10}]
    random.seed(0)
    for options in makes:
        result = create_transform(16, use_prefetcher=True, color_jitter=None, **options)(image)
        assert result.shape[-3:] == (3, 16, 16)
        colors = np.moveaxis(result, -3, -1).reshape(-1, 3).astype(int)
        assert (abs(colors - (200, 100, 50)) <= 1).all(1).any(), options
    assert ResizeKeepRatio(16, longest=1.0).get_params(Image.new("L", (1, 120)), (16, 16), 1.0) == [16, 1]


SHAPES = [(500, 375), (375, 500), (300, 200), (300, 290), (200, 900), (900, 200), (333, 334), (100, 400), (260, 200)]


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("size", [(192, 256), (256, 192), (96, 96), (40, 300), 100])
def test_cropping_between_the_passes_gives_pillows_pixels(size, interpolation):
    """One resize and one crop, whatever the order of Pillow's two passes."""
    scaled = tuple(int(side / 0.875) for side in size) if isinstance(size, tuple) else 114
    for width, height in SHAPES:
        image = Image.fromarray(RNG.integers(0, 256, (height, width, 3)).astype(np.uint8))
        resize = Resize(scaled, interpolation)
        whole = image.resize(resize.target(width, height), resize.interpolation)
        expected = np.asarray(center_crop_or_pad(whole, size))
        result = ResizeCenterCrop(resize, CenterCropOrPad(size))(image)
        np.testing.assert_array_equal(np.asarray(result), expected, err_msg=f"{width}x{height}")


def test_squashing_gives_pillows_pixels():
    for width, height in SHAPES:
        image = Image.fromarray(RNG.integers(0, 256, (height, width, 3)).astype(np.uint8))
        transform = create_transform((3, 192, 256), crop_mode="squash", crop_pct=1.0, use_prefetcher=True)
        expected = np.asarray(image.resize((256, 192), Image.BILINEAR)).transpose(2, 0, 1)
        np.testing.assert_array_equal(transform(image), expected)


# A transform that fails


class Fails:
    """A transform that draws, then fails on images of one colour."""

    def __init__(self, reds, error=TypeError):
        self.reds = reds
        self.error = error

    def __call__(self, image):
        drawn = random.random(), np.random.rand()
        if red(image) in self.reds:
            raise self.error("a mistake\nof two lines" + "x" * 999)
        return np.full((3, 4, 4), red(image), np.uint8), drawn


@pytest.fixture
def folder(tmp_path):
    for number in range(6):
        save(tmp_path / "images" / "a" / f"{number}.png", (number, 0, 0))
    return tmp_path / "images"


def test_a_failing_transform_names_the_image_and_the_next_takes_its_place(folder, caplog):
    images = Dataset(folder, transform=Fails({2, 3}))
    assert [images[index][0][0][0, 0, 0] for index in range(6)] == [0, 1, 4, 4, 4, 5]
    assert len(caplog.messages) == 2
    for number, line in zip((2, 3), caplog.messages):
        assert line.startswith(f"{folder}/a/{number}.png cannot be read and is replaced by the next image: a transform")
        assert "TypeError: a mistake?of two lines" in line and len(line) < 400


def test_what_is_drawn_for_the_image_that_takes_the_place_is_always_the_same(folder):
    images = Dataset(folder, transform=Fails({2}))
    drawn = []
    for index in (2, 2, 3):  # the failure is new, is known, does not come into it
        random.seed(5)
        np.random.seed(5)
        drawn.append(images[index][0][1])
    assert drawn[0] == drawn[1] == drawn[2]


def test_failing_transforms_are_bounded(folder, monkeypatch):
    monkeypatch.setattr(dataset, "MAX_BROKEN", 3)
    with pytest.raises(
        DataError, match=r"more than 3 images cannot be read, the last is .*3\.png \(a transform failed"
    ):
        Dataset(folder, transform=Fails(set(range(6))))[0]
    with pytest.raises(ConfigError, match="a mistake"):  # no image's fault
        Dataset(folder, transform=Fails({0}, ConfigError))[0]


@pytest.mark.parametrize("workers", [0, 2])
def test_failing_stages_of_augmix_are_failing_transforms(folder, workers, caplog):
    images = AugMixDataset(Dataset(folder), num_splits=2)
    loader = create_loader(images, 4, 2, is_training=True, num_workers=workers, num_aug_splits=2)
    stages = (lambda image: image, lambda image: Fails({1})(image) and image, ToNumpy())
    images.transform = stages
    batches = [pixels.numpy() for pixels, _ in loader]
    assert [len(batch) for batch in batches] == [4, 4, 4]
    assert f"{folder}/a/1.png cannot be read and is replaced by the next image: a transform failed" in caplog.text


def test_failing_transforms_in_shards(tmp_path):
    write_tar(tmp_path / "x.tar", {f"{number}.png": png((number, 0, 0)) for number in range(3)})
    images = ImageDataset(tmp_path / "x.tar", transform=Fails({0}))
    assert images[0][0][0][0, 0, 0] == 1
