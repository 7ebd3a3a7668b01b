"""The activations of `pimm.layers.activations`, where scripts of the earlier Paddle port of Cream look for them."""

from pimm.layers.activations import *  # noqa: F403
from pimm.layers.activations import __all__ as __all__
