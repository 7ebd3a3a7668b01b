"""The one form that class labels have."""

from __future__ import annotations

import numpy as np

from pimm.errors import DataError


def class_labels(labels):
    """Return class labels [B] for labels [B], or [B, 1] as Paddle's own data sets give them.

    Args:
        labels: array or tensor of class indices.

    Raises:
        DataError: for labels of another shape, which would broadcast against other arrays in silence.
    """
    shape = list(labels.shape)
    if len(shape) == 2 and shape[1] == 1:
        return labels.reshape([shape[0]])
    if len(shape) != 1:
        raise DataError(f"labels of shape {shape}; class indices have the shape [batch] or [batch, 1]")
    return labels


def stack_labels(labels):
    """Stack the labels of samples: class indices to int64 [B], labels of other kinds as they are.

    Raises:
        DataError: for indices that int64 does not hold, and labels that are no numbers.
    """
    labels = np.stack([np.asarray(label) for label in labels])
    if labels.dtype.kind not in "iubfc" or (
        labels.dtype.kind == "u" and labels.max(initial=0) > np.iinfo(np.int64).max
    ):
        raise DataError("a label is no number, or larger than any class index can be")
    if labels.dtype.kind not in "iub":
        return labels
    labels = labels.astype(np.int64)
    return class_labels(labels) if labels.ndim == 2 and labels.shape[1] == 1 else labels
