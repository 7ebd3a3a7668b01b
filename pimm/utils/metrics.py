"""Compute running means and accuracies."""

from __future__ import annotations

from pimm.utils.labels import class_indices


class AverageMeter:
    """Keeps the last value and the running mean of values of ``n`` samples each; tensors stay on the device."""

    def __init__(self):
        self.reset()

    def reset(self):
        """Forget all values."""
        self.val = 0
        self.avg = 0
        self.sum = 0
        self.count = 0

    def update(self, val, n=1):
        """Add a value that is the mean of ``n`` samples."""
        self.val = val
        self.sum += val * n
        self.count += n
        self.avg = self.sum / self.count if self.count else 0


def accuracy(output, target, topk=(1,)):
    """Return the percentage of samples whose class is among the ``k`` likeliest, for each ``k`` of ``topk``.

    The results are tensors without dimensions: the function does not wait for the device.

    Args:
        output: logits [N, C].
        target: class indices [N] or [N, 1].
        topk: numbers of classes; a number above C counts as C.
    """
    predicted = output.topk(min(max(topk), output.shape[1]), axis=1)[1]
    correct = (predicted == class_indices(target, output).unsqueeze(1)).astype("float32")
    return [correct[:, :k].sum() * (100.0 / target.shape[0]) for k in topk]
