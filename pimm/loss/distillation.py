"""The loss of distillation from a teacher's logits (Hinton et al., arXiv 1503.02531)."""

from __future__ import annotations

import math

from paddle import nn

from pimm.errors import ConfigError
from pimm.ops import log_softmax


class LogitDistillationLoss(nn.Layer):
    """Compute the mean over images of KL(teacher || net) for softened probabilities, times the temperature squared.

    Takes the logits [N, C] of net and teacher. The square keeps the gradients of the same size at all temperatures.

    Args:
        temperature: divisor of all logits.

    Raises:
        ConfigError: for a temperature that is not above 0.
    """

    def __init__(self, temperature=4.0):
        super().__init__()
        if not 0 < temperature < math.inf:
            raise ConfigError(f"the temperature of a distillation must be above 0, got {temperature}")
        self.temperature = temperature

    def forward(self, logits, teacher_logits):
        ours, theirs = (log_softmax(each / self.temperature) for each in (logits, teacher_logits))
        return (theirs.exp() * (theirs - ours)).sum(axis=1).mean() * self.temperature**2


def distillation_weights(task_weight=None, distill_weight=None):
    """Return the weights of the labels' loss and of the divergence, as timm's options give them.

    Args:
        task_weight: weight of the labels' loss; None for 1.
        distill_weight: weight of the divergence; None for 1, or for 1 minus a given ``task_weight``.

    Raises:
        ConfigError: for a weight below 0.
    """
    task = 1.0 if task_weight is None else task_weight
    distill = distill_weight
    if distill is None:
        distill = 1.0 if task_weight is None else 1.0 - task_weight
    if not (0 <= task < math.inf and 0 <= distill < math.inf):
        raise ConfigError(f"the weights of a distillation must be 0 or more, got {task:g} of labels and {distill:g}")
    return task, distill
