"""The activations of `pimm.layers.activations`, where timm keeps them."""

from pimm.layers.activations import *  # noqa: F403
from pimm.layers.activations import __all__ as __all__
