"""Models of timm that are here have timm's weights, by digests, and one of each family timm's logits.

tests/parity/test_every_model.py compares all of them with timm itself, and writes the data. Of the larger models every
sixteenth is built here, because the suite has little time; with PIMM_EVERY_MODEL=1 all are.
"""

import json
import os

import golden
import numpy as np
import paddle
import pytest
from model_weights import DATA, drawn_state, state_digest

import pimm
from pimm.models import load_torch_arrays, torch_names
from pimm.models.timm_table import families, timm_module, timm_names

FACTS = {path.stem: json.loads(path.read_text()) for path in sorted(DATA.glob("*.json"))}
STATES = {name: found for facts in FACTS.values() for name, found in facts["states"].items()}
LOGITS = {name: found for facts in FACTS.values() for name, found in facts["logits"].items()}
LARGE = 6e6  # parameters
BUILT = [
    name
    for number, name in enumerate(STATES)
    if STATES[name]["parameters"] < LARGE or number % 16 == 0 or os.environ.get("PIMM_EVERY_MODEL")
]


def test_every_family_has_data():
    assert list(FACTS) == list(families())
    assert {module: list(facts["states"]) for module, facts in FACTS.items()} == {
        module: [name for name in timm_names(module) if pimm.is_model(name)] for module in families()
    }


@pytest.mark.parametrize("name", BUILT)
def test_state(name):
    """Names and shapes of the weights are timm's, and the settings name layers that exist."""
    with paddle.LazyGuard():
        net = pimm.create_model(name)
    assert state_digest(dict(torch_names(net))) == STATES[name]["digest"]
    assert sum(value.size for value in net.parameters() if not value.stop_gradient) == STATES[name]["parameters"]
    cfg = net.default_cfg
    assert cfg["architecture"] == name and cfg is net.pretrained_cfg
    layers = {key for key, _ in net.named_sublayers()}
    for field in ("first_conv", "classifier"):
        named = cfg[field] if isinstance(cfg[field], tuple) else (cfg[field],)
        assert not named[0] or set(named) <= layers, field
    fine, coarse = net.group_matcher(), net.group_matcher(coarse=True)
    assert (callable(fine) and callable(coarse)) or fine.keys() == coarse.keys()


@pytest.mark.parametrize("name", LOGITS, ids=[f"{timm_module(name)}-{name}" for name in LOGITS])
def test_logits_and_training(name):
    """The logits are timm's, and a step on two images lowers the loss."""
    facts = LOGITS[name]
    net = pimm.create_model(name, **facts["kwargs"])
    fresh = {key: value.clone() for key, value in net.state_dict().items()}
    load_torch_arrays(net, drawn_state(net, torch_names(net), facts["gain"]))
    images = paddle.to_tensor(golden.inputs((2, 3, facts["size"], facts["size"])))
    net.eval()
    with paddle.no_grad():
        found, expected = net(images)[:, :8].numpy(), np.array(facts["logits"])
    np.testing.assert_allclose(found, expected, rtol=0, atol=max(1e-4, 3 * facts["error"]) * np.abs(expected).max())
    net.set_state_dict(fresh)
    before, after = losses_around_a_step(net, images)
    assert after < before


def losses_around_a_step(net, images):
    """Train for a step, and return the losses on the same images before and after it."""
    net.train()
    optimizer = paddle.optimizer.Adam(1e-3, parameters=net.parameters())

    def loss():
        return paddle.nn.functional.cross_entropy(net(images), paddle.to_tensor([0, 1]))

    before = loss()
    before.backward()
    optimizer.step()
    with paddle.no_grad():
        return float(before), float(loss())
