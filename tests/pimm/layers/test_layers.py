"""Layers against timm's values, closed forms and each other."""

import importlib
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import golden
import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from paddle import nn
from paths import ROOT, TESTS

from pimm import layers
from pimm.errors import ConfigError, TrainingError
from pimm.layers import padding
from pimm.models import load_torch_arrays, torch_names

ACTIVATIONS = [  # (name of the reference, ours)
    ("swish", "swish"),
    ("swish_1.0.31", "silu"),
    ("mish", "mish"),
    ("mish_1.0.31", "mish"),
    ("hard_swish", "hard_swish"),
    ("hard_swish_1.0.31", "hard_swish"),
    ("hard_sigmoid", "hard_sigmoid"),
    ("hard_sigmoid_1.0.31", "hard_sigmoid"),
    ("hard_mish_1.0.31", "hard_mish"),
    ("sigmoid", "sigmoid"),
    ("tanh", "tanh"),
]


@pytest.mark.parametrize(("reference", "name"), ACTIVATIONS)
def test_activation(reference, name):
    expected = golden.arrays("blocks")
    for activation in (layers.get_act_fn(name), layers.get_act_layer(name)(inplace=True)):
        x = paddle.to_tensor(expected["act/x"], stop_gradient=False)
        y = activation(x)
        y.sum().backward()
        np.testing.assert_allclose(y.numpy(), expected[f"act/{reference}/y"], rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(x.grad.numpy(), expected[f"act/{reference}/dy"], rtol=1e-5, atol=5e-6)


@pytest.mark.parametrize(("name", "limit"), [("relu", np.inf), ("relu6", 6.0)])
def test_relu(name, limit):
    x = np.linspace(-8, 8, 33, dtype=np.float32)
    for activation in (layers.get_act_fn(name), layers.get_act_layer(name)()):
        np.testing.assert_array_equal(activation(paddle.to_tensor(x)).numpy(), np.clip(x, 0, limit))


def test_unknown_activation():
    with pytest.raises(ConfigError, match="hard_swish"):
        layers.get_act_layer("hard_swich")


TABLES = {
    "get_same_padding": padding.get_same_padding,
    "get_padding": padding.get_padding,
    "is_static_pad": padding.is_static_pad,
    "make_divisible": layers.make_divisible,
}


@pytest.mark.parametrize("name", TABLES)
def test_table(name):
    for *arguments, expected in golden.facts("blocks")[name]:
        assert TABLES[name](*arguments) == expected, arguments


@pytest.mark.parametrize(
    ("pad", "kernel", "stride", "expected"),
    [
        ("same", 3, 1, (1, False)),
        ("same", 3, 2, (0, True)),
        ("same", 4, 1, (0, True)),
        ("valid", 5, 1, (0, False)),
        ("", 5, 2, (2, False)),
        (3, 5, 2, (3, False)),
    ],
)
def test_padding_value(pad, kernel, stride, expected):
    assert padding.get_padding_value(pad, kernel, stride=stride) == expected


def test_unknown_padding():
    with pytest.raises(ConfigError, match="'same', 'valid'"):
        padding.get_padding_value("smae", 3)


SAME_CONVS = [name for name in golden.arrays("blocks").files if name.startswith("conv2d_same/")]


@pytest.mark.parametrize("name", SAME_CONVS)
def test_conv2d_same(name):
    numbers = re.fullmatch(r"conv2d_same/h(\d+)w(\d+)_k(\d+)s(\d+)d(\d+)g(\d+)", name).groups()
    height, width, kernel, stride, dilation, groups = (int(number) for number in numbers)
    conv = layers.Conv2dSame(4, 4, kernel, stride, dilation=dilation, groups=groups, bias=False)
    conv.weight.set_value(golden.param(f"w{kernel}_{groups}.weight", (4, 4 // groups, kernel, kernel)))
    out = conv(paddle.to_tensor(golden.inputs((1, 4, height, width))))
    np.testing.assert_allclose(out.numpy(), golden.arrays("blocks")[name], rtol=1e-5, atol=1e-6)


def build(entry):
    config = dict(entry["config"])
    if "act_layer" in config:
        config["act_layer"] = getattr(layers, config["act_layer"])
    if "gate_fn" in config:
        config["gate_fn"] = getattr(layers, config["gate_fn"])
    makers = {"MixedConv2d": layers.create_conv2d, "AvgPool2dSame": layers.create_pool2d}
    makers.update(AvgPool2d=layers.create_pool2d)
    return (makers.get(entry["module"]) or getattr(layers, entry["module"]))(**config)


LAYERS = [
    name
    for name in golden.facts("blocks")
    if name.startswith(("SqueezeExcite/", "MixedConv2d/", "SelectAdaptivePool2d/", "create_pool2d/"))
]


@pytest.mark.parametrize("name", LAYERS)
def test_layer(name):
    entry, expected = golden.facts("blocks")[name], golden.arrays("blocks")
    layer = build(entry)
    assert [[key, list(shape)] for key, shape in torch_names(layer)] == entry["names_shapes"]
    load_torch_arrays(layer, golden.state(entry["names_shapes"], gain=entry["gain"]))
    x = paddle.to_tensor(golden.inputs(entry["input"]), stop_gradient=False)
    out = layer(x)
    np.testing.assert_allclose(out.numpy(), expected[f"{name}/train"], rtol=1e-4, atol=1e-5)
    (out * paddle.to_tensor(golden.inputs(entry["out_shape"], stream=12360))).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), expected[f"{name}/train_grad_x"], rtol=1e-3, atol=1e-5)


def test_max_pool_same_pads_with_nothing_that_could_win():
    x = -1 - np.arange(25, dtype=np.float32).reshape(1, 1, 5, 5)
    pooled = layers.create_pool2d("max", 2, 2, padding="same")(paddle.to_tensor(x))
    np.testing.assert_array_equal(pooled[0, 0].numpy(), x[0, 0, ::2, ::2])


@pytest.mark.parametrize("make", [layers.SelectAdaptivePool2d, lambda pool_type: layers.create_pool2d(pool_type, 2)])
def test_unknown_pool(make):
    with pytest.raises(ConfigError, match="avg, max"):
        make(pool_type="mean")


CONVS = [  # (arguments of Conv2d, input size)
    ({"in_channels": 6, "out_channels": 8, "kernel_size": 1}, (1, 1)),
    ({"in_channels": 6, "out_channels": 8, "kernel_size": 1, "bias": False}, (1, 1)),
    ({"in_channels": 6, "out_channels": 6, "kernel_size": 3, "padding": 1, "groups": 6}, (5, 4)),
    ({"in_channels": 6, "out_channels": 6, "kernel_size": 5, "padding": 2, "groups": 6, "stride": 2}, (7, 6)),
    ({"in_channels": 6, "out_channels": 4, "kernel_size": 3, "padding": 1, "groups": 2, "dilation": 2}, (7, 6)),
]


@pytest.mark.parametrize(("arguments", "size"), CONVS)
def test_conv2d_equals_paddles(arguments, size):
    conv = layers.Conv2d(**arguments)
    gradients = []
    for function in (conv, super(layers.Conv2d, conv).forward):
        x = paddle.to_tensor(golden.inputs((3, 6, *size)), stop_gradient=False)
        out = function(x)
        conv.clear_gradients()
        (out * out).sum().backward()
        gradients.append([tensor.numpy() for tensor in (out, x.grad, *(p.grad for p in conv.parameters()))])
    for ours, paddles in zip(*gradients):
        np.testing.assert_allclose(ours, paddles, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layer", [layers.Conv2d(16, 64, 3), layers.Linear(144, 64)])
def test_initial_values(layer):
    bound = 1 / 12  # fan-in 144
    for values in (layer.weight.numpy(), layer.bias.numpy()):
        assert 0.9 * bound < np.abs(values).max() <= bound
    assert layer.weight.numpy().std() == pytest.approx(bound / 3**0.5, rel=0.05)


@pytest.mark.parametrize("arguments", [{"groups": 4}, {"groups": 1, "bias": True, "padding": "same", "stride": 2}])
def test_cond_conv_mixes_a_kernel_for_each_image(arguments):
    conv = layers.CondConv2d(4, 4, 3, num_experts=3, **arguments)
    x = paddle.to_tensor(golden.inputs((2, 4, 6, 5)))
    routing = F.softmax(paddle.to_tensor(golden.inputs((2, 3))))
    out = conv(x, routing)
    pad = [0, 1, 1, 1] if conv.dynamic_padding else 1
    for image in range(2):
        weight = (routing[image] @ conv.weight).reshape(conv.weight_shape)
        bias = None if conv.bias is None else routing[image] @ conv.bias
        alone = F.conv2d(x[image : image + 1], weight, bias, conv.stride, pad, groups=conv.groups)
        np.testing.assert_allclose(out[image].numpy(), alone[0].numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel_size": [3, 5], "groups": 4}, "take 1 or 8 groups, not 4"),
        ({"kernel_size": [3, 5], "num_experts": 4}, "cannot be combined"),
    ],
)
def test_create_conv2d_refuses(arguments, message):
    with pytest.raises(ConfigError, match=message):
        layers.create_conv2d(8, 8, **arguments)


@pytest.mark.parametrize("rate", [0.3, 0.7])
def test_drop_path(rate, monkeypatch):
    expected = golden.arrays("blocks")
    draws = expected[f"drop_path/{rate}/u"]
    monkeypatch.setattr(paddle, "rand", lambda shape, dtype: paddle.to_tensor(draws).reshape(shape).astype(dtype))
    x = paddle.to_tensor(golden.inputs((16, 3, 2, 2)))
    layer = layers.DropPath(rate)
    np.testing.assert_allclose(layer(x).numpy(), expected[f"drop_path/{rate}/out"], rtol=1e-6)
    layer.eval()
    np.testing.assert_array_equal(layer(x).numpy(), x.numpy())


def test_drop_path_at_its_bounds():
    x = paddle.to_tensor(golden.inputs((16, 3, 2, 2)))
    np.testing.assert_array_equal(layers.DropPath(1.0)(x).numpy(), np.zeros(x.shape))  # and not 0 / 0
    for rate in (-0.1, 1.5, float("nan")):
        with pytest.raises(ConfigError, match="leaving out a block must be from 0 to 1"):
            layers.DropPath(rate)(x)


def running(norm):
    return norm._mean.numpy(), norm._variance.numpy()


def test_batch_norm_keeps_pytorchs_statistics():
    norm = layers.BatchNorm2d(3, eps=1e-3, momentum=0.25)
    mean, variance = np.zeros(3), np.ones(3)
    for batch in range(3):
        x = 2 * golden.inputs((2, 3, 2, 2), seed=batch) + 1
        out = norm(paddle.to_tensor(x)).numpy()
        centred = x - x.mean((0, 2, 3), keepdims=True)
        np.testing.assert_allclose(out, centred / np.sqrt(x.var((0, 2, 3), keepdims=True) + 1e-3), rtol=1e-4, atol=1e-5)
        mean = 0.75 * mean + 0.25 * x.mean((0, 2, 3))
        variance = 0.75 * variance + 0.25 * x.var((0, 2, 3), ddof=1)
        np.testing.assert_allclose(running(norm), (mean, variance), rtol=1e-5, atol=1e-6)
    norm.eval()
    expected = (x - mean.reshape(1, 3, 1, 1)) / np.sqrt(variance.reshape(1, 3, 1, 1) + 1e-3)
    np.testing.assert_allclose(norm(paddle.to_tensor(x)).numpy(), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(running(norm), (mean, variance), rtol=1e-5, atol=1e-6)


def test_batch_norm_without_scale_and_shift():
    norm = layers.BatchNorm2d(3, affine=False)
    assert [name for name, _ in torch_names(norm)] == ["running_mean", "running_var", "num_batches_tracked"]
    out = norm(paddle.to_tensor(golden.inputs((4, 3, 5, 5)))).numpy()
    np.testing.assert_allclose([out.mean((0, 2, 3)), out.var((0, 2, 3))], [[0] * 3, [1] * 3], atol=1e-4)


def test_frozen_statistics_do_not_change_by_one_bit():
    norm = layers.BatchNorm2d(3)
    x = paddle.to_tensor(golden.inputs((4, 3, 5, 5)), stop_gradient=False)
    moving = norm(x).numpy()
    before = running(norm)
    with layers.frozen_batch_norm_statistics():
        with layers.frozen_batch_norm_statistics():
            frozen = norm(x)
        norm(frozen).square().sum().backward()  # still frozen after the inner block
    np.testing.assert_array_equal(frozen.numpy(), moving)
    np.testing.assert_array_equal(running(norm), before)
    assert np.isfinite(x.grad.numpy()).all()
    norm(x)
    assert (running(norm)[0] != before[0]).all()


@pytest.mark.parametrize("training", [True, False])
def test_a_norm_and_its_activation_are_the_two_layers_with_and_without_gradients(training):
    norm, act = layers.BatchNorm2d(3), layers.Swish()
    norm.train() if training else norm.eval()
    with layers.frozen_batch_norm_statistics():
        for _ in range(2):
            x = paddle.to_tensor(golden.inputs((4, 3, 5, 5)), stop_gradient=False)
            expected = act(norm(x))
            with paddle.no_grad():
                np.testing.assert_array_equal(layers.norm_act(x, norm, act).numpy(), expected.numpy())
                np.testing.assert_array_equal(norm(x, then_swish=True).numpy(), expected.numpy())
            results = layers.norm_act(x, norm, act), norm(x, then_swish=True), expected
            gradients = [paddle.grad((out**3).sum(), [x])[0].numpy() for out in results]
            np.testing.assert_array_equal(gradients, [gradients[0]] * 3)
            norm = layers.convert_sync_batchnorm(norm)  # of one process, the second time
    before = running(norm)
    with paddle.no_grad():
        layers.norm_act(x, norm, act)
    assert (running(norm)[0] != before[0]).all() == training


def test_hooks_of_a_norm_and_its_activation_see_what_each_returns():
    norm, x, seen = layers.BatchNorm2d(3), paddle.to_tensor(golden.inputs((4, 3, 5, 5))), []
    for act in (layers.Swish(), nn.ReLU()):
        for hooked in (norm, act):
            with paddle.no_grad():
                expected = norm(x) if hooked is norm else act(norm(x))
                handle = hooked.register_forward_post_hook(lambda layer, inputs, out: seen.append(out.numpy()))
                layers.norm_act(x, norm, act)
                handle.remove()
            np.testing.assert_array_equal(seen.pop(), expected.numpy())
    assert not seen


def test_batch_norm_gradient():
    norm = layers.BatchNorm2d(2)
    norm.weight.set_value(np.array([0.5, 2.0], np.float32))
    reference = nn.BatchNorm2D(2, epsilon=1e-5)
    reference.weight.set_value(norm.weight)
    gradients = []
    for layer in (norm, reference):
        x = paddle.to_tensor(golden.inputs((3, 2, 2, 2)), stop_gradient=False)
        (layer(layer(x)) ** 3).sum().backward()
        gradients.append((x.grad.numpy(), layer.weight.grad.numpy(), layer.bias.grad.numpy()))
    for ours, paddles in zip(*gradients):
        np.testing.assert_allclose(ours, paddles, rtol=1e-5, atol=1e-5)  # sums in another order


def test_batch_norm_wants_more_than_one_value():
    norm = layers.BatchNorm2d(3)
    with pytest.raises(TrainingError, match=r"\[1, 3, 1, 1\]"):
        norm(paddle.ones([1, 3, 1, 1]))


def forward_and_backward(norm, rows):
    """Output, gradient of the input, gradients of scale and shift, running statistics."""
    x = paddle.to_tensor(3 * golden.inputs((4, 3, 2, 2))[rows] + 1, stop_gradient=False)
    out = norm(norm(x))
    (out * paddle.to_tensor(golden.inputs((4, 3, 2, 2), seed=1)[rows])).sum().backward()
    tensors = (out, x.grad, norm.weight.grad, norm.bias.grad, norm._mean, norm._variance)
    return [tensor.numpy() for tensor in tensors]


def second_derivative(norm, rows):
    """Gradient of a gradient penalty; both gradients meet the batches of all processes."""
    x = paddle.to_tensor(3 * golden.inputs((4, 3, 2, 2))[rows] + 1, stop_gradient=False)
    (gradient,) = paddle.grad((norm(x) ** 3).sum(), [x], create_graph=True)
    return paddle.grad((gradient**3).sum(), [x])[0].numpy()


SYNCHRONISED = """
import sys
from pathlib import Path
import numpy as np
import paddle
from paddle import distributed, nn
from pimm import layers
from test_layers import forward_and_backward, second_derivative

distributed.init_parallel_env()
rank = distributed.get_rank()
net = layers.convert_sync_batchnorm(nn.Sequential(layers.BatchNorm2d(3, momentum=0.3)))
results = forward_and_backward(net[0], slice(2 * rank, 2 * rank + 2))
with layers.frozen_batch_norm_statistics():
    forward_and_backward(net[0], slice(0, 2))
    with paddle.no_grad():
        x = paddle.randn([2, 3, 2, 2])
        np.testing.assert_array_equal(layers.norm_act(x, net[0], layers.Swish()), layers.swish(net[0](x)))
results += [net[0]._mean.numpy(), net[0]._variance.numpy(), second_derivative(net[0], slice(2 * rank, 2 * rank + 2))]
np.savez(f"{sys.argv[1]}/{rank}.npz", *results)
"""


def test_synchronised_batch_norm_is_that_of_the_whole_batch(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SYNCHRONISED)
    command = ["-m", "paddle.distributed.launch", "--nproc_per_node", "2", "--log_dir", tmp_path, script, tmp_path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, TESTS, Path(__file__).parent)))}
    subprocess.run([sys.executable, *command], check=True, capture_output=True, timeout=120, env=environment)

    parts = [list(np.load(tmp_path / f"{rank}.npz").values()) for rank in range(2)]
    whole = forward_and_backward(layers.BatchNorm2d(3, momentum=0.3), slice(4))
    joined = [np.concatenate(pair) for pair in zip(*parts)][:2] + [sum(pair) for pair in zip(*parts)][2:4]
    for synchronised, expected in zip(joined, whole):
        np.testing.assert_allclose(synchronised, expected, rtol=1e-4, atol=1e-5)
    for part in parts:
        np.testing.assert_allclose(part[4:6], whole[4:], rtol=1e-5)
        np.testing.assert_array_equal(part[6:8], part[4:6])
    second = second_derivative(layers.BatchNorm2d(3, momentum=0.3), slice(4))
    np.testing.assert_allclose(
        np.concatenate([part[8] for part in parts]), second, rtol=1e-3, atol=1e-3 * np.abs(second).max()
    )


def test_synchronised_batch_norm_of_one_process():
    norm = layers.BatchNorm2d(3, eps=1e-2, momentum=0.3)
    sync = layers.convert_sync_batchnorm(nn.Sequential(nn.Sequential(norm)))[0][0]
    assert type(sync) is layers.SyncBatchNorm2d and sync.weight is norm.weight and sync._mean is norm._mean
    alone = layers.BatchNorm2d(3, eps=1e-2, momentum=0.3)
    for ours, expected in zip(forward_and_backward(sync, slice(4)), forward_and_backward(alone, slice(4))):
        np.testing.assert_array_equal(ours, expected)


COPIES = {  # a module under one of timm's old paths, or of the earlier port's: the home of its names
    "pimm.models.layers": "pimm.layers",
    "pimm.models.layers.activations": "pimm.layers.activations",
    "pimm.models.activations": "pimm.layers.activations",
}


@pytest.mark.parametrize(("path", "home"), COPIES.items())
def test_old_paths_have_every_name_of_the_home_and_the_same_things(path, home):
    copy, original = importlib.import_module(path), importlib.import_module(home)
    assert copy.__all__ is original.__all__ and len(set(original.__all__)) == len(original.__all__)
    for name in original.__all__:
        assert getattr(copy, name) is getattr(original, name)
    public = {name for name in dir(copy) if not name.startswith("_") and not inspect.ismodule(getattr(copy, name))}
    assert public == set(original.__all__)


@pytest.mark.parametrize("name", [5, None, "", ["relu"], "x" * 1000])
def test_an_activation_that_is_no_name_is_one_line(name):
    with pytest.raises(ConfigError, match="unknown activation") as caught:
        layers.get_act_fn(name)
    assert len(str(caught.value)) < 400
