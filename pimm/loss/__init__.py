"""Losses under timm's names."""

from pimm.loss.asymmetric_loss import AsymmetricLossMultiLabel, AsymmetricLossSingleLabel
from pimm.loss.binary_cross_entropy import BinaryCrossEntropy
from pimm.loss.cross_entropy import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from pimm.loss.jsd import JsdCrossEntropy

__all__ = [
    "AsymmetricLossMultiLabel",
    "AsymmetricLossSingleLabel",
    "BinaryCrossEntropy",
    "JsdCrossEntropy",
    "LabelSmoothingCrossEntropy",
    "SoftTargetCrossEntropy",
]
