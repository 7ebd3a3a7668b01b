"""A small net's program run by one operator of this project, which takes a few images at a time through all layers.

No thread waits for another one between layers, and no layer has a cost of its own, which in Paddle Inference is 40
microseconds on one thread. This serves nets of plain and depthwise convolutions, activations, gates, shortcuts and
means; see `_HANDLERS`.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import paddle
from paddle import Tensor

from pimm.engine.program import PADDLE_STEM, quiet
from pimm.ops.backend import cpu_backend, run_operator
from pimm.ops.channels_last import ACTS, PANEL, pack, pack_depthwise
from pimm.threads import thread_count

# Multiply-adds for an image. With more, oneDNN is as fast, and shares an image among threads.
MOST_WORK = 100_000_000
# oneDNN's swish is slow on processors with AVX2. With many threads, a batch may have too few images for all of them.
MOST_WORK_SWISH, MOST_THREADS_SWISH = 400_000_000, 16

_KINDS = ("convolution", "depthwise", "mean", "gate")  # as net.h numbers them


class Unsupported(Exception):
    """A program that the operator cannot compute; the text says why."""


@dataclass
class Step:
    """Describe what computes one value from earlier ones, of which the images are number 0.

    ``gate``, ``shortcut`` and ``weight`` are -1 where there is none; ``padding`` is top, bottom, left and right.
    """

    kind: str
    source: int
    outs: int
    gate: int = -1
    shortcut: int = -1
    weight: int = -1
    shift: np.ndarray | None = None
    act: str = "none"
    kernel: tuple = (1, 1)
    stride: tuple = (1, 1)
    padding: tuple = (0, 0, 0, 0)
    dilation: tuple = (1, 1)

    def is_open(self) -> bool:
        """Return whether more can be computed together with the step."""
        return self.kind in ("convolution", "depthwise") and self.act == "none"


@dataclass
class Gated:
    """A value times a gate, which is not computed yet."""

    value: int
    gate: int
    channels: int


class Translation:
    """The steps of a program.

    Args:
        program: the program.
        parameters: its weights, by their names.

    Raises:
        Unsupported: the operator cannot compute the program.
    """

    def __init__(self, program, parameters: dict[str, Tensor]):
        self.parameters = parameters
        self.work = 0  # multiply-adds for an image
        self.steps: list[Step] = []
        self.weights: list[Tensor] = []
        self.values: dict[str, int | Gated | np.ndarray] = {}  # numbers of values, and what is constant, by their ids
        ops = program.global_block().ops
        for op in ops:
            if op.name() not in _HANDLERS:
                raise Unsupported(op.name())
        operands = [[value for value in op.operands_source() if value.initialized()] for op in ops]
        self.uses = Counter(value.id for values in operands for value in values)
        for op, values in zip(ops, operands):
            result = _HANDLERS[op.name()](self, op, op.attrs(), *values)
            for each in op.results():
                self.values[each.id] = result

    def number(self, value) -> int:
        """Return the number of a value; a gate that was put off is applied."""
        found = self.values[value.id]
        if isinstance(found, np.ndarray):
            raise Unsupported("a constant in place of feature maps")
        if isinstance(found, Gated):
            found = self.values[value.id] = self.add(Step("gate", found.value, found.channels, gate=found.gate))
        return found

    def constant(self, value) -> np.ndarray:
        """Return what a constant value is."""
        found = self.values[value.id]
        if not isinstance(found, np.ndarray):
            raise Unsupported("feature maps in place of a constant")
        return found

    def alias(self, result, value) -> int:
        """Return the number of a result that is the same as a value: uses of both count together."""
        self.uses[result.id] += self.uses[value.id] - 1
        return self.number(value)

    def add(self, step: Step) -> int:
        """Append a step, and return the number of its value."""
        self.steps.append(step)
        return len(self.steps)

    def open_step(self, value) -> Step | None:
        """Return the step of a value that is used once, if more can be computed together with the step."""
        number = self.values[value.id]
        if not isinstance(number, int) or not number or self.uses[value.id] > 1:
            return None
        step = self.steps[number - 1]
        return step if step.is_open() else None

    def add_weight(self, weight: Tensor) -> int:
        self.weights.append(weight)
        return len(self.weights) - 1

    def finish(self) -> tuple[list[Tensor], list[int]]:
        """Return weights and numbers as the operator takes them."""
        numbers = []
        for step in self.steps:
            shift = -1
            if step.shift is not None:
                shift = self.add_weight(paddle.to_tensor(np.pad(step.shift, (0, -step.outs % PANEL))))
            numbers += [_KINDS.index(step.kind), step.source, step.gate, step.shortcut, step.weight, shift]
            numbers += [ACTS.index(step.act), step.outs, *step.kernel, *step.stride, *step.padding, *step.dilation]
        return self.weights, numbers


def _parameter(net, op, attrs):
    return net.parameters[attrs["parameter_name"]].numpy()


def _images(net, op, attrs):
    return 0


def _constant(net, op, attrs):
    return np.array(attrs["value"])


def _full(net, op, attrs):
    return np.full(attrs["shape"], attrs["value"])


def _reshape(net, op, attrs, x, shape):
    value = net.values[x.id]
    if isinstance(value, np.ndarray):
        return value.reshape(op.results()[0].shape)
    return _flatten(net, op, attrs, x)


def _flatten(net, op, attrs, x, *size):
    (result,) = op.results()
    channels = x.shape[1]
    if list(x.shape[2:]) not in ([], [1, 1]) or list(result.shape[1:]) not in ([channels], [channels, 1, 1]):
        raise Unsupported("another shape of feature maps")
    return net.alias(result, x)


def _drop(net, op, attrs, x, rate):
    if not attrs["is_test"] or attrs["mode"] != "upscale_in_train":
        raise Unsupported("a dropout that changes values")
    return net.alias(op.results()[0], x)


def _explicit(attrs, size, kernel):
    padding = attrs["paddings"]
    return padding if len(padding) == 4 else np.repeat(padding, 2).tolist(), attrs["dilations"]


def _same(attrs, size, kernel):
    totals = [max((-(-n // stride) - 1) * stride + k - n, 0) for n, stride, k in zip(size, attrs["strides"], kernel)]
    return [half for total in totals for half in (total // 2, total - total // 2)], (1, 1)  # Paddle takes no dilation


_PADDINGS = {"EXPLICIT": _explicit, "SAME": _same}  # and dilations, by Paddle's names


def _convolve(net, op, attrs, x, weight):
    filters = net.constant(weight)
    outs, depth, *kernel = filters.shape
    if attrs["groups"] == 1:
        kind, packed = "convolution", pack(paddle.to_tensor(filters))
    elif attrs["groups"] == outs == x.shape[1] and depth == 1:
        kind, packed = "depthwise", pack_depthwise(paddle.to_tensor(filters))
    else:
        raise Unsupported(f"a convolution of {attrs['groups']} groups")
    if attrs["data_format"] != "NCHW" or attrs["padding_algorithm"] not in _PADDINGS:
        raise Unsupported("a convolution with options")
    padding, dilation = _PADDINGS[attrs["padding_algorithm"]](attrs, x.shape[2:], kernel)
    geometry = tuple(kernel), tuple(attrs["strides"]), tuple(padding), tuple(dilation)
    net.work += filters.size * math.prod(op.results()[0].shape[2:])
    return _add_convolution(net, kind, x, packed, outs, geometry)


_PIXELWISE = (1, 1), (1, 1), (0, 0, 0, 0), (1, 1)


def _add_convolution(net, kind, x, packed, outs, geometry):
    source, gate = net.values[x.id], -1
    if isinstance(source, Gated) and kind == "convolution" and geometry[:3] == _PIXELWISE[:3]:
        source, gate = source.value, source.gate
    else:
        source = net.number(x)
    shift = np.zeros(outs, "float32")
    return net.add(Step(kind, source, outs, gate, -1, net.add_weight(packed), shift, "none", *geometry))


def _multiply_matrices(net, op, attrs, x, weight):
    matrix = net.constant(weight)
    if attrs["transpose_x"] or matrix.ndim != 2 or len(x.shape) != 2:
        raise Unsupported("a product of matrices")
    matrix = matrix if attrs["transpose_y"] else matrix.T
    net.work += matrix.size
    packed = pack(paddle.to_tensor(np.ascontiguousarray(matrix[:, :, None, None])))
    return _add_convolution(net, "convolution", x, packed, len(matrix), _PIXELWISE)


def _add(net, op, attrs, x, y):
    x, y = (y, x) if isinstance(net.values[x.id], np.ndarray) else (x, y)
    term = net.values[y.id]
    if isinstance(term, np.ndarray):
        step, channels = net.open_step(x), (1, x.shape[1], *[1] * len(x.shape[2:]))
        if step is None or step.shortcut >= 0 or (1,) * (len(channels) - term.ndim) + term.shape != channels:
            raise Unsupported("a sum with a constant")
        step.shift = step.shift + term.reshape(-1)
        return net.values[x.id]
    for value, other in ((x, y), (y, x)):
        step = net.open_step(value)
        if step and step.kind == "convolution" and step.shortcut < 0 and x.shape == y.shape:
            shortcut = net.number(other)
            if shortcut < net.values[value.id]:
                step.shortcut = shortcut
                return net.values[value.id]
    raise Unsupported("a sum")


def _multiply(net, op, attrs, x, y):
    x, y = (y, x) if list(x.shape[2:]) == [1, 1] else (x, y)
    if len(y.shape) != 4 or list(y.shape[1:]) != [x.shape[1], 1, 1]:
        raise Unsupported("a product of feature maps")
    return Gated(net.number(x), net.number(y), x.shape[1])


def _mean(net, op, attrs, x, size):
    sizes = net.constant(size).tolist()
    if op.name() == "pd_op.mean":
        is_mean = len(x.shape) == 4 and sorted(axis % 4 for axis in sizes) == [2, 3]
    else:
        is_global = attrs["global_pooling"] or (attrs["adaptive"] and sizes == [1, 1])
        is_mean = is_global and attrs["pooling_type"] == "avg" and attrs["data_format"] == "NCHW"
    if not is_mean:
        raise Unsupported("a pooling")
    return net.add(Step("mean", net.number(x), x.shape[1]))


def _activate(act):
    def run(net, op, attrs, x):
        step = net.open_step(x)
        if step is None:
            raise Unsupported("an activation that follows no convolution")
        if act == "hard_sigmoid" and not np.allclose((attrs["slope"], attrs["offset"]), (1 / 6, 0.5)):
            raise Unsupported("a hard sigmoid of another slope")
        step.act = act
        return net.values[x.id]

    return run


def _output(net, op, attrs, x):
    if not net.steps or net.number(x) != len(net.steps) or len(x.shape) != 2:
        raise Unsupported("an output that is not of the last layer")


_HANDLERS = {
    "builtin.parameter": _parameter,
    "builtin.shadow_output": _output,
    "pd_op.data": _images,
    "pd_op.full": _full,
    "pd_op.full_int_array": _constant,
    "pd_op.reshape": _reshape,
    "pd_op.flatten": _flatten,
    "pd_op.dropout": _drop,
    "pd_op.conv2d": _convolve,
    "pd_op.depthwise_conv2d": _convolve,
    "pd_op.matmul": _multiply_matrices,
    "pd_op.add": _add,
    "pd_op.multiply": _multiply,
    "pd_op.pool2d": _mean,
    "pd_op.mean": _mean,
    "pd_op.relu": _activate("relu"),
    "pd_op.relu6": _activate("relu6"),
    "pd_op.swish": _activate("swish"),
    "pd_op.silu": _activate("swish"),
    "pd_op.hardswish": _activate("hard_swish"),
    "pd_op.hardsigmoid": _activate("hard_sigmoid"),
}


class FusedNet:
    """Computes logits with the program of a folder by one operator, on the CPU.

    Args:
        folder: the folder with `pimm.engine.program.PADDLE_FILES`.

    Raises:
        Unsupported: the net is large, or has other layers, or there are no operators.
    """

    runner = "an operator for small nets"

    def __init__(self, folder: Path):
        self.backend = cpu_backend()
        if self.backend == "paddle":
            raise Unsupported("there are no operators")
        try:
            with quiet():
                layer = paddle.jit.load(str(folder / PADDLE_STEM))
        except Exception as error:  # Paddle raises many types for damaged files
            raise Unsupported(str(error)) from None
        translation = Translation(layer.program(), {each.name: each for each in layer.parameters()})
        if translation.work > self._most_work(translation):
            raise Unsupported("a large net")
        self.weights, self.steps = translation.finish()

    def logits(self, images: Tensor) -> Tensor:
        """Return the logits of images [N, C, H, W] of float32."""
        return run_operator("pimm_net", (images, self.weights), self.steps, self.backend)[0]

    def _most_work(self, translation: Translation) -> int:
        has_swish = any(step.act == "swish" for step in translation.steps)
        pays = has_swish and self.backend == "avx2" and thread_count() <= MOST_THREADS_SWISH
        return MOST_WORK_SWISH if pays else MOST_WORK
