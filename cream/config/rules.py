"""Rules that several settings must satisfy together."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cream import typed
from cream.config.keys import FOREIGN, KEYS, SELECTABLE, get
from cream.config.schema import Config
from cream.fields import listed, shown
from pimm.cli import launched_as
from pimm.errors import ConfigError

if TYPE_CHECKING:
    from cream.mobile.space import MobileSpace

_log = logging.getLogger(__name__)


def is_first_process() -> bool:
    """Return whether this is the first process of a launch, which alone tells what is true of all of them."""
    return launched_as()[0] == 0


def check_settings(cfg: Config, places: Mapping[str, str], inert: Mapping[str, Any]) -> None:
    """Check values that were given together, and complete those that follow from others.

    Args:
        cfg: the settings; an INPUT_ARCH alone selects itself, and a SPACE becomes the description that it names.
        places: where each key that was given stands.
        inert: official keys that were given and do not act, with their texts.

    Raises:
        ConfigError: values contradict each other.
    """
    _select_given_arch(cfg, places)
    _read_space(cfg, places)
    _check_limits(cfg, places)
    _check_mixup(cfg, places)
    _check_teacher(cfg, places)
    _check_family(cfg, places)
    _check_probabilities(cfg, places)
    _warn_of_processes(cfg, places, inert)


def _select_given_arch(cfg: Config, places: Mapping[str, str]) -> None:
    """Let an INPUT_ARCH alone select itself; refuse it beside another SELECTION."""
    place = places.get("NET.INPUT_ARCH", places.get("NET.SELECTION", ""))
    if cfg.NET.INPUT_ARCH is not None and "NET.SELECTION" not in places:
        cfg.NET.SELECTION = -1
    if cfg.NET.INPUT_ARCH is not None and cfg.NET.SELECTION != -1:
        selection = f"NET.SELECTION is {cfg.NET.SELECTION} ({places['NET.SELECTION']})"
        raise ConfigError(f"{place}: NET.INPUT_ARCH is given, but {selection}; must be -1 to use it")
    if cfg.NET.INPUT_ARCH is None and cfg.NET.SELECTION == -1:
        raise ConfigError(f"{place}: NET.SELECTION is -1, so that NET.INPUT_ARCH must be given")


def _read_space(cfg: Config, places: Mapping[str, str]) -> None:
    """Replace the file that SPACE names by its description, so that the record of a run is complete in itself."""
    given = cfg.SUPERNET.SPACE
    if given is None:
        return
    from cream.mobile.space import describe, load_spec, read_spec  # late: imports Paddle, which takes a second

    place = f"{places['SUPERNET.SPACE']}: SUPERNET.SPACE"
    try:
        spec = load_spec(given) if isinstance(given, str) else read_spec(given, f"{place}.")
    except OSError as error:
        raise ConfigError(
            f"{place} names {shown(given, quote='')}: {error.strerror}; must be a file, or the description"
        ) from None
    cfg.SUPERNET.SPACE = describe(spec)
    beside = [name for name in ("STAGE_DEPTHS", "RESUNIT", "DIL_CONV", "SKIP") if getattr(cfg.SUPERNET, name)]
    if beside:
        raise ConfigError(
            f"{places[f'SUPERNET.{beside[0]}']}: SUPERNET.{beside[0]} changes Cream's own space; "
            "must be left out beside SUPERNET.SPACE, which says all of its own, or be "
            f"{KEYS[f'SUPERNET.{beside[0]}'].default}"
        )


def _check_limits(cfg: Config, places: Mapping[str, str]) -> None:
    limits = cfg.SUPERNET
    if limits.FLOPS_MINIMUM > limits.FLOPS_MAXIMUM:
        place = places.get("SUPERNET.FLOPS_MINIMUM", places.get("SUPERNET.FLOPS_MAXIMUM"))
        raise ConfigError(
            f"{place}: SUPERNET.FLOPS_MINIMUM is {limits.FLOPS_MINIMUM:g}; "
            f"must be at most SUPERNET.FLOPS_MAXIMUM, which is {limits.FLOPS_MAXIMUM:g}"
        )
    if limits.LATENCY_MAXIMUM is not None and limits.LATENCY_TABLE is None:
        raise ConfigError(
            f"{places['SUPERNET.LATENCY_MAXIMUM']}: SUPERNET.LATENCY_MAXIMUM is given, but no SUPERNET.LATENCY_TABLE; "
            f"must be a file that {typed.script('latency')} wrote"
        )


def _check_mixup(cfg: Config, places: Mapping[str, str]) -> None:
    if cfg.AUGMENTATION.MIXUP and cfg.DATASET.NO_PREFECHTER:
        raise ConfigError(
            f"{places['AUGMENTATION.MIXUP']}: AUGMENTATION.MIXUP mixes what the prefetcher reads; "
            "DATASET.NO_PREFECHTER must be False"
        )


def _check_teacher(cfg: Config, places: Mapping[str, str]) -> None:
    """Refuse settings of a distillation without a teacher."""
    given = next((name for name in places if name.startswith("KD.") and get(cfg, name) != KEYS[name].default), None)
    if given and cfg.KD.CHECKPOINT is None:
        raise ConfigError(
            f"{places[given]}: {given} is given, but no KD.CHECKPOINT; must be the teacher's run, checkpoint or weights"
        )


def _check_family(cfg: Config, places: Mapping[str, str]) -> None:
    """Refuse settings that have no meaning for the nets that SUPERNET.FAMILY names."""
    family = cfg.SUPERNET.FAMILY
    for name in sorted(FOREIGN[family]):
        if get(cfg, name) != KEYS[name].default:
            raise ConfigError(f"{places[name]}: {name} has no meaning for nets where SUPERNET.FAMILY is {family}")
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


def _check_probabilities(cfg: Config, places: Mapping[str, str]) -> None:
    """Compare the number of PRE_PROB's weights with that of the choices."""
    space = cfg.SUPERNET
    if cfg.NET.INPUT_ARCH is not None or space.FAMILY == "shuffle":  # a given net is not drawn, a shuffle one evenly
        return
    weighed = ("PRE_PROB", "SPACE", "RESUNIT", "DIL_CONV", "SKIP", "HOW_TO_PROB")
    given = [places[f"SUPERNET.{name}"] for name in weighed if f"SUPERNET.{name}" in places]
    if space.HOW_TO_PROB != "pre_prob" or not given:  # the defaults fit each other
        return
    choices = given_space(cfg, space.STAGE_DEPTHS or [2] * 5).num_choices
    if len(space.PRE_PROB) != choices:
        explained = "six, two more with DIL_CONV, one more with RESUNIT" if space.SPACE is None else "its operations"
        raise ConfigError(
            f"{given[0]}: SUPERNET.PRE_PROB has {len(space.PRE_PROB)} values; must have {choices}, one for each choice "
            f"({explained}, and one for leaving a block out where that is drawn); HOW_TO_PROB: even needs none"
        )


def _warn_of_processes(cfg: Config, places: Mapping[str, str], inert: Mapping[str, Any]) -> None:
    """Warn of a learning rate that was meant for the batches of more processes than there are."""
    wanted = str(inert.get("NUM_GPU", ""))
    _, processes = launched_as()
    if (
        not is_first_process()
        or not (wanted.isdecimal() and len(wanted) < 6 and int(wanted) > processes)
        or "LR" not in places
    ):
        return
    if places["LR"].partition(",")[0] != places["NUM_GPU"].partition(",")[0]:  # not of one file: LR was chosen later
        return
    _log.warning(
        "%s: NUM_GPU is %s and LR=%g is meant for as many processes, but this run has %d: start it by `python -m "
        "paddle.distributed.launch --nproc_per_node %s SCRIPT ...`, or give LR=%.3g, which fits the smaller batch",
        places["NUM_GPU"], wanted, cfg.LR, processes, wanted, cfg.LR * processes / int(wanted),
    )  # fmt: skip


def given_space(cfg: Config, depths: Sequence[int]) -> MobileSpace:
    """Return the space that SUPERNET.SPACE describes, or else Cream's.

    Args:
        cfg: the settings.
        depths: numbers of blocks in the searched stages of Cream's space.
    """
    from cream.mobile.space import MobileSpace, mobile_space, read_spec  # late, as above

    space = cfg.SUPERNET
    if space.SPACE is not None:
        return MobileSpace(read_spec(space.SPACE))
    return mobile_space(depths, space.RESUNIT, space.DIL_CONV, space.SKIP)


def check_selectable(recorded: Config, cfg: Config) -> None:
    """Check that settings ask of a trained supernet no more than another selection among its paths.

    Args:
        recorded: the settings of the search.
        cfg: those of the selection.

    Raises:
        ConfigError: they differ in more than SELECTABLE keys.
    """
    for name in sorted(KEYS.keys() - SELECTABLE):
        before, now = get(recorded, name), get(cfg, name)
        if before != now:
            raise ConfigError(
                f"{name} was {shown(before, quote='')} in the search and cannot be {shown(now, quote='')} in a "
                f"selection among its paths, which may change {listed(sorted(SELECTABLE), 120)}"
            )
    if (recorded.SUPERNET.SELECT_ON, cfg.SUPERNET.SELECT_ON) == ("val", "held_out"):
        raise ConfigError("SUPERNET.SELECT_ON cannot be held_out: the search trained on all training images")
