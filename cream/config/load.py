"""Settings read from YAML files and the command line, with checks, and written as YAML.

A value is taken as text and becomes what its field's type says, so that ``1e-4``, ``(0.05,0.2)`` and ``None``,
which plain YAML leaves as strings, mean what they look like.
"""

import dataclasses
import difflib
import functools
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Optional, Union, get_type_hints

import yaml

from cream.config.schema import Config, Evolution, Shuffle
from cream.fields import Rule, convert
from cream.mobile.space import MobileSpace, describe, load_spec, mobile_space, read_spec
from cream.yaml_text import OneLine, compose, plain
from pimm.errors import ConfigError

_log = logging.getLogger(__name__)


class Inert(NamedTuple):
    """An official key without effect: values passed over in silence (those of the official files), and why."""

    quiet: tuple[str, ...]
    why: str


# Every key that is accepted for the sake of existing files and does nothing.
INERT = {
    "NUM_GPU": Inert(("1", "2", "8"), "paddle.distributed.launch decides how many processes run"),
    "LOCAL_RANK": Inert(("0",), "paddle.distributed.launch gives each process its rank"),
    "SAVE_IMAGES": Inert(("False",), "training images are not written"),
    "OUTPUT": Inert(("None", "output/path/"), "results go to SAVE_PATH"),
    "TTA": Inert(("0",), "images are tested once, unchanged"),
    "VERBOSE": Inert(("False",), "nothing more is logged"),
    "START_EPOCH": Inert(("None",), "a training that goes on begins where its checkpoint ended"),
    "NET.EMA.FORCE_CPU": Inert(("False",), "the average lives where the net does; beside the activations it is small"),
    "DATASET.PIN_MEM": Inert(("True",), "Paddle's loader manages its own memory"),
    "OPTIMIZER.NAME": Inert(("sgd",), "OPT is the key that acts"),
    "OPTIMIZER.MOMENTUM": Inert(("0.9",), "MOMENTUM is the key that acts"),
    "OPTIMIZER.WEIGHT_DECAY": Inert(("1e-3",), "WEIGHT_DECAY is the key that acts"),
    "SUPERNET.UPDATE_2ND": Inert(("True",), "PICK_METHOD decides whether the matching network learns"),
}

_EVOLUTION = {f"EVOLUTION.{item.name}" for item in dataclasses.fields(Evolution)}

# What a training may change when it goes on from a checkpoint. With another value of any other key it would no longer
# be the training that it was.
CHANGEABLE = {
    *("AUTO_RESUME", "RESUME_PATH", "SAVE_PATH", "MODEL", "DATA_DIR", "DEVICE", "WORKERS", "DATASET.VAL_BATCH_MUL"),
    *("LOG_INTERVAL", "RECOVERY_INTERVAL", "CHECKPOINT_HISTORY", "RECOVERY_HISTORY", "RETRAIN_CFG"),
    *("SUPERNET.SELECT_BATCHES", "SUPERNET.SELECT_RANDOM"),
    *("SUPERNET.PARAMS_MAXIMUM", "SUPERNET.LATENCY_MAXIMUM", "SUPERNET.LATENCY_TABLE"),
    *("EPOCHS", "LR", "META_LR", "WARMUP_LR", "MIN_LR", "CLIP_GRAD"),
    *_EVOLUTION,
}

# What a choice among the paths of a trained supernet may change.
SELECTABLE = {
    *("DATA_DIR", "SAVE_PATH", "MODEL", "DEVICE", "WORKERS", "RETRAIN_CFG"),
    *("DATASET.BATCH_SIZE", "DATASET.VAL_BATCH_MUL", "SUPERNET.SELECT_ON"),
    *("SUPERNET.SELECT_BATCHES", "SUPERNET.SELECT_RANDOM", "SUPERNET.FLOPS_MINIMUM", "SUPERNET.FLOPS_MAXIMUM"),
    *("SUPERNET.PARAMS_MAXIMUM", "SUPERNET.LATENCY_MAXIMUM", "SUPERNET.LATENCY_TABLE"),
    *_EVOLUTION,
}

# What says nothing of the nets of a family.
FOREIGN = {
    "shuffle": {
        *(f"SUPERNET.{name}" for name in ("SPACE", "STAGE_DEPTHS", "RESUNIT", "DIL_CONV", "SKIP", "PRE_PROB")),
        *("NET.GP", "BATCHNORM.BN_TF", "BATCHNORM.BN_MOMENTUM", "BATCHNORM.BN_EPS"),
    },
    "mobile": {f"SUPERNET.SHUFFLE.{item.name}" for item in dataclasses.fields(Shuffle)},
}

# NNI's names and places of two keys.
ALIASES = {
    "MODEL_SELECTION": "NET.SELECTION",
    "NET.MODEL_SELECTION": "NET.SELECTION",
    "INPUT_ARCH": "NET.INPUT_ARCH",
}

# Files that are sought from the working directory, and then beside the YAML file that names them.
BESIDE = ("RETRAIN_CFG", "SUPERNET.SPACE")

# Written by `dump` even where they equal the defaults, so that a record of a run says what it was.
ESSENTIAL = {
    *("DATA_DIR", "MODEL", "SAVE_PATH", "SEED", "OPT", "SCHED", "LR", "EPOCHS"),
    *("DATASET.NUM_CLASSES", "DATASET.IMAGE_SIZE", "DATASET.BATCH_SIZE"),
}


class _Key(NamedTuple):
    kind: Any
    rule: Rule
    default: Any


def _keys(kind: type, prefix: str = "") -> Iterator[tuple[str, _Key]]:
    hints = get_type_hints(kind)
    for item in dataclasses.fields(kind):
        if dataclasses.is_dataclass(hints[item.name]):
            yield from _keys(hints[item.name], f"{prefix}{item.name}.")
        else:
            yield prefix + item.name, _Key(hints[item.name], item.metadata["rule"], item.default)


KEYS: dict[str, _Key] = dict(_keys(Config))
_KNOWN = [*KEYS, *INERT, *ALIASES]
_SECTIONS = {name.rpartition(".")[0] for name in _KNOWN} - {""}


class _Setting(NamedTuple):
    """A key as it was given, its value as text or lists of text, and where it stands."""

    name: str
    raw: Any
    place: str


def load_config(path: Optional[Union[str, Path]] = None, overrides: Sequence[str] = ()) -> Config:
    """Settings of a YAML file, changed by overrides.

    Args:
        path: YAML file, or None for the defaults.
        overrides: texts ``KEY=VALUE`` or ``SECTION.KEY=VALUE``.

    Raises:
        ConfigError: unknown key, wrong type, value out of range, or values that contradict each other.
        OSError: the file cannot be read.
    """
    cfg, places = Config(), {}
    settings = [*(_read(path) if path is not None else ()), *map(_override, overrides)]
    for name, raw, place in settings:
        name = ALIASES.get(name, name)
        if name in INERT:
            _note_inert(name, raw, place)
        elif name in KEYS:
            _put(cfg, name, _value(name, raw, place))
            places[name] = place
        elif name in _SECTIONS:
            raise ConfigError(f"{place}: {name} is a section; name one of its keys, such as {_siblings(name)[0]}")
        else:
            raise ConfigError(f"{place}: unknown key {name}{_hint(name)}")
    _select_given_arch(cfg, places)
    _read_space(cfg, places)
    _check_together(cfg, places)
    return cfg


def given_space(cfg: Config, depths: Sequence[int]) -> MobileSpace:
    """The space that SUPERNET.SPACE describes, or else Cream's with so many blocks in its searched stages."""
    space = cfg.SUPERNET
    if space.SPACE is not None:
        return MobileSpace(read_spec(space.SPACE))
    return mobile_space(depths, space.RESUNIT, space.DIL_CONV, space.SKIP)


def resume_settings(cfg: Config) -> dict[str, Any]:
    """The settings that are not CHANGEABLE, as plain data."""
    kept = KEYS.keys() - CHANGEABLE
    if cfg.SCHED == "plateau":  # it keeps rates of its own
        kept |= {"LR", "META_LR"}
    return json.loads(json.dumps({name: _get(cfg, name) for name in KEYS if name in kept}))


def check_selectable(recorded: Config, cfg: Config) -> None:
    """Raises ConfigError where ``cfg`` asks more of a trained supernet than another choice among its paths."""
    for name in sorted(KEYS.keys() - SELECTABLE):
        if _get(recorded, name) != _get(cfg, name):
            raise ConfigError(
                f"{name} was {_get(recorded, name)} in the search and cannot be {_get(cfg, name)} in a choice among "
                f"its paths, which may change {', '.join(sorted(SELECTABLE))}"
            )
    if (recorded.SUPERNET.SELECT_ON, cfg.SUPERNET.SELECT_ON) == ("val", "held_out"):
        raise ConfigError("SUPERNET.SELECT_ON cannot be held_out: the search trained on all training images")


def dump(cfg: Config) -> str:
    """YAML text that loads back equal: the keys that differ from their defaults, and the essential ones."""
    tree: dict[str, Any] = {}
    for name, known in KEYS.items():
        value = _get(cfg, name)
        if value != known.default or name in ESSENTIAL:
            *sections, last = name.split(".")
            functools.reduce(lambda branch, part: branch.setdefault(part, {}), sections, tree)[last] = value
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, default_flow_style=False, allow_unicode=True, width=1000)


class _Dumper(yaml.SafeDumper):
    """Tuples become lists on one line, and short mappings stay on one."""


_Dumper.add_representer(
    tuple, lambda dumper, value: dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=True)
)
_Dumper.add_representer(
    OneLine, lambda dumper, value: dumper.represent_mapping("tag:yaml.org,2002:map", value, flow_style=True)
)


# Reading


def _read(path: Union[str, Path]) -> Iterator[_Setting]:
    root = compose(path)
    if root is None:
        return iter(())
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError(f"{path}: holds no settings; must be lines of the form KEY: VALUE")
    return _settings(root, "", path)


def _settings(node: yaml.MappingNode, prefix: str, path: Union[str, Path]) -> Iterator[_Setting]:
    seen = set()
    for name_node, value in node.value:
        place = f"{path}, line {name_node.start_mark.line + 1}"
        if not isinstance(name_node, yaml.ScalarNode):
            raise ConfigError(f"{place}: a list or a section stands where the name of a key must be")
        name = f"{prefix}{name_node.value}"
        if name in seen:
            raise ConfigError(f"{place}: {name} is given twice")
        seen.add(name)
        if name not in _SECTIONS:
            raw = _raw_of(name, value, place)
            yield _Setting(name, _beside(path, raw) if name in BESIDE and isinstance(raw, str) else raw, place)
        elif isinstance(value, yaml.MappingNode):
            yield from _settings(value, f"{name}.", path)
        elif _raw_of(name, value, place) != "":
            raise ConfigError(f"{place}: {name} is a section; must hold keys, not a value")


def _beside(path: Union[str, Path], named: str) -> str:
    beside = Path(path).parent / named
    return str(beside) if named and beside.is_file() and not Path(named).exists() else named


def _raw_of(name: str, node: yaml.Node, place: str) -> Any:
    try:
        return plain(node)
    except ConfigError as error:
        raise ConfigError(f"{place}: {name}.{error}") from None
    except RecursionError:
        raise ConfigError(f"{place}: {name} holds itself, or lists inside lists without end") from None


def _override(text: str) -> _Setting:
    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(
            f"command line: {text!r} is no setting; must be KEY=VALUE or SECTION.KEY=VALUE, in quotes if with spaces"
        )
    return _Setting(name.strip(), value.strip(), "command line")


def _value(name: str, raw: Any, place: str) -> Any:
    try:
        return convert(raw, KEYS[name].kind, KEYS[name].rule)
    except ValueError as error:
        raise ConfigError(f"{place}: {name} {error}") from None


def _get(cfg: Config, name: str) -> Any:
    return functools.reduce(getattr, name.split("."), cfg)


def _put(cfg: Config, name: str, value: Any) -> None:
    *sections, last = name.split(".")
    setattr(functools.reduce(getattr, sections, cfg), last, value)


def _hint(name: str) -> str:
    """Names near an unknown one: of the whole key, or of its last part in another section."""
    near = difflib.get_close_matches(name.upper(), _KNOWN, n=1, cutoff=0.75)
    if not near:
        leaves = {known.rpartition(".")[2]: known for known in _KNOWN}
        near = [leaves[leaf] for leaf in difflib.get_close_matches(name.upper().rpartition(".")[2], leaves, n=1)]
    if near:
        return f"; did you mean {near[0]}?"
    siblings = _siblings(name.rpartition(".")[0])
    return f"; known are {', '.join(siblings)}" if siblings else f"; known sections are {', '.join(sorted(_SECTIONS))}"


def _siblings(parent: str) -> list[str]:
    return [known for known in KEYS if known.rpartition(".")[0] == parent]


def _note_inert(name: str, raw: Any, place: str) -> None:
    inert = INERT[name]
    if str(raw).lower() not in (value.lower() for value in inert.quiet):
        _log.warning("%s: %s has no effect here: %s", place, name, inert.why)


# Rules between keys


def _select_given_arch(cfg: Config, places: dict[str, str]) -> None:
    """An INPUT_ARCH alone selects itself; beside another SELECTION it is a contradiction."""
    place = places.get("NET.INPUT_ARCH", places.get("NET.SELECTION", ""))
    if cfg.NET.INPUT_ARCH is not None and "NET.SELECTION" not in places:
        cfg.NET.SELECTION = -1
    if cfg.NET.INPUT_ARCH is not None and cfg.NET.SELECTION != -1:
        selection = f"NET.SELECTION is {cfg.NET.SELECTION} ({places['NET.SELECTION']})"
        raise ConfigError(f"{place}: NET.INPUT_ARCH is given, but {selection}; must be -1 to use it")
    if cfg.NET.INPUT_ARCH is None and cfg.NET.SELECTION == -1:
        raise ConfigError(f"{place}: NET.SELECTION is -1, so that NET.INPUT_ARCH must be given")


def _read_space(cfg: Config, places: dict[str, str]) -> None:
    """SPACE becomes the description that it names, so that the record of a run is complete in itself."""
    given = cfg.SUPERNET.SPACE
    if given is None:
        return
    place = f"{places['SUPERNET.SPACE']}: SUPERNET.SPACE"
    try:
        spec = load_spec(given) if isinstance(given, str) else read_spec(given, f"{place}.")
    except OSError as error:
        raise ConfigError(f"{place} names {given}: {error.strerror}; must be a file, or the description") from None
    cfg.SUPERNET.SPACE = describe(spec)
    beside = [name for name in ("STAGE_DEPTHS", "RESUNIT", "DIL_CONV", "SKIP") if getattr(cfg.SUPERNET, name)]
    if beside:
        raise ConfigError(
            f"{places[f'SUPERNET.{beside[0]}']}: SUPERNET.{beside[0]} changes Cream's own space; "
            "must be left out beside SUPERNET.SPACE, which says all of its own"
        )


def _check_together(cfg: Config, places: dict[str, str]) -> None:
    space = cfg.SUPERNET
    if space.FLOPS_MINIMUM > space.FLOPS_MAXIMUM:
        place = places.get("SUPERNET.FLOPS_MINIMUM", places.get("SUPERNET.FLOPS_MAXIMUM"))
        raise ConfigError(
            f"{place}: SUPERNET.FLOPS_MINIMUM is {space.FLOPS_MINIMUM:g}; "
            f"must be at most SUPERNET.FLOPS_MAXIMUM, which is {space.FLOPS_MAXIMUM:g}"
        )
    if space.LATENCY_MAXIMUM is not None and space.LATENCY_TABLE is None:
        raise ConfigError(
            f"{places['SUPERNET.LATENCY_MAXIMUM']}: SUPERNET.LATENCY_MAXIMUM is given, but no SUPERNET.LATENCY_TABLE; "
            "must be a file that tools/latency.py wrote"
        )
    if cfg.AUGMENTATION.MIXUP and cfg.DATASET.NO_PREFECHTER:
        raise ConfigError(
            f"{places['AUGMENTATION.MIXUP']}: AUGMENTATION.MIXUP mixes what the prefetcher reads; "
            "DATASET.NO_PREFECHTER must be False"
        )
    _check_family(cfg, places)
    if cfg.NET.INPUT_ARCH is not None or space.FAMILY == "shuffle":  # a given net is not sampled, a shuffle one evenly
        return
    choices = given_space(cfg, space.STAGE_DEPTHS or [2] * 5).num_choices
    if space.HOW_TO_PROB == "pre_prob" and len(space.PRE_PROB) != choices:
        names = ("PRE_PROB", "SPACE", "RESUNIT", "DIL_CONV", "SKIP", "HOW_TO_PROB")
        place = next(places[f"SUPERNET.{name}"] for name in names if f"SUPERNET.{name}" in places)
        listed = "six, two more with DIL_CONV, one more with RESUNIT" if space.SPACE is None else "its operations"
        raise ConfigError(
            f"{place}: SUPERNET.PRE_PROB has {len(space.PRE_PROB)} values; must have {choices}, one for each choice "
            f"({listed}, and one for leaving a block out where that is drawn); HOW_TO_PROB: even needs none"
        )


def _check_family(cfg: Config, places: dict[str, str]) -> None:
    """Raises ConfigError for settings that say nothing of the nets that SUPERNET.FAMILY names."""
    family = cfg.SUPERNET.FAMILY
    for name in sorted(FOREIGN[family]):
        if _get(cfg, name) != KEYS[name].default:
            raise ConfigError(f"{places[name]}: {name} says nothing of nets where SUPERNET.FAMILY is {family}")
    shuffle = cfg.SUPERNET.SHUFFLE
    if len(shuffle.DEPTHS) != len(shuffle.CHANNELS):
        place = places.get("SUPERNET.SHUFFLE.CHANNELS", places.get("SUPERNET.SHUFFLE.DEPTHS"))
        raise ConfigError(
            f"{place}: SUPERNET.SHUFFLE.DEPTHS has {len(shuffle.DEPTHS)} stages and CHANNELS {len(shuffle.CHANNELS)}; "
            "must be as many"
        )
    if min(shuffle.CHANNELS) // 2 * min(shuffle.RATIOS) < 1:
        place = places.get("SUPERNET.SHUFFLE.RATIOS", places.get("SUPERNET.SHUFFLE.CHANNELS"))
        raise ConfigError(
            f"{place}: SUPERNET.SHUFFLE.RATIOS={min(shuffle.RATIOS):g} leaves no channel inside a block of "
            f"{min(shuffle.CHANNELS)}; must be at least {2 / min(shuffle.CHANNELS):.3g}"
        )
