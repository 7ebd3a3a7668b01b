"""Asymmetric loss, in which easy negatives count less than positives (arXiv 2009.14119)."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import nn

from pimm.loss.reduction import reduction_named, require_share
from pimm.ops import log_softmax
from pimm.utils.labels import class_indices, dense_targets


class AsymmetricLossMultiLabel(nn.Layer):
    """Compute the asymmetric loss of images with several labels: logits and 0/1 targets [N, C], in float32.

    Args:
        gamma_neg, gamma_pos: powers that focus on hard negatives and positives.
        clip: probability by which negatives are shifted.
        eps: least probability of which the logarithm is taken.
        disable_torch_grad_focal_loss: whether the focusing weights are constants without gradient.
        smoothing: moves targets towards 0.5.
        reduction: ``batchmean`` (sum over classes, mean over images), ``sum``, ``mean`` or ``none``.
        weight: weights of the classes [C].
        pos_weight: weight of the positive term, a number or [C].

    Raises:
        ConfigError: for an unknown reduction and for a smoothing that is not a share.
    """

    def __init__(
        self,
        gamma_neg=4,
        gamma_pos=1,
        clip=0.05,
        eps=1e-8,
        disable_torch_grad_focal_loss=False,
        smoothing=0.0,
        reduction="batchmean",
        weight=None,
        pos_weight=None,
    ):
        super().__init__()
        require_share(smoothing)
        self.gamma_neg, self.gamma_pos = gamma_neg, gamma_pos
        self.clip = clip or 0.0
        self.eps = eps
        self.constant_focus = disable_torch_grad_focal_loss
        self.smoothing = smoothing
        self.reduction = reduction_named(reduction)
        self.weight = 1.0 if weight is None else weight
        self.pos_weight = 1.0 if pos_weight is None else pos_weight

    def forward(self, x, y):
        x, y = x.astype("float32"), dense_targets(y, x).astype("float32")
        y = y * (1.0 - self.smoothing) + 0.5 * self.smoothing
        positive = F.sigmoid(x)
        negative = (1.0 - positive + self.clip).clip(max=1.0)
        loss_positive = y * positive.clip(min=self.eps).log() * self.pos_weight
        loss = loss_positive + (1.0 - y) * negative.clip(min=self.eps).log()
        if self.gamma_neg > 0 or self.gamma_pos > 0:
            missed = 1.0 - positive * y - negative * (1.0 - y)
            focus = missed ** (self.gamma_pos * y + self.gamma_neg * (1.0 - y))
            loss = loss * (focus.detach() if self.constant_focus else focus)
        return self.reduction(-loss * self.weight)


class AsymmetricLossSingleLabel(nn.Layer):
    """Compute the asymmetric loss of images with one label: logits [N, C], class indices [N] or [N, 1].

    Args:
        gamma_pos, gamma_neg: powers that focus on hard positives and negatives.
        eps: label smoothing.
        reduction: ``mean``, or ``none`` for one value for each image.

    Raises:
        ConfigError: for an unknown reduction.
    """

    def __init__(self, gamma_pos=1, gamma_neg=4, eps=0.1, reduction="mean"):
        super().__init__()
        self.gamma_pos, self.gamma_neg = gamma_pos, gamma_neg
        self.eps = eps
        self.reduction = reduction_named(reduction, ("mean", "none"))

    def forward(self, inputs, target):
        classes = inputs.shape[-1]
        labels = F.one_hot(class_indices(target, inputs), classes).astype(inputs.dtype)
        log_probabilities = log_softmax(inputs)
        probabilities = log_probabilities.exp()
        missed = paddle.where(labels > 0, 1.0 - probabilities, probabilities)
        focus = missed ** (self.gamma_pos * labels + self.gamma_neg * (1.0 - labels))
        smoothed = labels * (1.0 - self.eps) + self.eps / classes
        return self.reduction(-(smoothed * log_probabilities * focus).sum(axis=-1))
