"""Small numeric helpers that layers and builders share."""


def to_pair(value):
    """``(value, value)``, or the two values of a pair as a tuple."""
    return tuple(value) if isinstance(value, (tuple, list)) else (value, value)


def make_divisible(v, divisor=8, min_value=None):
    """Round ``v`` to the nearest multiple of ``divisor``, at least ``min_value`` and never below 90 % of ``v``."""
    rounded = max(min_value or divisor, int(v + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * v else rounded
