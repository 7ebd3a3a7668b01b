"""Training steps of the supernet and the matching network's gradient, against the official PyTorch code."""

import golden
import numpy as np
import paddle
import pytest

from cream.mobile.nets import MobileSuperNet
from cream.mobile.space import mobile_space
from cream.space import parse_arch
from cream.train.meta import MetaBatch, Teacher, meta_gradients
from cream.train.steps import SinglePathStep, Update
from pimm.layers import frozen_batch_norm_statistics
from pimm.loss import LabelSmoothingCrossEntropy
from pimm.models.torch_names import load_torch_arrays, torch_names
from pimm.optim import create_optimizer_v2, param_groups_weight_decay

STEPS, META = golden.facts("train_steps"), golden.facts("meta")
ARCHS = [parse_arch(arch) for arch in STEPS["archs"]]


@pytest.fixture
def net():
    net = MobileSuperNet(mobile_space((4, 4, 4, 4, 4)), num_classes=10)
    load_torch_arrays(net, golden.state([[name, shape] for name, shape in torch_names(net)]))
    return net


@pytest.mark.parametrize("opt", ["sgd", "rmsproptf"])
def test_a_scaled_update_is_the_plain_one(gpu, opt):
    """AMP's, whose scale halves where a gradient overflows, and nothing moves."""
    moved = {}
    for amp in (True, False):
        weight = paddle.create_parameter([2], "float32")
        weight.set_value(np.float32([3.0, 4.0]))
        update = Update(create_optimizer_v2([weight], opt, lr=0.1, momentum=0.9), amp=amp, clip_grad=2.0)
        for factor in (1.0, 2.0):
            update((weight * weight).sum() * factor, [weight])
        moved[amp] = weight.numpy()
        assert weight.grad is None
        if amp:
            update((weight * float("inf")).sum(), [weight])
            np.testing.assert_array_equal(weight.numpy(), moved[amp])
            assert update.state_dict()["scale"].item() == 2.0**15
    np.testing.assert_allclose(moved[True], moved[False], rtol=1e-6)
    assert abs(moved[True] - [3.0, 4.0]).min() > 0.1


def tensor_by_torch_name(net, name):
    name = name.replace("running_mean", "_mean").replace("running_var", "_variance")
    value = net.state_dict()[name].numpy()
    return value.T if name in ("classifier.weight", "meta_layer.weight") else value


def summary(array):
    """Sum, sum of absolute values and the first five values, as the reference file has them."""
    flat = np.zeros(5)
    flat[: min(5, array.size)] = array.ravel()[:5]
    return np.array([array.sum(dtype=np.float64), np.abs(array).sum(dtype=np.float64), *flat])


def assert_state(net, prefix, tolerance):
    arrays = golden.arrays("train_steps")
    for kind, names in (("params", STEPS["param_names"]), ("buffers", STEPS["buffer_names"])):
        for name, expected in zip(names, arrays[f"{prefix}/{kind}"]):
            actual = summary(tensor_by_torch_name(net, name))
            expected = np.nan_to_num(expected)
            assert np.abs(actual - expected).max() <= tolerance * np.abs(expected).max(), name


def make_step(net):
    groups = param_groups_weight_decay(net, STEPS["optimizer"]["weight_decay"])
    optimizer = create_optimizer_v2(groups, "sgd", lr=STEPS["optimizer"]["lr"], momentum=0.9)
    loss_fn = LabelSmoothingCrossEntropy(STEPS["smoothing"])
    return SinglePathStep(net, loss_fn, Update(optimizer), sampler=None, rng=None)


def batch(step):
    images = golden.inputs((8, 3, 64, 64), stream=12345 + step)
    return paddle.to_tensor(images), paddle.to_tensor(golden.targets(8, 10, stream=777 + step))


def test_three_plain_steps(net):
    arrays, step = golden.arrays("train_steps"), make_step(net)
    for i, arch in enumerate(ARCHS):
        before = {name: tensor_by_torch_name(net, name).copy() for name in STEPS["param_names"]}
        (loss, *_), _ = step.train_path(arch, *batch(i))
        assert loss.item() == pytest.approx(arrays["f32/none_true/loss"][i], rel=1e-5)
        assert_state(net, f"f32/none_true/step{i}", 1e-4)
        off_path = [name for name, visits in STEPS["on_path"].items() if not visits[i]]
        for name in off_path:
            np.testing.assert_array_equal(tensor_by_torch_name(net, name), before[name])


@pytest.mark.parametrize("official", [False, True])
def test_distillation_step(net, official, monkeypatch):
    """With the official treatment of the teacher's batch-norm statistics everything is equal; we leave them alone."""
    arrays, step = golden.arrays("train_steps"), make_step(net)
    teacher = Teacher(ARCHS[STEPS["kd"]["teacher"]], STEPS["kd"]["meta_value"])
    if official:
        monkeypatch.setattr("pimm.layers.norm._frozen", False)
        monkeypatch.setattr("cream.train.steps.frozen_batch_norm_statistics", paddle.no_grad)
    values, _ = step.train_path(ARCHS[STEPS["kd"]["student"]], *batch(0), teacher)
    assert values[:2].numpy() == pytest.approx(arrays["f32/kd/losses"][:2], rel=1e-5)  # in all, and the teacher's
    if official:
        assert_state(net, "f32/kd", 1e-4)
    else:
        expected = arrays["f32/kd/params"]
        for name, row in zip(STEPS["param_names"], expected):
            assert np.abs(summary(tensor_by_torch_name(net, name)) - np.nan_to_num(row)).max() <= 1e-4 * np.nanmax(
                np.abs(row)
            )
        plain = golden.arrays("train_steps")["f32/none_true/step0/buffers"]
        for name, row in zip(STEPS["buffer_names"], plain):
            assert np.abs(summary(tensor_by_torch_name(net, name)) - np.nan_to_num(row)).max() <= 1e-4 * np.nanmax(
                np.abs(row)
            )


def lesson_and_teacher(net, prefix):
    """The reference's batch; its rho is sigmoid(-score), ours sigmoid(score): with theta's sign turned they agree."""
    with paddle.no_grad():
        for parameter in net.meta_layer.parameters():
            paddle.assign(-parameter, parameter)
    student, teacher = parse_arch(META["student"]), parse_arch(META["teacher"])
    arrays, scalars = golden.arrays("meta"), META["scalars"][prefix]
    size = (4, 3, META["image"], META["image"])
    board_images = paddle.to_tensor(golden.inputs(size, stream=12347))
    logits = golden.inputs((4, 10), stream=12348)
    features = paddle.nn.functional.softmax(paddle.to_tensor(logits), axis=1)
    with paddle.no_grad(), frozen_batch_norm_statistics():
        probabilities = paddle.nn.functional.softmax(net(board_images, student), axis=1)
        score = net.meta_layer((probabilities - features).unsqueeze(0))
    np.testing.assert_allclose(probabilities.numpy(), arrays["f32/student_board_softmax"], atol=1e-6)
    rho = float(paddle.nn.functional.sigmoid(score)[0])
    assert rho == pytest.approx(scalars["rho"], rel=1e-5)
    batch = MetaBatch(
        paddle.to_tensor(golden.inputs(size)),
        paddle.to_tensor(golden.inputs(size, stream=12346)),
        paddle.to_tensor(golden.targets(4, 10)),
    )
    return student, Teacher(teacher, rho, (probabilities - features)), batch


@pytest.mark.parametrize("lr", META["lrs"])
@pytest.mark.parametrize("smoothing, name", [(0.0, "ce"), (0.1, "ls0.1")])
def test_meta_gradients(net, lr, smoothing, name):
    prefix = f"f32/{name}/lr{lr:g}"
    student, teacher, batch = lesson_and_teacher(net, prefix)
    before = {key: value.numpy().copy() for key, value in net.state_dict().items()}
    loss_fn = LabelSmoothingCrossEntropy(smoothing)
    weight, bias = meta_gradients(net, student, teacher, batch, lr, loss_fn)
    arrays = golden.arrays("meta")

    expected = -arrays[prefix.replace("f32", "f64") + "/meta_grad_weight"]
    np.testing.assert_allclose(weight.numpy().T, expected, atol=1e-4 * np.abs(expected).max())
    expected = -arrays[prefix.replace("f32", "f64") + "/meta_grad_bias"]
    np.testing.assert_allclose(bias.numpy(), expected, rtol=1e-4)
    for key, value in net.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[key])
    assert all(parameter.grad is None for parameter in net.parameters() if not parameter.stop_gradient)
