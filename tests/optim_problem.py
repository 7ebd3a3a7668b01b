"""The least-squares problem that the reference trajectories of optimizers were made on, with its gradients by hand."""

import functools

import golden
import numpy as np
import paddle
from paddle.base.framework import EagerParamBase

from pimm.optim import get_optimizer_class

SHAPES = {
    "fc1.weight": (8, 5),
    "fc1.bias": (8,),
    "norm.weight": (8,),
    "fc2.weight": (3, 8),
    "fc2.bias": (3,),
    "conv.weight": (4, 3, 3, 3),
    "big.weight": (36, 32),
}


@functools.cache
def start():
    return golden.state(SHAPES.items())


@functools.cache
def constants(dtype):
    """Draw inputs and targets of the small net, and curvatures and minima of the two branches."""
    shapes = [(16, 5), (16, 3), (4, 3, 3, 3), (4, 3, 3, 3), (36, 32), (36, 32)]
    x, y, a, conv, b, big = (golden.inputs(shape, stream=12345 + i).astype(dtype) for i, shape in enumerate(shapes))
    half = np.array(0.5, dtype)
    return x, y, half + np.abs(a), conv, half + np.abs(b), big


class Problem(paddle.nn.Layer):
    """A net of two linear layers with a norm, whose weights are [out, in], and two branches that may be left out."""

    def __init__(self, dtype="float32"):
        super().__init__()
        self.dtype = dtype
        self.named = {}
        for name, value in start().items():
            owner, leaf = name.split(".")
            if not hasattr(self, owner):
                self.add_sublayer(owner, paddle.nn.Layer())
            param = parameter(value.astype(dtype))
            getattr(self, owner).add_parameter(leaf, param)
            self.named[name] = param

    def forward(self, branches=True):
        x, y, a, conv, b, big = map(paddle.to_tensor, constants(self.dtype))
        hidden = paddle.tanh(x @ self.fc1.weight.t() + self.fc1.bias) * self.norm.weight
        loss = (hidden @ self.fc2.weight.t() + self.fc2.bias - y).square().sum() / 32
        if branches:
            loss += (a * (self.conv.weight - conv).square()).sum() / 8
            loss += (b * (self.big.weight - big).square()).sum() / 72
        return loss

    def gradients(self, branches=True):
        """Compute what ``forward(branches).backward()`` gives each parameter: ``{name: array}``."""
        x, y, a, conv, b, big = constants(self.dtype)
        value = {name: param.numpy() for name, param in self.named.items()}
        bent = np.tanh(x @ value["fc1.weight"].T + value["fc1.bias"])
        hidden = bent * value["norm.weight"]
        error = (hidden @ value["fc2.weight"].T + value["fc2.bias"] - y) / 16
        back = error @ value["fc2.weight"]
        inner = back * value["norm.weight"] * (1 - bent**2)
        found = {
            "fc1.weight": inner.T @ x,
            "fc1.bias": inner.sum(0),
            "norm.weight": (back * bent).sum(0),
            "fc2.weight": error.T @ hidden,
            "fc2.bias": error.sum(0),
        }
        if branches:
            found["conv.weight"] = a * (value["conv.weight"] - conv) / 4
            found["big.weight"] = b * (value["big.weight"] - big) / 36
        return found

    def loss(self):
        """Compute what ``forward()`` returns with numpy, in float64."""
        x, y, a, conv, b, big = constants("float64")
        value = {name: param.numpy().astype(np.float64) for name, param in self.named.items()}
        hidden = np.tanh(x @ value["fc1.weight"].T + value["fc1.bias"]) * value["norm.weight"]
        loss = np.square(hidden @ value["fc2.weight"].T + value["fc2.bias"] - y).sum() / 32
        loss += (a * np.square(value["conv.weight"] - conv)).sum() / 8
        return loss + (b * np.square(value["big.weight"] - big)).sum() / 72

    def row(self):
        """Return the columns of the golden files."""
        value = {name: param.numpy().ravel() for name, param in self.named.items()}
        big = value.pop("big.weight").astype(np.float64)
        return np.concatenate([*value.values(), big[:16], [big.sum(), np.abs(big).sum()]])


def train(net, optimizer, steps, branches=True):
    """Take steps with the gradients by hand, several times as fast as through the graph."""
    for _ in range(steps):
        for name, grad in net.gradients(branches).items():
            net.named[name].grad = paddle.to_tensor(grad, dtype=net.dtype)
        optimizer.step()
        optimizer.clear_grad()


def parameter(value):
    """Make a parameter that is in no net."""
    return EagerParamBase.from_tensor(paddle.to_tensor(value))


def trajectory(opt, value, gradients, lr=0.02, lrs=None, **options):
    """Return a parameter after every step of an optimizer on given gradients, [steps, ...]; ``lrs`` sets the rates."""
    param = value if isinstance(value, paddle.Tensor) else parameter(value)
    optimizer = get_optimizer_class(opt)([param], lr=lr, **options)
    rows = []
    for index, grad in enumerate(gradients):
        if lrs:
            optimizer.set_lr(lrs[index])
        param.grad = paddle.to_tensor(grad)
        optimizer.step()
        rows.append(param.numpy())
    return np.array(rows)
