"""Names of ImageNet's 1,000 classes."""

from __future__ import annotations

import functools
from pathlib import Path


def imagenet_classes():
    """Return synset and words of every class of ILSVRC 2012, ``n01440764 tench, Tinca tinca``, by class index."""
    lines = Path(__file__).with_name("imagenet_classes.txt").read_text().splitlines()
    return [line for line in lines if not line.startswith("#")]


@functools.cache
def synset_indices():
    """Return ``{synset: class index}`` of ILSVRC 2012; the caller must not change the dict."""
    return {line.split()[0]: index for index, line in enumerate(imagenet_classes())}


def describe_classes(names, count):
    """Return a name for each of ``count`` classes; synsets of ImageNet are followed by their words.

    Names that are unknown, or of another number, are those of ImageNet for 1,000 classes and ``class N`` otherwise.
    """
    lines = imagenet_classes()
    if not names or len(names) != count:
        return tuple(lines) if count == len(lines) else tuple(f"class {number}" for number in range(count))
    by_synset = {line.partition(" ")[0]: line for line in lines}
    return tuple(by_synset.get(name, name) for name in names)
