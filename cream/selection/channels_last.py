"""The blocks of supernets for images [N, H, W, C] on a CPU: each convolution computes all that follows it as well.

What a block computes is unchanged, to rounding. ``FastNet`` is made of a supernet's weights as they are, and later
changes of the weights do not reach it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Callable

import paddle
from paddle import Tensor, nn

from cream.mobile.blocks import Identity, ResidualUnit
from cream.mobile.nets import MobileSuperNet
from cream.shuffle.blocks import Branch, ShuffleBlock
from cream.shuffle.nets import ShuffleSuperNet
from cream.space import SKIP
from cream.supernet import Choices, SuperNet
from pimm.layers import BatchNorm2d, Conv2d, HardSwish, SqueezeExcite, Swish, hard_sigmoid
from pimm.layers.norm import check_values
from pimm.models.efficientnet_blocks import ConvBnAct, DepthwiseSeparableConv, EdgeResidual, InvertedResidual
from pimm.ops import channels_last as ops
from pimm.ops import cpu_backend
from pimm.ops.geometry import four_sides

ACTS = {nn.Identity: "none", nn.ReLU: "relu", nn.ReLU6: "relu6", Swish: "swish", HardSwish: "hard_swish"}
_PACKAGES = {"cream", "pimm", "paddle"}  # whose forward functions are known
GATES = {hard_sigmoid: "hard_sigmoid"}


class Unsupported(Exception):
    """A layer that this module cannot compute; its text names the layer."""


class Statistics:
    """The statistics of the batch norms of one branch of paths.

    In training mode a batch norm normalises by the batch, and its statistics become the averages over all batches. In
    evaluation mode it uses these averages, or its own statistics where there were no batches.

    Args:
        net: the supernet, whose mode is read.
    """

    def __init__(self, net: nn.Layer):
        self.net = net
        self.sums: dict[nn.Layer, tuple[int, Tensor, Tensor]] = {}  # batches, and sums of means and variances
        self.affines: dict[object, tuple[Tensor, Tensor]] = {}

    @property
    def collecting(self) -> bool:
        """Whether batch norms normalise by the batch."""
        return self.net.training

    def normalise(self, norm: BatchNorm2d, x: Tensor, act: str, shortcut: Tensor | None) -> Tensor:
        """Normalise images [N, H, W, C] by the batch, and keep its statistics."""
        count = x.size // x.shape[-1]
        check_values(count, x)
        x, mean, variance = ops.normalise(x, *_weights(norm), norm._epsilon, act, shortcut)
        variance = variance * (count / (count - 1))
        batches, means, variances = self.sums.get(norm, (0, 0.0, 0.0))
        self.sums[norm] = batches + 1, mean + means, variance + variances
        return x

    def affine(self, norm: BatchNorm2d, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return factor and term of each channel that compute the norm of a convolution with this bias."""
        if norm not in self.affines:
            batches, mean, variance = self.sums.get(norm, (1, norm._mean, norm._variance))
            weight, term = _weights(norm)
            scale = weight / paddle.sqrt(variance / batches + norm._epsilon)
            mean = mean / batches if bias is None else mean / batches - bias
            self.affines[norm] = scale, term - mean * scale
        return self.affines[norm]


def _weights(norm: BatchNorm2d) -> tuple[Tensor, Tensor]:
    ones, zeros = paddle.ones_like(norm._mean), paddle.zeros_like(norm._mean)
    return ones if norm.weight is None else norm.weight, zeros if norm.bias is None else norm.bias


class Unit:
    """A convolution with its batch norm and activation; ``norm`` and ``act`` may be None.

    Raises:
        Unsupported: one of the layers is of another type than this class computes.
    """

    def __init__(self, conv: nn.Layer, norm: nn.Layer | None = None, act: nn.Layer | None = None):
        self.depthwise = type(conv) is Conv2d and conv.groups == conv.in_channels == conv.out_channels > 1
        known = type(conv) is Conv2d and (self.depthwise or conv.groups == 1) and conv.weight.dtype == paddle.float32
        if not known or (norm is not None and type(norm) is not BatchNorm2d):
            raise Unsupported(f"{type(conv).__name__} with {type(norm).__name__}")
        self.norm, self.bias, self.act = norm, conv.bias, _act_of(act)
        self.geometry = conv.kernel_size, conv.stride, four_sides(conv.padding), conv.dilation
        self.takes_gate = self.geometry[:3] == ((1, 1), (1, 1), (0, 0, 0, 0)) and not self.depthwise
        self.weight = (ops.pack_depthwise if self.depthwise else ops.pack)(conv.weight)
        ones, zeros = paddle.ones([conv.out_channels]), paddle.zeros([conv.out_channels])
        self.plain = ones, zeros if conv.bias is None else conv.bias

    def __call__(
        self, x: Tensor, statistics: Statistics, gate: Tensor | None = None, shortcut: Tensor | None = None
    ) -> Tensor:
        """Compute ``act(norm(conv(x * gate)) + shortcut)`` of images [N, H, W, C] and a gate [N, C]."""
        if gate is not None and not self.takes_gate:
            x, gate = x * gate.unsqueeze([1, 2]), None
        if self.norm is None:
            return self._convolve(x, self.plain, self.act, gate, shortcut)
        if statistics.collecting:
            x = self._convolve(x, self.plain, "none", gate, None)
            return statistics.normalise(self.norm, x, self.act, shortcut)
        return self._convolve(x, statistics.affine(self.norm, self.bias), self.act, gate, shortcut)

    def _convolve(self, x, affine, act, gate, shortcut):
        if self.depthwise:
            return ops.convolve_depthwise(x, self.weight, *affine, *self.geometry, act)
        return ops.convolve(x, self.weight, *affine, *self.geometry, act, gate, shortcut)


def _act_of(act: nn.Layer | None) -> str:
    if act is not None and type(act) not in ACTS:
        raise Unsupported(type(act).__name__)
    return "none" if act is None else ACTS[type(act)]


Part = Callable[[Tensor, Statistics], Tensor]


def squeeze_excite(layer: nn.Layer) -> Part:
    """Return the gate [N, C] of images [N, H, W, C] as a part."""
    if type(layer) is not SqueezeExcite or layer.gate_fn not in GATES:
        raise Unsupported(type(layer).__name__)
    reduce, expand = Unit(layer.conv_reduce, None, layer.act1), Unit(layer.conv_expand)
    expand.act = GATES[layer.gate_fn]

    def gate(x: Tensor, statistics: Statistics) -> Tensor:
        mean = ops.mean_of_pixels(x).unsqueeze([1, 2])  # [N, 1, 1, C]
        return expand(reduce(mean, statistics), statistics).squeeze([1, 2])

    return gate


# The convolutions of a block in a row, each with its batch norm and activation; a gate stands before the last one.
ROWS: Mapping[type, Sequence[tuple[str, ...]]] = {
    InvertedResidual: (("conv_pw", "bn1", "act1"), ("conv_dw", "bn2", "act2"), ("conv_pwl", "bn3")),
    DepthwiseSeparableConv: (("conv_dw", "bn1", "act1"), ("conv_pw", "bn2", "act2")),
    EdgeResidual: (("conv_exp", "bn1", "act1"), ("conv_pwl", "bn2")),
    ConvBnAct: (("conv", "bn1", "act1"),),
}


def row_block(block: nn.Layer) -> Part:
    """Return a block of ROWS as a part."""
    *units, last = (Unit(*(getattr(block, name) for name in names)) for names in ROWS[type(block)])
    se = getattr(block, "se", None)
    gate = None if se is None else squeeze_excite(se)
    changed = block.aa is not None or block.drop_path_rate or getattr(block, "conv_s2d", None) is not None
    if changed or (block.has_residual and (last.act != "none" or last.depthwise)):
        raise Unsupported(f"{type(block).__name__} with options")

    def run(x: Tensor, statistics: Statistics) -> Tensor:
        shortcut = x if block.has_residual else None
        for unit in units:
            x = unit(x, statistics)
        return last(x, statistics, gate and gate(x, statistics), shortcut)

    return run


def residual_unit(block: ResidualUnit) -> Part:
    """Return a bottleneck of ResNet as a part."""
    first, middle = Unit(block.conv1, block.bn1, block.relu), Unit(block.conv2, block.bn2, block.relu)
    last = Unit(block.conv3, block.bn3, block.relu)
    downsample = None if block.downsample is None else Unit(*block.downsample)

    def run(x: Tensor, statistics: Statistics) -> Tensor:
        shortcut = x if downsample is None else downsample(x, statistics)
        return last(middle(first(x, statistics), statistics), statistics, shortcut=shortcut)

    return run


def identity(block: Identity) -> Part:
    """Return the identity, or the convolution that takes its place, as a part."""
    return unchanged if block.keeps_shape else Unit(block.conv, block.bn1)


def unchanged(x: Tensor, statistics: Statistics) -> Tensor:
    """Return ``x``."""
    return x


def sequence(layers: Iterable[nn.Layer]) -> Part:
    """Return convolutions, each with a batch norm and perhaps an activation after it, as a part."""
    grouped: list[list[nn.Layer]] = []
    for layer in layers:
        grouped.append([layer]) if isinstance(layer, nn.Conv2D) else grouped[-1].append(layer)
    units = [Unit(*group) for group in grouped]

    def run(x: Tensor, statistics: Statistics) -> Tensor:
        for unit in units:
            x = unit(x, statistics)
        return x

    return run


def shuffle_block(block: ShuffleBlock) -> Part:
    """Return a unit of ShuffleNetV2 as a part."""
    main = sequence(block.branch_main)
    if block.stride == 2:
        projection = sequence(block.branch_proj)
        return lambda x, statistics: paddle.concat([projection(x, statistics), main(x, statistics)], axis=-1)

    def run(x: Tensor, statistics: Statistics) -> Tensor:
        n, height, width, channels = x.shape
        even, odd = x.reshape([n, height, width, channels // 2, 2]).unbind(axis=-1)
        return paddle.concat([even, main(odd.contiguous(), statistics)], axis=-1)

    return run


PARTS: Mapping[type, Callable[[nn.Layer], Part]] = {
    **dict.fromkeys(ROWS, row_block),
    ResidualUnit: residual_unit,
    Identity: identity,
    ShuffleBlock: shuffle_block,
    Branch: sequence,
}


def mobile_ends(net: MobileSuperNet) -> tuple[Part, Part, Part]:
    """Return the stem and the parts of the head before and behind the pooling."""
    stem = Unit(net.conv_stem, net.bn1, net.act1)
    if net.pools_first:
        return stem, unchanged, Unit(net.conv_head, None, net.act2)
    return stem, Unit(net.conv_head, net.bn2, net.act2), unchanged


def shuffle_ends(net: ShuffleSuperNet) -> tuple[Part, Part, Part]:
    """Return the stem and the parts of the head before and behind the pooling."""
    return sequence(net.first_conv), sequence(net.conv_last), unchanged


ENDS: Mapping[type, Callable[[SuperNet], tuple[Part, Part, Part]]] = {
    MobileSuperNet: mobile_ends,
    ShuffleSuperNet: shuffle_ends,
}


class FastNet:
    """A supernet's stem, blocks and head as parts for images [N, H, W, C]; ``net`` is the supernet.

    Raises:
        Unsupported: the net is of another type, was changed by hooks or functions, or pools otherwise than by the mean.
    """

    def __init__(self, net: SuperNet):
        if type(net) not in ENDS or net.global_pool.kind != "avg" or _is_changed(net):
            raise Unsupported(type(net).__name__)
        self.net = net
        self._stem, self._final, self._pre_logits = ENDS[type(net)](net)
        self.block = functools.cache(self._make_block)

    def new_statistics(self) -> Statistics:
        """Return empty statistics of a branch."""
        return Statistics(self.net)

    def stem(self, images: Tensor, statistics: Statistics) -> Tensor:
        """Compute the input of the first block, [N, H, W, C], from images [N, C, H, W]."""
        return self._stem(ops.to_channels_last(images), statistics)

    def _make_block(self, position: Choices, choice: int) -> Part:
        """Return a choice of a position as a part."""
        if choice == SKIP:
            return unchanged
        block = position.standalone(choice)
        if type(block) not in PARTS:
            raise Unsupported(type(block).__name__)
        return PARTS[type(block)](block)

    def head(self, x: Tensor, statistics: Statistics) -> Tensor:
        """Compute the logits from the output of the last block."""
        x = ops.mean_of_pixels(self._final(x, statistics)).unsqueeze([1, 2])  # [N, 1, 1, C]
        return self.net.classifier(self._pre_logits(x, statistics).flatten(1))


def _is_changed(net: SuperNet) -> bool:
    """Return whether a layer has hooks, or other code puts a function in place of one that this module computes."""
    layers = net.sublayers(include_self=True)
    functions = [net.stem, net.head, *(layer.forward for layer in layers)]
    hooked = any(layer._forward_pre_hooks or layer._forward_post_hooks for layer in layers)
    return hooked or not all(map(_is_method_of_ours, functions))


def _is_method_of_ours(function: Callable) -> bool:
    scope = getattr(getattr(function, "__func__", None), "__globals__", {})
    return scope.get("__name__", "").partition(".")[0] in _PACKAGES


def fast_net(net: SuperNet, choices: Iterable[tuple[Choices, int]]) -> FastNet | None:
    """Return the supernet for images [N, H, W, C], or None where that is not possible.

    Args:
        net: the supernet, on the CPU.
        choices: the positions and choices that will be run.
    """
    if cpu_backend() == "paddle" or any(not value.place.is_cpu_place() for value in net.parameters()):
        return None
    try:
        fast = FastNet(net)
        for position, choice in choices:
            fast.block(position, choice)
    except Unsupported:
        return None
    return fast
