"""Image networks that are created by name."""

from pimm.layers import SelectAdaptivePool2D, SelectAdaptivePool2d, create_conv2d
from pimm.models.adapt import adapt_input_conv
from pimm.models.average import average_checkpoints
from pimm.models.efficientnet import EfficientNet
from pimm.models.factory import create_model
from pimm.models.features import FeatureDictNet, FeatureGetterNet, FeatureInfo, FeatureListNet, feature_take_indices
from pimm.models.helpers import load_checkpoint, load_initial_weights, load_state_dict, resume_checkpoint
from pimm.models.hub import load_pretrained
from pimm.models.hub_config import parse_model_name, safe_model_name
from pimm.models.hub_save import push_to_hf_hub, save_for_hf, save_for_hub
from pimm.models.interface import ImageModel
from pimm.models.manipulate import model_parameters
from pimm.models.mobilenetv3 import MobileNetV3
from pimm.models.pretrained_cfg import PretrainedCfg
from pimm.models.recompute import checkpoint, checkpoint_seq
from pimm.models.registry import (
    get_arch_name,
    get_arch_pretrained_cfgs,
    get_deprecated_models,
    get_pretrained_cfg,
    get_pretrained_cfg_value,
    is_model,
    is_model_in_modules,
    is_model_pretrained,
    list_models,
    list_modules,
    list_pretrained,
    model_entrypoint,
    register_model,
    resolve_pretrained_cfg,
    split_model_name_tag,
)
from pimm.models.reparameterize import reparameterize_model
from pimm.models.torch_names import from_torch_arrays, load_torch_arrays, torch_names
from pimm.utils.state import load_state_dict_strictly

__all__ = [
    "EfficientNet",
    "FeatureDictNet",
    "FeatureGetterNet",
    "FeatureInfo",
    "FeatureListNet",
    "ImageModel",
    "MobileNetV3",
    "PretrainedCfg",
    "SelectAdaptivePool2D",
    "SelectAdaptivePool2d",
    "adapt_input_conv",
    "average_checkpoints",
    "checkpoint",
    "checkpoint_seq",
    "create_conv2d",
    "create_model",
    "feature_take_indices",
    "from_torch_arrays",
    "get_arch_name",
    "get_arch_pretrained_cfgs",
    "get_deprecated_models",
    "get_pretrained_cfg",
    "get_pretrained_cfg_value",
    "is_model",
    "is_model_in_modules",
    "is_model_pretrained",
    "list_models",
    "list_modules",
    "list_pretrained",
    "load_checkpoint",
    "load_initial_weights",
    "load_pretrained",
    "load_state_dict",
    "load_state_dict_strictly",
    "load_torch_arrays",
    "model_entrypoint",
    "model_parameters",
    "parse_model_name",
    "push_to_hf_hub",
    "register_model",
    "reparameterize_model",
    "resolve_pretrained_cfg",
    "resume_checkpoint",
    "safe_model_name",
    "save_for_hf",
    "save_for_hub",
    "split_model_name_tag",
    "torch_names",
]


def __getattr__(name):
    """Return the function that creates the model of a name, as ``from pimm.models import resnet18`` asks for it."""
    if not name.startswith("_") and is_model(name):
        return model_entrypoint(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
