"""Nets whose channels were pruned: the channels that each layer kept, as facts, and the net made of them.

``pruned.json`` has ``{list: {layer: [outputs, inputs of a group]}}``, with one number for a normalisation.
"""

import functools
import json
from pathlib import Path

from paddle import nn

from pimm.layers import BatchNorm2d


def prune_channels(model, name):
    """Replace the layers of a net by layers of the channels that pruning left; their weights begin anew.

    The first convolution keeps the channels of the images, and the classifier its classes.

    Args:
        model: an image model with all channels.
        name: name of the list of channels, such as ``efficientnet_b1_pruned``.
    """
    sizes = json.loads((Path(__file__).parent / "pruned.json").read_text())[name]
    first = next(path for path in sizes if isinstance(_sublayer(model, path), nn.Conv2D))
    sizes[first][1] = model.in_chans
    for path, layer in list(model.named_sublayers()):
        for kind, create in _CREATE.items():
            if isinstance(layer, kind):
                owner, _, child = path.rpartition(".")
                _sublayer(model, owner).add_sublayer(child, create(layer, *sizes[path]))
    for info in model.feature_info:
        info["num_chs"] = _last_outputs(model, info["module"])
    model.num_features = sizes[model.classifier_name][1]
    model.create_head(model.num_classes, model.global_pool.pool_type)


def _sublayer(model, path):
    for name in filter(None, path.split(".")):
        model = getattr(model, name)
    return model


def _conv(layer, outputs, inputs):
    depthwise = layer.groups > 1
    return type(layer)(
        outputs if depthwise else inputs,
        outputs,
        layer.kernel_size,
        layer.stride,
        layer.padding,
        layer.dilation,
        outputs if depthwise else 1,
        layer.bias is not None,
    )


def _norm(layer, outputs):
    return BatchNorm2d(outputs, layer._epsilon, 1.0 - layer._momentum, layer.weight is not None)


_CREATE = {nn.Conv2D: _conv, BatchNorm2d: _norm}


def _last_outputs(model, path):
    """Return the channels of the last normalisation of a layer, or before a layer without any."""
    names = [name for name, _ in model.named_sublayers()]
    last = max(index for index, name in enumerate(names) if name == path or name.startswith(f"{path}."))
    layers = map(functools.partial(_sublayer, model), names[: last + 1])
    return [layer.num_features for layer in layers if isinstance(layer, BatchNorm2d)][-1]
