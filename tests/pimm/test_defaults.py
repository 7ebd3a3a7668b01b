"""Arguments that a caller leaves out have the values that they have in timm 1.0.31."""

import importlib
import inspect

import golden
import pytest

DEFAULTS = golden.facts("timm_defaults")["defaults"]
# Where ours differ, and why.
OTHERS = {
    ("optim.AdafactorBigVision", "eps"): 1e-30,  # timm's None stands for it
    ("data.IterableImageDataset", "reader"): "wds",  # timm's must be given
    ("data.create_loader", "persistent_workers"): False,  # kept where asked for alone
    ("data.RandomErasing", "device"): None,  # the tensor's own, where timm says "cuda"
}


def plain(value):
    return list(value) if isinstance(value, tuple) else value


@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults_are_those_of_timm(name):
    module, attribute = name.split(".")
    arguments = inspect.signature(getattr(importlib.import_module(f"pimm.{module}"), attribute)).parameters
    ours = {argument: plain(arguments[argument].default) for argument in DEFAULTS[name]}
    assert ours == {argument: OTHERS.get((name, argument), value) for argument, value in DEFAULTS[name].items()}


def test_every_difference_is_one():
    assert all(DEFAULTS[name][argument] != value for (name, argument), value in OTHERS.items())
