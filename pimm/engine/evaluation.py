"""Loss and accuracy of a classifier, exact for any number of processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import paddle
from paddle import nn
from paddle.nn import functional as F

from pimm.data.tta import reduce_tta
from pimm.errors import DataError
from pimm.utils.distributed import all_reduce_sum, barrier
from pimm.utils.labels import class_indices


@contextmanager
def train_mode(net: nn.Layer, training: bool) -> Iterator[None]:
    """Run the net in training or evaluation mode inside the context, and restore the mode of each layer afterwards."""
    before, modes = net.training, [(layer, layer.training) for layer in net.sublayers(include_self=True)]
    net.train() if training else net.eval()
    try:
        yield
    finally:
        net.train() if before else net.eval()
        for layer, mode in modes:  # a layer may differ from the net, such as a batch norm that keeps its statistics
            layer.training = mode


@paddle.no_grad()
def evaluate(predict, loader, tta=0, loss_fn=F.cross_entropy):
    """Return the mean of ``loss_fn`` and the top-1 and top-5 accuracy in percent: ``{"loss", "top1", "top5"}``.

    Counts are summed over all processes, so that each image counts once if it is in one process's loader.

    Args:
        predict: maps images to logits [N, num_classes]; its net must be in evaluation mode.
        loader: batches of images and labels [N] or [N, 1].
        tta: number of views of each image, as given to the loader.
        loss_fn: maps logits and labels to the batch's mean loss.

    Raises:
        DataError: there are no images, or labels of another shape.
    """
    totals = paddle.zeros([4], "float64")  # loss, first, first five, images
    for images, labels in loader:
        logits, labels = reduce_tta(predict(images).astype("float32"), labels, tta)
        labels = class_indices(labels, logits)
        if not len(labels):
            continue  # a mean over no images is not a number
        loss = loss_fn(logits, labels) * len(labels)
        ranked = logits.topk(min(5, logits.shape[1]), axis=1)[1] == labels.unsqueeze(1)
        counts = [loss, ranked[:, 0].sum(), ranked.sum(), paddle.full([], len(labels), "float64")]
        totals += paddle.stack([count.astype("float64") for count in counts])
    barrier()
    loss, first, first_five, n = all_reduce_sum(totals).tolist()
    if n == 0:
        raise DataError("there are no images to evaluate on")
    return {"loss": loss / n, "top1": 100.0 * first / n, "top5": 100.0 * first_five / n}
