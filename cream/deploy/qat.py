"""Nets of Paddle's quantization-aware training as ONNX in INT8, with the scales that the training found.

Paddle's own way ends early. `QAT.convert` makes a tensor of the zero points of a quanter, which are None. What
`PTQ.convert` returns takes a fixed number of images of a fixed size, where `paddle.jit.save` writes it at all.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import paddle
from paddle import nn
from paddle.quantization.wrapper import ObserveWrapper

from cream.deploy.backends import ONNX_FILE, EagerNet, OnnxNet
from cream.deploy.export import (
    TOLERANCE,
    check_folder,
    finish,
    largest_difference,
    onnx_alone,
    save_paddle,
    temporary_folder,
)
from cream.deploy.onnx_file import require, save_onnx
from cream.deploy.settings import InferenceSettings
from pimm.engine import train_mode
from pimm.engine.fold import fold_batch_norms
from pimm.errors import ConfigError
from pimm.layers import QUANTED_LAYERS, Conv2d, Conv2dSame, Linear

_STEPS = 127  # of an INT8 number on each side of 0
# Of what the training's rounding changes. A number between two steps may be rounded either way, and then all that
# follows from it differs.
_MOST = 2


class Scales(NamedTuple):
    """Holds the largest absolute values of a layer's input, and of the weight of each of its output channels."""

    activation: float
    weight: np.ndarray


def export_qat(net: nn.Layer, settings: InferenceSettings, folder: Path) -> float:
    """Write ``model.onnx`` in INT8, with ``inference.yml``, of a net that Paddle's `QAT` quantized and trained.

    Args:
        net: what `QAT.quantize` returned, trained.
        settings: how the net sees images, and its classes.
        folder: a new folder, an empty one, or one with an earlier export.

    Returns:
        The largest difference of a logit, on random images, from that of ``net``.

    Raises:
        ConfigError: the folder holds something else, a package is missing, no layer is quantized or one that cannot be
            written, or a logit differs by more than twice what the rounding of ``net`` changes.
    """
    check_folder(folder)
    require("paddle2onnx", "onnxruntime")
    with train_mode(net, training=False), temporary_folder(folder) as partial:
        plain, scales = without_quanters(net)
        folded = fold_batch_norms(plain, paddle.zeros([1, *settings.input_size]))
        save_paddle(folded, settings.input_size, partial)
        save_onnx(partial)
        insert_scales(partial / ONNX_FILE, _by_weight(plain, folded, scales))
        onnx_alone(partial)
        trained = EagerNet(net)
        rounding, largest = largest_difference(trained, EagerNet(plain), settings)
        difference, _ = largest_difference(trained, OnnxNet(partial), settings)
        if not difference <= _MOST * rounding + TOLERANCE * largest:  # NaN too
            raise ConfigError(f"{ONNX_FILE}: a logit differs by {difference:.1e} from the net's; nothing is exported")
        finish(partial, folder, replace(settings, precision="int8"))
    return difference


def without_quanters(net: nn.Layer) -> tuple[nn.Layer, dict[str, Scales]]:
    """Return a copy of a quantized net with plain layers, and the scales by the names of these layers.

    A configuration for all types of layers rounds the inputs of other layers too. This rounding is left out, because
    those layers compute in FP32.

    Raises:
        ConfigError: no layer is quantized, or one has no plain layer here, or lacks the scale of its input or weight.
    """
    net, scales, kinds = copy.deepcopy(net), {}, {quanted: plain for plain, quanted in QUANTED_LAYERS.items()}
    for parent_name, parent in list(net.named_sublayers(include_self=True)):
        for name, layer in parent.named_children():
            if type(layer) is ObserveWrapper:
                parent.add_sublayer(name, layer._observed)
            elif type(layer) in kinds:
                full = f"{parent_name}.{name}" if parent_name else name
                scales[full] = _scales(full, layer)
                parent.add_sublayer(name, _plain(full, layer, kinds[type(layer)]))
    if not scales:
        raise ConfigError("no layer of this net is quantized: it must be what Paddle's QAT.quantize returned")
    return net, scales


def _scales(name: str, layer: nn.Layer) -> Scales:
    """Return the scales that the quanters of a layer found."""
    quanters = layer.activation_quanter, layer.weight_quanter
    if any(quanter is None or quanter.scales() is None for quanter in quanters):
        raise ConfigError(f"{name} lacks the scale of its input or its weight: QuantConfig must name both quanters")
    activation, weight = (np.array(quanter.scales()).reshape(-1) for quanter in quanters)
    return Scales(float(activation.max()), weight)


def _plain(name: str, layer: nn.Layer, kind: type) -> nn.Layer:
    """Return the layer that was quantized, with its weights as they are."""
    has_bias = layer.bias is not None
    if kind is Linear:
        plain = Linear(*layer.weight.shape, bias=has_bias)
    elif kind in (Conv2d, Conv2dSame):
        outs, ins, *kernel = layer.weight.shape
        sizes = (layer.stride, layer.padding, layer.dilation, layer.groups)
        plain = kind(ins * layer.groups, outs, tuple(kernel), *sizes, bias=has_bias)
    else:
        raise ConfigError(f"{name} is a {kind.__name__}, whose kernel is another for each image: INT8 has none of it")
    plain.weight, plain.bias = layer.weight, layer.bias
    return plain


def _by_weight(plain: nn.Layer, folded: nn.Layer, scales: Mapping[str, Scales]) -> dict[str, Scales]:
    """Return the scales by the names of the weights of ``folded``, for each output channel of these weights.

    A batch norm that is folded multiplies each channel of a weight, and the channel's scale with it.
    """
    layers, found = dict(folded.named_sublayers()), {}
    for name, layer in plain.named_sublayers():
        if name in scales:
            before, after = (_largest(each) for each in (layer, layers[name]))
            gain = np.divide(after, before, out=np.ones_like(after), where=before > 0)
            found[layers[name].weight.name] = Scales(scales[name].activation, scales[name].weight * gain)
    return found


def _largest(layer: nn.Layer) -> np.ndarray:
    """Return the largest absolute value of the weight of each output channel."""
    axes = (0,) if isinstance(layer, nn.Linear) else (1, 2, 3)
    return np.abs(layer.weight.numpy()).max(axis=axes)


def insert_scales(path: Path, scales: Mapping[str, Scales]) -> None:
    """Change an ONNX file to INT8: round the inputs and the weights of the layers whose weights have these names."""
    import onnx  # late: an extra
    from onnx import helper, numpy_helper

    model = onnx.load(path)
    graph = model.graph
    weights = {node.output[0]: node.attribute[0].t for node in graph.node if node.op_type == "Constant"}
    nodes, added, missing = [], {}, set(scales)

    def constant(name: str, value: np.ndarray) -> str:
        added[name] = numpy_helper.from_array(value, name)
        return name

    def link(kind: str, source: str, scale: str, zero: str, axis: int | None = None) -> str:
        target = f"{zero}.{kind}"
        options = {} if axis is None else {"axis": axis}
        nodes.append(helper.make_node(kind, [source, scale, zero], [target], **options))
        return target

    for node in graph.node:
        if node.op_type == "Constant" and node.output[0] in scales:
            continue
        weight = next((each for each in node.input[1:] if each in missing), None)
        if weight is not None:
            missing.remove(weight)
            step = np.float32(scales[weight].activation / _STEPS)
            scale, zero = constant(f"{weight}.x_scale", step), constant(f"{weight}.x_zero", np.int8(0))
            node.input[0] = link("DequantizeLinear", link("QuantizeLinear", node.input[0], scale, zero), scale, zero)
            value, axis = numpy_helper.to_array(weights[weight]), 0 if node.op_type == "Conv" else 1
            steps = (scales[weight].weight / _STEPS).astype("float32")
            across = steps.reshape([-1 if i == axis else 1 for i in range(value.ndim)])
            rounded = np.clip(np.rint(value / across), -_STEPS, _STEPS).astype("int8")
            scale = constant(f"{weight}.w_scale", steps)
            zero = constant(f"{weight}.w_zero", np.zeros(len(steps), "int8"))
            source = constant(f"{weight}.int8", rounded)
            node.input[list(node.input).index(weight)] = link("DequantizeLinear", source, scale, zero, axis)
        nodes.append(node)
    if missing:
        raise ConfigError(f"the ONNX file has no weight called {min(missing)}")
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(added.values())
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
