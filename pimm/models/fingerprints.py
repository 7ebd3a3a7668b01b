"""Tell which models have weights of given shapes, by a table beside this file, without building a model.

``python -m pimm.models.fingerprints`` writes the table anew, as adding a model requires.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import paddle

from pimm.models.factory import create_model
from pimm.models.registry import list_models, model_entrypoint
from pimm.models.torch_names import is_batch_counter, torch_names

TABLE = Path(__file__).with_suffix(".txt")
_CLASSIFIERS = ("classifier", "_fc")
_STEMS = ("conv_stem.weight", "_conv_stem.weight")


def fingerprint(shapes):
    """Return a digest of the shapes in ``{name: shape}``, the same for any number of classes and of image channels.

    Other names do not matter, and neither does it whether weights of linear layers are transposed.
    """
    counted = sorted(
        sorted([shape[0], 3, *shape[2:]] if _is_stem(name, shape) else shape)
        for name, shape in shapes.items()
        if name.rpartition(".")[0] not in _CLASSIFIERS and not is_batch_counter(name)
    )
    return hashlib.sha256(str(counted).encode()).hexdigest()[:16]


def image_channels(shapes):
    """Return how many channels images have for a model with these shapes, as its stem says; 3 without a stem."""
    return next((shape[1] for name, shape in shapes.items() if _is_stem(name, shape)), 3)


def _is_stem(name, shape):
    """Tell whether this is the weight of a stem: a file that is not trusted may give the name to anything."""
    return name in _STEMS and len(shape) == 4


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
