"""Single Path One-Shot's nets against the authors' and NNI's definitions: names, shapes, counts, logits, gradients.

``data/spos_names.json`` was made by those definitions in PyTorch, from weights and images by the recipe of ``golden``.
"""

import json
import pickle
from pathlib import Path

import golden
import numpy as np
import paddle
import pytest

from cream import shuffle
from cream.convert import main
from cream.flops import cost_tables, count_macs, count_parameters
from cream.nets import find_net
from cream.op_flops import op_flops_table, read_op_flops
from cream.sampler import Sampler
from cream.shuffle import CHANNEL_RATIOS, CONVOLUTION_RULES, SPOS_ARCH, ShuffleNet, ShuffleSuperNet, shuffle_space
from pimm.errors import CheckpointError, ConfigError
from pimm.layers import BatchNorm2d
from pimm.models.torch_names import load_torch_arrays, to_torch_arrays, torch_names
from pimm.torch_file import load_torch, save_torch
from pimm.utils import load_arrays

FACTS = json.loads((Path(__file__).parent / "data" / "spos_names.json").read_text())
GOLDEN = FACTS["golden"]
SPACE = shuffle_space()
ARCHS = [SPOS_ARCH, SPACE.decode([0] * 20), SPACE.decode([3] * 20), SPACE.decode([i % 4 for i in range(20)])]
# What the authors' table has for the four operations at each position, in multiply-adds at 224 pixels.
FIRST_AND_FURTHER = (
    ([13396992, 15805440, 19418112, 13146112], [7325696, 8931328, 11339776, 12343296]),
    ([26304768, 28111104, 30820608, 20296192], [10599680, 11603200, 13108480, 16746240]),
    ([30670080, 31673600, 33178880, 21199360], [10317440, 10819200, 11571840, 15899520]),
    ([30387840, 30889600, 31642240, 20634880], [10176320, 10427200, 10803520, 15476160]),
)
FIRST_CONV, REST = 5419008, 33136640


def torch_state(names_shapes, seed):
    return golden.state(names_shapes.items(), seed)


def filled(net, names_shapes, seed):
    """The net with the recipe's weights for these names, its dropout off."""
    load_torch_arrays(net, torch_state(names_shapes, seed))
    net.drop_rate = 0.0
    return net


def summary(logits):
    values = logits.numpy()
    return [*values[:, :8].ravel(), values.sum(dtype=np.float64), np.abs(values).sum(dtype=np.float64)]


@pytest.fixture(scope="module")
def supernet():
    return filled(ShuffleSuperNet(), FACTS["supernet"], 1)


@pytest.fixture(scope="module")
def channel_net():
    paddle.seed(0)
    return ShuffleSuperNet(5, CHANNEL_RATIOS, drop_rate=0.0)


def images(shape=(2, 3, 64, 64)):
    return paddle.to_tensor(golden.inputs(shape, 1))


@pytest.mark.parametrize("name, build", [("supernet", ShuffleSuperNet), ("net", ShuffleNet)])
def test_names_shapes_and_counts_are_the_authors(name, build):
    with paddle.LazyGuard():
        net = build()
    own = {key: list(shape) for key, shape in torch_names(net) if not key.endswith("num_batches_tracked")}
    assert own == FACTS[name]
    assert count_parameters(net) == FACTS["parameters"][name]


@pytest.mark.parametrize("name", ["supernet", "net"])
def test_nni_has_projections_that_nothing_runs(name):
    unused = FACTS["nni_unused"][name]
    trained = sum(np.prod(shape) for key, shape in unused.items() if "running" not in key)
    assert FACTS["parameters"][name] + trained == FACTS["parameters"][f"nni_{name}"]


@pytest.mark.parametrize("index, arch", enumerate(ARCHS))
def test_supernet_logits(supernet, index, arch):
    supernet.eval()
    np.testing.assert_allclose(summary(supernet(images(), arch)), GOLDEN[f"supernet_eval_{index}"], rtol=1e-4, atol=2e-5)


def test_net_logits():
    net = filled(ShuffleNet(), FACTS["net"], 1)
    net.eval()
    np.testing.assert_allclose(summary(net(images())), GOLDEN["net_eval_0"], rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("name, build, arch", [("supernet", ShuffleSuperNet, ARCHS[3]), ("net", ShuffleNet, None)])
def test_training_pass_gradients_and_running_statistics(name, build, arch):
    net = filled(build(), FACTS[name], 1)
    net.train()
    logits = net(images(), arch) if arch else net(images())
    np.testing.assert_allclose(summary(logits), GOLDEN[f"{name}_train"], rtol=1e-2, atol=2e-3)
    (logits * paddle.to_tensor(golden.inputs(logits.shape, 1, 12360))).sum().backward()
    gradients = {key: p.grad for key, p in net.named_parameters() if p.grad is not None}
    sums = {key: gradients[key].abs().sum(dtype="float64").item() for key in GOLDEN[f"{name}_train_grads"]}
    assert sums == pytest.approx(GOLDEN[f"{name}_train_grads"], rel=2e-2)
    state = to_torch_arrays(net, {key: value.numpy() for key, value in net.state_dict().items()})
    for key, expected in GOLDEN[f"{name}_train_running"].items():
        values = state[key].astype(np.float64)
        assert [values.sum(), np.abs(values).sum()] == pytest.approx(expected, rel=1e-3, abs=1e-3)
