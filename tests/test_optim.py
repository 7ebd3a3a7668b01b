"""Optimizers against the trajectories of the original ones, and their state."""

import types

import golden
import numpy as np
import paddle
import pytest

from pimm.optim import (
    create_optimizer,
    create_optimizer_v2,
)

SHAPES = {
    "fc1.weight": (8, 5),
    "fc1.bias": (8,),
    "norm.weight": (8,),
    "fc2.weight": (3, 8),
    "fc2.bias": (3,),
    "conv.weight": (4, 3, 3, 3),
    "big.weight": (36, 32),
}
SNAPSHOTS = (1, 2, 5, 10, 20)
RUNS = golden.facts("optim")["runs"]


class Problem(paddle.nn.Layer):
    """The least-squares problem that the reference trajectories were made on."""

    def __init__(self, dtype="float32"):
        super().__init__()
        for name, shape in SHAPES.items():
            owner, leaf = name.split(".")
            if not hasattr(self, owner):
                self.add_sublayer(owner, paddle.nn.Layer())
            param = self.create_parameter(list(shape), dtype=dtype)
            param.set_value(golden.param(name, shape).astype(dtype))
            getattr(self, owner).add_parameter(leaf, param)

        def constant(shape, stream):
            return paddle.to_tensor(golden.inputs(shape, stream=stream).astype(dtype))

        self.data = [constant((16, 5), 12345), constant((16, 3), 12346)]
        self.curves = [0.5 + constant((4, 3, 3, 3), 12347).abs(), 0.5 + constant((36, 32), 12349).abs()]
        self.minima = [constant((4, 3, 3, 3), 12348), constant((36, 32), 12350)]

    def forward(self, branches=True):
        x, y = self.data
        hidden = paddle.tanh(x @ self.fc1.weight.t() + self.fc1.bias) * self.norm.weight
        loss = (hidden @ self.fc2.weight.t() + self.fc2.bias - y).square().sum() / 32
        if branches:
            loss += (self.curves[0] * (self.conv.weight - self.minima[0]).square()).sum() / 8
            loss += (self.curves[1] * (self.big.weight - self.minima[1]).square()).sum() / 72
        return loss

    def row(self):
        values = {name: param.numpy().ravel() for name, param in self.named_parameters()}
        big = values["big.weight"].astype(np.float64)
        head = [values[name] for name in SHAPES if name != "big.weight"]
        return np.concatenate([*head, big[:16], [big.sum(), np.abs(big).sum()]])


def train(net, optimizer, steps, branches=True):
    for _ in range(steps):
        net(branches).backward()
        optimizer.step()
        optimizer.clear_grad()


def args_of(run, opt):
    config = run["config"]
    return types.SimpleNamespace(
        opt=config.get("opt", opt),
        lr=run["lr"],
        weight_decay=run["weight_decay"],
        momentum=config.get("momentum"),
        opt_eps=config.get("opt_eps"),
    )


def build(key, net):
    version, name, _ = key.split("/")
    run = RUNS[key]
    if version == "0.1.20":
        return create_optimizer(args_of(run, name), net)
    return create_optimizer_v2(net, name, run["lr"], run["weight_decay"])


LEGACY = [key for key, run in RUNS.items() if key.startswith("0.1.20") and "error" not in run and "supernet" not in key]
MODERN_NAMES = [
    "sgd",
    "momentum",
    "adam",
    "adamw",
    "adamax",
    "nadam",
    "radam",
    "radamw",
    "adadelta",
    "adagrad",
    "rmsprop",
    "rmsproptf",
    "novograd",
    "nvnovograd",
]
MODERN = [key for key in RUNS if key.startswith("1.0.31") and key.split("/")[1] in MODERN_NAMES]


@pytest.mark.parametrize("key", LEGACY + MODERN)
def test_trajectory_float32(key):
    net = Problem()
    optimizer = build(key, net)
    rows = []
    for step in range(1, 21):
        if step == 11:
            optimizer.set_lr(RUNS[key]["lr"] / 2)
        train(net, optimizer, 1)
        if step in SNAPSHOTS:
            rows.append(net.row())
    expected = golden.arrays("optim")[f"{key}/f32"]
    np.testing.assert_allclose(np.array(rows)[:, :-2], expected[:, :-2], atol=5e-6, rtol=2e-6)
    np.testing.assert_allclose(np.array(rows)[:, -2:], expected[:, -2:], atol=2e-3)


@pytest.mark.parametrize("key", LEGACY + MODERN)
def test_trajectory_float64(key):
    net = Problem("float64")
    optimizer = build(key, net)
    train(net, optimizer, 10)
    optimizer.set_lr(RUNS[key]["lr"] / 2)
    train(net, optimizer, 10)
    expected = golden.arrays("optim")[f"{key}/f64_last"]
    # Paddle keeps betas and eps in float32 whatever the parameters are
    np.testing.assert_allclose(net.row(), expected, rtol=1e-5, atol=2e-6)
