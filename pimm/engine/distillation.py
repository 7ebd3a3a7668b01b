"""Training of a net by labels and by the logits of a teacher."""

from __future__ import annotations

from collections.abc import Sequence

import paddle
from paddle import Tensor, nn

from pimm.engine.steps import ClassifyStep
from pimm.loss import LogitDistillationLoss


class Teacher:
    """Gives the logits of a trained net, in evaluation mode and without gradients, for images of another net.

    Args:
        net: the trained net, which is switched to evaluation mode.
        statistics: mean and standard deviation of each channel by which the images of ``net`` are normalised.
        given: those by which the images that come are normalised.
        reverse: whether the images of ``net`` have their channels in the reverse order (RGB and BGR).
    """

    def __init__(
        self,
        net: nn.Layer,
        statistics: tuple[Sequence[float], Sequence[float]],
        given: tuple[Sequence[float], Sequence[float]],
        reverse: bool = False,
    ):
        self.net, self.reverse = net, reverse
        net.eval()
        own = [tuple(values)[::-1] if reverse else tuple(values) for values in statistics]  # in the order that comes
        (mean, std), (given_mean, given_std) = (map(_per_channel, pair) for pair in (own, given))
        # x * given_std + given_mean are the pixels.
        self.scale, self.shift = given_std / std, (given_mean - mean) / std
        self.same = own == [tuple(values) for values in given]

    @paddle.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Return the logits, [N, classes], of images [N, channels, H, W]."""
        images = images if self.same else images * self.scale + self.shift
        return self.net(images.flip([1]) if self.reverse else images)


def _per_channel(values: Sequence[float]) -> Tensor:
    return paddle.to_tensor(values, "float32").reshape([1, -1, 1, 1])


class DistillStep(ClassifyStep):
    """Trains a net as `ClassifyStep` does, on a sum of the labels' loss and of the divergence from a teacher.

    The metrics have ``task_loss`` and ``kd_loss`` too, without their weights.

    Args:
        teacher: maps images to logits of the same classes.
        kd_loss: maps logits of net and teacher to the divergence.
        weights: of the labels' loss and of the divergence.
        args, kwargs: those of `ClassifyStep`.
    """

    def __init__(self, *args, teacher: Teacher, kd_loss: LogitDistillationLoss, weights: tuple[float, float], **kwargs):
        super().__init__(*args, **kwargs)
        self.teacher, self.kd_loss, self.weights = teacher, kd_loss, weights

    def losses(self, images: Tensor, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the weighted sum as ``loss``, and its parts."""
        task = self.loss_fn(logits, labels)
        kd = self.kd_loss(logits, self.teacher(images))
        task_weight, kd_weight = self.weights
        return {"loss": task_weight * task + kd_weight * kd, "task_loss": task, "kd_loss": kd}
