"""Exchange models with timm through a hub on loopback, and through folders: weights and settings, both ways.

The names are drawn by a seed from the models that timm and pimm have, without nets above 100 million parameters; images
are the smallest that the net takes. timm writes the files with its own ``save_for_hf``, as its models lie on the hub,
and pimm loads them by name. Then pimm saves the net by `save_for_hub`, and timm loads the folder. Logits may differ by
a ten-thousandth of the largest, or by three times what timm's own float32 differs from float64. The tests are skipped
without torch and timm. ``PIMM_PARITY_RECORD=FILE`` appends a line of JSON for each model.
"""

import json
import random
import shutil
from pathlib import Path

import numpy as np
import paddle
import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm", minversion="1.0", exc_type=ImportError)
pytest.importorskip("huggingface_hub")

import golden  # noqa: E402
import hub_server  # noqa: E402
from parity.test_every_model import on_meta, record, reference, smallest, weights_of  # noqa: E402

import pimm  # noqa: E402
from pimm.models import get_pretrained_cfg, save_for_hub  # noqa: E402
from pimm.models.timm_table import families, timm_names  # noqa: E402

COUNT, SEED = 40, 15
LARGEST = 100e6  # parameters
TOLERANCE = 1e-4  # relative to the largest logit
GAINS = (1.3, 1.0)  # of the weights: large ones make more of an image, and of rounding errors


def draw_names():
    """Draw names of models that both have, of which the settings name weights on the hub."""
    names = [name for module in families() for name in timm_names(module) if pimm.is_model(name)]
    random.Random(SEED).shuffle(names)
    found = []
    for name in names:
        if get_pretrained_cfg(name).hf_hub_id and sum(value.numel() for value in on_meta(name).parameters()) <= LARGEST:
            found.append(name)
        if len(found) == COUNT:
            break
    return found


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """Serve a hub, and remove all files after the test: pytest would keep three copies of the weights of every net."""
    with hub_server.serve() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
        yield hub
    shutil.rmtree(tmp_path)


def difference(found, expected):
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@torch.no_grad()
def logits_of_timm(net, images):
    return net.eval()(torch.tensor(images)).numpy()


def logits(net, images):
    net.eval()
    with paddle.no_grad():
        return net(paddle.to_tensor(images)).numpy()


@pytest.mark.parametrize("name", draw_names())
def test_weights_go_both_ways(hub, name, tmp_path):
    kwargs, size = smallest(name)
    images = golden.inputs((2, 3, size, size))
    theirs = timm.create_model(name, **kwargs)
    for gain in GAINS:
        state = weights_of(theirs, gain)
        theirs.float().load_state_dict({key: torch.tensor(value) for key, value in state.items()})
        single = logits_of_timm(theirs, images)
        expected, error = reference(theirs, images)
        if 3 * error <= TOLERANCE:
            break
    theirs.float().load_state_dict({key: torch.tensor(value) for key, value in state.items()})
    timm.models.save_for_hf(theirs, tmp_path / "timm", safe_serialization=True)
    files = {path.name: path.read_bytes() for path in Path(tmp_path, "timm").iterdir()}
    tolerance = max(TOLERANCE, 3 * error)
    repo = get_pretrained_cfg(name).hf_hub_id
    hub.add(repo, files)
    ours = pimm.create_model(name, pretrained=True, **kwargs)
    by_name = difference(logits(ours, images), expected)
    by_hub = difference(logits(pimm.create_model(f"hf-hub:{repo}", pretrained=True), images), expected)
    save_for_hub(ours, tmp_path / "pimm")
    back = timm.create_model(f"local-dir:{tmp_path / 'pimm'}", pretrained=True)
    returned = difference(logits_of_timm(back, images), single)
    record(name=name, size=size, by_name=by_name, by_hub=by_hub, own=error, back=returned)
    assert max(by_name, by_hub) <= tolerance and returned == 0
    written = [json.loads((tmp_path / folder / "config.json").read_text()) for folder in ("timm", "pimm")]
    assert written[0]["pretrained_cfg"] == written[1]["pretrained_cfg"]
