"""Which images a rank sees, in which order: shares of ranks, repeats, timm's samplers."""

import augment_cases as cases
import numpy as np
import pytest
from paths import DATA

from pimm.data import OrderedDistributedSampler
from pimm.data.samplers import BatchPlan, RepeatAugSampler
from pimm.errors import DataError


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


@pytest.mark.parametrize(
    ("repeats", "counts"), [(1, [1] * 20), (2, [2] * 10), (3, [3] * 6 + [2]), (1.5, [2, 1] * 6 + [2])]
)
def test_an_epoch_of_repeats_is_as_long_as_any(repeats, counts):
    order = np.concatenate(BatchPlan(20, 2, True, repeats=repeats).batches_of(0))
    images, first = np.unique(order % 20, return_index=True)
    assert [np.sum(order % 20 == image) for image in images[np.argsort(first)]] == counts
    assert order[:2].tolist() == ([order[0], order[0] + 20] if repeats > 1 else order[:2].tolist())
    assert len(np.unique(order)) == 20


@pytest.mark.parametrize("number", range(len(cases.REPEATS)))
def test_repeat_aug_sampler_is_timms(number):
    size, ranks, repeats, selected_round = cases.REPEATS[number]
    options = {"num_repeats": repeats, "selected_round": selected_round}
    plain = [RepeatAugSampler(range(size), ranks, rank, shuffle=False, **options) for rank in range(ranks)]
    expected = np.load(DATA / "augment" / "transforms.npz")[f"repeats/{number}"]
    np.testing.assert_array_equal([list(sampler) for sampler in plain], expected)
    assert len(plain[0]) == expected.shape[1]
    shuffled = RepeatAugSampler(range(size), ranks, 0, **options)
    orders = []
    for epoch in range(2):
        shuffled.set_epoch(epoch)
        orders.append(list(shuffled))
    assert orders[0] != orders[1] and list(shuffled) == orders[1]
