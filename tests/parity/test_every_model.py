"""Compare every model of every family with timm's model of the same name, in timm 1.x.

The tests are skipped without torch and timm. Both nets get the same drawn weights. What timm computes in float64 is the
reference; logits may differ from it by a ten-thousandth of the largest, or by three times what rounding does in timm.
Nets with more parameters than PIMM_PARITY_LARGEST are compared with fewer blocks, where they have an argument for it.
``PIMM_PARITY_RECORD=FILE`` appends a line of JSON for each comparison of logits: name, image, seconds, difference.

``python tests/parity/test_every_model.py [MODULE ...]`` writes digests and a few logits of timm to tests/data/models,
with which the suite does without timm.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import paddle
import pytest

sys.path[:0] = map(str, (Path(__file__).parents[2], Path(__file__).parents[1]))
torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm", minversion="1.0", exc_type=ImportError)

import golden  # noqa: E402
from model_weights import DATA, draw, state_digest  # noqa: E402

import pimm  # noqa: E402
from pimm.errors import ConfigError  # noqa: E402
from pimm.models import get_arch_pretrained_cfgs, load_torch_arrays, torch_names  # noqa: E402
from pimm.models.timm_table import families, timm_module, timm_names  # noqa: E402

NAMES = [name for module in families() for name in timm_names(module) if pimm.is_model(name)]
EVERY = pytest.mark.parametrize("name", NAMES, ids=[f"{timm_module(name)}-{name}" for name in NAMES])
SIZES = (64, 96, 128, 160, 192, 224, 240, 256, 288, 320, 384, 448, 512)
TOLERANCE = 1e-4  # relative to the largest logit
# Arguments with which the smallest net of a family is small enough for the suite
REDUCED = {
    "beit_base_patch16_224": {"depth": 2},
    "davit_tiny": {"depths": (1, 1, 1, 1)},
    "res2next50": {"layers": (1, 1, 1, 1)},
    "samvit_base_patch16_224": {"depth": 2, "global_attn_indexes": (1,)},
    "swin_tiny_patch4_window7_224": {"depths": (1, 2, 1, 1)},
    "swinv2_tiny_window8_256": {"depths": (1, 2, 1, 1)},
    "twins_svt_small": {"depths": (1, 1, 1, 1)},
    "vgg11": {"mlp_ratio": 1 / 64},
}
GAINS = (1.0, 1.1, 1.2, 1.3, 1.45, 1.6, 0.7, 0.5)  # of the weights: the more, the more image and rounding matter
WELL_CONDITIONED = TOLERANCE / 10  # how much timm's own float32 may differ, or other weights are tried
NUDGE = 2.0**-20  # relative change of images, of a few roundings: where it changes logits much, a net is chaotic
DATA_GAIN = 1.3
LARGEST_EXACT = 1e8  # parameters up to which timm computes in float64, for the sake of memory
LARGEST = float(os.environ.get("PIMM_PARITY_LARGEST", "4e8"))  # parameters up to which whole nets are compared
# Arguments with which larger nets have fewer blocks, of the same widths
SHALLOW = (
    {"depth": 2},
    {"depth": (1, 1, 1)},
    {"depth": ((1, 1, 0),) * 3},
    {"depths": (1, 1, 1, 1)},
    {"layers": (1, 1, 1, 1)},
)


def lazily(name, **kwargs):
    with paddle.LazyGuard():
        return pimm.create_model(name, **kwargs)


def on_meta(name, **kwargs):
    """Return timm's net without values where timm can build one, else with values."""
    try:
        with torch.device("meta"):
            return timm.create_model(name, **kwargs)
    except (NotImplementedError, RuntimeError):
        return timm.create_model(name, **kwargs)


def trained_by(net):
    return sum(value.numel() for value in net.parameters() if value.requires_grad)


def shapes_of(net):
    return {name: tuple(value.shape) for name, value in net.state_dict().items()}


def groups_of(net, names):
    """Return the names of the groups of layers, or the groups of the weights where a function tells them."""
    matcher = net.group_matcher(coarse=True)
    return {name: matcher(name) for name in names} if callable(matcher) else set(matcher)


@pytest.mark.parametrize("module", families())
def test_every_name_is_here(module):
    assert [name for name in timm_names(module) if not pimm.is_model(name)] == []
    assert timm_names(module) == timm.list_models(module=module)


@EVERY
def test_state(name):
    theirs, ours = on_meta(name), lazily(name)
    expected, found = shapes_of(theirs), {key: tuple(shape) for key, shape in torch_names(ours)}
    assert found.keys() ^ expected.keys() == set()
    assert {key: shape for key, shape in found.items() if shape != expected[key]} == {}
    assert sum(value.size for value in ours.parameters() if not value.stop_gradient) == trained_by(theirs)
    for attribute in ("num_classes", "num_features", "head_hidden_size"):
        assert getattr(ours, attribute) == getattr(theirs, attribute), attribute
    assert set(ours.no_weight_decay()) == set(getattr(theirs, "no_weight_decay", set)())
    if hasattr(theirs, "group_matcher"):
        assert groups_of(ours, found) == groups_of(theirs, found)


@EVERY
def test_settings(name):
    theirs = timm.models.get_arch_pretrained_cfgs(name)
    found = {tag: cfg.to_dict() for tag, cfg in get_arch_pretrained_cfgs(name).items()}
    assert found == {tag: cfg.to_dict() for tag, cfg in theirs.items()}
    assert pimm.models.get_pretrained_cfg(name).tag == (timm.models.get_pretrained_cfg(name).tag or None)


@EVERY
def test_features_only(name):
    try:
        theirs = on_meta(name, features_only=True).feature_info
    except (RuntimeError, AttributeError, AssertionError):
        with pytest.raises(ConfigError):
            lazily(name, features_only=True)
        return
    ours = lazily(name, features_only=True).feature_info
    assert (ours.channels(), ours.reduction()) == (theirs.channels(), theirs.reduction())


def parameters_of(name, **kwargs):
    return sum(value.numel() for value in on_meta(name, **kwargs).parameters())


def shallow(name):
    """Return the arguments of a net with fewer blocks for a net that is too large, and none for other nets."""
    parameters = parameters_of(name)
    if parameters <= LARGEST:
        return {}
    for kwargs in SHALLOW:
        try:
            fewer = parameters_of(name, **kwargs)
        except Exception:  # a family says in its own way that it has other arguments
            continue
        if fewer < parameters:
            return kwargs
    return {}


def smallest(name, **shape):
    """Return the arguments and the size of images with which timm's net takes the smallest images."""
    cfg = timm.models.get_pretrained_cfg(name)
    own = cfg.input_size[-1]
    for size in [size for size in SIZES if size < own] + [own]:
        kwargs = {"img_size": size, **shape} if cfg.fixed_input_size and size != own else shape
        try:
            with torch.device("meta"):
                timm.create_model(name, **kwargs).eval()(torch.zeros(1, 3, size, size))
        except Exception:  # a net says in many ways that images are too small for it
            continue
        return kwargs, size
    return shape, own


def weights_of(net, gain):
    """Draw the weights of timm's net; tables that it computes itself stay as they are."""
    computed = {
        name for name, _ in net.named_buffers() if name.rpartition(".")[2] not in ("running_mean", "running_var")
    }
    kernels = {
        f"{name}.weight": (-1, *module.weight_shape[1:])  # the kernels of all experts, which the state holds flat
        for name, module in net.named_modules()
        if hasattr(module, "num_experts") and hasattr(module, "weight_shape")
    }
    return {
        name: value.numpy()
        if name in computed
        else draw(name, tuple(value.reshape(kernels.get(name, value.shape)).shape), gain).reshape(value.shape)
        for name, value in net.state_dict().items()
    }


@torch.no_grad()
def reference(net, images):
    """Return timm's logits, and how much rounding changes them, relative to the largest logit.

    That is how much timm's float32 differs from its float64, or how much a nudge of the images changes it, if more.
    """
    single = net.float()(torch.tensor(images)).double()
    nudged = net(torch.tensor(images * np.float32(1 + NUDGE))).double()
    nudge = ((single - nudged).abs().max() / single.abs().max()).item()
    if sum(value.numel() for value in net.parameters()) > LARGEST_EXACT:
        return single.numpy(), nudge
    double = net.double()(torch.tensor(images).double())
    return double.numpy(), max(nudge, ((single - double).abs().max() / double.abs().max()).item())


def sensitive_weights(net, images):
    """Return weights with which timm's logits say much of the image, and little of rounding, and what they give.

    Returns:
        weights, logits, how much rounding changes them, how far the logits of two images are apart (both relative to
        the largest logit), and the gain of the weights.
    """
    tried = []
    for gain in GAINS:
        state = weights_of(net, gain)
        net.float().load_state_dict({key: torch.tensor(value) for key, value in state.items()})
        logits, error = reference(net, images)
        apart = np.abs(logits[0] - logits[1]).max() / np.abs(logits).max()
        tried.append((apart / max(TOLERANCE, 3 * error), gain, logits, error, apart))
        if tried[-1][0] > 20 and error < WELL_CONDITIONED:
            break
    _, gain, logits, error, apart = max(tried, key=lambda found: found[0])
    return weights_of(net.float(), gain), logits, error, apart, gain


def record(**facts):
    if os.environ.get("PIMM_PARITY_RECORD"):
        with open(os.environ["PIMM_PARITY_RECORD"], "a") as file:
            file.write(json.dumps(facts) + "\n")


@EVERY
def test_logits(name):
    shape = shallow(name)
    if parameters_of(name, **shape) > LARGEST:
        pytest.skip("more parameters than memory")
    begun = time.time()
    kwargs, size = smallest(name, **shape)
    images = golden.inputs((2, 3, size, size))
    net = timm.create_model(name, **kwargs).eval()
    state, logits, error, apart, gain = sensitive_weights(net, images)
    assert apart > 2 * max(TOLERANCE, 3 * error), "the logits say nothing of the image"
    del net
    ours = pimm.create_model(name, **kwargs)
    ours.eval()
    load_torch_arrays(ours, state)
    with paddle.no_grad():
        found = ours(paddle.to_tensor(images)).numpy()
    assert found.shape == logits.shape
    difference = float(np.abs(found - logits).max() / np.abs(logits).max())
    seconds = round(time.time() - begun, 1)
    facts = {"name": name, "size": size, "seconds": seconds, "shape": shape, "difference": difference}
    record(**facts, own=error, apart=float(apart), gain=gain)
    assert difference <= max(TOLERANCE, 3 * error)


def digest_of_timm(name):
    """Return what the suite compares without timm: a digest of names and shapes, and how many values are trained."""
    net = on_meta(name)
    return {"digest": state_digest(shapes_of(net)), "parameters": trained_by(net)}


def logits_of_timm(name):
    """Return timm's logits in float64 for drawn weights, and what it takes to compute them again."""
    kwargs, size = smallest(name)
    kwargs = {**kwargs, **REDUCED.get(name, {})}
    net = timm.create_model(name, **kwargs).eval()
    net.load_state_dict({key: torch.tensor(value) for key, value in weights_of(net, DATA_GAIN).items()})
    logits, error = reference(net, golden.inputs((2, 3, size, size)))
    return {"kwargs": kwargs, "size": size, "gain": DATA_GAIN, "error": error, "logits": logits[:, :8].tolist()}


def write_data(module):
    """Write what timm gives for the models of a module, for the suite."""
    states = {name: digest_of_timm(name) for name in timm_names(module) if pimm.is_model(name)}
    small = min(states, key=lambda name: states[name]["parameters"])
    rows = [f"  {json.dumps(name)}: {json.dumps(found)}" for name, found in states.items()]
    text = '{\n "states": {\n' + ",\n".join(rows) + "\n },\n"
    text += f' "logits": {{{json.dumps(small)}: {json.dumps(logits_of_timm(small))}}}\n}}\n'
    (DATA / f"{module}.json").write_text(text)


if __name__ == "__main__":
    DATA.mkdir(exist_ok=True)
    for each in sys.argv[1:] or families():
        write_data(each)
