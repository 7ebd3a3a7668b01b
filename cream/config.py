"""Settings: dataclasses with the keys of Cream's YAML files, read from YAML and the command line with checks.

The keys and defaults are those of microsoft/Cream (and NNI 2.5's copy); keys that are ours are marked so.
A value is taken as text and becomes what its field's type says, so that ``1e-4``, ``(0.05,0.2)`` and ``None``,
which plain YAML leaves as strings, mean what they look like.
"""

import dataclasses
import difflib
import functools
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Optional, Union, get_type_hints

import yaml

from cream.mobile_space import MobileSpace, describe, load_spec, mobile_space, read_spec
from cream.typed import ArchLists, Nested, Numbers, Rule, at_least, between, convert, key, one_of, section
from cream.yaml_text import OneLine, compose, plain
from pimm.errors import ConfigError

_log = logging.getLogger(__name__)

NOT_EMPTY = Rule("not empty", bool)
ABOVE_ZERO = Rule("above 0", lambda value: value > 0)
THREE = Rule("three of them, one a channel", lambda value: len(value) == 3)
THREE_ABOVE_ZERO = Rule("three of them above 0", lambda value: len(value) == 3 and min(value) > 0)
CROP_SCALE = Rule(
    "two shares of the area, 0 < low <= high <= 1", lambda value: len(value) == 2 and 0 < value[0] <= value[1] <= 1
)
WEIGHTS = Rule("none below 0 and at least one above", lambda value: value and min(value) >= 0 and sum(value) > 0)
DEPTHS = Rule("five of them, each at least 1", lambda value: len(value) == 5 and min(value) >= 1)
EACH_AT_LEAST_1 = Rule("each at least 1", lambda value: value and min(value) >= 1)
# A block that halves the image puts what it makes beside all that it takes, and the first one takes 16 channels.
WIDENING = Rule(
    "even numbers, each above the one before it, the first above 16",
    lambda value: value and all(low < high and high % 2 == 0 for low, high in zip((16, *value), value)),
)
ABOVE_ZERO_EACH = Rule("each above 0", lambda value: value and min(value) > 0)
STAGES = Rule("no stage of them empty", lambda value: value and all(value))


@dataclass
class Dataset:
    """Images: where they come from is ``Config.DATA_DIR``."""

    NUM_CLASSES: int = key(1000, at_least(1))
    IMAGE_SIZE: int = key(224, at_least(8))
    INTERPOLATION: str = key("bilinear", one_of("bilinear", "bicubic", "lanczos", "hamming", "random"))
    BATCH_SIZE: int = key(32, at_least(1))  # of one process
    VAL_BATCH_MUL: int = key(4, at_least(1))
    NO_PREFECHTER: bool = key(False)  # spelt as in the official files
    CROP_PCT: Optional[float] = key(None, Rule("above 0 and at most 1", lambda value: 0 < value <= 1))  # ours
    SPOS_PREPROCESSING: bool = key(False)  # ours: blue first, values of 0 to 255, as SPOS's authors; MEAN and STD rest
    MEAN: Numbers = key((0.485, 0.456, 0.406), THREE)  # ours
    STD: Numbers = key((0.229, 0.224, 0.225), THREE_ABOVE_ZERO)  # ours
    SCALE: Numbers = key((0.08, 1.0), CROP_SCALE)  # ours: random-resized-crop
    HFLIP: float = key(0.5, between(0, 1))  # ours


@dataclass
class Ema:
    """Moving average of the weights, in retraining and test."""

    USE: bool = key(True)
    DECAY: float = key(0.9998, between(0, 1))


@dataclass
class Net:
    """The net that is retrained or tested; SELECTION -1 means the one that INPUT_ARCH gives."""

    SELECTION: int = key(14)
    INPUT_ARCH: Optional[ArchLists] = key(None, STAGES)  # NNI's
    INITIAL_WEIGHTS: Optional[str] = key(None)  # ours: what a training starts from, such as architecture.pdparams
    GP: str = key("avg", one_of("avg", "max", "avgmax", "catavgmax"))
    DROPOUT_RATE: float = key(0.0, Rule("at least 0 and below 1", lambda value: 0 <= value < 1))
    EMA: Ema = section(Ema)


@dataclass
class Augmentation:
    """Changes to the training images and labels."""

    AA: Optional[str] = key("rand-m9-mstd0.5")
    COLOR_JITTER: float = key(0.4, at_least(0))
    RE_PROB: float = key(0.2, between(0, 1))
    RE_MODE: str = key("pixel", one_of("const", "rand", "pixel"))
    MIXUP: float = key(0.0, at_least(0))
    MIXUP_OFF_EPOCH: int = key(0, at_least(0))
    SMOOTHING: float = key(0.1, Rule("at least 0 and below 1", lambda value: 0 <= value < 1))


@dataclass
class BatchNorm:
    """Batch normalisation; BN_MOMENTUM is the weight of the new value, as in the official files."""

    SYNC_BN: bool = key(False)
    BN_TF: bool = key(False)
    BN_MOMENTUM: float = key(0.1, between(0, 1))
    BN_EPS: float = key(1e-5, ABOVE_ZERO)


@dataclass
class Shuffle:
    """SPOS's space of ShuffleNetV2 blocks: blocks and channels of its stages, ratios of the channels inside a block."""

    DEPTHS: tuple[int, ...] = key((4, 4, 8, 4), EACH_AT_LEAST_1)
    CHANNELS: tuple[int, ...] = key((64, 160, 320, 640), WIDENING)
    RATIOS: Numbers = key((1.0,), ABOVE_ZERO_EACH)  # several search channels too; the paper's are 0.2, 0.4, ... 2.0


@dataclass
class Supernet:
    """The search: FLOPs in millions of multiply-adds, UPDATE_ITER in steps, META_STA_EPOCH in epochs."""

    FAMILY: str = key("mobile", one_of("mobile", "shuffle"))  # ours: Cream's nets, or SPOS's
    SHUFFLE: Shuffle = section(Shuffle)  # ours
    FLOPS_MINIMUM: float = key(0.0, at_least(0))
    FLOPS_MAXIMUM: float = key(600.0, ABOVE_ZERO)
    FLOPS_BINS: int = key(1, at_least(1))  # ours: equal parts of that range, of which each path draws one
    RESOLUTION: Optional[int] = key(None, at_least(8))  # ours: in place of the one that the FLOPs range implies
    STAGE_DEPTHS: Optional[tuple[int, ...]] = key(None, DEPTHS)  # ours: in place of those that it implies
    RESUNIT: bool = key(False)
    DIL_CONV: bool = key(False)
    SKIP: bool = key(False)  # ours: leaving out a block that keeps the shape is drawn as an operation is
    SPACE: Optional[Nested] = key(None)  # ours: in place of Cream's space, one described here or in the file named here
    METHOD: str = key("cream", one_of("cream", "single_path"))  # ours: how the supernet is trained
    SLICE: int = key(4, at_least(1))
    POOL_SIZE: int = key(10, at_least(1))
    UPDATE_ITER: int = key(1300, at_least(1))
    META_STA_EPOCH: int = key(20, at_least(0))
    PICK_METHOD: str = key("meta", one_of("meta", "top1"))
    HOW_TO_PROB: str = key("pre_prob", one_of("even", "pre_prob", "teacher"))
    PRE_PROB: Numbers = key((0.05, 0.2, 0.05, 0.5, 0.05, 0.15), WEIGHTS)
    PROBES: int = key(4, at_least(1))  # ours: fixed paths that are evaluated after every epoch
    SELECT_RANDOM: int = key(0, at_least(0))  # ours: sampled paths that are scored in the end beside the board's
    SELECT_BATCHES: int = key(32, at_least(1))  # ours: training batches that recalibrate BN before the final choice
    SELECT_ON: str = key("val", one_of("val", "held_out"))  # ours: the images that the final choice is made on
    HELD_OUT: float = key(0.1, ABOVE_ZERO)  # ours: share or number of training images for held_out
    PARAMS_MAXIMUM: Optional[float] = key(None, ABOVE_ZERO)  # ours: of the final choice, in millions
    LATENCY_MAXIMUM: Optional[float] = key(None, ABOVE_ZERO)  # ours: of the final choice, ms by LATENCY_TABLE
    LATENCY_TABLE: Optional[str] = key(None)  # ours: a file that tools/latency.py wrote


@dataclass
class Evolution:
    """Paths of each generation: all, those of the best that have children, crosses and mutants."""

    POPULATION: int = key(50, at_least(1))
    TOP: int = key(10, at_least(1))
    CROSSOVER: int = key(25, at_least(0))
    MUTATION: int = key(25, at_least(0))
    MUTATION_PROBABILITY: float = key(0.1, between(0, 1))
    GENERATIONS: int = key(20, at_least(1))


@dataclass
class Config:
    """All settings of a search, a retraining or a test."""

    AUTO_RESUME: bool = key(True)
    DATA_DIR: str = key("./data/imagenet", NOT_EMPTY)
    MODEL: str = key("cream", NOT_EMPTY)
    RESUME_PATH: str = key("./experiments/ckps/resume.pth.tar")
    SAVE_PATH: str = key("./experiments/ckps/", NOT_EMPTY)
    SEED: int = key(42, between(0, 2**32 - 1))  # numpy takes no other
    LOG_INTERVAL: int = key(50, at_least(1))
    RECOVERY_INTERVAL: int = key(0, at_least(0))
    WORKERS: int = key(4, at_least(0))
    AMP: bool = key(False)
    ACC_GAP: Optional[float] = key(None, at_least(0))  # NNI's: the official code's rule of who gets on the board
    EVAL_METRICS: str = key("prec1", one_of("prec1", "prec5", "loss"))
    DEVICE: str = key("", one_of("", "cpu", "gpu"))  # ours: empty takes a GPU where there is one
    CHECKPOINT_HISTORY: int = key(3, at_least(1))  # ours
    RECOVERY_HISTORY: int = key(2, at_least(1))  # ours: how many checkpoints from inside epochs are kept
    RETRAIN_CFG: Optional[str] = key(None)  # ours: the recipe that a search hands on with the found net

    DATASET: Dataset = section(Dataset)
    NET: Net = section(Net)

    OPT: str = key("sgd", NOT_EMPTY)
    OPT_EPS: float = key(1e-2, ABOVE_ZERO)
    MOMENTUM: float = key(0.9, between(0, 1))
    WEIGHT_DECAY: float = key(1e-4, at_least(0))
    CLIP_GRAD: Optional[float] = key(None, ABOVE_ZERO)  # ours: norm of all gradients together

    SCHED: str = key("sgd", one_of("sgd", "linear", "cosine", "tanh", "step", "plateau"))  # sgd: constant rate
    LR: float = key(1e-2, at_least(0))
    META_LR: float = key(1e-4, at_least(0))
    LR_NOISE: Optional[Numbers] = key(None)
    LR_NOISE_PCT: float = key(0.67, at_least(0))
    LR_NOISE_STD: float = key(1.0, at_least(0))
    WARMUP_LR: float = key(1e-4, at_least(0))
    MIN_LR: float = key(1e-5, at_least(0))
    EPOCHS: int = key(200, at_least(1))
    DECAY_EPOCHS: float = key(30.0, ABOVE_ZERO)
    WARMUP_EPOCHS: int = key(3, at_least(0))
    COOLDOWN_EPOCHS: int = key(10, at_least(0))
    PATIENCE_EPOCHS: int = key(10, at_least(0))
    DECAY_RATE: float = key(0.1, at_least(0))

    AUGMENTATION: Augmentation = section(Augmentation)
    BATCHNORM: BatchNorm = section(BatchNorm)
    SUPERNET: Supernet = section(Supernet)
    EVOLUTION: Evolution = section(Evolution)  # ours


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


def lasting(cfg: Config) -> dict[str, Any]:
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
            yield _Setting(name, _raw_of(name, value, place), place)
        elif isinstance(value, yaml.MappingNode):
            yield from _settings(value, f"{name}.", path)
        elif _raw_of(name, value, place) != "":
            raise ConfigError(f"{place}: {name} is a section; must hold keys, not a value")


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
        raise ConfigError(f"command line: {text!r} is no setting; must be KEY=VALUE or SECTION.KEY=VALUE")
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
