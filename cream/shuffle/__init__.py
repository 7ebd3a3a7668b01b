"""Single Path One-Shot's ShuffleNetV2 blocks: space, supernet, and single nets."""

from cream.shuffle.nets import SPOS_ARCH, ShuffleNet, ShuffleSuperNet, shuffle_space

__all__ = ["SPOS_ARCH", "ShuffleNet", "ShuffleSuperNet", "shuffle_space"]
