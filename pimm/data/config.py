"""How a model wants its images: size, interpolation, normalisation and crop."""

from __future__ import annotations

import logging

from pimm.data.constants import DEFAULT_CROP_PCT, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from pimm.errors import ConfigError

_logger = logging.getLogger(__name__)

_DEFAULTS = {
    "interpolation": "bicubic",
    "mean": IMAGENET_DEFAULT_MEAN,
    "std": IMAGENET_DEFAULT_STD,
    "crop_pct": DEFAULT_CROP_PCT,
}


def resolve_data_config(args, default_cfg=None, model=None, verbose=True):
    """Settle the data settings of a model: what ``args`` says, else the model's ``default_cfg``, else ImageNet's.

    Args:
        args: dict of a script's arguments; ``input_size``, ``img_size``, ``chans``, ``interpolation``, ``mean``,
            ``std`` and ``crop_pct`` count, ``None`` means not given.
        default_cfg: dict of the model's settings; taken from ``model.default_cfg`` where it is not given.

    Returns:
        dict with ``input_size`` (channels, height, width), ``interpolation``, ``mean``, ``std``, ``crop_pct``.

    Raises:
        ConfigError: for a size that is not three numbers, or statistics that do not fit the channels.
    """
    default_cfg = default_cfg or getattr(model, "default_cfg", None) or {}
    given = {key: value for key, value in args.items() if value is not None}
    config = {"input_size": _input_size(given, default_cfg)}
    for key, fallback in _DEFAULTS.items():
        config[key] = given.get(key) or default_cfg.get(key) or fallback
    for key in ("mean", "std"):
        config[key] = _per_channel(key, config[key], channels=config["input_size"][0])
    if verbose:
        _logger.info("Data processing: %s", ", ".join(f"{key}={value}" for key, value in config.items()))
    return config


def _input_size(given, default_cfg):
    channels = given.get("chans", 3)
    if "input_size" in given:
        size = tuple(given["input_size"])
        if len(size) != 3:
            raise ConfigError(f"input_size is {size}; expected (channels, height, width)")
        return size
    if "img_size" in given:
        return (channels, given["img_size"], given["img_size"])
    return tuple(default_cfg.get("input_size", (channels, 224, 224)))


def _per_channel(key, values, channels):
    values = tuple(values)
    if len(values) == 1:
        values = values * channels
    if len(values) != channels:
        raise ConfigError(f"{key} has {len(values)} values for {channels} channels: {values}")
    return values
