"""What every variant of the table must satisfy: its decay by itself, its caution against what it is without."""

import numpy as np
import paddle
import pytest
from optim_problem import parameter, trajectory

from pimm.optim import OPTIMIZERS

LR, DECAY = 0.02, 0.1


def grads(shape, steps, seed=0):
    """A gradient for each step that keeps its sign in some places and not in others."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal(shape) + 0.5 * rng.standard_normal((steps, *shape))


def start(shape):
    return np.random.default_rng(1).standard_normal(shape)


# those whose weights decay apart from the gradient, by their class or by an argument
BY_CLASS = {
    "adamwlegacy",
    "nadamw",
    "sgdw",
    "adafactorbv",
    "laprop",
    "lion",
    "adabelief",
    "radabelief",
    "mars",
    "adamw",
}
BY_CLASS |= {"radamlegacy", "radamw", "adafactor", "muon", "nmuon", "adamuon", "nadamuon"}
ARGUMENTS = {"decoupled_decay", "decoupled", "corrected_weight_decay", "no_prox"}
DECOUPLED = [name for name, info in OPTIMIZERS.items() if name in BY_CLASS or ARGUMENTS & info.defaults.keys()]
DECOUPLED.remove("madgradw")
KERNELS = ("adamw", "radamw", "radamlegacy")


@pytest.mark.parametrize("name", DECOUPLED)
def test_decoupled_decay_is_by_the_rate_and_corrected_by_its_square_over_the_highest(name):
    """Without a gradient to follow a weight shrinks by the decay alone; ADOPT's first step only looks.

    MADGRAD, which averages weights with their start, has a trajectory of its own.
    """
    value = start((5, 6))
    rows = trajectory(name, value, np.zeros((3, 5, 6)), lrs=[LR, LR, LR / 2], weight_decay=DECAY, **_momentum(name))
    corrected = OPTIMIZERS[name].defaults.get("corrected_weight_decay")
    rates = [LR, LR, LR / 2 * (0.5 if corrected else 1.0)]
    if "adopt" in name:
        rates[0] = 0.0
    expected = value * np.cumprod([1.0 - rate * DECAY for rate in rates])[:, None, None]
    np.testing.assert_allclose(rows, expected, rtol=1e-6 if name in KERNELS else 1e-12)


def _momentum(name):
    return {"momentum": 0.9} if OPTIMIZERS[name].has_momentum else {}


# the variant, and the optimizer that it is without caution
CAUTIOUS = {
    "csgdw": ("sgdw", {}),
    "csgdc": ("sgdc", {}),
    "csgdp": ("sgdp", {}),
    "cadamw": ("adamw", {}),
    "cadamc": ("adamc", {}),
    "cnadamw": ("nadamw", {}),
    "cnadamc": ("nadamc", {}),
    "cadamp": ("adamp", {}),
    "cadopt": ("adopt", {}),
    "cadoptw": ("adoptw", {}),
    "cadoptc": ("adoptc", {}),
    "cadafactor": ("adafactor", {"betas": (0.9, 0.999)}),
    "cadafactorbv": ("adafactorbv", {}),
    "cadafactorbvc": ("adafactorbvc", {}),
    "clamb": ("lamb", {}),
    "clambw": ("lambw", {}),
    "claprop": ("laprop", {}),
    "clion": ("lion", {}),
    "clionc": ("lionc", {}),
    "cmars": ("mars", {}),
    "crmsproptf": ("rmsproptf", {}),
    "cadan": ("adan", {}),
    "cadanw": ("adanw", {}),
}


def test_every_cautious_variant_is_listed():
    cautious = {name for name, info in OPTIMIZERS.items() if info.defaults.get("caution")}
    assert cautious == set(CAUTIOUS)
    for name, (plain, options) in CAUTIOUS.items():
        assert OPTIMIZERS[name].defaults == {**OPTIMIZERS[plain].defaults, **options, "caution": True}


@pytest.mark.parametrize("name", [name for name in CAUTIOUS if "adan" not in name])
def test_caution_keeps_the_part_of_a_step_that_agrees_with_the_gradient(name):
    """arXiv 2411.16085, algorithm 1: the step times its mask, over the mask's mean."""
    options = {**_momentum(name), **OPTIMIZERS[name].defaults, "weight_decay": 0.0}
    value, flow = start((6, 7)), grads((6, 7), 4)

    def steps(*caution):
        """Four steps, each with caution or without."""
        param = parameter(value)
        optimizer = OPTIMIZERS[name].opt_class([param], lr=LR, **options)
        rows = [value]
        for grad, cautious in zip(flow, caution):
            optimizer._param_groups[0]["caution"] = cautious
            param.grad = paddle.to_tensor(grad)
            optimizer.step()
            rows.append(param.numpy())
        return np.diff(rows, axis=0)[-1]

    plain = steps(False, False, False, False)
    mask = -plain * flow[-1] > 0
    assert 0.3 < mask.mean() < 1.0
    np.testing.assert_allclose(steps(False, False, False, True), plain * mask / mask.mean(), atol=1e-7)
