"""Sharded tar files: who reads what, in which order, and that nothing is lost or read twice."""

import numpy as np
import paddle
import pytest
from image_files import png, red, write_tar

from pimm.data import AugMixDataset, IterableImageDataset, create_loader
from pimm.errors import ConfigError, DataError

SIZES = (7, 1, 9, 6)  # images of each shard: 23, numbered by their red
STARTS = np.cumsum((0, *SIZES)).tolist()
RAW = {"mean": (0, 0, 0), "std": (1 / 255,) * 3}  # the pixels themselves


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    for shard, (start, size) in enumerate(zip(STARTS, SIZES)):
        files = {}
        for number in range(start, start + size):
            files |= {f"{number}.png": png((number, 0, 0), (4, 4)), f"{number}.cls": b"%d" % (number % 3)}
        write_tar(folder / f"x-{shard}.tar", files)
    return folder


def shard_of(number):
    return int(np.searchsorted(STARTS, number, side="right")) - 1


def reds_and_classes(loader):
    batches = [(images.numpy()[:, 0, 1, 1].round().astype(int).tolist(), labels.tolist()) for images, labels in loader]
    return [numbers for numbers, _ in batches], [labels for _, labels in batches]


def shares(dataset, batch_size, is_training, world, epoch=0):
    """The numbers of the images that each rank has, batch by batch."""
    plans = [dataset.batch_plan(batch_size, is_training, rank, world) for rank in range(world)]
    for plan in plans:
        plan.set_epoch(epoch)
    return [[batch.tolist() for batch in plan.batches()[1]] for plan in plans]


def flat(batches):
    return [number for batch in batches for number in batch]


@pytest.mark.parametrize("world", [1, 2, 3, 5, 30])
def test_evaluation_gives_every_rank_its_stretch_and_every_image_once(root, world):
    each = shares(IterableImageDataset(root), 4, False, world)
    assert flat(flat(each)) == list(range(23))
    assert {len(flat(share)) for share in each} <= {23 // world, -(-23 // world)}


@pytest.mark.parametrize(("world", "batch_size", "batches"), [(1, 4, 5), (2, 4, 2), (3, 2, 3), (5, 4, 1)])
def test_training_gives_every_rank_as_many_whole_batches_of_different_images(root, world, batch_size, batches):
    each = shares(IterableImageDataset(root, is_training=True), batch_size, True, world)
    assert [[len(batch) for batch in share] for share in each] == [[batch_size] * batches] * world
    assert len(set(flat(flat(each)))) == world * batches * batch_size


def test_the_images_of_a_shard_come_together_and_its_place_is_drawn(root):
    dataset = IterableImageDataset(root, is_training=True, sample_shuffle_size=0)
    orders = []
    for epoch in range(40):
        (numbers,) = shares(dataset, 1, True, 1, epoch)
        numbers = flat(numbers)
        assert sorted(numbers) == list(range(23))
        shards = [shard_of(number) for number in numbers]
        order = sorted(set(shards), key=shards.index)
        assert numbers == [number for shard in order for number in range(STARTS[shard], STARTS[shard] + SIZES[shard])]
        orders.append(tuple(order))
    assert len(set(orders)) > 15  # of 24
    assert orders == [tuple(np.random.default_rng([42, 0, epoch]).permutation(4).tolist()) for epoch in range(40)]


@pytest.mark.parametrize("window", [1, 3, 8])
def test_images_move_within_the_window_alone(root, window):
    plain, mixed = (IterableImageDataset(root, is_training=True, sample_shuffle_size=size) for size in (0, window))
    moved = []
    for epoch in range(30):
        before, after = (flat(shares(dataset, 1, True, 1, epoch)[0]) for dataset in (plain, mixed))
        moved += [after.index(number) - place for place, number in enumerate(before)]
    assert max(map(abs, moved)) < window
    assert len(set(moved)) >= window


def test_the_order_depends_on_seed_and_epoch_alone(root):
    datasets = [IterableImageDataset(root, is_training=True, seed=seed) for seed in (1, 1, 2)]
    first, same, other = (shares(dataset, 4, True, 2, epoch=3) for dataset in datasets)
    assert first == same != other
    assert first != shares(datasets[0], 4, True, 2, epoch=4)
    assert shares(datasets[0], 4, True, 2, epoch=3) == first


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_by_the_loader(root, workers):
    dataset = IterableImageDataset(root)
    loader = create_loader(dataset, (3, 4, 4), 4, num_workers=workers, **RAW)
    numbers, labels = reds_and_classes(loader)
    assert (len(loader), [len(batch) for batch in numbers]) == (6, [4, 4, 4, 4, 4, 3])
    assert flat(numbers) == list(range(23))
    assert flat(labels) == [number % 3 for number in range(23)]


def test_training_by_the_loader_is_the_same_for_any_workers_and_when_resumed(root):
    options = {"is_training": True, "scale": (1, 1), "ratio": (1, 1), "hflip": 0, "color_jitter": 0, **RAW}
    loaders = [
        create_loader(
            IterableImageDataset(root, is_training=True), (3, 4, 4), 4, num_workers=workers, seed=5, **options
        )
        for workers in (0, 2)
    ]
    loaders[0].set_epoch(1)
    whole, labels = reds_and_classes(loaders[0])
    assert [len(batch) for batch in whole] == [4] * 5
    assert flat(labels) == [number % 3 for number in flat(whole)]
    assert whole == shares_with_seed(loaders[0].dataset, seed=5, epoch=1)
    loaders[1].set_epoch(1, start_batch=2)
    assert reds_and_classes(loaders[1])[0] == whole[2:]


def shares_with_seed(dataset, seed, epoch):
    plan = dataset.batch_plan(4, True, seed=seed)
    plan.set_epoch(epoch)
    return [batch.tolist() for batch in plan.batches()[1]]


def test_augmented_splits(root):
    dataset = AugMixDataset(IterableImageDataset(root, is_training=True), num_splits=2)
    loader = create_loader(dataset, (3, 4, 4), 4, is_training=True, num_aug_splits=2, num_workers=0, **RAW)
    images, labels = next(iter(loader))
    assert (images.shape, labels[:4].tolist()) == ([8, 3, 4, 4], labels[4:].tolist())


def pixels(image):
    return np.asarray(image).transpose(2, 0, 1).astype(np.float32)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("is_training", [False, True])
def test_paddles_own_loader_splits_it_by_workers(root, is_training, workers):
    dataset = IterableImageDataset(root, is_training=is_training, batch_size=4, transform=pixels)
    dataset.set_epoch(2)
    numbers, _ = reds_and_classes(paddle.io.DataLoader(dataset, batch_size=4, num_workers=workers))
    (whole,) = shares(dataset, 4, is_training, 1, epoch=2)
    assert sorted(numbers) == sorted(whole)
    assert len(flat(numbers)) == (20 if is_training else 23)


@pytest.mark.parametrize("rank", [0, 1])
def test_iterating_gives_the_share_of_a_rank(root, rank, monkeypatch):
    monkeypatch.setattr("paddle.distributed.get_rank", lambda: rank)
    monkeypatch.setattr("paddle.distributed.get_world_size", lambda: 2)
    dataset = IterableImageDataset(root, is_training=True, batch_size=3)
    assert [red(image) for image, _ in dataset] == flat(shares(dataset, 3, True, 2)[rank])
    dataset.set_epoch(1)
    assert [red(image) for image, _ in dataset] == flat(shares(dataset, 3, True, 2, epoch=1)[rank])


@pytest.mark.parametrize(
    ("options", "length"),
    [
        ({}, 23),
        ({"repeats": 2}, 46),
        ({"num_samples": 60}, 60),
        ({"num_samples": 5}, 5),
        ({"split": "x-{0..3}.tar|9"}, 9),
    ],
)
def test_length_of_an_epoch(root, options, length):
    dataset = IterableImageDataset(root, is_training=True, **options)
    (numbers,) = shares(dataset, 1, True, 1)
    counts = np.bincount(np.array(flat(numbers)) % 23, minlength=23)
    assert (len(dataset), dataset.num_samples, len(set(flat(numbers)))) == (23, length, length)
    assert set(counts) == {length // 23, -(-length // 23)}
    assert sorted(red(image) for image, _ in dataset) == np.repeat(range(23), counts).tolist()


def test_class_folders_and_broken_images(tmp_path, caplog):
    write_tar(tmp_path / "0.tar", {"a/1.png": png((1, 0, 0)), "b/2.png": b"broken", "a/3.png": png((3, 0, 0))})
    dataset = IterableImageDataset(tmp_path, target_transform=lambda target: target + 5)
    assert [(red(image), target) for image, target in dataset] == [(1, 5), (3, 5), (3, 5)]
    assert dataset.filenames() == ["a/1.png", "b/2.png", "a/3.png"]
    assert [record.getMessage().split(" cannot")[0] for record in caplog.records] == [f"{tmp_path}/b/2.png"]


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"reader": "folder"}, ConfigError, "folder: only tar files are read shard by shard"),
        ({"num_samples": 24}, ConfigError, "cannot evaluate 24 images, there are 23"),
        ({"split": "x-9*.tar"}, DataError, r"no tar file x-9\*\.tar here"),
        ({"split": "train|all"}, ConfigError, r"train\|all: what follows the \| is a number of images, such as train"),
        ({"split": "train|" + "9" * 5000}, ConfigError, r"train\|9{57}\.\.\.: what follows"),
    ],
)
def test_mistakes(root, options, error, says):
    with pytest.raises(error, match=says):
        IterableImageDataset(root, **options)


def test_too_few_images_for_one_batch_of_each_rank(root):
    with pytest.raises(DataError, match="23 images do not fill one batch: batch size 4 on 6 processes"):
        IterableImageDataset(root, is_training=True).batch_plan(4, True, 0, 6)
