"""Arguments that a caller leaves out have the values that they have in timm 1.0.31."""

import importlib
import inspect

import golden
import paddle
import pytest

from pimm.optim import OPTIMIZERS

DEFAULTS = golden.facts("timm_defaults")["defaults"]
# Where ours differ, and why.
OTHERS = {
    ("optim.AdafactorBigVision", "eps"): 1e-30,  # timm's None stands for it
    ("data.IterableImageDataset", "reader"): "wds",  # timm's must be given
    ("data.create_loader", "persistent_workers"): False,  # kept where asked for alone
    ("data.RandomErasing", "device"): None,  # the tensor's own, where timm says "cuda"
}


# Those of PyTorch's optimizers that timm takes as they are.
OF_PYTORCH = {
    "SGD": {"lr": 1e-3, "momentum": 0.0, "weight_decay": 0.0, "nesterov": False},
    "Adam": {"lr": 1e-3, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.0, "amsgrad": False},
    "AdamW": {"lr": 1e-3, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 1e-2, "amsgrad": False},
    "Adamax": {"lr": 2e-3, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.0},
    "NAdam": {"lr": 2e-3, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.0},
    "RAdam": {"lr": 1e-3, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.0, "decoupled_weight_decay": False},
    "Adadelta": {"lr": 1.0, "rho": 0.9, "eps": 1e-6, "weight_decay": 0.0},
    "Adagrad": {"lr": 1e-2, "eps": 1e-10, "weight_decay": 0.0},
    "RMSprop": {"lr": 1e-2, "alpha": 0.99, "eps": 1e-8, "weight_decay": 0.0, "momentum": 0.0},
}


def plain(value):
    return list(value) if isinstance(value, tuple) else value


@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults_are_those_of_timm(name):
    module, attribute = name.split(".")
    arguments = inspect.signature(getattr(importlib.import_module(f"pimm.{module}"), attribute)).parameters
    ours = {argument: plain(arguments[argument].default) for argument in DEFAULTS[name]}
    assert ours == {argument: OTHERS.get((name, argument), value) for argument, value in DEFAULTS[name].items()}


@pytest.mark.parametrize("name", OF_PYTORCH)
def test_defaults_of_optimizers_are_those_of_pytorch(name):
    parameter = paddle.create_parameter([1], "float32")
    optimizer = OPTIMIZERS[name.lower()].opt_class([parameter])
    assert optimizer.get_lr() == OF_PYTORCH[name]["lr"]
    arguments = inspect.signature(type(optimizer)).parameters
    assert {argument: plain(arguments[argument].default) for argument in OF_PYTORCH[name]} == OF_PYTORCH[name]


def test_every_difference_is_one():
    assert all(DEFAULTS[name][argument] != value for (name, argument), value in OTHERS.items())
