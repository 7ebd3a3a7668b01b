"""Create losses of image classification by timm's names."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import paddle
from paddle import nn

from pimm.errors import ConfigError
from pimm.loss.asymmetric_loss import AsymmetricLossMultiLabel, AsymmetricLossSingleLabel
from pimm.loss.binary_cross_entropy import BinaryCrossEntropy
from pimm.loss.cross_entropy import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from pimm.loss.distribution_balanced_loss import DistributionBalancedLoss
from pimm.loss.jsd import JsdCrossEntropy
from pimm.loss.poly_loss import PolyBinaryCrossEntropy, PolyCrossEntropy
from pimm.loss.two_way_loss import TwoWayLoss
from pimm.loss.zlpr_loss import ZlprLoss
from pimm.messages import did_you_mean

LOSS_TYPES = ("ce", "bce", "asl", "poly", "jsd", "twoway", "zlpr", "db")
MULTI_LABEL_LOSS_TYPES = ("bce", "asl", "poly", "twoway", "zlpr", "db")


def create_classification_loss(
    loss_type=None,
    multi_label=False,
    smoothing=0.0,
    soft_targets=False,
    class_weight=None,
    pos_weight=None,
    bce_target_thresh=None,
    bce_sum=False,
    asl_gamma_pos=1.0,
    asl_gamma_neg=4.0,
    asl_clip=0.05,
    asl_reduction="batchmean",
    poly_epsilon=2.0,
    poly_gamma=0.0,
    poly_alpha=None,
    jsd_splits=0,
    twoway_tp=4.0,
    twoway_tn=1.0,
    class_counts=None,
    num_samples=None,
    db_neg_scale=2.0,
    db_init_bias=0.05,
    db_focal_gamma=2.0,
):
    """Return a loss.

    Args:
        loss_type: one of ``LOSS_TYPES``; by default ``bce`` with ``multi_label`` and otherwise ``ce``.
        multi_label: whether images have several labels, as targets [N, C].
        smoothing: label smoothing.
        soft_targets: whether targets are probabilities from Mixup, which smooths them itself: ``smoothing`` is ignored.
        class_weight, pos_weight: weights, a number or one for each class.
        bce_*, asl_*, poly_*, jsd_*, twoway_*, db_*: arguments of `BinaryCrossEntropy`, `AsymmetricLossMultiLabel` or
            `AsymmetricLossSingleLabel`, `PolyCrossEntropy` or `PolyBinaryCrossEntropy`, `JsdCrossEntropy`,
            `TwoWayLoss` and `DistributionBalancedLoss`.
        class_counts, num_samples: arguments of `DistributionBalancedLoss`.

    Raises:
        ConfigError: for an unknown type, a type that does not take such targets, and an argument that the loss would
            ignore.
    """
    given = SimpleNamespace(**locals())
    given.loss_type = loss_type or ("bce" if multi_label else "ce")
    given.smoothing = 0.0 if soft_targets else smoothing
    given.class_weight, given.pos_weight = _weight(class_weight), _weight(pos_weight)
    if given.loss_type not in LOSS_TYPES:
        hint = did_you_mean(given.loss_type, LOSS_TYPES) or "."
        raise ConfigError(f"unknown loss {given.loss_type!r:.80}{hint} Valid are {', '.join(LOSS_TYPES)}")
    if (given.loss_type, multi_label) not in _LOSSES:
        valid = ", ".join(name for name, many in _LOSSES if many is multi_label)
        raise ConfigError(
            f"{given.loss_type} is no loss for {'many labels' if multi_label else 'one label'}; use {valid}"
        )
    make, takes = _LOSSES[given.loss_type, multi_label]
    _refuse_ignored(given, takes.split())
    return make(given)


# Arguments that only some losses take, and the values that have no effect.
_WITHOUT_EFFECT = {
    "class_weight": None,
    "pos_weight": None,
    "bce_target_thresh": None,
    "bce_sum": False,
    "asl_reduction": "batchmean",
    "poly_gamma": 0.0,
    "poly_alpha": None,
    "class_counts": None,
    "num_samples": None,
}


def _refuse_ignored(given, takes):
    for name, default in _WITHOUT_EFFECT.items():
        value = getattr(given, name)
        if name not in takes and not (value is None if default is None else value == default):
            raise ConfigError(f"{name} has no meaning for {given.loss_type}, multi_label={given.multi_label}")
    if given.loss_type in ("twoway", "zlpr") and (given.soft_targets or given.smoothing):
        raise ConfigError(f"{given.loss_type} needs targets of 0 and 1: no smoothing, no Mixup")
    if given.loss_type == "asl" and given.soft_targets and not given.multi_label:
        raise ConfigError("asl for one label needs class indices: no Mixup")
    if given.loss_type == "jsd" and given.jsd_splits < 2:
        raise ConfigError(f"jsd needs jsd_splits, two or more, got {given.jsd_splits}")
    if given.loss_type == "db" and (given.class_counts is None or given.num_samples is None):
        raise ConfigError("db needs class_counts and num_samples")


def _weight(value):
    if value is None or isinstance(value, (int, float, paddle.Tensor)):
        return value
    return paddle.to_tensor(np.asarray(value, np.float32))


def _cross_entropy(given):
    if given.soft_targets:
        return SoftTargetCrossEntropy()
    return LabelSmoothingCrossEntropy(given.smoothing) if given.smoothing else nn.CrossEntropyLoss()


def _binary(given):
    weight = given.class_weight
    return BinaryCrossEntropy(
        smoothing=given.smoothing,
        smooth_dense=given.multi_label,
        target_threshold=given.bce_target_thresh,
        weight=paddle.to_tensor(float(weight)) if isinstance(weight, (int, float)) else weight,
        sum_classes=given.bce_sum,
        pos_weight=given.pos_weight,
    )


def _asymmetric_many(given):
    return AsymmetricLossMultiLabel(
        gamma_neg=given.asl_gamma_neg,
        gamma_pos=given.asl_gamma_pos,
        clip=given.asl_clip,
        smoothing=given.smoothing,
        reduction=given.asl_reduction,
        weight=given.class_weight,
        pos_weight=given.pos_weight,
    )


def _asymmetric_one(given):
    return AsymmetricLossSingleLabel(given.asl_gamma_pos, given.asl_gamma_neg, eps=given.smoothing)


def _poly_many(given):
    return PolyBinaryCrossEntropy(given.poly_epsilon, given.poly_gamma, given.poly_alpha, given.smoothing)


def _balanced(given):
    return DistributionBalancedLoss(
        given.class_counts,
        given.num_samples,
        neg_scale=given.db_neg_scale,
        init_bias=given.db_init_bias,
        focal_gamma=given.db_focal_gamma,
        smoothing=given.smoothing,
    )


# (type, multi_label): the function that creates the loss, and which of the arguments above the loss takes.
_LOSSES = {
    ("ce", False): (_cross_entropy, ""),
    ("bce", False): (_binary, "class_weight pos_weight bce_target_thresh bce_sum"),
    ("bce", True): (_binary, "class_weight pos_weight bce_target_thresh bce_sum"),
    ("asl", False): (_asymmetric_one, ""),
    ("asl", True): (_asymmetric_many, "class_weight pos_weight asl_reduction"),
    ("poly", False): (lambda given: PolyCrossEntropy(given.poly_epsilon, given.smoothing), ""),
    ("poly", True): (_poly_many, "poly_gamma poly_alpha"),
    ("jsd", False): (lambda given: JsdCrossEntropy(given.jsd_splits, smoothing=given.smoothing), ""),
    ("twoway", True): (lambda given: TwoWayLoss(given.twoway_tp, given.twoway_tn), ""),
    ("zlpr", True): (lambda given: ZlprLoss(), ""),
    ("db", True): (_balanced, "class_counts num_samples"),
}
