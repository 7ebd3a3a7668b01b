"""The data settings of a model: size, interpolation, normalisation and crop of its images."""

from __future__ import annotations

import logging

from pimm.data.channels import per_channel
from pimm.data.constants import DEFAULT_CROP_MODE, DEFAULT_CROP_PCT, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from pimm.errors import ConfigError

_logger = logging.getLogger(__name__)

_DEFAULTS = {
    "interpolation": "bicubic",
    "mean": IMAGENET_DEFAULT_MEAN,
    "std": IMAGENET_DEFAULT_STD,
    "crop_pct": DEFAULT_CROP_PCT,
    "crop_mode": DEFAULT_CROP_MODE,
}


def resolve_data_config(
    args=None, pretrained_cfg=None, model=None, use_test_size=False, verbose=False, *, default_cfg=None
):
    """Return the data settings of a model: what ``args`` says, else the model's own settings, else ImageNet's.

    Args:
        args: dict of a script's arguments; ``input_size``, ``img_size``, ``in_chans`` (or ``chans``),
            ``interpolation``, ``mean``, ``std``, ``crop_pct`` and ``crop_mode`` count, ``None`` means not given.
        pretrained_cfg: dict of the model's settings; taken from ``model.default_cfg`` where it is not given.
        model: net with a ``default_cfg``.
        use_test_size: prefer the model's ``test_input_size`` and ``test_crop_pct``.
        verbose: log the settings.
        default_cfg: the name of ``pretrained_cfg`` in timm 0.1.20.

    Returns:
        dict with ``input_size`` (channels, height, width), ``interpolation``, ``mean``, ``std``, ``crop_pct``,
        ``crop_mode``. Where the model's own statistics are of another number of channels, each channel has their mean.

    Raises:
        ConfigError: for a size that is not three numbers, or given statistics that do not fit the channels.
    """
    own = dict(pretrained_cfg or default_cfg or getattr(model, "default_cfg", None) or {})
    if use_test_size:
        own.update({key: own[f"test_{key}"] for key in ("input_size", "crop_pct") if own.get(f"test_{key}")})
    given = {key: value for key, value in (args or {}).items() if value is not None}
    config = {"input_size": _input_size(given, own)}
    for key, fallback in _DEFAULTS.items():
        config[key] = given.get(key) or own.get(key) or fallback
    channels = config["input_size"][0]
    for key in ("mean", "std"):
        values = tuple(config[key])
        if given.get(key) and len(values) not in (1, channels):
            raise ConfigError(f"{key} has {len(values)} values for {channels} channels: {values}")
        config[key] = per_channel(values, channels)
    if verbose:
        _logger.info("Data processing: %s", ", ".join(f"{key}={value}" for key, value in config.items()))
    return config


def resolve_model_data_config(model, args=None, pretrained_cfg=None, use_test_size=False, verbose=False):
    """Return what ``resolve_data_config`` does; the model is the first argument."""
    return resolve_data_config(args, pretrained_cfg, model, use_test_size, verbose)


def _input_size(given, own):
    if "input_size" in given:
        size = tuple(given["input_size"])
        if len(size) != 3:
            raise ConfigError(f"input_size is {size}; expected (channels, height, width)")
        return size
    channels, *size = own.get("input_size", (3, 224, 224))
    if "img_size" in given:
        size = [given["img_size"]] * 2
    return (given.get("in_chans", given.get("chans", channels)), *size)
