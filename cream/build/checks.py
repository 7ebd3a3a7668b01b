"""Settings that no supernet can be trained by, told before anything is written."""

from __future__ import annotations

from cream.build.build import retrain_recipe
from cream.config.schema import Config, Net, Supernet
from pimm.errors import ConfigError


def check_search(cfg: Config) -> None:
    """Raises ConfigError for settings that a search cannot follow, before it begins."""
    check_supernet(cfg)
    if cfg.SUPERNET.METHOD == "single_path" and not cfg.SUPERNET.SELECT_RANDOM:
        raise ConfigError(
            "SUPERNET.METHOD=single_path keeps no board to choose from: SUPERNET.SELECT_RANDOM must be at least 1"
        )


def check_supernet(cfg: Config) -> None:
    """Raises ConfigError for settings that the training of a supernet cannot follow, before it begins."""
    retrain_recipe(cfg)
    if cfg.NET.INPUT_ARCH is not None:
        raise ConfigError("NET.INPUT_ARCH names one net: these are the settings of its training, not of a search")
    if cfg.SUPERNET.FAMILY == "shuffle":
        check_shuffle(cfg)
    if cfg.SUPERNET.METHOD == "cream":
        check_teaching(cfg)


def check_named_net(cfg: Config) -> None:
    """Raises ConfigError for the settings of a search, of which no net is trained or tested."""
    if Supernet() != cfg.SUPERNET and cfg.NET.INPUT_ARCH is None and cfg.NET.SELECTION == Net().SELECTION:
        raise ConfigError(
            "these are the settings of a search, with SUPERNET.*, and name no net: the search wrote a retrain.yaml for "
            "the net that it found; or else give NET.INPUT_ARCH, or NET.SELECTION without SUPERNET.*"
        )


def check_shuffle(cfg: Config) -> None:
    """Raises ConfigError where ShuffleNets would have to be trained as Cream's nets alone can be."""
    for name, value in (("METHOD", "single_path"), ("HOW_TO_PROB", "even")):
        found = getattr(cfg.SUPERNET, name)
        if found != value:
            raise ConfigError(f"SUPERNET.{name} is {found}; must be {value} where SUPERNET.FAMILY is shuffle")


def check_teaching(cfg: Config) -> None:
    """Raises ConfigError where paths could not teach each other."""
    if cfg.EPOCHS < cfg.SUPERNET.META_STA_EPOCH + 2:
        sooner = f", or SUPERNET.META_STA_EPOCH at most {cfg.EPOCHS - 2}" if cfg.EPOCHS >= 2 else ""
        raise ConfigError(
            f"EPOCHS={cfg.EPOCHS} ends before paths teach each other, which they do after epoch "
            f"SUPERNET.META_STA_EPOCH={cfg.SUPERNET.META_STA_EPOCH}: EPOCHS must be at least "
            f"{cfg.SUPERNET.META_STA_EPOCH + 2}{sooner}"
        )
    if cfg.DATASET.BATCH_SIZE < 2 * cfg.SUPERNET.SLICE:
        raise ConfigError(
            f"DATASET.BATCH_SIZE={cfg.DATASET.BATCH_SIZE} must be at least twice SUPERNET.SLICE={cfg.SUPERNET.SLICE}: "
            "the matching network learns from two slices of a batch"
        )
