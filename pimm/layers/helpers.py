"""Small numeric helpers that layers and builders share."""

from pimm.ops import global_avg_pool2d
from pimm.ops.geometry import to_pair

__all__ = ["global_avg_pool2d", "make_divisible", "to_2tuple", "to_pair"]

to_2tuple = to_pair  # timm's name


def make_divisible(v, divisor=8, min_value=None, round_limit=0.9):
    """Round ``v`` to the nearest multiple of ``divisor`` that is at least ``min_value`` and ``round_limit * v``."""
    rounded = max(min_value or divisor, int(v + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < round_limit * v else rounded
