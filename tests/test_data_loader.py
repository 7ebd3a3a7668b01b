"""The loader: order, shares of ranks, random streams, resuming, workers that fail."""

import os
import random
import signal

import numpy as np
import paddle
import pytest
from PIL import Image

from pimm.data import AugMixDataset, Dataset, FastCollateMixup, OrderedDistributedSampler, create_loader
from pimm.data.loader import default_collate, fast_collate
from pimm.data.samplers import BatchPlan
from pimm.data.transforms import Normalize
from pimm.errors import ConfigError, DataError

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
    expected = Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))(np.asarray(resized).transpose(2, 0, 1))
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


@pytest.mark.parametrize(
    ("size", "batch", "world", "batches"), [(22, 4, 1, 5), (22, 4, 2, 2), (22, 4, 3, 1), (24, 4, 2, 3), (8, 4, 2, 1)]
)
def test_training_ranks_share_global_batches(size, batch, world, batches):
    plans = [BatchPlan(size, batch, True, rank, world, seed=2) for rank in range(world)]
    whole = BatchPlan(size, batch * world, True, seed=2)
    assert {len(plan) for plan in (*plans, whole)} == {batches}
    for epoch in range(2):
        shares = [plan.batches() for plan in plans]
        assert {number for number, _ in shares} == {epoch}
        for together, *each in zip(whole.batches()[1], *(share for _, share in shares)):
            assert {len(part) for part in each} == {batch}
            assert sorted(np.concatenate(each)) == sorted(together)
            assert len(set(together)) == batch * world
    assert sorted(np.concatenate(BatchPlan(24, 4, True).batches()[1])) == list(range(24))


@pytest.mark.parametrize(("size", "world"), [(22, 1), (22, 3), (7, 4), (2, 3)])
def test_evaluation_ranks_hold_every_image_exactly_once(size, world):
    plans = [BatchPlan(size, 3, False, rank, world) for rank in range(world)]
    shares = [np.concatenate([np.arange(0), *plan.batches()[1]]).tolist() for plan in plans]
    assert shares == [list(range(rank, size, world)) for rank in range(world)]
    assert [len(plan) for plan in plans] == [-(-len(share) // 3) for share in shares]


def test_a_rank_without_images_evaluates_nothing(folder):
    for workers in (0, 1):
        loader = loader_of(folder, num_workers=workers)
        loader.loader.sampler = BatchPlan(2, 4, False, rank=2, world=3)
        assert (len(loader), list(loader)) == (0, [])


def test_ordered_distributed_sampler_pads_as_timm():
    samplers = [OrderedDistributedSampler(range(7), 3, rank) for rank in range(3)]
    assert [list(sampler) for sampler in samplers] == [[0, 3, 6], [1, 4, 0], [2, 5, 1]]
    assert [len(sampler) for sampler in samplers] == [3, 3, 3]


@pytest.mark.parametrize(
    ("batch", "world", "says"), [(23, 1, "22 images do not fill one batch.*at most 22"), (8, 3, "takes 24;.*at most 7")]
)
def test_too_few_images_for_one_batch(batch, world, says):
    with pytest.raises(DataError, match=says):
        BatchPlan(22, batch, True, world=world)


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


def test_half_precision(folder):
    assert next(iter(loader_of(folder, fp16=True, num_workers=0)))[0].dtype == paddle.float16


def test_finishing_on_the_device_equals_finishing_in_the_workers(folder, monkeypatch):
    loader = loader_of(folder, **TRAIN, num_workers=0)
    in_worker = batches_of(loader)
    loader.set_epoch(0)
    with monkeypatch.context() as patch:
        patch.setattr(paddle, "get_device", lambda: "gpu:0")  # tensors stay where they are
        on_device = batches_of(loader)
    for (left, _), (right, _) in zip(in_worker, on_device):
        np.testing.assert_allclose(left, right, atol=1e-6)


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
        (fail, "failed in a data worker: TypeError: a mistake in a transform"),
        (die, "a data-loading worker ended unexpectedly"),
    ],
)
def test_failing_workers_end_in_an_error(folder, transform, says):
    loader = loader_of(folder, num_workers=2)
    loader.dataset.transform = transform
    with pytest.raises(DataError, match=says):
        list(loader)


def test_leaving_a_pass_early_is_harmless(folder):
    loader = loader_of(folder, num_workers=2)
    for _ in loader:
        break
    assert len(list(loader)) == 6
