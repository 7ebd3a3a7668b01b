"""Gradients of gradients, as of a gradient penalty, against finite differences of the gradients."""

import paddle
import pytest
from ops_cases import draw

from pimm import layers
from pimm.layers.conv import conv2d
from pimm.ops import batch_norm, depthwise_conv2d, global_avg_pool2d, pointwise_conv2d, scale_channels, swish

X, WEIGHT, CHANNELS = (2, 3, 4, 5), (3, 1, 3, 3), (3,)


def net(x, weight, scale, shift):
    return swish(batch_norm(depthwise_conv2d(x, weight, padding=1), scale, shift)[0])


CASES = {  # name: (function, shapes of its inputs)
    "depthwise": (lambda x, weight: depthwise_conv2d(x, weight, padding=1), (X, WEIGHT)),
    "depthwise, stride 2": (lambda *t: depthwise_conv2d(*t, stride=2, padding=(1, 0, 2, 1)), (X, WEIGHT)),
    "depthwise, dilated": (lambda *t: depthwise_conv2d(*t, padding=2, dilation=2), (X, WEIGHT)),
    "depthwise with bias": (lambda *t: depthwise_conv2d(*t, padding=1), (X, WEIGHT, CHANNELS)),
    "pointwise": (lambda x, weight: pointwise_conv2d(x, weight), (X, (2, 3, 1, 1))),
    "pointwise of few pixels": (lambda x, weight: pointwise_conv2d(x[:, :, :2, :2], weight), (X, (2, 3, 1, 1))),
    "pointwise of one pixel": (lambda x, weight: pointwise_conv2d(x[:, :, :1, :1], weight), (X, (2, 3, 1, 1))),
    "pointwise of one pixel with bias": (
        lambda x, *rest: pointwise_conv2d(x[:, :, :1, :1], *rest),
        (X, (2, 3, 1, 1), (2,)),
    ),
    "patches": (lambda weight, bias: conv2d(paddle.ones(X, "float64"), weight, bias, 2, 1), ((4, 3, 3, 3), (4,))),
    "batch norm": (lambda *t: batch_norm(*t)[0], (X, CHANNELS, CHANNELS)),
    "batch norm without weights": (lambda x: batch_norm(x, eps=0.1)[0], (X,)),
    "batch norm and swish": (lambda *t: batch_norm(*t, then_swish=True)[0], (X, CHANNELS, CHANNELS)),
    "swish": (lambda x: swish(3 * x), (X,)),
    "factors": (lambda *t: scale_channels(*t), (X, (2, 3, 1, 1))),
    "means": (lambda x: global_avg_pool2d(x), (X,)),
    "net": (net, (X, WEIGHT, CHANNELS, CHANNELS)),
}


def projected_gradients(function, inputs, wanted):
    """Sum the wanted gradients of a loss, each weighed at random, as one differentiable number."""
    gradients = paddle.grad((function(*inputs) ** 3).sum(), [inputs[i] for i in wanted], create_graph=True)
    return sum((gradient * draw(*gradient.shape, seed=5, dtype="float64")).sum() for gradient in gradients)


def assert_second_derivatives(function, shapes, wanted, frozen=()):
    inputs = [draw(*shape, seed=i, dtype="float64") for i, shape in enumerate(shapes)]
    for i in frozen:
        inputs[i].stop_gradient = True
    free = [i for i in range(len(inputs)) if i not in frozen]
    seconds = paddle.grad(projected_gradients(function, inputs, wanted), [inputs[i] for i in free], allow_unused=True)
    for i, second in zip(free, seconds):
        step = 1e-5 * draw(*shapes[i], seed=7, dtype="float64")
        moved = []
        for sign in (1, -1):
            there = [tensor.detach() for tensor in inputs]
            there[i] = (there[i] + sign * step).detach()
            for k in free:
                there[k].stop_gradient = False
            moved.append(projected_gradients(function, there, wanted).item())
        expected = (moved[0] - moved[1]) / 2
        actual = 0.0 if second is None else (second * step).sum().item()
        assert actual == pytest.approx(expected, rel=1e-6, abs=1e-11), f"of {wanted} by {i}"


def subsets(count):
    return [tuple(i for i in range(count) if bits >> i & 1) for bits in range(1, 2**count)]


@pytest.mark.parametrize(
    ("name", "wanted"), [(name, wanted) for name in CASES for wanted in subsets(len(CASES[name][1]))], ids=str
)
def test_second_derivatives_of_every_choice_of_gradients_equal_finite_differences(name, wanted):
    if name == "depthwise with bias" and wanted == (2,):
        wanted = (0, 2)  # alone, the bias's gradient has no need of the operator's
    assert_second_derivatives(*CASES[name], wanted)


@pytest.mark.parametrize("name", ["depthwise", "pointwise", "batch norm", "batch norm and swish", "factors", "net"])
def test_second_derivatives_beside_frozen_inputs(name):
    function, shapes = CASES[name]
    for frozen in range(len(shapes)):
        for wanted in range(len(shapes)):
            if wanted != frozen:
                assert_second_derivatives(function, shapes, (wanted,), (frozen,))


def test_a_gradient_penalty_trains_a_block():
    paddle.seed(0)
    block = paddle.nn.Sequential(
        layers.Conv2d(4, 4, 3, padding=1, groups=4), layers.BatchNorm2d(4), layers.Swish(), layers.Conv2d(4, 1, 1)
    )
    x = draw(3, 4, 6, 6)
    (gradient,) = paddle.grad(block(x).sum(), [x], create_graph=True)
    gradient.square().sum().backward()
    for name in ("0.weight", "1.weight", "1.bias", "3.weight"):
        assert dict(block.named_parameters())[name].grad.abs().max().item() > 0, name


def test_a_first_derivative_is_the_same_with_and_without_a_graph():
    tensors = draw(*X), draw(*WEIGHT), draw(*CHANNELS, seed=1), draw(*CHANNELS, seed=2)
    plain = paddle.grad((net(*tensors) ** 2).sum(), list(tensors))
    recorded = paddle.grad((net(*tensors) ** 2).sum(), list(tensors), create_graph=True)
    for a, b in zip(plain, recorded):
        assert a.stop_gradient and not b.stop_gradient
        assert (a == b).all().item()
