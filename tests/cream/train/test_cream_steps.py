"""Training steps of the supernet and the matching network's gradient, against the official PyTorch code."""

import functools

import golden
import numpy as np
import paddle
import pytest

from cream.mobile.nets import MobileSuperNet
from cream.mobile.space import mobile_space
from cream.space import parse_arch
from cream.train.meta import MetaBatch, Teacher, meta_gradients
from cream.train.steps import SinglePathStep
from pimm.engine import Update
from pimm.layers import frozen_batch_norm_statistics
from pimm.loss import LabelSmoothingCrossEntropy
from pimm.models.torch_names import load_torch_arrays, torch_names
from pimm.optim import create_optimizer_v2, param_groups_weight_decay

STEPS, META = golden.facts("train_steps"), golden.facts("meta")
ARRAYS = golden.arrays("train_steps")
ARCHS = [parse_arch(arch) for arch in STEPS["archs"]]


PRECISIONS = {"f32": "float32", "f64": "float64"}


@functools.cache
def supernet():
    """Build the net of all tests in this file, which takes seconds."""
    return MobileSuperNet(mobile_space((4, 4, 4, 4, 4)), num_classes=10)


@functools.cache
def start():
    """Draw the reference's first weights and buffers, under PyTorch's names."""
    return golden.state([[name, shape] for name, shape in torch_names(supernet())])


@pytest.fixture(params=PRECISIONS)
def precision(request):
    return request.param


@pytest.fixture
def net(precision):
    net = supernet()
    net.to(dtype=PRECISIONS[precision])
    load_torch_arrays(net, start())
    yield net
    net.clear_gradients(set_to_zero=False)


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


def softmax(logits):
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


def summary(array):
    """Return the sum, the sum of absolute values and the first five values, as the reference file has them."""
    flat = np.zeros(5)
    flat[: min(5, array.size)] = array.ravel()[:5]
    return np.array([array.sum(dtype=np.float64), np.abs(array).sum(dtype=np.float64), *flat])


# By precision: the error of a change since the start, relative to the largest change of the same tensor; the rounding
# error of a value, relative to the tensor's largest; and the rounding error of one of the tensor's sums.
ERRORS = {"f32": (2e-3, 3e-7, 1e-7), "f64": (5e-6, 1e-12, 1e-12)}


def assert_rows(actual, expected, before, size, precision, name):
    """Compare one tensor's row with the reference's, each value by itself."""
    of_change, of_value, of_sum = ERRORS[precision]
    change = np.abs(expected - before)
    values = of_change * change[2:].max() + of_value * np.abs(expected[2:]).max()
    sums = of_change * max(change[2:].max() * size, change[:2].max()) + of_sum * expected[1]
    np.testing.assert_allclose(actual[2:], expected[2:], rtol=0, atol=values, err_msg=name)
    np.testing.assert_allclose(actual[:2], expected[:2], rtol=0, atol=sums, err_msg=name)


def assert_state(net, params, buffers, precision):
    """Compare the net's tensors with the rows under two keys of the reference file."""
    for key, names in ((params, STEPS["param_names"]), (buffers, STEPS["buffer_names"])):
        for name, expected in zip(names, ARRAYS[key]):
            actual, before = tensor_by_torch_name(net, name), start()[name]
            expected = np.nan_to_num(expected)
            assert_rows(summary(actual), expected, summary(before), before.size, precision, name)


def assert_totals(net, prefix, precision):
    """Compare the sums over all parameters, so that none moves but those that shall, nor by another rule."""
    dead = golden.state([row for row in golden.facts("supernet")["names_shapes_0_600_nc1000"] if is_dead(row[0])])
    values = [p.numpy() for p in net.parameters() if not p.stop_gradient] + list(dead.values())
    totals = np.sum([summary(value)[:2] for value in values], axis=0)
    for total, key in zip(totals, ("all_params_sum", "all_params_abs_sum")):
        assert total == pytest.approx(ARRAYS[f"{prefix}/{key}"], rel=0, abs={"f32": 5e-3, "f64": 1e-5}[precision]), key


def is_dead(name):
    """Tell a parameter of the block that the official code builds and no path reaches, which ours leaves out."""
    return name.startswith("blocks.3.4.") and not name.endswith(("running_mean", "running_var", "_tracked"))


def make_step(net, keep_zeros=False):
    """Make a step of the reference's settings; ``keep_zeros`` clears gradients as PyTorch 1.2 does."""
    groups = param_groups_weight_decay(net, STEPS["optimizer"]["weight_decay"])
    optimizer = create_optimizer_v2(groups, "sgd", lr=STEPS["optimizer"]["lr"], momentum=0.9)
    loss_fn = LabelSmoothingCrossEntropy(STEPS["smoothing"])
    if keep_zeros:
        optimizer.clear_grad = lambda set_to_zero: [
            parameter.clear_gradient(True) for parameter in net.parameters() if parameter.grad is not None
        ]
    return SinglePathStep(net, loss_fn, Update(optimizer), sampler=None, rng=None)


def record_gradients(net, step):
    """Return a list to which every update appends the rows of its gradients."""
    seen, move = [], step.update.optimizer.step
    parameters = {name: parameter for name, parameter in net.named_parameters() if name in STEPS["param_names"]}

    def record_and_move():
        gradients = {name: p.grad for name, p in parameters.items()}
        seen.append({name: gradient if gradient is None else gradient.numpy() for name, gradient in gradients.items()})
        move()

    step.update.optimizer.step = record_and_move
    return seen


def batch(step, precision):
    images = golden.inputs((8, 3, 64, 64), stream=12345 + step)
    labels = paddle.to_tensor(golden.targets(8, 10, stream=777 + step))
    return paddle.to_tensor(images.astype(PRECISIONS[precision])), labels


@pytest.mark.parametrize("mode", ["none_true", "none_false"])
def test_three_plain_steps(net, precision, mode):
    """Only paths move, where gradients are dropped; momentum and decay move all former paths, where they are zeroed."""
    step, rel = make_step(net, keep_zeros=mode == "none_false"), {"f32": 1e-5, "f64": 3e-7}[precision]
    for i, arch in enumerate(ARCHS):
        before = {name: tensor_by_torch_name(net, name).copy() for name in STEPS["param_names"]}
        images, labels = batch(i, precision)
        (loss, _, *shares), logits = step.train_path(arch, images, labels)
        assert loss.item() == pytest.approx(ARRAYS[f"{precision}/{mode}/loss"][i], rel=rel)
        ranks = (logits.numpy() > logits.numpy()[np.arange(8), labels.numpy()][:, None]).sum(axis=1)
        assert [share.item() for share in shares] == [100 * np.mean(ranks < k) for k in (1, 5)]
        if i == 0:
            expected = ARRAYS[f"{precision}/step0/logits"]
            np.testing.assert_allclose(logits.numpy(), expected, rtol=0, atol=rel * np.abs(expected).max())
        prefix = f"{precision}/{mode}/step{i}"
        assert_state(net, f"{prefix}/params", f"{prefix}/buffers", precision)
        assert_totals(net, prefix, precision)
        off_path = [name for name, visits in STEPS["on_path"].items() if not any(visits[: i + 1])]
        if mode == "none_true":
            off_path = [name for name, visits in STEPS["on_path"].items() if not visits[i]]
        for name in off_path:
            np.testing.assert_array_equal(tensor_by_torch_name(net, name), before[name])


def test_gradients_of_three_plain_steps(net, precision):
    step = make_step(net)
    seen = record_gradients(net, step)
    for i, arch in enumerate(ARCHS):
        step.train_path(arch, *batch(i, precision))
        for name, expected in zip(STEPS["param_names"], ARRAYS[f"{precision}/step{i}/grad_checksums"]):
            gradient = seen[i][name]
            assert (gradient is None) == bool(np.isnan(expected).any()) == (not STEPS["on_path"][name][i])
            if gradient is not None:
                gradient = gradient.T if name == "classifier.weight" else gradient
                assert_rows(summary(gradient), expected, np.zeros(7), gradient.size, precision, name)


@pytest.mark.parametrize("official", [False, True])
def test_distillation_step(net, precision, official, monkeypatch):
    """With the official treatment of the teacher's batch-norm statistics everything is equal; we leave them alone."""
    step, rel = make_step(net), {"f32": 1e-5, "f64": 3e-7}[precision]
    teacher = Teacher(ARCHS[STEPS["kd"]["teacher"]], STEPS["kd"]["meta_value"])
    logits = ARRAYS[f"{precision}/kd/teacher_logits"]
    soft_labels = paddle.nn.functional.softmax(step.teacher_logits(teacher, batch(0, precision)[0]), axis=1).numpy()
    np.testing.assert_allclose(soft_labels, softmax(logits), rtol=0, atol=rel)
    if official:
        monkeypatch.setattr("pimm.layers.norm._frozen", False)
        monkeypatch.setattr("cream.train.steps.frozen_batch_norm_statistics", paddle.no_grad)
    values, _ = step.train_path(ARCHS[STEPS["kd"]["student"]], *batch(0, precision), teacher)
    losses = ARRAYS[f"{precision}/kd/losses"]
    assert values[:2].numpy() == pytest.approx(losses[:2], rel=rel)  # in all, and the teacher's
    of_labels = (2 * values[0].item() - teacher.rho * values[1].item()) / (2 - teacher.rho)
    assert of_labels == pytest.approx(losses[2], rel=rel)
    buffers = "kd" if official else "none_true/step0"
    assert_state(net, f"{precision}/kd/params", f"{precision}/{buffers}/buffers", precision)
    assert_totals(net, f"{precision}/kd", precision)


def lesson_and_teacher(net, prefix):
    """The reference's batch; its rho is sigmoid(-score), ours sigmoid(score): with theta's sign turned they agree."""
    precision = prefix[:3]
    with paddle.no_grad():
        for parameter in net.meta_layer.parameters():
            paddle.assign(-parameter, parameter)
    student, teacher = parse_arch(META["student"]), parse_arch(META["teacher"])
    arrays, scalars = golden.arrays("meta"), META["scalars"][prefix]
    size, dtype = (4, 3, META["image"], META["image"]), PRECISIONS[precision]
    board_images = paddle.to_tensor(golden.inputs(size, stream=12347).astype(dtype))
    features = paddle.to_tensor(arrays["board_feat"].astype(dtype))
    with paddle.no_grad(), frozen_batch_norm_statistics():
        probabilities = paddle.nn.functional.softmax(net(board_images, student), axis=1)
        score = net.meta_layer((probabilities - features).unsqueeze(0))
    exact = {"f32": 1e-6, "f64": 1e-8}[precision]
    np.testing.assert_allclose(probabilities.numpy(), arrays[f"{precision}/student_board_softmax"], rtol=0, atol=exact)
    assert -score.item() == pytest.approx(scalars["meta_out"], rel=10 * exact)
    rho = float(paddle.nn.functional.sigmoid(score)[0])
    assert rho == pytest.approx(scalars["rho"], rel=10 * exact)
    batch = MetaBatch(
        paddle.to_tensor(golden.inputs(size).astype(dtype)),
        paddle.to_tensor(golden.inputs(size, stream=12346).astype(dtype)),
        paddle.to_tensor(golden.targets(4, 10)),
    )
    return student, Teacher(teacher, rho, (probabilities - features)), batch


@pytest.mark.parametrize("lr", META["lrs"])
@pytest.mark.parametrize("smoothing, name", [(0.0, "ce"), (0.1, "ls0.1")])
def test_meta_gradients(net, precision, lr, smoothing, name):
    prefix = f"{precision}/{name}/lr{lr:g}"
    student, teacher, batch = lesson_and_teacher(net, prefix)
    before = {key: value.numpy().copy() for key, value in net.state_dict().items()}
    loss_fn, logits = LabelSmoothingCrossEntropy(smoothing), []
    hook = net.register_forward_post_hook(lambda layer, inputs, output: logits.append(output.numpy()))
    weight, bias = meta_gradients(net, student, teacher, batch, lr, loss_fn)
    hook.remove()
    arrays, exact = golden.arrays("meta"), {"f32": 1e-4, "f64": 2e-7}[precision]

    for kind in ("meta_grad", "closed_form"):
        expected = -arrays[f"f64/{name}/lr{lr:g}/{kind}_weight"]
        np.testing.assert_allclose(weight.numpy().T, expected, rtol=0, atol=exact * np.abs(expected).max())
        np.testing.assert_allclose(bias.numpy(), -arrays[f"f64/{name}/lr{lr:g}/{kind}_bias"], rtol=exact)
    asked, _, examined = logits  # the teacher, the student, and the student once it is taught
    np.testing.assert_allclose(softmax(asked), arrays[f"{precision}/teacher_soft"], rtol=0, atol=exact / 10)
    np.testing.assert_allclose(examined, arrays[f"{prefix}/val_logits"], rtol=0, atol=exact / 10)
    for key, value in net.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[key])
    assert all(parameter.grad is None for parameter in net.parameters() if not parameter.stop_gradient)
