"""Updates against their papers' formulas in numpy, where there is no reference trajectory."""

import numpy as np
import pytest
from optim_problem import parameter, trajectory

LR, DECAY = 0.02, 0.1


def rms(array):
    return np.sqrt(np.mean(array**2))


def norm(array):
    return np.sqrt(np.sum(array**2))


def adamw(p, flow, lr, weight_decay=0.0, amsgrad=False, clip=None, nesterov=False, eps=1e-8):
    m = v = top = np.zeros_like(p)
    for t, g in enumerate(flow, 1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        top = np.maximum(top, v) if amsgrad else v
        scale = np.sqrt(top / (1 - 0.999**t)) + eps
        step = lr if clip is None else lr / max(1.0, rms(g / scale) / clip)
        p = p * (1 - lr * weight_decay) - step * (0.9 * m + 0.1 * g if nesterov else m) / (1 - 0.9**t) / scale
        yield p


def adabelief(p, flow, lr, weight_decay=0.0, fixed=False, l2=False, amsgrad=False, rectify=False):
    m = s = top = np.zeros_like(p)
    for t, g in enumerate(flow, 1):
        p, g = (p, g + weight_decay * p) if l2 else (p * (1 - (1.0 if fixed else lr) * weight_decay), g)
        m = 0.9 * m + 0.1 * g
        s = 0.999 * s + 0.001 * (g - m) ** 2 + 1e-16
        top = np.maximum(top, s) if amsgrad else s
        length = 1999 - 2 * t * 0.999**t / (1 - 0.999**t)
        if not rectify:
            p = p - lr * m / (1 - 0.9**t) / (np.sqrt(top / (1 - 0.999**t)) + 1e-16)
        elif length >= 5:
            r = np.sqrt((length - 4) * (length - 2) * 1999 / ((1999 - 4) * (1999 - 2) * length))
            p = p - lr * r * m / (1 - 0.9**t) / np.sqrt(s / (1 - 0.999**t))
        yield p


def adan(p, flow, lr, weight_decay=0.0, prox=True):
    m = d = n = np.zeros_like(p)
    last = flow[0]
    for t, g in enumerate(flow, 1):
        m, d = 0.98 * m + 0.02 * g, 0.92 * d + 0.08 * (g - last)
        n, last = 0.99 * n + 0.01 * (g + 0.92 * (g - last)) ** 2, g
        mask = m * g > 0
        scale = np.sqrt(n / (1 - 0.99**t)) + 1e-8
        step = lr * (m * mask / mask.mean() / (1 - 0.98**t) + 0.92 * d / (1 - 0.92**t)) / scale
        p = (p - step) / (1 + lr * weight_decay) if prox else p * (1 - lr * weight_decay) - step
        yield p


def adopt(p, flow, lr, weight_decay=0.0):
    m, v = np.zeros_like(p), (flow[0] + weight_decay * p) ** 2
    yield p
    for g in flow[1:]:
        g = g + weight_decay * p
        m = 0.9 * m + 0.1 * g / np.maximum(np.sqrt(v), 1e-6)
        p, v = p - lr * m, 0.9999 * v + 0.0001 * g * g
        yield p


def adafactor(p, flow, axes, warm=False, weight_decay=0.0, beta1=None):
    """Shazeer and Stern, algorithm 4 with 5's relative step; the factors' product over the sum of one of them."""
    row = col = full = m = 0.0
    for t, g in enumerate(flow, 1):
        lr = max(1e-3, rms(p)) * min(1e-6 * t if warm else 1e-2, t**-0.5)
        keep, square = 1 - t**-0.8, g * g + 1e-30
        if axes:
            row = keep * row + (1 - keep) * square.mean(axes[1], keepdims=True)
            col = keep * col + (1 - keep) * square.mean(axes[0], keepdims=True)
            v = row * col / row.mean(axes[0], keepdims=True)
        else:
            v = full = keep * full + (1 - keep) * square
        u = g / np.sqrt(v)
        u = lr * u / max(1.0, rms(u))
        if beta1:
            u = m = beta1 * m + (1 - beta1) * u
        p = p * (1 - lr * weight_decay) - u
        yield p


def adafactor_bv(p, flow, lr, weight_decay, offset, cap, clip):
    v = 0.0
    for t, g in enumerate(flow, 1):
        keep = min(cap, 1 - max(t - offset, 1) ** -0.8)
        v = keep * v + (1 - keep) * (g * g + 1e-30)
        u = g / np.sqrt(v)
        p = p * (1 - weight_decay) - lr * u / max(1.0, rms(u) / clip)
        yield p


def lamb(p, flow, lr, weight_decay, averaging=True, correct=True, most=None, clip=False, decoupled=False):
    m = v = np.zeros_like(p)
    for t, g in enumerate(flow, 1):
        g = g / max(1.0, norm(g) / most) if most else g
        m, v = 0.9 * m + (0.1 if averaging else 1.0) * g, 0.999 * v + 0.001 * g * g
        c1, c2 = (1 - 0.9**t, 1 - 0.999**t) if correct else (1.0, 1.0)
        u = m / c1 / (np.sqrt(v / c2) + 1e-6)
        p, u = (p * (1 - lr * weight_decay), u) if decoupled else (p, u + weight_decay * p)
        ratio = norm(p) / norm(u)
        p = p - lr * (min(ratio, 1.0) if clip else ratio) * u
        yield p


def lars(p, flow, lr, weight_decay, momentum, dampening, clip=False):
    buffer = None
    for g in flow:
        ratio = 0.001 * norm(p) / (norm(g) + weight_decay * norm(p) + 1e-8)
        ratio = min(ratio / lr, 1.0) if clip else ratio
        g = ratio * (g + weight_decay * p)
        buffer = g if buffer is None else momentum * buffer + (1 - dampening) * g
        p = p - lr * buffer
        yield p


def laprop(p, flow, lr, weight_decay):
    """The paper's algorithm 1 at a constant rate, where the average of rates is its bias correction."""
    m = v = np.zeros_like(p)
    for t, g in enumerate(flow, 1):
        v = 0.999 * v + 0.001 * g * g
        m = 0.9 * m + 0.1 * g / (np.sqrt(v / (1 - 0.999**t)) + 1e-15)
        p = (p - lr * m / (1 - 0.9**t)) * (1 - lr * weight_decay)
        yield p


def madgrad(p, flow, lr, weight_decay):
    first, s, v = p, 0.0, 0.0
    for t, g in enumerate(flow):
        g, weight = g + weight_decay * p, (lr + 1e-6) * np.sqrt(t + 1)
        s, v = s + weight * g, v + weight * g * g
        p = first - s / (np.cbrt(v) + 1e-6)
        yield p


def mars(p, flow, lr, weight_decay):
    m = np.zeros_like(p)
    last = flow[0]
    for g in flow:
        c, last = g + 0.025 * 0.9 / 0.1 * (g - last), g
        m = 0.9 * m + 0.1 * c / max(1.0, norm(c))
        p = p - lr * (np.sign(m) + weight_decay * p)
        yield p


def novograd(p, flow, lr, weight_decay):
    v = top = m = 0.0
    for t, g in enumerate(flow):
        v = 0.98 * v + 0.02 * norm(g) ** 2 if t else norm(g) ** 2
        top = max(top, v)
        m = 0.95 * m + 0.05 * (g / (np.sqrt(top) + 1e-8) + weight_decay * p)
        p = p - lr * m
        yield p


def rmsprop_tf(p, flow, lr, weight_decay):
    v, mean, buffer = np.ones_like(p), 0.0, 0.0
    for g in flow:
        g = g + weight_decay * p
        v, mean = 0.9 * v + 0.1 * g * g, 0.9 * mean + 0.1 * g
        buffer = 0.9 * buffer + g / np.sqrt(v - mean**2 + 1e-10)
        p = p - lr * buffer
        yield p


def sgdw(p, flow, lr, weight_decay):
    buffer = None
    for g in flow:
        buffer = g if buffer is None else 0.9 * buffer + 0.7 * g
        p = p * (1 - lr * weight_decay) - lr * buffer
        yield p


W = {"weight_decay": DECAY}
# optimizer, its arguments, its formula, the parameter's shape, the rate
REFERENCES = [
    ("adam", {"amsgrad": True}, lambda p, g: adamw(p, g, LR, amsgrad=True), (5, 6)),
    ("adamw", {**W, "amsgrad": True}, lambda p, g: adamw(p, g, LR, DECAY, amsgrad=True), (5, 6)),
    ("adamwlegacy", {**W, "amsgrad": True}, lambda p, g: adamw(p, g, LR, DECAY, amsgrad=True), (5, 6)),
    ("adamwlegacy", {**W, "clipping_threshold": 0.7}, lambda p, g: adamw(p, g, LR, DECAY, clip=0.7), (5, 6)),
    ("nadamw", {**W, "clipping_threshold": 0.7}, lambda p, g: adamw(p, g, LR, DECAY, clip=0.7, nesterov=True), (5, 6)),
    (
        "adabelief",
        {**W, "amsgrad": True, "fixed_decay": True},
        lambda p, g: adabelief(p, g, LR, DECAY, True, amsgrad=True),
        (5, 6),
    ),
    ("adabelief", {**W, "decoupled_decay": False}, lambda p, g: adabelief(p, g, LR, DECAY, l2=True), (5, 6)),
    ("radabelief", {**W, "degenerated_to_sgd": False}, lambda p, g: adabelief(p, g, LR, DECAY, rectify=True), (5, 6)),
    ("cadan", W, lambda p, g: adan(p, g, LR, DECAY), (5, 6)),
    ("cadanw", W, lambda p, g: adan(p, g, LR, DECAY, prox=False), (5, 6)),
    ("adopt", {**W, "clip_exp": None}, lambda p, g: adopt(p, g, LR, DECAY), (5, 6)),
    ("adafactor", {**W, "lr": None}, lambda p, g: adafactor(p, g, (0, 1), weight_decay=DECAY), (18, 17, 3, 3)),
    ("adafactor", {"lr": None, "betas": (0.8, 0.9)}, lambda p, g: adafactor(p, g, (1, 2), beta1=0.8), (2, 18, 17)),
    ("adafactor", {"lr": None, "warmup_init": True}, lambda p, g: adafactor(p, g, None, warm=True), (18, 3)),
    (
        "adafactorbv",
        {**W, "unscaled_wd": True, "decay_offset": 2, "beta2_cap": 0.6, "clipping_threshold": 0.5, "momentum": None},
        lambda p, g: adafactor_bv(p, g, LR, DECAY, offset=2, cap=0.6, clip=0.5),
        (5, 6),
    ),
    ("lamb", {**W, "max_grad_norm": 1.5}, lambda p, g: lamb(p, g, LR, DECAY, most=1.5), (5, 6)),
    (
        "lambc",
        {"weight_decay": 0.0, "always_adapt": True},
        lambda p, g: lamb(p, g, LR, 0.0, most=1.0, clip=True),
        (5, 6),
    ),
    (
        "lambcw",
        {**W, "grad_averaging": False, "bias_correction": False, "max_grad_norm": None},
        lambda p, g: lamb(p, g, LR, DECAY, averaging=False, correct=False, clip=True, decoupled=True),
        (5, 6),
    ),
    ("lars", {**W, "momentum": 0.8, "dampening": 0.3}, lambda p, g: lars(p, g, LR, DECAY, 0.8, 0.3), (5, 6)),
    ("larc", {"always_adapt": True}, lambda p, g: lars(p, g, LR, 0.0, 0.0, 0.0, clip=True), (5, 6)),
    ("laprop", W, lambda p, g: laprop(p, g, LR, DECAY), (5, 6)),
    ("madgrad", {**W, "momentum": 0.0}, lambda p, g: madgrad(p, g, LR, DECAY), (5, 6)),
    ("mars", {**W, "mars_type": "lion", "optimize_1d": True}, lambda p, g: mars(p, g, LR, DECAY), (7,)),
    ("mars", {**W, "betas_1d": (0.9, 0.999), "lr_1d_factor": 0.5}, lambda p, g: adamw(p, g, LR / 2, DECAY), (7,)),
    ("novograd", {**W, "amsgrad": True, "grad_averaging": True}, lambda p, g: novograd(p, g, LR, DECAY), (5, 6)),
    (
        "rmsproptf",
        {**W, "momentum": 0.9, "centered": True, "lr_in_momentum": False},
        lambda p, g: rmsprop_tf(p, g, LR, DECAY),
        (5, 6),
    ),
    ("sgdw", {**W, "momentum": 0.9, "dampening": 0.3, "nesterov": False}, lambda p, g: sgdw(p, g, LR, DECAY), (5, 6)),
]


@pytest.mark.parametrize("name, options, formula, shape", REFERENCES)
def test_an_update_is_its_papers_formula(name, options, formula, shape):
    rng = np.random.default_rng(0)
    value = rng.standard_normal(shape)
    flow = rng.standard_normal(shape) + 0.5 * rng.standard_normal((8, *shape))
    rows = trajectory(name, value, flow, **{"lr": LR, **options})
    np.testing.assert_allclose(rows, list(formula(value, flow)), rtol=1e-5, atol=2e-7)
    assert not np.allclose(rows[-1], value, atol=1e-7)


@pytest.mark.parametrize("options", [{}, {"momentum": 0.9}, {"centered": True, "weight_decay": DECAY}])
def test_rmsprop_in_operations_is_rmsprop_in_the_kernel(options):
    """At a constant rate it is the same whether the rate is inside the momentum; caution takes the operations."""
    rng = np.random.default_rng(0)
    value, flow = rng.standard_normal((5, 6)), rng.standard_normal((4, 5, 6))
    ours = trajectory("rmsproptf", value, flow, lr_in_momentum=False, **options)
    np.testing.assert_allclose(ours, trajectory("rmsproptf", value, flow, **options), rtol=1e-6, atol=1e-7)


def tangent(array, unit, axes):
    return array - unit * (unit * array).sum(axes, keepdims=True)


@pytest.mark.parametrize("caution", [False, True])
@pytest.mark.parametrize("as_linear", [False, True])
@pytest.mark.parametrize("per_output", [False, True])
@pytest.mark.parametrize("opt", ["adamp", "sgdp"])
def test_steps_of_scale_invariant_weights_are_tangents(opt, per_output, as_linear, caution):
    """arXiv 2006.08217, equation 6 and algorithm 2, for gradients orthogonal to each output's weights or to all."""
    rng = np.random.default_rng(0)
    value, noise = rng.standard_normal((4, 5)), rng.standard_normal((4, 5))
    axes = (1,) if per_output else (0, 1)
    unit = value / np.sqrt((value**2).sum(axes, keepdims=True))
    grad = tangent(noise, unit, axes)
    step = np.sign(grad) if opt == "adamp" else 1.9 * grad  # of the first step: with Nesterov's momentum
    if opt == "adamp":
        step = step * (0.9 * 0.1 + 0.1) / 0.1
    expected = tangent(step, unit, axes)
    if caution:
        mask = expected * grad > 0
        expected = tangent(expected * mask / mask.mean(), unit, axes)
    ratio = 0.01 if opt == "adamp" else 0.1
    decay = DECAY * ratio / (1.0 if opt == "adamp" else 1 - 0.9)
    expected = value * (1 - LR * decay) - LR * expected

    param = parameter(value.T if as_linear else value)
    param.output_axis = int(as_linear)
    options = {} if opt == "adamp" else {"momentum": 0.9}
    rows = trajectory(opt, param, [grad.T if as_linear else grad], weight_decay=DECAY, caution=caution, **options)
    np.testing.assert_allclose(rows[0].T if as_linear else rows[0], expected, rtol=1e-6, atol=1e-7)


def test_other_weights_keep_their_steps_and_their_decay():
    value = np.random.default_rng(0).standard_normal((4, 5))
    rows = trajectory("sgdp", value, [value], weight_decay=DECAY, momentum=0.9)
    np.testing.assert_allclose(rows[0], value * (1 - LR * DECAY / 0.1) - LR * 1.9 * value, rtol=1e-12)
