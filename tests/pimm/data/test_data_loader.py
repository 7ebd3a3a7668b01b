"""The loader: order, shares of ranks, random streams, resuming, workers that fail."""

import itertools
import os
import random
import signal
import subprocess
import sys
from multiprocessing import active_children

import numpy as np
import paddle
import pytest
from PIL import Image

from pimm.data import (
    AugMixDataset,
    Dataset,
    FastCollateMixup,
    ImageDataset,
    Mixup,
    create_loader,
    create_transform,
)
from pimm.data.device import to_device
from pimm.data.loader import default_collate, fast_collate
from pimm.data.samplers import BatchPlan
from pimm.data.transforms import Normalize
from pimm.data.tta import reduce_tta
from pimm.errors import ConfigError, DataError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TRAIN = {
    "is_training": True,
    "auto_augment": "rand-m9-mstd0.5",
    "interpolation": "random",
    "re_prob": 0.5,
    "re_mode": "pixel",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """22 JPEGs of noise in 2 classes."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (root / name).mkdir()
        for number in range(11):
            pixels = rng.integers(0, 256, (20, 24, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.jpg")
    return root


def loader_of(folder, batch_size=4, **options):
    return create_loader(Dataset(folder), (3, 16, 16), batch_size, **options)


def batches_of(loader):
    return [(images.numpy(), labels.numpy()) for images, labels in loader]


def assert_same(left, right):
    assert len(left) == len(right)
    for (left_images, left_labels), (right_images, right_labels) in zip(left, right):
        np.testing.assert_array_equal(left_images, right_images)
        np.testing.assert_array_equal(left_labels, right_labels)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("use_prefetcher", [True, False])
def test_evaluation_gives_every_image_once_in_order(folder, workers, use_prefetcher):
    loader = loader_of(folder, 8, num_workers=workers, use_prefetcher=use_prefetcher)
    batches = batches_of(loader)
    assert [len(labels) for _, labels in batches] == [8, 8, 6]
    assert len(loader) == 3
    images, labels = (np.concatenate(parts) for parts in zip(*batches))
    assert (images.dtype, labels.dtype) == (np.float32, np.int64)
    np.testing.assert_array_equal(labels, [0] * 11 + [1] * 11)
    resized = Dataset(folder)[13][0].resize((21, 18), Image.BILINEAR).crop((2, 1, 18, 17))
    expected = Normalize(MEAN, STD)(np.asarray(resized).transpose(2, 0, 1))
    np.testing.assert_allclose(images[13], expected, atol=1e-6)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("use_prefetcher", [True, False])
def test_resuming_inside_an_epoch_equals_the_uninterrupted_one(folder, workers, use_prefetcher):
    options = {**TRAIN, "use_prefetcher": use_prefetcher, "seed": 3}
    loader = loader_of(folder, **options, num_workers=0)
    loader.set_epoch(5)
    whole, following = batches_of(loader), batches_of(loader)
    loader = loader_of(folder, **options, num_workers=workers)
    loader.set_epoch(5, start_batch=2)
    assert len(loader) == 5
    assert_same(batches_of(loader), whole[2:])
    assert_same(batches_of(loader), following)


def test_skipped_batches_are_not_read(folder):
    loader = loader_of(folder, **TRAIN, num_workers=0)
    read = []
    loader.dataset.reader.open = lambda index, open=loader.dataset.reader.open: read.append(index) or open(index)
    loader.set_epoch(1, start_batch=4)
    list(loader)
    assert len(read) == 4


def test_epochs_and_seeds_differ_and_the_global_streams_do_not_move(folder):
    random.seed(1)
    np.random.seed(1)
    loader = loader_of(folder, **TRAIN, num_workers=0)
    first, second = batches_of(loader), batches_of(loader)
    other = batches_of(loader_of(folder, **TRAIN, num_workers=0, seed=1))
    drawn = random.random(), np.random.rand()
    assert not np.array_equal(first[0][0], second[0][0])
    assert not np.array_equal(first[0][0], other[0][0])
    assert drawn == (random.Random(1).random(), np.random.RandomState(1).rand())
    loader.sampler.set_epoch(0)  # as timm's scripts do
    assert_same(batches_of(loader), first)


def test_what_is_drawn_depends_on_the_image_not_on_its_batch(folder):
    """Without operations on batches, an image looks the same on any number of ranks and in any batch."""
    loaders = [loader_of(folder, size, **{**TRAIN, "re_prob": 0}, num_workers=0) for size in (22, 5)]
    (all_images, _), *_ = batches_of(loaders[0])
    parts = np.concatenate([images for images, _ in batches_of(loaders[1])])
    np.testing.assert_array_equal(parts, all_images[:20])


def test_a_rank_without_images_evaluates_nothing(folder):
    for workers in (0, 1):
        loader = loader_of(folder, num_workers=workers)
        loader.loader.sampler = BatchPlan(2, 4, False, rank=2, world=3)
        assert (len(loader), list(loader)) == (0, [])


def test_start_batch_must_exist(folder):
    with pytest.raises(DataError, match=r"start_batch 6 is not within an epoch of 5 batches"):
        loader_of(folder, is_training=True).set_epoch(0, start_batch=6)


def test_collate_takes_splits_apart():
    images = [tuple(np.full((1, 2, 2), 10 * split + number, np.uint8) for split in range(3)) for number in range(2)]
    batch, labels = fast_collate([(images[0], 7), (images[1], 8)])
    assert batch[:, 0, 0, 0].tolist() == [0, 1, 10, 11, 20, 21]
    assert (labels.tolist(), labels.dtype) == ([7, 8] * 3, np.int64)
    stacked, soft = default_collate([(paddle.ones([2]), 0.5), (np.zeros(2), 0.25)])
    assert (stacked.tolist(), soft.tolist()) == ([[1, 1], [0, 0]], [0.5, 0.25])


def test_augmented_splits_and_mixup(folder):
    dataset = AugMixDataset(Dataset(folder), num_splits=2)
    options = {"num_aug_splits": 2, "re_prob": 1.0, "re_split": True}
    loader = create_loader(dataset, 16, 4, is_training=True, num_workers=0, **options)
    images, labels = next(iter(loader))
    assert images.shape == [8, 3, 16, 16]
    assert labels[:4].tolist() == labels[4:].tolist()
    erased = (images.numpy() == 0).all(1).any((1, 2))
    assert not erased[:4].any() and erased[4:].all()
    collate = FastCollateMixup(mixup_alpha=1.0, num_classes=2, label_smoothing=0.0)
    loader = loader_of(folder, is_training=True, collate_fn=collate, num_workers=2)
    soft = np.stack([labels.numpy() for _, labels in loader])
    assert soft.shape == (5, 4, 2)
    np.testing.assert_allclose(soft.sum(-1), 1, atol=1e-6)
    assert 0.1 < soft[(soft > 0) & (soft < 1)].mean() < 0.9
    assert loader.mixup_enabled is True
    loader.mixup_enabled = False
    assert set(next(iter(loader))[1].numpy().ravel()) == {0.0, 1.0}


@pytest.fixture
def sent(monkeypatch):
    """As if there were a GPU, whose tensors lie on the CPU: (device, blocking) of each copy to it."""
    copies = []

    def to(self, *, device, blocking):
        copies.append((device, blocking))
        return self

    monkeypatch.setattr(paddle, "get_device", lambda: "gpu:0")
    monkeypatch.setattr(paddle, "CUDAPinnedPlace", paddle.CPUPlace)
    monkeypatch.setattr(paddle.Tensor, "to", to)
    return copies


def test_finishing_on_the_device_equals_finishing_in_the_workers(folder, sent, monkeypatch):
    loader = loader_of(folder, **TRAIN, num_workers=0)
    on_device = batches_of(loader)
    assert sent == 2 * len(loader) * [("gpu:0", False)]  # images and labels
    loader.set_epoch(0)
    monkeypatch.undo()
    in_worker = batches_of(loader)
    for (left, _), (right, _) in zip(in_worker, on_device):
        np.testing.assert_allclose(left, right, atol=1e-6)


def test_no_copy_waits_for_the_device(folder, sent):
    (images, labels), *others = loader_of(folder, use_prefetcher=False, num_workers=0)
    assert images.shape == [4, 3, 16, 16] and labels.tolist() == [0, 0, 0, 0]
    assert sent == 2 * (1 + len(others)) * [("gpu:0", False)]
    assert to_device(images) is images  # wherever it is
    for place in ("gpu:1", "cpu", paddle.CPUPlace()):
        assert to_device(np.arange(3), place).tolist() == [0, 1, 2]
    assert sent[12:] == [("gpu:1", False)]


def test_mixing_on_the_device_does_not_wait_for_it(sent, monkeypatch):
    monkeypatch.setattr("pimm.data.mixup.to_device", lambda values, place: to_device(values, "gpu:0"))
    Mixup(num_classes=2)(paddle.ones([4, 3, 8, 8]), paddle.to_tensor([0, 1, 0, 1]))
    assert sent == 4 * [("gpu:0", False)]


def test_draft_decoding(tmp_path):
    (tmp_path / "a").mkdir()
    Image.fromarray(np.zeros((128, 160, 3), np.uint8)).save(tmp_path / "a" / "0.jpg")
    loader = loader_of(tmp_path, draft=True, num_workers=0)
    loader.dataset.transform = lambda image: np.array(image.size, np.uint8).reshape(1, 1, 2)
    assert next(iter(loader.loader))[0].numpy().ravel().tolist() == [40, 32]  # 20x16 would be short of 18
    with pytest.raises(ConfigError, match=r"draft decoding needs images that pimm\.data decodes; list"):
        create_loader(type("list", (), {"transform": None})(), 16, 4, draft=True)


@pytest.mark.parametrize("workers", [0, 2])
def test_broken_images_are_replaced_and_reported_by_the_main_process(folder, tmp_path, workers, caplog):
    for path in folder.rglob("*.jpg"):
        target = tmp_path / path.relative_to(folder)
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(path.read_bytes()[: 300 if path.name == "4.jpg" else None])
    loader = loader_of(tmp_path, num_workers=workers)
    expected = np.concatenate([images for images, _ in batches_of(loader_of(folder, num_workers=0))])
    for _ in range(2):
        images = np.concatenate([images for images, _ in batches_of(loader)])
        np.testing.assert_array_equal(images[4], expected[5])
        np.testing.assert_array_equal(images[15], expected[16])
    messages = [record.getMessage() for record in caplog.records if "cannot be read" in record.getMessage()]
    assert sorted(message.split(" ")[0] for message in messages) == [
        str(tmp_path / "a" / "4.jpg"),
        str(tmp_path / "b" / "4.jpg"),
    ]


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_data_ends_in_one_clear_error(tmp_path, workers):
    (tmp_path / "a").mkdir()
    for number in range(9):
        (tmp_path / "a" / f"{number}.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"not one of its 9 images can be read, starting with .*\.jpg"):
        list(loader_of(tmp_path, num_workers=workers))


def fail(image):
    raise TypeError("a mistake in a transform")


def die(image):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("transform", "says"),
    [
        (
            fail,
            r"not one of its 22 images can be read, starting with .*a/0\.jpg \(a transform failed: TypeError: a mist",
        ),
        (die, "a data-loading worker ended unexpectedly"),
    ],
)
def test_failing_workers_end_in_an_error(folder, transform, says):
    loader = loader_of(folder, num_workers=2)
    loader.dataset.transform = transform
    with pytest.raises(DataError, match=says):
        list(loader)


def test_a_failing_collate_function_ends_in_an_error(folder):
    loader = loader_of(folder, num_workers=2, collate_fn=fail)
    says = "a target transform or collate function failed in a data worker: TypeError: a mistake in a transform"
    with pytest.raises(DataError, match=says) as caught:
        list(loader)
    assert "in fail" in str(caught.value.__cause__)  # the traceback of the worker


def test_leaving_a_pass_early_is_harmless(folder):
    loader = loader_of(folder, num_workers=2)
    for _ in loader:
        break
    assert len(list(loader)) == 6


@pytest.mark.parametrize("options", [{"persistent_workers": True}, {"use_multi_epochs_loader": True}])
def test_kept_workers_give_the_same_batches(folder, options):
    """Through epochs in order, a jump, a pass left early, and mixup switched off."""
    collate = FastCollateMixup(num_classes=2, label_smoothing=0.0)
    settings = {"is_training": True, "re_prob": 0.5, "collate_fn": collate}
    fresh, kept = loader_of(folder, **settings, num_workers=0), loader_of(folder, **settings, **options, num_workers=2)
    assert_same(batches_of(kept), batches_of(fresh))
    workers = set(active_children())
    assert len(workers) == 2
    assert_same(batches_of(kept), batches_of(fresh))
    assert set(active_children()) == workers
    for loader in (fresh, kept):
        loader.set_epoch(7, start_batch=2)
    assert_same(batches_of(kept), batches_of(fresh))
    for _ in kept:
        break
    kept.set_epoch(3)
    fresh.set_epoch(3)
    assert_same(batches_of(kept), batches_of(fresh))
    kept.mixup_enabled = fresh.mixup_enabled = False
    assert_same(batches_of(kept), batches_of(fresh))
    kept.dataset.transform = fresh.dataset.transform = create_transform(16, use_prefetcher=True)
    assert_same(batches_of(kept), batches_of(fresh))
    workers = set(active_children())
    del kept, loader
    assert len(workers) == 2 and not set(active_children()) & workers


def test_workers_that_are_left_end_at_once(folder):
    loader = loader_of(folder, num_workers=2)
    batches = iter(loader)
    next(batches)
    assert len(active_children()) == 2
    del batches
    assert active_children() == []


def test_a_program_that_leaves_a_pass_early_ends_quietly(folder):
    program = (
        "from itertools import islice; from pimm.data import Dataset, create_loader\n"
        f"loader = create_loader(Dataset({str(folder)!r}), 16, 4, num_workers=2, persistent_workers=True)\n"
        "list(loader); kept = iter(loader); print(len(list(islice(loader, 1))), len(next(kept)[1]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.split()) == (0, ["1", "4"])
    assert "DataLoader" not in done.stderr and "Error" not in done.stderr


@pytest.mark.parametrize("keeping", ["kept = iter(loader); next(kept)", "list(loader)"])
def test_workers_that_are_alive_at_the_programs_end_hold_nothing_up(folder, keeping):
    """Whatever else has asked to be called at the end, before the workers or after them."""
    program = (
        "import tempfile; folder = tempfile.TemporaryDirectory()\n"
        "from pimm.data import Dataset, create_loader\n"
        f"loader = create_loader(Dataset({str(folder)!r}), 16, 4, num_workers=2, persistent_workers=True)\n"
        f"{keeping}; from multiprocessing import active_children; print(len(active_children()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.split()) == (0, ["2"])


class Drawing(paddle.io.Dataset):
    """Draws from Paddle's stream, which is not seeded for every image."""

    def __len__(self):
        return 12

    def __getitem__(self, index):
        return np.zeros((3, 1, 1), np.uint8), paddle.rand([1]).numpy()


@pytest.mark.parametrize(("worker_seeding", "different"), [("all", 6), (lambda info: 5, 1)])
def test_worker_seeding_differs_by_rank_worker_and_epoch(worker_seeding, different):
    def first_draws(rank, epoch):
        loader = create_loader(Drawing(), 16, 1, num_workers=2, worker_seeding=worker_seeding).loader
        loader.sampler = BatchPlan(6, 1, False, rank, 2)
        loader.set_epoch(epoch)
        return [labels.item() for _, labels in itertools.islice(loader, 2)]  # one of each worker

    draws = [first_draws(rank, epoch) for rank, epoch in ((0, 0), (0, 1), (1, 0))]
    assert len(np.unique(draws)) == different
    assert first_draws(0, 1) == draws[1]


def test_repeats_are_augmented_differently(folder):
    loader = loader_of(folder, 6, is_training=True, num_aug_repeats=3, num_workers=0)
    images, labels = next(iter(loader))
    shares = [BatchPlan(22, 6, True, rank, 3, repeats=3).batches_of(0)[0] % 22 for rank in range(3)]
    assert labels.tolist() == [index >= 11 for index in BatchPlan(22, 6, True, repeats=3).batches_of(0)[0] % 22]
    assert len(np.unique(images.numpy(), axis=0)) == 6
    np.testing.assert_array_equal(shares[0], shares[1])  # each rank has its own repeat of the same images
    np.testing.assert_array_equal(shares[0], shares[2])
    assert len(set(shares[0])) == 6


@pytest.mark.parametrize("use_prefetcher", [True, False])
def test_views_of_an_image_come_one_after_the_other(folder, use_prefetcher):
    loader = loader_of(folder, 4, tta=10, num_workers=2, use_prefetcher=use_prefetcher)
    assert len(loader) == 6
    images, labels = next(iter(loader))
    plain, plain_labels = next(iter(loader_of(folder, 4, num_workers=0)))
    assert images.shape == [40, 3, 16, 16]
    assert labels.tolist() == np.repeat(plain_labels.numpy(), 10).tolist()
    views = images.numpy().reshape(4, 10, 3, 16, 16)
    np.testing.assert_allclose(views[:, 0], plain.numpy(), atol=1e-6)
    for left, mirrored in ((0, 1), (2, 6), (3, 7), (4, 8), (5, 9)):
        np.testing.assert_array_equal(views[:, left], views[:, mirrored, ..., ::-1])
    np.testing.assert_array_equal(views[:, 2, :, :, 5:], views[:, 3, :, :, :-5])  # 21 pixels wide: left and right
    np.testing.assert_array_equal(views[:, 2, :, 2:], views[:, 4, :, :-2])  # 18 high: top and bottom


def test_outputs_of_views_are_averaged():
    outputs = paddle.arange(24, dtype="float32").reshape([6, 4])
    mean, labels = reduce_tta(outputs, paddle.to_tensor([7, 7, 7, 9, 9, 9]), 3)
    np.testing.assert_allclose(mean.numpy(), outputs.numpy().reshape(2, 3, 4).mean(1))
    assert labels.tolist() == [7, 9]
    assert reduce_tta(outputs, labels, 0) == (outputs, labels)


def test_batches_take_the_type_and_the_channels_that_are_asked_for(folder, caplog):
    plain = next(iter(loader_of(folder, num_workers=0)))[0].numpy()
    for options in ({"fp16": True}, {"img_dtype": paddle.float16}, {"img_dtype": "bfloat16", "device": "cpu"}):
        images = next(iter(loader_of(folder, num_workers=0, **options)))[0]
        assert images.dtype == options.get("img_dtype", paddle.float16) or images.dtype == paddle.bfloat16
        np.testing.assert_allclose(images.astype("float32").numpy(), plain, atol=2e-2)
    loader = create_loader(ImageDataset(folder, input_img_mode="L"), (1, 16, 16), 4, num_workers=0)
    grey = next(iter(loader))[0].numpy()
    pixels = ImageDataset(folder, input_img_mode="L", transform=loader.dataset.transform)[0][0]
    np.testing.assert_allclose(grey[0], (pixels / 255 - np.mean(MEAN)) / np.mean(STD), atol=1e-5)
    assert "normalisation values for 1 channels" in caplog.text


def test_shards_have_a_plan_of_their_own(folder):
    class Sharded(Dataset):
        def batch_plan(self, batch_size, is_training, rank=0, world=1, seed=0):
            return BatchPlan(3, batch_size, is_training, rank, world, seed)

    assert len(create_loader(Sharded(folder), 16, 2)) == 2
    with pytest.raises(ConfigError, match="num_aug_repeats is for data sets read in any order; Sharded"):
        create_loader(Sharded(folder), 16, 2, is_training=True, num_aug_repeats=3)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"draft": True, "crop_border_pixels": 2}, "draft decoding goes neither with crop_border_pixels"),
        ({"num_aug_repeats": 3}, "repeated augmentation is for training"),
        ({"worker_seeding": "none"}, "worker_seeding 'none' is none of all, part, or callable"),
    ],
)
def test_settings_that_do_not_go_together(folder, options, says):
    with pytest.raises(ConfigError, match=says):
        loader_of(folder, **options)
