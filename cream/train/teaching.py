"""What a teacher adds to a student's loss, and who teaches where no matching network decides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Callable

import paddle
from paddle import Tensor, nn
from paddle.nn import functional as F

from pimm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy

# How the loss on labels and the loss against the teacher make the loss of a student. In the paper's, the teacher takes
# weight from the labels; in the other, labels keep their full weight.
FORMS: Mapping[str, Callable[[float | Tensor, Tensor, Tensor], Tensor]] = {
    "mixed": lambda rho, labels, teacher: (rho * teacher + (2 - rho) * labels) / 2,
    "added": lambda rho, labels, teacher: labels + rho / 2 * teacher,
}


@dataclass(frozen=True)
class Teaching:
    """The loss of a taught student; the defaults are the paper's (Cream, algorithm 1).

    Args:
        form: ``mixed`` or ``added``, see FORMS.
        temperature: divides the logits of teacher and student before they are compared; the loss against the teacher
            is multiplied by its square, so that its gradient keeps its scale (https://arxiv.org/abs/1503.02531).
        only_better: whether a teacher has no say on a batch on which the teacher's own loss is not below the student's.
        share: the share of a batch, its first images, that a teacher is asked about.
        smoothing: of the labels of a taught path; None: as those of other paths.
    """

    form: str = "mixed"
    temperature: float = 1.0
    only_better: bool = False
    share: float = 1.0
    smoothing: float | None = None

    def label_loss(self, otherwise: nn.Layer) -> nn.Layer:
        """Return the loss of a taught path on the labels; ``otherwise`` is the one of other paths."""
        return otherwise if self.smoothing is None else LabelSmoothingCrossEntropy(self.smoothing)

    def images(self, n: int) -> int:
        """Return about how many of ``n`` images of a batch a teacher is asked, at least one."""
        return max(round(self.share * n), 1)

    def __call__(
        self, rho: float, logits: Tensor, label_loss: Tensor, teacher: Tensor, loss_of: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return the student's loss, and its cross-entropy against the teacher.

        Args:
            rho: the weight of the teacher.
            logits: the student's, [N, num_classes].
            label_loss: the student's loss on the labels.
            teacher: the teacher's logits for the first images, without gradient, [at most N, num_classes].
            loss_of: maps logits for the first images to the loss on their labels.
        """
        soft_labels = F.softmax(teacher / self.temperature, axis=1)
        taught = logits[: len(teacher)]
        distance = SoftTargetCrossEntropy()(taught / self.temperature, soft_labels) * self.temperature**2
        weight = rho
        if self.only_better:
            with paddle.no_grad():
                own_loss = label_loss if len(taught) == len(logits) else loss_of(taught)
                weight = rho * (loss_of(teacher) < own_loss).astype(label_loss.dtype)
        return FORMS[self.form](weight, label_loss, distance), distance
