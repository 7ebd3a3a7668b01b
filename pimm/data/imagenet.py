"""Names of ImageNet's 1,000 classes."""

from __future__ import annotations

from pathlib import Path


def imagenet_classes():
    """Synset and words of every class of ILSVRC 2012, ``n01440764 tench, Tinca tinca``, in the order of indices."""
    lines = Path(__file__).with_name("imagenet_classes.txt").read_text().splitlines()
    return [line for line in lines if not line.startswith("#")]
