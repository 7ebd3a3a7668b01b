"""Give labels their one shape, or refuse them, before anything broadcasts over them."""

from __future__ import annotations

import numpy as np
import paddle

from pimm.errors import DataError


def class_indices(labels, logits):
    """Return class indices [N], int64, for logits [N, C].

    Args:
        labels: integers [N], or [N, 1] as Paddle's own data sets have them.
        logits: the scores that the labels belong to.

    Raises:
        DataError: for labels of another shape or type.
    """
    batch = list(logits.shape[:-1])
    flat = _without_column(labels, batch) if paddle.is_integer(labels) else None
    if flat is not None:
        return flat.astype("int64")
    raise _misfit("class indices", f"integers of shape {batch} or {[*batch, 1]}", labels, logits)


def class_labels(labels):
    """Return class labels [B] for labels [B], or [B, 1] as Paddle's own data sets give them.

    Args:
        labels: array or tensor of class indices.

    Raises:
        DataError: for labels of another shape, which would broadcast against other arrays in silence.
    """
    batch = list(labels.shape[:1])
    flat = _without_column(labels, batch) if batch else None
    if flat is None:
        raise DataError(f"labels of shape {list(labels.shape)}; class indices have the shape [batch] or [batch, 1]")
    return flat


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
    flat = _without_column(labels, [len(labels)])
    return labels if flat is None else flat


def dense_targets(targets, logits):
    """Return targets [N, C], one for each image and class, as they are.

    Raises:
        DataError: for targets whose shape is not that of the logits.
    """
    if list(targets.shape) == list(logits.shape):
        return targets
    raise _misfit("dense targets", f"of shape {list(logits.shape)}", targets, logits)


def _without_column(labels, batch):
    """Return labels of the shape ``batch`` for labels [*batch] or [*batch, 1], and None for other shapes."""
    return labels.reshape(batch) if list(labels.shape) in (batch, [*batch, 1]) else None


def _misfit(what, valid, found, logits):
    kind = str(found.dtype).rpartition(".")[2]
    return DataError(f"{what} for logits {list(logits.shape)} must be {valid}, got {kind} of shape {list(found.shape)}")
