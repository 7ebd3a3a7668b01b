"""Losses under timm's names."""

from pimm.loss.asymmetric_loss import AsymmetricLossMultiLabel, AsymmetricLossSingleLabel
from pimm.loss.binary_cross_entropy import BinaryCrossEntropy
from pimm.loss.class_weights import (
    CLASS_WEIGHT_METHOD_KINDS,
    CLASS_WEIGHT_METHODS,
    compute_class_weights,
    load_class_stats,
    load_class_weights,
    resolve_class_weights,
)
from pimm.loss.cross_entropy import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from pimm.loss.distillation import LogitDistillationLoss, distillation_weights
from pimm.loss.distribution_balanced_loss import DistributionBalancedLoss
from pimm.loss.jsd import JsdCrossEntropy
from pimm.loss.loss_factory import LOSS_TYPES, MULTI_LABEL_LOSS_TYPES, create_classification_loss
from pimm.loss.poly_loss import PolyBinaryCrossEntropy, PolyCrossEntropy
from pimm.loss.two_way_loss import TwoWayLoss
from pimm.loss.zlpr_loss import ZlprLoss

__all__ = [
    "CLASS_WEIGHT_METHODS",
    "CLASS_WEIGHT_METHOD_KINDS",
    "LOSS_TYPES",
    "MULTI_LABEL_LOSS_TYPES",
    "AsymmetricLossMultiLabel",
    "AsymmetricLossSingleLabel",
    "BinaryCrossEntropy",
    "DistributionBalancedLoss",
    "JsdCrossEntropy",
    "LabelSmoothingCrossEntropy",
    "LogitDistillationLoss",
    "PolyBinaryCrossEntropy",
    "PolyCrossEntropy",
    "SoftTargetCrossEntropy",
    "TwoWayLoss",
    "ZlprLoss",
    "compute_class_weights",
    "create_classification_loss",
    "distillation_weights",
    "load_class_stats",
    "load_class_weights",
    "resolve_class_weights",
]
