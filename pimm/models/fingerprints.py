"""Tell which models have weights of given shapes, by a table beside this file, without building a model.

``python -m pimm.models.fingerprints`` writes the table anew, as adding a model requires.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import paddle

from pimm.models.factory import create_model
from pimm.models.registry import list_models, model_entrypoint
from pimm.models.timm_table import layer_names
from pimm.models.torch_names import is_batch_counter, torch_names

TABLE = Path(__file__).with_suffix(".txt")
_FOREIGN_CLASSIFIER, _FOREIGN_STEM = "_fc", "_conv_stem"  # of efficientnet_pytorch


def fingerprint(shapes):
    """Return a digest of the shapes in ``{name: shape}``, the same for any number of classes and of image channels.

    Other names do not matter, and neither does it whether weights of linear layers are transposed.
    """
    counted = sorted(
        sorted([shape[0], 3, *shape[2:]] if _is_stem(name, shape) else shape)
        for name, shape in shapes.items()
        if not _is_of_classifier(name) and not is_batch_counter(name)
    )
    return hashlib.sha256(str(counted).encode()).hexdigest()[:16]


def image_channels(shapes):
    """Return how many channels images have for a model with these shapes, as its stem says; 3 without a stem."""
    return next((shape[1] for name, shape in shapes.items() if _is_stem(name, shape)), 3)


def class_count(shapes):
    """Return how many classes a model with these shapes has, as the bias of its classifier says; 0 without one."""
    biases = (name for name, shape in shapes.items() if name.endswith(".bias") and len(shape) == 1)
    return next((shapes[name][0] for name in biases if _is_of_classifier(name)), 0)


def _is_of_classifier(name):
    layer = name.rpartition(".")[0]
    return layer == _FOREIGN_CLASSIFIER or layer in layer_names("classifier")


def _is_stem(name, shape):
    """Tell whether this is the weight of a stem: a file that is not trusted may give the name to anything."""
    layer, _, kind = name.rpartition(".")
    known = layer == _FOREIGN_STEM or layer in layer_names("first_conv")
    return known and kind == "weight" and len(shape) == 4


def models_with(shapes):
    """List the names of the models whose weights have the shapes of ``{name: shape}``."""
    wanted = fingerprint(shapes)
    rows = (line.split() for line in TABLE.read_text().splitlines())
    return [name for name, found in rows if found == wanted]


def write_table():
    """Build every model of this package without values, and write the fingerprints to the table."""
    names = [name for name in list_models() if model_entrypoint(name).__module__.startswith("pimm.")]
    with paddle.LazyGuard():
        rows = [f"{name} {fingerprint(dict(torch_names(create_model(name))))}\n" for name in names]
    TABLE.write_text("".join(rows))


if __name__ == "__main__":
    write_table()
