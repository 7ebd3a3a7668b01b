"""Optimizers by timm's names on Paddle's optimizer classes, and their state by the names of a net's parameters."""

from pimm.optim.adabelief import AdaBelief
from pimm.optim.adafactor import Adafactor, AdafactorBigVision
from pimm.optim.adamp import SGDP, AdamP
from pimm.optim.adamw import AdamWLegacy, NAdamW
from pimm.optim.adan import Adan
from pimm.optim.adopt import Adopt
from pimm.optim.kernels import SGD, Adadelta, Adagrad, Adam, Adamax, AdamW, NAdam, RAdam, RAdamLegacy
from pimm.optim.lamb import Lamb
from pimm.optim.laprop import LaProp
from pimm.optim.lars import Lars
from pimm.optim.layer_groups import auto_group_layers, group_parameters, group_with_matcher
from pimm.optim.lion import Lion
from pimm.optim.lookahead import Lookahead
from pimm.optim.madgrad import MADGRAD
from pimm.optim.mars import Mars
from pimm.optim.muon import Muon
from pimm.optim.novograd import NovoGrad, NvNovoGrad
from pimm.optim.optim_factory import create_optimizer, create_optimizer_v2, optimizer_kwargs
from pimm.optim.param_groups import group_lrs, param_groups_layer_decay, param_groups_weight_decay, set_group_lrs
from pimm.optim.registry import OPTIMIZERS, OptimInfo, get_optimizer_class, get_optimizer_info, list_optimizers
from pimm.optim.rmsprop import RMSprop, RMSpropTF
from pimm.optim.sgdw import SGDW
from pimm.optim.state import load_optimizer_state, optimizer_state
from pimm.optim.torch_state import load_torch_optimizer_state

NAdamLegacy = Nadam = NAdam  # names of timm 1.x and of timm 0.1.20

__all__ = [
    "MADGRAD",
    "OPTIMIZERS",
    "SGD",
    "SGDP",
    "SGDW",
    "AdaBelief",
    "Adadelta",
    "Adafactor",
    "AdafactorBigVision",
    "Adagrad",
    "Adam",
    "AdamP",
    "AdamW",
    "AdamWLegacy",
    "Adamax",
    "Adan",
    "Adopt",
    "LaProp",
    "Lamb",
    "Lars",
    "Lion",
    "Lookahead",
    "Mars",
    "Muon",
    "NAdam",
    "NAdamLegacy",
    "NAdamW",
    "Nadam",
    "NovoGrad",
    "NvNovoGrad",
    "OptimInfo",
    "RAdam",
    "RAdamLegacy",
    "RMSprop",
    "RMSpropTF",
    "auto_group_layers",
    "create_optimizer",
    "create_optimizer_v2",
    "get_optimizer_class",
    "get_optimizer_info",
    "group_lrs",
    "group_parameters",
    "group_with_matcher",
    "list_optimizers",
    "load_optimizer_state",
    "load_torch_optimizer_state",
    "optimizer_kwargs",
    "optimizer_state",
    "param_groups_layer_decay",
    "param_groups_weight_decay",
    "set_group_lrs",
]
