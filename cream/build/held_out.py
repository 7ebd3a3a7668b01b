"""Images of a training set that are kept out of training, for the selection."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import paddle

from pimm.data import Dataset
from pimm.errors import ConfigError


class Part(paddle.io.Dataset):
    """Some images of a data set, with a transform of their own; all other attributes are those of the whole set."""

    def __init__(self, dataset: Dataset, indices: np.ndarray):
        super().__init__()
        self.dataset = copy.copy(dataset)
        self.indices = indices

    @property
    def transform(self):
        return self.dataset.transform

    @transform.setter
    def transform(self, transform):
        self.dataset.transform = transform

    def __getattr__(self, name):
        if name == "dataset":  # not set yet while being unpickled
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int):
        return self.dataset[int(self.indices[index])]


def hold_out(labels: Sequence[int], amount: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of the images to train on and of those held out, both in ascending order.

    The share of images held out is the same in each class, to within one image.

    Args:
        labels: the class of each image.
        amount: the share of the images to hold out, or their number if it is at least 1.
        seed: the seed of the draw.

    Raises:
        ConfigError: a class would have no image left to train on, or no image is held out.
    """
    labels = np.asarray(labels)
    number = round(amount * len(labels)) if amount < 1 else round(amount)
    classes, sizes = np.unique(labels, return_counts=True)
    exact = number * sizes / len(labels)
    counts = np.floor(exact).astype(int)
    counts[np.argsort(counts - exact, kind="stable")[: number - counts.sum()]] += 1  # the largest remainders
    if number < 1 or (counts >= sizes).any():
        raise ConfigError(
            f"SUPERNET.HELD_OUT={amount:g} holds out {number} of {len(labels)} training images in {len(classes)} "
            "classes; must be at least one, and leave some of each class"
        )
    rng = np.random.default_rng([seed, 4])
    held = np.zeros(len(labels), bool)
    for name, count in zip(classes, counts):
        held[rng.choice(np.flatnonzero(labels == name), count, replace=False)] = True
    return np.flatnonzero(~held), np.flatnonzero(held)
