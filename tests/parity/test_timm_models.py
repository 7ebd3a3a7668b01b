"""Every registered model beside timm's of the same name, in timm 1.x and in timm 0.1.20.

Needs torch, and a folder with each version (``pip install --no-deps --target DIR timm==1.0.31``, and 0.1.20), which the
environment variables TIMM_TODAY and TIMM_0_1_20 name. Skipped without them.
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
TOLERANCE = 2e-5  # of the largest logit
# Models whose logits differ between the versions, and the option by which ours are those of 0.1.20.
CHANGED = {f"tf_efficientnet_{size}": {"stride_in_expansion": False} for size in ("es", "em", "el")}
RENAMED = {}  # our name: timm 1.x's, where it has been renamed
GAIN = 1.3  # of the weights: enough for the image to matter


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


def theirs(name, version):
    """Return the weights and the logits of timm's model, or None if that version has none of the name."""
    with timm_of(version) as timm:
        known = timm.list_models() if version == "0.1.20" else timm.list_models(include_tags=False)
        if RENAMED.get(name, name) not in known:
            return None
        net = timm.create_model(RENAMED.get(name, name), pretrained=False).eval()
        shapes = [[key, list(value.shape)] for key, value in net.state_dict().items()]
        state = golden.state(shapes, gain=GAIN)
        net.load_state_dict({key: torch.tensor(value) for key, value in state.items()})
        with torch.no_grad():
            return state, net(torch.tensor(golden.inputs((1, 3, SIZE, SIZE))))[0].numpy()


def ours(name, state, **options):
    import paddle

    model = pimm.create_model(name, **options)
    model.eval()
    load_torch_arrays(model, state)
    with paddle.no_grad():
        return model(paddle.to_tensor(golden.inputs((1, 3, SIZE, SIZE))))[0].numpy()


@pytest.mark.parametrize("name", pimm.list_models())
def test_logits_of_both_versions(name):
    seen = []
    for version, options in (("1.x", {}), ("0.1.20", CHANGED.get(name, {}))):
        found = theirs(name, version)
        if found is None:
            continue
        state, logits = found
        np.testing.assert_allclose(ours(name, state, **options), logits, rtol=0, atol=TOLERANCE * np.abs(logits).max())
        seen.append(logits)
    if len(seen) == 2:
        is_equal = np.allclose(*seen, rtol=0, atol=TOLERANCE * np.abs(seen[0]).max())
        assert is_equal is (name not in CHANGED)
    assert seen or not name.startswith(("efficientnet", "mobilenet", "mixnet"))


if __name__ == "__main__":
    logits = {name: {version: theirs(name, version)[1][:16].tolist() for version in FOLDERS} for name in CHANGED}
    GOLDEN.write_text(json.dumps({"size": SIZE, "gain": GAIN, "logits16": logits}, indent=1) + "\n")
