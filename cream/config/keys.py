"""Tables of the keys: all there are, what they may hold, who may change them, and what other codes call them."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterator
from typing import Any, NamedTuple, get_type_hints

from cream.config.schema import Config, Evolution, Shuffle
from cream.fields import Rule


class Key(NamedTuple):
    """Holds what the schema says of a key.

    Args:
        kind: type of its values.
        rule: what they must be.
        default: the value that it has where none is given.
        text: what it means.
        unit: unit of its values.
        source: whose key it is.
        jobs: names of the jobs in `cream.cli` that read it.
    """

    kind: Any
    rule: Rule
    default: Any
    text: str
    unit: str
    source: str
    jobs: tuple[str, ...]


class Inert(NamedTuple):
    """Holds the values of an official key without effect that need no warning, and why it has none."""

    quiet: tuple[str, ...]
    why: str


def _keys(kind: type, prefix: str = "") -> Iterator[tuple[str, Key]]:
    hints = get_type_hints(kind)
    for item in dataclasses.fields(kind):
        if dataclasses.is_dataclass(hints[item.name]):
            yield from _keys(hints[item.name], f"{prefix}{item.name}.")
        else:
            yield prefix + item.name, Key(kind=hints[item.name], default=item.default, **item.metadata)


KEYS: dict[str, Key] = dict(_keys(Config))

# Keys of existing files that are accepted and do nothing.
INERT = {
    "NUM_GPU": Inert(("1", "2", "8"), "paddle.distributed.launch decides how many processes run"),
    "LOCAL_RANK": Inert(("0",), "paddle.distributed.launch gives each process its rank"),
    "SAVE_IMAGES": Inert(("False",), "training images are not written"),
    "OUTPUT": Inert(("None", "output/path/"), "results go to SAVE_PATH"),
    "TTA": Inert(("0",), "images are tested once, unchanged"),
    "VERBOSE": Inert(("False",), "nothing more is logged"),
    "START_EPOCH": Inert(("None",), "a resumed training begins where its checkpoint ended"),
    "NET.EMA.FORCE_CPU": Inert(("False",), "the average lives where the net does; beside the activations it is small"),
    "DATASET.PIN_MEM": Inert(("True",), "Paddle's loader manages its own memory"),
    "OPTIMIZER.NAME": Inert(("sgd",), "OPT is the key that acts"),
    "OPTIMIZER.MOMENTUM": Inert(("0.9",), "MOMENTUM is the key that acts"),
    "OPTIMIZER.WEIGHT_DECAY": Inert(("1e-3",), "WEIGHT_DECAY is the key that acts"),
    "SUPERNET.UPDATE_2ND": Inert(("True",), "PICK_METHOD decides whether the matching network learns"),
}

# NNI's names and places of two keys.
ALIASES = {
    "MODEL_SELECTION": "NET.SELECTION",
    "NET.MODEL_SELECTION": "NET.SELECTION",
    "INPUT_ARCH": "NET.INPUT_ARCH",
}

KNOWN = [*KEYS, *INERT, *ALIASES]
SECTIONS = {name.rpartition(".")[0] for name in KNOWN} - {""}

_EVOLUTION = {f"EVOLUTION.{item.name}" for item in dataclasses.fields(Evolution)}

# Keys that a resumed training may change. With another value of any other key it would be another training.
CHANGEABLE = {
    *("AUTO_RESUME", "RESUME_PATH", "SAVE_PATH", "MODEL", "DATA_DIR", "DEVICE", "WORKERS", "DATASET.VAL_BATCH_MUL"),
    *("ENGINE", "PRECISION"),
    *("LOG_INTERVAL", "RECOVERY_INTERVAL", "CHECKPOINT_HISTORY", "RECOVERY_HISTORY", "RETRAIN_CFG"),
    *("SUPERNET.SELECT_BATCHES", "SUPERNET.SELECT_RANDOM", "SUPERNET.SELECT_BY"),
    *("SUPERNET.PARAMS_MAXIMUM", "SUPERNET.LATENCY_MAXIMUM", "SUPERNET.LATENCY_TABLE"),
    *("EPOCHS", "LR", "META_LR", "WARMUP_LR", "MIN_LR", "CLIP_GRAD"),
    *_EVOLUTION,
}

# Keys that a selection among the paths of a trained supernet may change.
SELECTABLE = {
    *("DATA_DIR", "SAVE_PATH", "MODEL", "DEVICE", "WORKERS", "RETRAIN_CFG", "ENGINE", "PRECISION"),
    *("DATASET.BATCH_SIZE", "DATASET.VAL_BATCH_MUL", "SUPERNET.SELECT_ON", "SUPERNET.SELECT_BY"),
    *("SUPERNET.SELECT_BATCHES", "SUPERNET.SELECT_RANDOM", "SUPERNET.FLOPS_MINIMUM", "SUPERNET.FLOPS_MAXIMUM"),
    *("SUPERNET.PARAMS_MAXIMUM", "SUPERNET.LATENCY_MAXIMUM", "SUPERNET.LATENCY_TABLE"),
    *_EVOLUTION,
}

# Keys that have no meaning for the nets of a family.
FOREIGN = {
    "shuffle": {
        *(
            f"SUPERNET.{name}"
            for name in ("SPACE", "STAGE_DEPTHS", "RESUNIT", "DIL_CONV", "SKIP", "PRE_PROB", "ZERO_RESIDUAL")
        ),
        *("NET.GP", "BATCHNORM.BN_TF", "BATCHNORM.BN_MOMENTUM", "BATCHNORM.BN_EPS"),
    },
    "mobile": {f"SUPERNET.SHUFFLE.{item.name}" for item in dataclasses.fields(Shuffle)},
}


def get(cfg: Config, name: str) -> Any:
    """Return the value of ``SECTION.KEY``."""
    return functools.reduce(getattr, name.split("."), cfg)


def put(cfg: Config, name: str, value: Any) -> None:
    """Set the value of ``SECTION.KEY``."""
    *sections, last = name.split(".")
    setattr(functools.reduce(getattr, sections, cfg), last, value)


def siblings(section: str) -> list[str]:
    """List the keys right below a section; ``""`` is the top."""
    return [name for name in KEYS if name.rpartition(".")[0] == section]


def resume_settings(cfg: Config) -> dict[str, Any]:
    """Return the settings that a resumed training must share with the interrupted one, as plain data."""
    kept = KEYS.keys() - CHANGEABLE
    if cfg.SCHED == "plateau":  # its rates are part of the checkpoint
        kept |= {"LR", "META_LR"}
    return json.loads(json.dumps({name: get(cfg, name) for name in KEYS if name in kept}))
