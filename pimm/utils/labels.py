"""Check the shape of labels before anything broadcasts over them."""

from __future__ import annotations

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
    if paddle.is_integer(labels) and list(labels.shape) in (batch, [*batch, 1]):
        return labels.reshape(batch).astype("int64")
    raise _misfit("class indices", f"integers of shape {batch} or {[*batch, 1]}", labels, logits)


def dense_targets(targets, logits):
    """Return targets [N, C], one for each image and class, as they are.

    Raises:
        DataError: for targets whose shape is not that of the logits.
    """
    if list(targets.shape) == list(logits.shape):
        return targets
    raise _misfit("dense targets", f"of shape {list(logits.shape)}", targets, logits)


def _misfit(what, valid, found, logits):
    kind = str(found.dtype).rpartition(".")[2]
    return DataError(f"{what} for logits {list(logits.shape)} must be {valid}, got {kind} of shape {list(found.shape)}")
