"""Cream's mobile nets: blocks, search spaces, supernet, single nets, and the published six."""

from cream.mobile.depths import fit_to_flops
from cream.mobile.nets import ChildNet, MobileSuperNet
from cream.mobile.published import CHILD_NETS
from cream.mobile.space import MobileSpace, load_space, mobile_space

__all__ = ["CHILD_NETS", "ChildNet", "MobileSpace", "MobileSuperNet", "fit_to_flops", "load_space", "mobile_space"]
