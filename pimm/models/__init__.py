"""Image networks, created by name."""

from pimm.layers import SelectAdaptivePool2D, SelectAdaptivePool2d, create_conv2d
from pimm.models.average import average_checkpoints
from pimm.models.efficientnet import EfficientNet
from pimm.models.factory import create_model
from pimm.models.helpers import load_checkpoint, load_state_dict, resume_checkpoint
from pimm.models.manipulate import model_parameters
from pimm.models.mobilenetv3 import MobileNetV3
from pimm.models.registry import is_model, list_models, model_entrypoint, register_model
from pimm.models.torch_names import from_torch_arrays, load_torch_arrays, torch_names
from pimm.utils.state import load_state_dict_strictly

__all__ = [
    "EfficientNet",
    "MobileNetV3",
    "SelectAdaptivePool2D",
    "SelectAdaptivePool2d",
    "average_checkpoints",
    "create_conv2d",
    "create_model",
    "from_torch_arrays",
    "is_model",
    "list_models",
    "load_checkpoint",
    "load_state_dict",
    "load_state_dict_strictly",
    "load_torch_arrays",
    "model_entrypoint",
    "model_parameters",
    "register_model",
    "resume_checkpoint",
    "torch_names",
]
