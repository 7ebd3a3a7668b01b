"""The import names that users of the earlier Paddle port and of timm hold this project to, one by one."""

import importlib

import pytest

# Each with timm's home of the same thing (0.1.20), spelt for Paddle.
NAMES = [
    ("pimm.data", "Dataset", "pimm.data", "Dataset"),
    ("pimm.data", "create_loader", "pimm.data", "create_loader"),
    ("pimm.loss", "LabelSmoothingCrossEntropy", "pimm.loss", "LabelSmoothingCrossEntropy"),
    ("pimm.models.efficientnet_blocks", "ConvBnAct", "pimm.models.efficientnet_blocks", "ConvBnAct"),
    (
        "pimm.models.efficientnet_blocks",
        "DepthwiseSeparableConv",
        "pimm.models.efficientnet_blocks",
        "DepthwiseSeparableConv",
    ),
    ("pimm.models.efficientnet_blocks", "drop_path", "pimm.models.layers", "drop_path"),
    ("pimm.models.efficientnet_blocks", "InvertedResidual", "pimm.models.efficientnet_blocks", "InvertedResidual"),
    ("pimm.models.efficientnet_blocks", "SqueezeExcite", "pimm.models.efficientnet_blocks", "SqueezeExcite"),
    ("pimm.models.activations", "hard_sigmoid", "pimm.models.layers.activations", "hard_sigmoid"),
    ("pimm.models.activations", "Swish", "pimm.models.layers.activations", "Swish"),
    ("pimm.models", "create_conv2d", "pimm.models.layers", "create_conv2d"),
    ("pimm.models", "SelectAdaptivePool2D", "pimm.models.layers", "SelectAdaptivePool2d"),
    ("pimm.models", "resume_checkpoint", "pimm.models", "resume_checkpoint"),
    ("pimm.optim", "create_optimizer", "pimm.optim", "create_optimizer"),
    ("pimm.scheduler", "create_scheduler", "pimm.scheduler", "create_scheduler"),
    ("pimm.utils", "CheckpointSaver", "pimm.utils", "CheckpointSaver"),
    ("pimm.utils", "ModelEma", "pimm.utils", "ModelEma"),
    ("pimm.utils", "reduce_tensor", "pimm.utils", "reduce_tensor"),
]


def test_there_are_eighteen():
    assert len({(module, name) for module, name, _, _ in NAMES}) == 18


@pytest.mark.parametrize("module, name, timm_module, timm_name", NAMES, ids=lambda value: str(value).split(".")[-1])
def test_the_name_is_there_and_is_the_thing_that_timm_calls_so(module, name, timm_module, timm_name):
    ours = getattr(importlib.import_module(module), name)
    assert callable(ours)
    assert ours is getattr(importlib.import_module(timm_module), timm_name)
