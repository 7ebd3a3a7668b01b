"""Optimizers under timm's names, on Paddle's optimizer classes, and their state under the net's names."""

from pimm.optim.kernels import SGD, Adadelta, Adagrad, Adam, Adamax, AdamW, Nadam, RAdam, RAdamW, RMSpropTF
from pimm.optim.lookahead import Lookahead
from pimm.optim.novograd import NovoGrad, NvNovoGrad
from pimm.optim.optim_factory import OPTIMIZERS, create_optimizer, create_optimizer_v2
from pimm.optim.param_groups import group_lrs, param_groups_weight_decay, set_group_lrs
from pimm.optim.rmsprop import RMSprop
from pimm.optim.state import load_optimizer_state, optimizer_state
from pimm.optim.torch_state import load_torch_optimizer_state

__all__ = [
    "OPTIMIZERS",
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Lookahead",
    "Nadam",
    "NovoGrad",
    "NvNovoGrad",
    "RAdam",
    "RAdamW",
    "RMSprop",
    "RMSpropTF",
    "create_optimizer",
    "create_optimizer_v2",
    "group_lrs",
    "load_optimizer_state",
    "load_torch_optimizer_state",
    "optimizer_state",
    "param_groups_weight_decay",
    "set_group_lrs",
]
