"""Let weights of another number of classes or image channels start a training."""

from __future__ import annotations

import logging

import numpy as np
from paddle import nn

from pimm.errors import CheckpointError
from pimm.utils.bfloat16 import widened

_logger = logging.getLogger(__name__)

ADAPTED = ("num_classes", "in_chans")  # what may differ


def adapt_input_conv(in_chans, conv_weight, base_chans=3):
    """Return the weight of a first convolution for another number of image channels, as timm does.

    Args:
        in_chans: channels of the images.
        conv_weight: array [out, base_chans, height, width].
        base_chans: channels that the weight is for.

    Returns:
        For one channel the sum over the channels; for more channels the weight, repeated and cut to ``in_chans``, times
        ``base_chans / in_chans``, so that images of equal channels give the same output.

    Raises:
        CheckpointError: if the weight is no such array.
    """
    if conv_weight.ndim != 4 or conv_weight.shape[1] != base_chans:
        raise CheckpointError(
            f"a weight of shape {list(conv_weight.shape)} cannot be adapted from {base_chans} to {in_chans} channels"
        )
    if in_chans == base_chans:
        return conv_weight
    weight = widened(conv_weight) if conv_weight.dtype == np.uint16 else conv_weight.astype(np.float32)
    if in_chans == 1:
        return weight.sum(axis=1, keepdims=True)
    repeats = -(-in_chans // base_chans)
    return np.tile(weight, (1, repeats, 1, 1))[:, :in_chans] * np.float32(base_chans / in_chans)


def adapt_arrays(model, own, arrays, source, adapted=ADAPTED, new_classifier=False):
    """Return ``arrays`` with the classifier and the first convolution as the model needs them, and log what changed.

    Args:
        model: the net.
        own: ``{name: array}`` of the net.
        arrays: ``{name: array}`` under the same names, which are changed nowhere else.
        source: where the arrays are from, for the log.
        adapted: what may differ: ``num_classes``, ``in_chans`` or both.
        new_classifier: whether the classifier begins anew even if it fits.
    """
    arrays, notes = dict(arrays), []
    if "num_classes" in adapted:
        notes += _renew_classifier(model, own, arrays, new_classifier)
    if "in_chans" in adapted:
        notes += (note for name in _stem_names(model) for note in _adapt_stem(f"{name}.weight", own, arrays))
    if notes:
        _logger.warning("%s: %s; all else must fit", source, "; ".join(notes))
    return arrays


def _renew_classifier(model, own, arrays, always):
    layers = _classifier_names(model)
    prefixes = tuple(f"{name}." for name in layers)
    theirs, ours = (
        {name: value for name, value in state.items() if prefixes and name.startswith(prefixes)}
        for state in (arrays, own)
    )
    first = f"{layers[0]}." if layers else ""
    before, now = _count_classes(first, arrays, own), _count_classes(first, own, arrays)
    if before == now and not (ours and always):
        return
    for name in theirs if ours else [*theirs, *_rest_of_head(layers, own, arrays)]:
        del arrays[name]
    arrays.update(ours)
    if ours:
        replaced = f" in place of {before}" if before else ""
        yield f"the classifier begins anew, with {model.num_classes} classes{replaced}"
    else:
        of_classes = f" of {before} classes" if before else ""
        yield f"the classifier{of_classes} is left out"


def _rest_of_head(layers, own, arrays):
    """List the arrays of a head that a net without classes does not have: ``head.bn`` before ``head.linear``."""
    heads = tuple({f"{layer.rpartition('.')[0]}." for layer in layers if "." in layer})
    layers = tuple(f"{layer}." for layer in layers)
    return [name for name in arrays if name.startswith(heads) and not name.startswith(layers) and name not in own]


def _count_classes(beginning, state, other):
    """Return the number of classes of a classifier, which is the size of a bias, or of a weight where it differs.

    Args:
        beginning: of the names of its arrays.
        state: ``{name: array}`` of its net.
        other: ``{name: array}`` of the net to compare with.

    Returns:
        The number; 0 without a classifier, and None if nothing tells it.
    """
    found = {name: value for name, value in state.items() if beginning and name.startswith(beginning)}
    biases = [value for value in found.values() if value.ndim == 1]
    if biases:
        return len(biases[0])
    pairs = (pair for name in found if name in other for pair in zip(found[name].shape, other[name].shape))
    return next((size for size, its in pairs if size != its), None if found else 0)


def _adapt_stem(name, own, arrays):
    if name not in own or name not in arrays:
        return
    ours, theirs = own[name].shape, arrays[name].shape
    if len(ours) != 4 or len(theirs) != 4 or ours[1] == theirs[1] or ours[:1] + ours[2:] != theirs[:1] + theirs[2:]:
        return  # it fits, or is of another net, which the comparison of all shapes tells
    arrays[name] = adapt_input_conv(ours[1], arrays[name], theirs[1])
    how = "summed" if ours[1] == 1 else "repeated and scaled"
    yield f"{name} is {how} from {theirs[1]} to {ours[1]} image channels"


def _classifier_names(model):
    """List the names of the layers that a model's settings, or else its ``get_classifier``, call the classifier."""
    named = _settings(model).get("classifier")
    if not named:
        classifier = model.get_classifier()
        named = [name for name, layer in model.named_sublayers() if layer is classifier]
    return [named] if isinstance(named, str) else list(named)


def _stem_names(model):
    """List the names of the layers that a model's settings call the first convolution, or of its first convolution."""
    convolutions = (name for name, layer in model.named_sublayers() if isinstance(layer, nn.Conv2D))
    named = _settings(model).get("first_conv") or next(convolutions, "")
    return [named] if isinstance(named, str) else list(named)


def _settings(model):
    return getattr(model, "default_cfg", None) or {}
