"""The table of optimizers: timm's names, their classes, and the arguments that differ from the class's defaults."""

from __future__ import annotations

import fnmatch
import functools
import inspect
from dataclasses import dataclass, field

from pimm.errors import ConfigError
from pimm.messages import did_you_mean
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
from pimm.optim.lion import Lion
from pimm.optim.madgrad import MADGRAD
from pimm.optim.mars import Mars
from pimm.optim.muon import Muon
from pimm.optim.novograd import NvNovoGrad
from pimm.optim.rmsprop import RMSprop, RMSpropTF
from pimm.optim.sgdw import SGDW


@dataclass(frozen=True)
class OptimInfo:
    """Describe an optimizer of the table; ``defaults`` are arguments that differ from the defaults of the class."""

    name: str
    opt_class: type
    description: str = ""
    defaults: dict = field(default_factory=dict)

    @property
    def arguments(self):
        """Return the arguments of the class, without ``params``, and their defaults."""
        accepted = inspect.signature(self.opt_class).parameters
        return {name: value.default for name, value in accepted.items() if name != "params"}

    @property
    def has_eps(self):
        return "eps" in self.arguments

    @property
    def has_momentum(self):
        return "momentum" in self.arguments

    @property
    def has_betas(self):
        return "betas" in self.arguments

    @property
    def num_betas(self):
        """Return how many betas the optimizer takes: two or three."""
        return len(self.arguments.get("betas") or (0, 0))


_CAUTIOUS = {"caution": True}
_CORRECTED = {"corrected_weight_decay": True}
_NESTEROV = {"nesterov": True}
_DECOUPLED = {"decoupled_decay": True}
_ADOPTW = {"decoupled": True}
_ADAMP = {"wd_ratio": 0.01, **_NESTEROV}
_RMSPROP = {"alpha": 0.9}

_TABLE = [
    ("sgd", SGD, "Gradient descent with Nesterov momentum", _NESTEROV),
    ("nesterov", SGD, "The same", _NESTEROV),
    ("momentum", SGD, "Gradient descent with classical momentum", {"nesterov": False}),
    ("sgdp", SGDP, "Momentum projected off scale-invariant weights", _NESTEROV),
    ("csgdp", SGDP, "Cautious SGDP", {**_NESTEROV, **_CAUTIOUS}),
    ("sgdw", SGDW, "Nesterov momentum with decoupled weight decay", _NESTEROV),
    ("nesterovw", SGDW, "The same", _NESTEROV),
    ("csgdw", SGDW, "Cautious SGDW", {**_NESTEROV, **_CAUTIOUS}),
    ("sgdc", SGDW, "SGDW with corrected decay", {**_NESTEROV, **_CORRECTED}),
    ("csgdc", SGDW, "Cautious SGDW with corrected decay", {**_NESTEROV, **_CAUTIOUS, **_CORRECTED}),
    ("adam", Adam, "Adaptive moments", {}),
    ("adamw", AdamW, "Adam with decoupled weight decay", {}),
    ("adamwlegacy", AdamWLegacy, "AdamW with AMSGrad, caution and clipping as options", {}),
    ("cadamw", AdamWLegacy, "Cautious AdamW", _CAUTIOUS),
    ("adamc", AdamWLegacy, "AdamW with corrected decay", _CORRECTED),
    ("cadamc", AdamWLegacy, "Cautious AdamW with corrected decay", {**_CAUTIOUS, **_CORRECTED}),
    ("adamax", Adamax, "Adam by the infinity norm", {}),
    ("nadam", NAdam, "Adam with Nesterov momentum", {}),
    ("nadamlegacy", NAdam, "The same", {}),
    ("nadamw", NAdamW, "AdamW with Nesterov momentum", {}),
    ("cnadamw", NAdamW, "Cautious NAdamW", _CAUTIOUS),
    ("nadamc", NAdamW, "NAdamW with corrected decay", _CORRECTED),
    ("cnadamc", NAdamW, "Cautious NAdamW with corrected decay", {**_CAUTIOUS, **_CORRECTED}),
    ("radam", RAdam, "Adam with rectified variance", {}),
    ("radamlegacy", RAdamLegacy, "RAdam with decoupled weight decay", {}),
    ("radamw", RAdam, "RAdam with decoupled weight decay", {"decoupled_weight_decay": True}),
    ("adamp", AdamP, "Adam projected off scale-invariant weights", _ADAMP),
    ("cadamp", AdamP, "Cautious AdamP", {**_ADAMP, **_CAUTIOUS}),
    ("adafactor", Adafactor, "Adam with a factored second average", {}),
    ("cadafactor", Adafactor, "Cautious Adafactor with a first average", {**_CAUTIOUS, "betas": (0.9, 0.999)}),
    ("adafactorbv", AdafactorBigVision, "Big Vision's Adafactor, momentum in half precision", {}),
    ("cadafactorbv", AdafactorBigVision, "Cautious Big Vision Adafactor", _CAUTIOUS),
    ("adafactorbvc", AdafactorBigVision, "Big Vision's Adafactor with corrected decay", _CORRECTED),
    (
        "cadafactorbvc",
        AdafactorBigVision,
        "Cautious Big Vision Adafactor with corrected decay",
        {**_CAUTIOUS, **_CORRECTED},
    ),
    ("adopt", Adopt, "Adam that converges with any second beta", {}),
    ("cadopt", Adopt, "Cautious ADOPT", _CAUTIOUS),
    ("adoptw", Adopt, "ADOPT with decoupled weight decay", _ADOPTW),
    ("cadoptw", Adopt, "Cautious ADOPT with decoupled weight decay", {**_ADOPTW, **_CAUTIOUS}),
    ("adoptc", Adopt, "ADOPT with corrected decay", {**_ADOPTW, **_CORRECTED}),
    ("cadoptc", Adopt, "Cautious ADOPT with corrected decay", {**_ADOPTW, **_CAUTIOUS, **_CORRECTED}),
    ("lamb", Lamb, "Adam with layer-wise rates", {}),
    ("lambc", Lamb, "LAMB with rates clipped to one", {"trust_clip": True}),
    ("lambw", Lamb, "LAMB with decoupled weight decay", _DECOUPLED),
    ("lambcw", Lamb, "LAMB with clipped rates and decoupled weight decay", {"trust_clip": True, **_DECOUPLED}),
    ("lambcd", Lamb, "LAMB with corrected decay", {**_DECOUPLED, **_CORRECTED}),
    ("clamb", Lamb, "Cautious LAMB", _CAUTIOUS),
    ("clambw", Lamb, "Cautious LAMB with decoupled weight decay", {**_CAUTIOUS, **_DECOUPLED}),
    ("lars", Lars, "Momentum with layer-wise rates", {}),
    ("larc", Lars, "LARS with rates clipped", {"trust_clip": True}),
    ("nlars", Lars, "LARS with Nesterov momentum", _NESTEROV),
    ("nlarc", Lars, "LARC with Nesterov momentum", {**_NESTEROV, "trust_clip": True}),
    ("adabelief", AdaBelief, "Adam by the gradient's deviation from its average", {"rectify": False}),
    ("radabelief", AdaBelief, "AdaBelief with rectified variance", {"rectify": True}),
    ("adadelta", Adadelta, "Steps by windows of squared gradients", {}),
    ("adagrad", Adagrad, "Steps by sums of squared gradients", {"eps": 1e-8}),
    ("adan", Adan, "Adaptive Nesterov momentum", {}),
    ("adanw", Adan, "Adan with decoupled weight decay", {"no_prox": True}),
    ("cadan", Adan, "Cautious Adan", _CAUTIOUS),
    ("cadanw", Adan, "Cautious Adan with decoupled weight decay", {"no_prox": True, **_CAUTIOUS}),
    ("laprop", LaProp, "Momentum of normalised gradients", {}),
    ("claprop", LaProp, "Cautious LaProp", _CAUTIOUS),
    ("lapropc", LaProp, "LaProp with corrected decay", _CORRECTED),
    ("lion", Lion, "The sign of a momentum", {}),
    ("clion", Lion, "Cautious Lion", _CAUTIOUS),
    ("lionc", Lion, "Lion with corrected decay", _CORRECTED),
    ("clionc", Lion, "Cautious Lion with corrected decay", {**_CAUTIOUS, **_CORRECTED}),
    ("madgrad", MADGRAD, "Momentum and dual averaging", {}),
    ("madgradw", MADGRAD, "MADGRAD with decoupled weight decay", _DECOUPLED),
    ("mars", Mars, "AdamW on variance-reduced gradients", {}),
    ("cmars", Mars, "Cautious MARS", _CAUTIOUS),
    ("muon", Muon, "Orthogonal steps for matrices, AdamW for the rest", {}),
    ("nmuon", Muon, "Muon with Nesterov momentum, NAdamW for the rest", _NESTEROV),
    ("adamuon", Muon, "Muon with a second average of its steps", {"algo": "adamuon"}),
    ("nadamuon", Muon, "AdaMuon with Nesterov momentum", {"algo": "adamuon", **_NESTEROV}),
    ("novograd", NvNovoGrad, "Layer-wise normalised gradients with momentum", {}),
    ("nvnovograd", NvNovoGrad, "The same", {}),
    ("novogradw", NvNovoGrad, "NovoGrad with decoupled weight decay", _DECOUPLED),
    ("novogradc", NvNovoGrad, "NovoGrad with corrected decay", {**_DECOUPLED, **_CORRECTED}),
    ("rmsprop", RMSprop, "Root mean square propagation", _RMSPROP),
    ("rmsproptf", RMSpropTF, "RMSprop as TensorFlow has it", _RMSPROP),
    ("rmsproptfw", RMSpropTF, "TensorFlow's RMSprop with decoupled weight decay", {**_RMSPROP, **_DECOUPLED}),
    ("rmsproptfc", RMSpropTF, "TensorFlow's RMSprop with corrected decay", {**_RMSPROP, **_DECOUPLED, **_CORRECTED}),
    ("crmsproptf", RMSpropTF, "Cautious RMSprop of TensorFlow", {**_RMSPROP, **_CAUTIOUS}),
]
OPTIMIZERS = {row[0]: OptimInfo(*row) for row in _TABLE}

_FOREIGN = ("fused", "bnb")  # Nvidia's apex and bitsandbytes: CUDA libraries of PyTorch


def get_optimizer_info(name):
    """Return the entry of an optimizer in the table.

    Raises:
        ConfigError: for an unknown name; the message has the nearest names.
    """
    key = name.lower()
    if key in OPTIMIZERS:
        return OPTIMIZERS[key]
    for prefix in _FOREIGN:
        if key.startswith(prefix):
            raise ConfigError(
                f"{name!r:.80} needs a CUDA library of PyTorch; {key[len(prefix) :]!r:.80} may be what you want"
            )
    hint = did_you_mean(key, OPTIMIZERS, count=3)
    valid = "pimm.optim.list_optimizers() names all, which may also stand after 'lookahead_'"
    raise ConfigError(f"unknown optimizer {name[:80]!r}{hint or ';'} {valid}")


def get_optimizer_class(name, bind_defaults=True):
    """Return the class of an optimizer, with the table's arguments bound to it unless ``bind_defaults`` is off."""
    info = get_optimizer_info(name)
    return functools.partial(info.opt_class, **info.defaults) if bind_defaults and info.defaults else info.opt_class


def list_optimizers(filter="", exclude_filters=None, with_description=False):
    """Return the sorted names of the optimizers.

    Args:
        filter: a wildcard or a list of wildcards that names must match.
        exclude_filters: wildcards of names to leave out.
        with_description: whether to return pairs of name and description.
    """
    wanted = [filter] if isinstance(filter, str) else list(filter)
    names = [
        name
        for name in sorted(OPTIMIZERS)
        if (not any(wanted) or any(fnmatch.fnmatchcase(name, pattern) for pattern in wanted))
        and not any(fnmatch.fnmatchcase(name, pattern) for pattern in exclude_filters or ())
    ]
    return [(name, OPTIMIZERS[name].description) for name in names] if with_description else names
