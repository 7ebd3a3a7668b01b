"""Settings that do not go together, and those that follow from each other."""

from __future__ import annotations

from cream.config import Config
from cream.selection.choose import WITH_ESTIMATE
from pimm.errors import ConfigError


def teaches_in_place(cfg: Config) -> bool:
    """Return whether the first of several paths of a batch teaches the others."""
    return cfg.SUPERNET.DRAW == "sandwich" and cfg.SUPERNET.RHO > 0


def check_search(cfg: Config) -> None:
    """Raise ConfigError, before the search starts, for settings from which it could not select a path."""
    if cfg.SUPERNET.METHOD != "cream" and not cfg.SUPERNET.SELECT_RANDOM:
        raise ConfigError(
            f"SUPERNET.METHOD={cfg.SUPERNET.METHOD} has no board to select from: SUPERNET.SELECT_RANDOM must be at "
            "least 1"
        )
    if cfg.SUPERNET.SELECT_BY == WITH_ESTIMATE and not is_fitted(cfg):
        raise ConfigError(f"SUPERNET.SELECT_BY={WITH_ESTIMATE} needs SUPERNET.ESTIMATE=True")


def is_fitted(cfg: Config) -> bool:
    """Return whether the losses of a search's batches are fitted, which gives an estimate for every path."""
    return cfg.SUPERNET.ESTIMATE or (cfg.SUPERNET.METHOD, cfg.SUPERNET.BOARD_SCORE) == ("cream", "estimate")


def check_supernet(cfg: Config) -> None:
    """Raise ConfigError, before the training starts, for settings from which no supernet can be trained."""
    if cfg.NET.INPUT_ARCH is not None:
        raise ConfigError("NET.INPUT_ARCH names one net: these are the settings of its training, not of a search")
    if cfg.SUPERNET.FAMILY == "shuffle":
        check_shuffle(cfg)
    if (cfg.SUPERNET.METHOD, cfg.SUPERNET.UPDATES) == ("multi_path", "each") and cfg.SUPERNET.ACCUMULATE > 1:
        raise ConfigError(
            f"SUPERNET.UPDATES=each updates paths after each batch: SUPERNET.ACCUMULATE={cfg.SUPERNET.ACCUMULATE} must "
            "be 1"
        )
    method = cfg.SUPERNET.METHOD
    if method == "cream" or (method == "multi_path" and teaches_in_place(cfg)):
        check_teaching(cfg)


def check_shuffle(cfg: Config) -> None:
    """Raise ConfigError for ways to train a supernet that only Cream's nets support."""
    for name, values in (("METHOD", ("single_path", "multi_path")), ("HOW_TO_PROB", ("even",))):
        found = getattr(cfg.SUPERNET, name)
        if found not in values:
            raise ConfigError(
                f"SUPERNET.{name} is {found}; must be {' or '.join(values)} where SUPERNET.FAMILY is shuffle"
            )


def check_teaching(cfg: Config) -> None:
    """Raise ConfigError for settings with which paths could not teach each other."""
    start = cfg.SUPERNET.META_STA_EPOCH
    if start + 2 > cfg.EPOCHS:
        sooner = f", or SUPERNET.META_STA_EPOCH at most {cfg.EPOCHS - 2}" if cfg.EPOCHS >= 2 else ""
        raise ConfigError(
            f"EPOCHS={cfg.EPOCHS} ends before paths teach each other, which they do after epoch "
            f"SUPERNET.META_STA_EPOCH={start}: EPOCHS must be at least {start + 2}{sooner}"
        )
    if (cfg.SUPERNET.BOARD_SCORE, cfg.SUPERNET.SELECT_ON) == ("held_out", "val"):
        raise ConfigError(
            "SUPERNET.BOARD_SCORE=held_out scores the board on images that SUPERNET.SELECT_ON=val does not keep: "
            "SELECT_ON must be held_out"
        )
    if cfg.SUPERNET.METHOD == "cream" and cfg.DATASET.BATCH_SIZE < 2 * cfg.SUPERNET.SLICE:
        raise ConfigError(
            f"DATASET.BATCH_SIZE={cfg.DATASET.BATCH_SIZE} must be at least twice SUPERNET.SLICE={cfg.SUPERNET.SLICE}: "
            "the matching network learns from two slices of a batch"
        )
