"""Batch norm folded into the convolution before it, for a net that no longer trains."""

from __future__ import annotations

import copy
import functools

import numpy as np
import paddle
from paddle import Tensor, nn

from pimm.layers import BatchNorm2d, Conv2d


class Folded(nn.Layer):
    """Stands where a batch norm was: returns its input, after the activation of the batch norm's layer if any."""

    def __init__(self, norm: BatchNorm2d) -> None:
        super().__init__()
        for name, layer in norm.named_children():
            self.add_sublayer(name, layer)
        self.finish = functools.partial(type(norm).finish, self)

    def forward(self, x: Tensor) -> Tensor:
        return self.finish(x)


@paddle.no_grad()
def fold_batch_norms(net: nn.Layer, images: Tensor) -> nn.Layer:
    """Return a copy of a net whose convolutions compute what they and their batch norms did.

    Batch norms that follow no single convolution stay, as do those after a convolution with another kernel for each
    image.

    Args:
        net: the net, in evaluation mode.
        images: any images that the net takes: they tell which batch norm takes the output of which convolution.
    """
    net = copy.deepcopy(net)
    folded = set()
    for conv, norm in _pairs(net, images):
        _fold(conv, norm)
        folded.add(id(norm))
    for layer in net.sublayers(include_self=True):
        for name, child in layer.named_children():
            if id(child) in folded:
                layer.add_sublayer(name, Folded(child))
    return net


def _pairs(net: nn.Layer, images: Tensor) -> list[tuple[nn.Layer, nn.Layer]]:
    """List the convolutions and the batch norms that take their outputs, each of which the net uses once."""
    outputs, inputs, hooks = [], [], []
    for layer in net.sublayers():
        if isinstance(layer, Conv2d):
            hooks.append(layer.register_forward_post_hook(lambda conv, _, output: outputs.append((output, conv))))
        elif isinstance(layer, BatchNorm2d):
            hooks.append(layer.register_forward_pre_hook(lambda norm, given: inputs.append((given[0], norm))))
    net(images)
    for hook in hooks:
        hook.remove()
    made = {id(output): conv for output, conv in outputs}  # the lists keep the tensors, and so their ids
    pairs = [(made[id(given)], norm) for given, norm in inputs if id(given) in made]
    calls = [id(layer) for _, layer in (*outputs, *inputs)]
    pairs = [pair for pair in pairs if all(calls.count(id(layer)) == 1 for layer in pair)]
    return pairs if _use_all(net, images, pairs) else [pair for pair in pairs if _use_all(net, images, [pair])]


def _use_all(net: nn.Layer, images: Tensor, pairs: list[tuple[nn.Layer, nn.Layer]]) -> bool:
    """Return whether nothing but the batch norms uses the outputs of the convolutions; all else gets NaN in a trial."""
    conv_of = {id(norm): id(conv) for conv, norm in pairs}
    outputs = {}

    def hide(conv: nn.Layer, _: tuple, output: Tensor) -> Tensor:
        outputs[id(conv)] = output
        return paddle.full_like(output, float("nan"))

    def show(norm: nn.Layer, given: tuple) -> tuple:
        return outputs[conv_of[id(norm)]], *given[1:]

    expected = net(images)
    hooks = [conv.register_forward_post_hook(hide) for conv, _ in pairs]
    hooks += [norm.register_forward_pre_hook(show) for _, norm in pairs]
    found = net(images)
    for hook in hooks:
        hook.remove()
    results = zip(paddle.utils.flatten(found), paddle.utils.flatten(expected))
    return all(np.array_equal(one.numpy(), other.numpy()) for one, other in results)


def _fold(conv: nn.Layer, norm: nn.Layer) -> None:
    """Give a convolution the weight and the bias by which it computes what it and the batch norm did."""
    mean, variance = (value.numpy().astype("float64") for value in (norm._mean, norm._variance))
    gain = 1 / np.sqrt(variance + norm._epsilon)
    gain = gain if norm.weight is None else gain * norm.weight.numpy()
    bias = -mean if conv.bias is None else conv.bias.numpy() - mean
    bias = bias * gain if norm.bias is None else bias * gain + norm.bias.numpy()
    weight = conv.weight.numpy() * gain[:, None, None, None]
    conv.weight, conv.bias = _parameter(conv, weight), _parameter(conv, bias)


def _parameter(layer: nn.Layer, value: np.ndarray) -> Tensor:
    """Return a new parameter, since other layers may share the present one; no random number is drawn."""
    return layer.create_parameter(value.shape, default_initializer=nn.initializer.Assign(value.astype("float32")))
