"""Muon: its iteration by singular values, its steps, and what falls back to AdamW."""

import numpy as np
import paddle
import pytest
from optim_problem import parameter, trajectory

from pimm.errors import ConfigError
from pimm.optim import Muon
from pimm.optim.muon import LR_SCALES, NS_COEFFICIENTS, is_suitable_for_muon

LR = 0.02


def polynomial(values, triples, steps):
    """The iteration on singular values alone."""
    for index in range(steps):
        a, b, c = triples[min(index, len(triples) - 1)]
        values = a * values + b * values**3 + c * values**5
    return values


def orthogonal(matrix, triples=NS_COEFFICIENTS["quintic"], steps=5, safety=1.0, damping=0.0):
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    size = np.sqrt((matrix**2).sum()) * safety + damping
    return left @ np.diag(polynomial(values / size, triples, steps)) @ right


def first_step(shape, param=None, **options):
    """Start, gradient and the step of one update without momentum, at rate one."""
    rng = np.random.default_rng(0)
    value, grad = rng.standard_normal(shape), rng.standard_normal(shape)
    row = trajectory("muon", parameter(value) if param is None else param(value), [grad], lr=LR, **options)[0]
    return grad, (value - row) / LR


@pytest.mark.parametrize("shape", [(8, 5), (5, 8)])
@pytest.mark.parametrize("preset", NS_COEFFICIENTS)
def test_a_step_has_the_singular_vectors_of_the_gradient_and_values_near_one(preset, shape):
    grad, step = first_step(shape, ns_coefficients=preset, ns_steps=8, adjust_lr_fn=None)
    np.testing.assert_allclose(step, orthogonal(grad, NS_COEFFICIENTS[preset], 8), atol=1e-10)
    assert np.all(np.abs(np.linalg.svd(step)[1] - 1) < (0.35 if preset == "original" else 0.25))


@pytest.mark.parametrize("coefficients", [(1.5, -0.5, 0.0), [(1.5, -0.5, 0.0)]])
def test_own_coefficients_safety_and_damping(coefficients):
    options = {"ns_coefficients": coefficients, "ns_steps": 3, "adjust_lr_fn": None, "safety_factor": 1.1}
    grad, step = first_step((8, 4), **options)
    np.testing.assert_allclose(step, orthogonal(grad, [(1.5, -0.5, 0.0)], 3, 1.1), atol=1e-12)
    grad, step = first_step((8, 4), scale_eps=True, eps=0.5, **options)
    damping = 0.5 * np.sqrt(4 / 8) / 0.05  # what is made orthogonal is the momentum, 0.05 of the gradient
    np.testing.assert_allclose(step, orthogonal(grad, [(1.5, -0.5, 0.0)], 3, 1.1, damping), atol=1e-12)


SCALES = {None: 1.0, "original": np.sqrt(2), "match_rms_adamw": 0.2 * np.sqrt(8), "rms_to_rms": np.sqrt(2)}


@pytest.mark.parametrize("as_linear", [False, True])
@pytest.mark.parametrize("name", LR_SCALES["muon"])
def test_the_rate_is_scaled_by_the_shape_with_outputs_first(name, as_linear):
    def param(value):
        made = parameter(value.T if as_linear else value)
        made.output_axis = int(as_linear)
        return made

    rng = np.random.default_rng(0)
    value, grad = rng.standard_normal((8, 4)), rng.standard_normal((8, 4))
    row = trajectory("muon", param(value), [grad.T if as_linear else grad], lr=LR, adjust_lr_fn=name)[0]
    step = (value - (row.T if as_linear else row)) / LR
    np.testing.assert_allclose(step, SCALES[name] * orthogonal(grad), atol=1e-10)


def test_a_convolution_is_a_matrix_or_one_a_position():
    grad, step = first_step((6, 5, 2, 3), adjust_lr_fn="match_rms_adamw")
    np.testing.assert_allclose(step.reshape(6, 30), 0.2 * np.sqrt(30) * orthogonal(grad.reshape(6, 30)), atol=1e-10)
    grad, step = first_step((6, 5, 2, 3), adjust_lr_fn="match_rms_adamw", conv_mode="batched")
    for y in range(2):
        for x in range(3):
            expected = 0.2 * np.sqrt(6) / np.sqrt(6) * orthogonal(grad[:, :, y, x])
            np.testing.assert_allclose(step[:, :, y, x], expected, atol=1e-10)
    grad, step = first_step((6, 5, 1, 2), adjust_lr_fn="rms_to_rms", conv_mode="batched", normalize_spatial=False)
    np.testing.assert_allclose(step[..., 0, 1], np.sqrt(6 / 5) * orthogonal(grad[..., 0, 1]), atol=1e-10)


@pytest.mark.parametrize("name", LR_SCALES["adamuon"])
def test_adamuon_with_nesterov_momentum(name):
    """arXiv 2507.11005, algorithm 1, on steps that look ahead."""
    rng = np.random.default_rng(0)
    value, flow = rng.standard_normal((8, 4)), rng.standard_normal((4, 8, 4))
    rows = trajectory("nadamuon", value, flow, lr=LR, adjust_lr_fn=name, weight_decay=0.1, momentum=0.9)
    p, m, v, expected = value, 0.0, 0.0, []
    for t, g in enumerate(flow, 1):
        m = 0.9 * m + 0.1 * g
        o = orthogonal(0.1 * g + 0.9 * m)
        v = 0.95 * v + 0.05 * o**2
        u = o / (np.sqrt(v if name == "match_rms_adamw" else v / (1 - 0.95**t)) + 1e-7)
        scale = {None: 1.0, "rms_to_rms": np.sqrt(2), "rsqrt_in": 0.5, "match_rms_adamw": 0.2 * np.sqrt(32)}[name]
        u = u / np.sqrt((u**2).sum()) if name == "match_rms_adamw" else u
        p = p * (1 - LR * 0.1) - LR * scale * u
        expected.append(p)
    np.testing.assert_allclose(rows, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "shape, suitable",
    [
        ((64, 128), True),
        ((96, 3, 4, 4), True),
        ((4, 512), True),
        ((4, 516), False),
        ((3, 8), False),
        ((64,), False),
        ((32, 1, 3, 3), False),
        ((1, 196, 768), False),
        ((64, 64, 1, 1), True),
    ],
)
def test_what_gets_orthogonal_steps(shape, suitable):
    assert is_suitable_for_muon(paddle.empty(shape)) is suitable


def test_the_rest_and_marked_groups_fall_back_to_adamw():
    rng = np.random.default_rng(0)
    value, grad = rng.standard_normal((8, 4)), rng.standard_normal((8, 4))

    def step(opt, fallback, lr):
        param, vector = parameter(value), parameter(value[0])
        groups = [{"params": [param], "use_fallback": fallback}, {"params": [vector]}]
        optimizer = Muon(groups, lr=lr, nesterov=opt == "nmuon", fallback_lr_scale=0.1)
        param.grad, vector.grad = paddle.to_tensor(grad), paddle.to_tensor(grad[0])
        optimizer.step()
        return param.numpy(), vector.numpy()

    looked_ahead = {"muon": 1.0, "nmuon": (0.9 * 0.1 + 0.1) / 0.1}
    for opt, factor in looked_ahead.items():
        matrix, vector = step(opt, True, 0.2)
        np.testing.assert_allclose(matrix, value - 0.02 * factor * np.sign(grad), atol=1e-6)
        np.testing.assert_allclose(vector, value[0] - 0.02 * factor * np.sign(grad[0]), atol=1e-6)
        assert not np.allclose(step(opt, False, 0.2)[0], matrix)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"algo": "moon"}, "algo is one of 'muon', 'adamuon', not 'moon'"),
        ({"adjust_lr_fn": "rsqrt_in"}, "adjust_lr_fn is one of None, 'original'"),
        ({"conv_mode": "flat"}, "conv_mode is one of 'flatten', 'batched'"),
        ({"ns_coefficients": "cubic"}, "ns_coefficients is one of 'original'"),
        ({"ns_coefficients": [(1.0, 2.0)]}, "triples of numbers"),
    ],
)
def test_mistakes(options, message):
    with pytest.raises(ConfigError, match=message):
        Muon([parameter(np.zeros((8, 4)))], **options)
