"""Compare every registered model with timm's model of the same name, in timm 1.x and in timm 0.1.20.

The tests need torch, and a folder with each version (``pip install --no-deps --target DIR timm==1.0.31``, and 0.1.20),
which the environment variables TIMM_TODAY and TIMM_0_1_20 name. They are skipped without these.
``python tests/parity/test_timm_models.py`` writes the logits of the models that differ between the versions to
tests/data/golden/timm_versions.json.
"""

import collections.abc
import contextlib
import importlib
import json
import os
import sys
import types
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

import golden

import pimm
from pimm.models import load_torch_arrays

torch = pytest.importorskip("torch")
FOLDERS = {"1.x": os.environ.get("TIMM_TODAY"), "0.1.20": os.environ.get("TIMM_0_1_20")}
pytestmark = pytest.mark.skipif(not all(FOLDERS.values()), reason="TIMM_TODAY and TIMM_0_1_20 are not set")

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "timm_versions.json"
SIZE = 96  # of the images; even, so that TensorFlow's padding depends on the stride
# Models whose logits differ between the versions, and the option by which ours are those of 0.1.20.
CHANGED = {f"tf_efficientnet_{size}": {"stride_in_expansion": False} for size in ("es", "em", "el")}
# What timm sets for its own weights alone, and we do always, because weights of these models are for it.
WITH_WEIGHTS = {"mobilenetv3_rw": {"bn_eps": 1e-3}}
GAINS = (1.3, 1.25, 1.2, 1.15, 1.1)  # of the weights: the more, the more the image matters, and rounding errors too
LARGEST_ERROR = 2e-5  # of float32, relative to the largest logit, that a gain may have
GOLDEN_GAIN = GAINS[0]


@contextlib.contextmanager
def timm_of(version):
    """Import timm from the folder of a version, without a trace afterwards."""
    six = types.ModuleType("torch._six")  # PyTorch no longer has it, and 0.1.20 imports it
    six.container_abcs, six.string_classes, six.int_classes = collections.abc, str, int
    sys.modules["torch._six"] = six
    sys.path.insert(0, FOLDERS[version])
    try:
        yield importlib.import_module("timm")
    finally:
        sys.path.remove(FOLDERS[version])
        for name in [name for name in sys.modules if name.split(".")[0] in ("timm", "torch._six")]:
            del sys.modules[name]


def create_timm(name, version):
    """Return timm's model without pretrained weights, or None if that version has none of the name."""
    with timm_of(version) as timm:
        if name not in (timm.list_models() if version == "0.1.20" else timm.list_models(include_tags=False)):
            return None
        return timm.create_model(name, pretrained=False, **WITH_WEIGHTS.get(name, {})).eval()


def images():
    return golden.inputs((2, 3, SIZE, SIZE))


@torch.no_grad()
def logits_of(net, state):
    """Return timm's logits [2, C] in float64, and the largest error of those in float32 relative to the largest."""
    net.load_state_dict({key: torch.tensor(value) for key, value in state.items()})
    single = net.float()(torch.tensor(images())).double()
    double = net.double()(torch.tensor(images()).double())
    return double.numpy(), ((single - double).abs().max() / double.abs().max()).item()


def weights_of(net, gain):
    """Draw the weights of a model; those of conditional convolutions are stored flat, [experts, out * in * k * k]."""
    state = golden.state([[key, list(value.shape)] for key, value in net.state_dict().items()], gain=gain)
    for name, layer in net.named_modules():
        if hasattr(layer, "weight_shape"):
            state[f"{name}.weight"] *= np.float32(layer.weight_shape[0] ** 0.5)
    return state


def theirs(name, version, gains):
    """Return gain, weights, logits and tolerance at the first gain at which float32 is exact enough, or None."""
    net = create_timm(name, version)
    if net is None:
        return None
    for gain in gains:
        state = weights_of(net, gain)
        logits, error = logits_of(net, state)
        if error < LARGEST_ERROR:
            break
    return gain, state, logits, max(10 * error, LARGEST_ERROR) * np.abs(logits).max()


def ours(name, state, **options):
    import paddle

    model = pimm.create_model(name, **options)
    model.eval()
    load_torch_arrays(model, state)
    with paddle.no_grad():
        return model(paddle.to_tensor(images())).numpy()


@pytest.mark.parametrize("name", pimm.list_models(module=["efficientnet", "mobilenetv3"]))
def test_logits_of_both_versions(name):
    seen, gains = {}, GAINS
    for version, options in (("1.x", {}), ("0.1.20", CHANGED.get(name, {}))):
        found = theirs(name, version, gains)
        if found is not None:
            gain, state, seen[version], tolerance = found
            gains = (gain,)
            assert np.abs(seen[version][0] - seen[version][1]).max() > 20 * tolerance
            np.testing.assert_allclose(ours(name, state, **options), seen[version], rtol=0, atol=tolerance)
    assert seen
    if len(seen) == 2:
        assert np.allclose(*seen.values(), rtol=0, atol=tolerance) is (name not in CHANGED), "add it to CHANGED"


def golden_logits(name, version):
    net = create_timm(name, version)
    return logits_of(net, weights_of(net, GOLDEN_GAIN))[0][0, :16].tolist()


if __name__ == "__main__":
    logits = {name: {version: golden_logits(name, version) for version in FOLDERS} for name in CHANGED}
    GOLDEN.write_text(json.dumps({"size": SIZE, "gain": GOLDEN_GAIN, "logits16": logits}, indent=1) + "\n")
