"""The layers of `pimm.layers`, where timm keeps them."""

from pimm.layers import *  # noqa: F403
from pimm.layers import __all__ as __all__
