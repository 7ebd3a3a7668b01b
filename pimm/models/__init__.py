"""Image networks."""

from ..layers import SelectAdaptivePool2D, SelectAdaptivePool2d, create_conv2d
from .helpers import load_state_dict_strictly
from .torch_names import from_torch_arrays, load_torch_arrays, torch_names

__all__ = [
    "SelectAdaptivePool2D",
    "SelectAdaptivePool2d",
    "create_conv2d",
    "from_torch_arrays",
    "load_state_dict_strictly",
    "load_torch_arrays",
    "torch_names",
]
