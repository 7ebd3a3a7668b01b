"""Running averages and accuracy."""

from __future__ import annotations

from pimm.utils.labels import class_indices


class AverageMeter:
    """The last value and the running mean of values that each stand for ``n`` samples; tensors stay where they are."""

    def __init__(self):
        self.reset()

    def reset(self):
        self.val = 0
        self.avg = 0
        self.sum = 0
        self.count = 0

    def update(self, val, n=1):
        self.val = val
        self.sum += val * n
        self.count += n
        self.avg = self.sum / self.count if self.count else 0


def accuracy(output, target, topk=(1,)):
    """Percentage of samples whose class is among the ``k`` likeliest, for each ``k`` of ``topk``.

    Logits [N, C], class indices [N] or [N, 1]; 0-d tensors, so nothing waits for the device. A ``k`` above C means C.
    """
    predicted = output.topk(min(max(topk), output.shape[1]), axis=1)[1]
    correct = (predicted == class_indices(target, output).unsqueeze(1)).astype("float32")
    return [correct[:, :k].sum() * (100.0 / target.shape[0]) for k in topk]
