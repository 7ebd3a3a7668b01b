"""Single Path One-Shot's nets of ShuffleNetV2 blocks: search space, supernet and child nets."""

from cream.shuffle.nets import SPOS_ARCH, ShuffleNet, ShuffleSuperNet, shuffle_space

__all__ = ["SPOS_ARCH", "ShuffleNet", "ShuffleSuperNet", "shuffle_space"]
