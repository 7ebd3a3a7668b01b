"""Muon: orthogonalised momentum (Newton-Schulz iteration; Jordan et al., 2024), and AdaMuon (arXiv 2507.11005)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import paddle

from pimm.errors import ConfigError
from pimm.optim.base import RuleOptimizer, Slot
from pimm.optim.layout import output_axis
from pimm.optim.update import adam_direction, average_square, move_average, norm

# Coefficients of the quintic a * X + (b * A + c * A A) X with A = X X': one triple for each step; the last is repeated.
NS_COEFFICIENTS = {
    "original": [(3.4445, -4.7750, 2.0315)],
    "quintic": [
        (4.0848, -6.8946, 2.9270),
        (3.9505, -6.3029, 2.6377),
        (3.7418, -5.5913, 2.3037),
        (2.8769, -3.1427, 1.2046),
        (2.8366, -3.0525, 1.2012),
    ],
    "polar_express": [  # arXiv 2505.16932, with a safety of 1e-2
        (8.237312490495555, -23.157747414558198, 16.680568411445915),
        (4.082441999064835, -2.893047735332586, 0.5252849256975648),
        (3.9263479922546582, -2.8547468034765298, 0.5318022422894988),
        (3.2982187133085143, -2.424541981026706, 0.48632008358844075),
        (2.2970369434552573, -1.63662558125903, 0.4002628455953627),
        (1.8763805351440397, -1.2347896577722228, 0.35891887501668385),
        (1.8564423485617974, -1.2132449880935525, 0.3568003487825883),
        (1.8749994008682747, -1.2499988017229169, 0.3749994008546422),
    ],
    "polar_express_safer": [  # the same with a safety of 2e-2
        (8.156554524902461, -22.48329292557795, 15.878769915207462),
        (4.0429299351667245, -2.808917465908704, 0.5000178451051299),
        (3.8916678022926563, -2.7724841532176825, 0.5060648178503389),
        (3.285753657755658, -2.3681294933425394, 0.46449024233003117),
        (2.3005307116270983, -1.6111665557258408, 0.3833374427545273),
        (1.8631210546382593, -1.2042160621002727, 0.3421879560523383),
        (1.8382572152247512, -1.1779263289537742, 0.3396513038637379),
        (1.8749999923301852, -1.2499999836060613, 0.374999991275876),
    ],
}

# Factor of the rate for an orthogonal step of shape [..., out, in].
LR_SCALES = {
    "muon": {
        None: lambda shape: 1.0,
        "original": lambda shape: math.sqrt(max(1.0, shape[-2] / shape[-1])),
        "match_rms_adamw": lambda shape: 0.2 * math.sqrt(max(shape[-2:])),  # arXiv 2502.16982
        "rms_to_rms": lambda shape: math.sqrt(shape[-2] / shape[-1]),  # arXiv 2502.07529
    },
    "adamuon": {
        None: lambda shape: 1.0,
        "match_rms_adamw": lambda shape: 0.2 * math.sqrt(math.prod(shape)),  # for a step that is scaled to norm 1
        "rms_to_rms": lambda shape: math.sqrt(shape[-2] / shape[-1]),
        "rsqrt_in": lambda shape: shape[-1] ** -0.5,
    },
}
CONV_MODES = ("flatten", "batched")


class Muon(RuleOptimizer):
    """Take orthogonal steps for matrices and convolutions, and steps of AdamW for all other parameters.

    The iteration runs in float32, also where timm's runs in bfloat16, because Paddle has no bfloat16 product on a CPU;
    the steps agree up to the rounding of bfloat16.

    Args:
        params, lr, weight_decay: see `TimmOptimizer`. Groups with ``use_fallback`` get AdamW.
        momentum: decay of the average of gradients.
        nesterov: whether to use Nesterov momentum, in AdamW too.
        ns_steps: steps of the Newton-Schulz iteration.
        ns_coefficients: name of a preset of `NS_COEFFICIENTS`, a triple, or a list of triples.
        eps: least norm that a matrix is divided by.
        safety_factor: factor of this norm.
        adjust_lr_fn: name of the factor of the rate in `LR_SCALES`, or None.
        conv_mode: ``flatten`` for a convolution as one matrix [out, in * h * w], ``batched`` for one matrix for each
            position.
        normalize_spatial: whether to divide batched steps by the root of the number of positions.
        fallback_lr_scale: factor of the rate of AdamW.
        betas: betas of AdamW; the second also for ``adamuon``.
        algo: ``muon``, or ``adamuon``, which divides steps by the root of a running average of their squares.
        scale_eps: whether ``eps`` is scaled by the shape and added (arXiv 2512.05620).

    Raises:
        ConfigError: for an unknown choice.
    """

    def __init__(
        self,
        params,
        lr=0.02,
        weight_decay=0.0,
        momentum=0.95,
        nesterov=False,
        ns_steps=5,
        ns_coefficients="quintic",
        eps=1e-7,
        safety_factor=1.0,
        adjust_lr_fn="match_rms_adamw",
        conv_mode="flatten",
        normalize_spatial=True,
        fallback_lr_scale=1.0,
        betas=(0.9, 0.95),
        algo="muon",
        scale_eps=False,
    ):
        _check_choice("algo", algo, LR_SCALES)
        _check_choice("adjust_lr_fn", adjust_lr_fn, LR_SCALES[algo])
        _check_choice("conv_mode", conv_mode, CONV_MODES)
        super().__init__(
            params,
            lr,
            weight_decay,
            momentum=momentum,
            nesterov=nesterov,
            ns_steps=ns_steps,
            ns_coefficients=_coefficients(ns_coefficients),
            eps=eps,
            safety_factor=safety_factor,
            adjust_lr_fn=adjust_lr_fn,
            conv_mode=conv_mode,
            normalize_spatial=normalize_spatial,
            fallback_lr_scale=fallback_lr_scale,
            betas=betas,
            algo=algo,
            scale_eps=scale_eps,
            use_fallback=False,
        )

    def slots_of(self, param, group):
        if group["use_fallback"] or not is_suitable_for_muon(param):
            return {"exp_avg": Slot(), "exp_avg_sq": Slot()}
        slots = {"momentum_buffer": Slot()}
        return {**slots, "exp_avg_sq": Slot()} if group["algo"] == "adamuon" else slots

    def update_param(self, param, grad, lr, step, group, momentum_buffer=None, exp_avg=None, exp_avg_sq=None):
        if momentum_buffer is None:
            lr *= group["fallback_lr_scale"]
            update = adam_direction(grad, step, group, exp_avg, exp_avg_sq, nesterov=group["nesterov"])
        else:
            move_average(momentum_buffer, grad, 1.0 - group["momentum"])
            update = grad.lerp(momentum_buffer, group["momentum"]) if group["nesterov"] else momentum_buffer
            update = _orthogonal_step(param, update, step, group, exp_avg_sq)
        self.shrink(param, lr, group)
        param.subtract_(update * lr)


def _orthogonal_step(param, update, step, group, exp_avg_sq):
    """Return the orthogonal step at rate 1, in the shape of the parameter."""
    matrices = _as_matrices(update, output_axis(param), group["conv_mode"])
    scale = LR_SCALES[group["algo"]][group["adjust_lr_fn"]](matrices.shape)
    if matrices.ndim == 3 and group["normalize_spatial"]:
        scale *= matrices.shape[0] ** -0.5
    update = _from_matrices(newton_schulz(matrices, group), param.shape, output_axis(param))
    if exp_avg_sq is not None:
        beta2 = group["betas"][1]
        average_square(exp_avg_sq, update, beta2)
        to_norm_one = group["adjust_lr_fn"] == "match_rms_adamw"  # the bias of the average then has no effect
        correction = 1.0 if to_norm_one else 1.0 - beta2**step
        update = update / exp_avg_sq.sqrt().scale_(correction**-0.5, bias=group["eps"])
        if to_norm_one:
            update = update / (norm(update) + group["eps"])
    return update * scale


def newton_schulz(matrices, group):
    """Return matrices near the closest orthogonal ones to [..., out, in], with singular values near 1."""
    eps = group["eps"]
    if group["scale_eps"]:  # arXiv 2512.05620
        eps *= math.sqrt(matrices.shape[-1] / matrices.shape[-2])
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    size = x.square().sum([-2, -1], keepdim=True).sqrt() * group["safety_factor"]
    x = x / (size + eps if group["scale_eps"] else size.clip(min=eps))
    triples = group["ns_coefficients"]
    for index in range(group["ns_steps"]):
        a, b, c = triples[min(index, len(triples) - 1)]
        gram = paddle.matmul(x, x, transpose_y=True)
        x = x * a + paddle.matmul(gram * b + paddle.matmul(gram, gram) * c, x)
    return x.mT if tall else x


def is_suitable_for_muon(param, min_dim_size=4, max_aspect_ratio=128.0):
    """Return whether a parameter gets orthogonal steps: not a vector, a depthwise weight or a thin matrix.

    Args:
        param: the parameter.
        min_dim_size: least length of the shorter side.
        max_aspect_ratio: largest ratio of the sides.
    """
    shape = param.shape
    if sum(n > 1 for n in shape) < 2 or 1 in shape[:2]:
        return False
    short, long = sorted((shape[0], math.prod(shape[1:])))
    return short >= min_dim_size and long / short <= max_aspect_ratio


def _as_matrices(tensor, outputs, conv_mode):
    """Return a matrix as [out, in], and a convolution as [out, in * h * w] or, batched, [h * w, out, in]."""
    if tensor.ndim == 2:
        return tensor.t() if outputs else tensor
    if conv_mode == "flatten":
        return tensor.flatten(1)
    return tensor.flatten(2).transpose([2, 0, 1])


def _from_matrices(matrices, shape, outputs):
    if len(shape) == 2:
        return matrices.t() if outputs else matrices
    return (matrices.transpose([1, 2, 0]) if matrices.ndim == 3 else matrices).reshape(shape)


def _coefficients(value):
    """Return the list of triples that a preset's name, one triple or a list of triples means."""
    if isinstance(value, str):
        _check_choice("ns_coefficients", value, NS_COEFFICIENTS)
        return NS_COEFFICIENTS[value]
    triples = value if value and isinstance(value[0], Sequence) else [value]
    if not all(len(triple) == 3 for triple in triples):
        raise ConfigError(f"ns_coefficients must be the name of a preset or triples of numbers, got {value!r:.80}")
    return [tuple(map(float, triple)) for triple in triples]


def _check_choice(name, value, valid):
    if value not in valid:
        raise ConfigError(f"{name} is one of {', '.join(map(repr, valid))}, not {value!r:.80}")
