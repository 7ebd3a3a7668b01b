"""Cyclic schedules against cycles that are counted one by one, in exact fractions."""

import functools
import math
from fractions import Fraction

import numpy as np
import paddle
import pytest

from pimm.errors import ConfigError
from pimm.optim import SGD
from pimm.scheduler import (
    CosineLRScheduler,
    PolyLRScheduler,
    TanhLRScheduler,
)

REMAINING = {
    CosineLRScheduler: lambda share: 0.5 * (1.0 + math.cos(math.pi * share)),
    PolyLRScheduler: lambda share: (1.0 - share) ** 0.5,
    TanhLRScheduler: lambda share: 0.5 * (1.0 - math.tanh(-7.0 * (1.0 - share) + 3.0 * share)),
}
LENGTHS = [1, 2, 3, 7, 10, 2.5]
GROWTHS = ["1", "2", "3", "5", "7", "10", "1.1", "1.2", "1.5", "0.5", "0.9"]


def make_optimizer(lr=0.8):
    return SGD([paddle.create_parameter([2], "float32")], lr=lr)


@functools.cache
def counted_cycles(length, growth, ticks):
    """Return ``(cycle, share passed)`` of every tick, by counting; (None, None) after all shrinking cycles."""
    length, growth = Fraction(str(length)), Fraction(growth)
    end = length / (1 - growth) if growth < 1 else math.inf
    cycle, start, found = 0, Fraction(0), []
    for t in range(ticks):
        if t >= end:
            found.append((None, None))
            continue
        while t >= start + length:
            start, length, cycle = start + length, length * growth, cycle + 1
        found.append((cycle, float((t - start) / length)))
    return found


@pytest.mark.parametrize("schedule", REMAINING)
@pytest.mark.parametrize("growth", GROWTHS)
@pytest.mark.parametrize("limit", [0, 3])
def test_rates_of_counted_cycles(schedule, growth, limit):
    for length in LENGTHS:
        options = {"cycle_mul": float(growth), "cycle_decay": 0.9, "cycle_limit": limit, "lr_min": 0.1}
        scheduler = schedule(make_optimizer(), length, **options)
        expected = []
        for cycle, share in counted_cycles(length, growth, 400):
            is_over = cycle is None or (limit and cycle >= limit)
            left = 0.0 if is_over else REMAINING[schedule](share)
            expected.append(0.1 if is_over else 0.1 + (0.8 * 0.9**cycle - 0.1) * left)
        found = [scheduler.get_epoch_values(t)[0] for t in range(400)]
        np.testing.assert_allclose(found, expected, rtol=1e-12, err_msg=str(length))


@pytest.mark.parametrize("growth", [2, 3, 5, 6, 7, 10, 1.1])
def test_every_restart_begins_at_the_peak(growth):
    scheduler = CosineLRScheduler(make_optimizer(), t_initial=10, cycle_mul=growth, cycle_limit=0)
    start, length = Fraction(0), Fraction(10)
    for _ in range(40):
        if start.denominator == 1:
            assert scheduler.get_epoch_values(int(start)) == [0.8], start
            if start > 0:
                assert scheduler.get_epoch_values(int(start) - 1)[0] < 0.8
        start, length = start + length, length * Fraction(str(growth))


def test_the_tick_at_which_a_logarithm_is_rounded_down():
    scheduler = CosineLRScheduler(make_optimizer(1.0), t_initial=1, cycle_mul=3, cycle_limit=10)
    assert math.floor(math.log(1 + 121 * 2, 3)) == 4  # it is 5
    assert scheduler.get_epoch_values(121) == [1.0]


@pytest.mark.parametrize("growth", GROWTHS)
def test_length_of_all_cycles(growth):
    for length in LENGTHS:
        for count in range(1, 8):
            scheduler = CosineLRScheduler(make_optimizer(), length, cycle_mul=float(growth), cycle_limit=count)
            total = sum(Fraction(str(length)) * Fraction(growth) ** cycle for cycle in range(count))
            assert scheduler.get_cycle_length() == (total if growth == "1" else math.floor(total))


@pytest.mark.parametrize("growth", [0, -1, math.nan, math.inf])
def test_impossible_growth(growth):
    with pytest.raises(ConfigError, match="cycle_mul > 0"):
        CosineLRScheduler(make_optimizer(), 5, cycle_mul=growth)
