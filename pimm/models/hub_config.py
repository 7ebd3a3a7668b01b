"""Find a model by ``hf-hub:ORG/NAME`` or ``local-dir:PATH``; names, and the form of ``config.json``, are timm's."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import fields
from pathlib import Path

from pimm.errors import CheckpointError, ConfigError, check_whole
from pimm.models.hub_files import CONFIG, hub_file
from pimm.models.pretrained_cfg import PretrainedCfg, merge_cfg
from pimm.models.registry import check_arguments, model_entrypoint

_logger = logging.getLogger(__name__)

SOURCES = ("hf-hub", "local-dir")
_ALIASES = {"hf_hub": "hf-hub"}
_PREFIX = re.compile(r"[a-zA-Z][a-zA-Z0-9+.\-_]+")  # two letters at least: one is a drive of Windows
_OF_PATHS = "/\\:"
_MAX_CONFIG = 16 << 20  # bytes; the labels of ImageNet-22k take 2
_OF_BOTH = ("num_classes", "label_names", "label_descriptions")  # on the first level of the file, and in its settings
_FOR_INFORMATION = {"num_features", "labels", "global_pool", "model_args"}
_TIMM = "timm/"  # before the names of its models on the hub, which are known here without it


def parse_model_name(model_name):
    """Return the source of a model's name, ``hf-hub`` or ``local-dir`` or None, and the name without the source.

    Raises:
        ConfigError: for another source, and for a path or a hub's name without a source.
    """
    source, colon, model_id = str(model_name).partition(":")
    if not colon or not _PREFIX.fullmatch(source):
        model_name = str(model_name).removeprefix(_TIMM)
        if any(letter in str(model_name) for letter in _OF_PATHS):
            raise ConfigError(
                f"the model's name {str(model_name)[:120]!r} has no source; valid are hf-hub:ORG/NAME for a model of "
                "the Hugging Face Hub, and local-dir:PATH for a folder"
            )
        return None, str(model_name)
    source = _ALIASES.get(source.lower(), source.lower())
    if source not in SOURCES or not model_id:
        raise ConfigError(
            f"{str(model_name)[:120]!r} names no model; valid are hf-hub:ORG/NAME, local-dir:PATH and names alone"
        )
    return source, model_id


def safe_model_name(model_name, remove_source=True):
    """Return a model's name as a part of file names: other characters than letters and digits become ``_``."""
    name = parse_model_name(model_name)[1] if remove_source else str(model_name)
    return "".join(letter if letter.isalnum() else "_" for letter in name).rstrip("_")


def load_model_config(source, model_id, cache_dir=None):
    """Return what ``config.json`` says of a model: its `PretrainedCfg`, its architecture, and arguments of the net.

    Args:
        source: ``hf-hub`` or ``local-dir``.
        model_id: ``ORG/NAME`` or ``ORG/NAME@REVISION``, or the folder.
        cache_dir: folder of the cache of the hub.

    Raises:
        ConfigError: for a model that pimm does not have, and for settings that cannot be used.
        CheckpointError: if there is no such file, and if it is damaged.
    """
    if source == "hf-hub":
        path, place = hub_file(model_id, CONFIG, cache_dir), {"hf_hub_id": model_id, "source": source}
    else:
        path, place = Path(model_id, CONFIG), {"file": str(model_id), "source": source}
    what = f"{CONFIG} of {model_id}"
    config = _read_config(path, what)
    # Early versions of timm wrote one level, with names of the classes called labels.
    settings = config.get("pretrained_cfg", {**config, "label_names": config.get("labels", config.get("label_names"))})
    arguments = config.get("model_args") or {}
    if not isinstance(settings, dict) or not isinstance(arguments, dict):
        raise ConfigError(f"{what}: pretrained_cfg and model_args must be objects")
    architecture = _architecture(config, what)
    settings = {**settings, **{key: config[key] for key in _OF_BOTH if config.get(key) is not None}}
    settings = {**settings, "url": None, "file": None, "state_dict": None, "hf_hub_id": None, **place}
    return _as_settings({**settings, "architecture": architecture}, arguments, what), architecture, arguments


def _architecture(config, what):
    name = config.get("architecture")
    if not isinstance(name, str):
        raise ConfigError(f"{what} names no architecture; is it the file of a model of timm?")
    try:
        model_entrypoint(name)
    except ConfigError as error:
        raise ConfigError(f"{what}: {error}") from None
    return name


def _read_config(path, what):
    try:
        if path.stat().st_size > _MAX_CONFIG:
            raise CheckpointError(f"{what} has more than {_MAX_CONFIG:,} bytes")
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{what} is no JSON: {error!s:.150}") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{what} is no object of JSON")
    return config


def _as_settings(settings, arguments, what):
    """Return a `PretrainedCfg` of the settings in a file, with the image size and channels of the net's arguments."""
    known = {field.name for field in fields(PretrainedCfg)}
    ignored = sorted(settings.keys() - known - _FOR_INFORMATION)
    if ignored:
        _logger.warning("%s: settings of these names are not known here: %.200s", what, ", ".join(ignored))
    settings = {
        name: tuple(value) if isinstance(value, list) else value for name, value in settings.items() if name in known
    }
    if arguments.get("dynamic_img_size") or arguments.get("strict_img_size") is False:
        settings["fixed_input_size"] = False
    check_arguments(arguments, f"{what}: model_args do not fit: ")
    for name in ("num_classes", "label_offset"):
        if settings.get(name) is not None:
            check_whole(f"{what}: {name}", settings[name], least=0)
    try:
        settings.update(_sizes(settings, arguments))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{what}: its image sizes cannot be used: {error!s:.150}") from error
    return merge_cfg(PretrainedCfg(), settings, what)


def _sizes(settings, arguments):
    """Return the sizes among the settings, for the channels and the image size that the weights' net was made with."""
    channels, size = arguments.get("in_chans"), arguments.get("img_size")
    found = {"input_size": settings.get("input_size") or PretrainedCfg.input_size}
    found.update({name: settings[name] for name in ("test_input_size", "min_input_size") if settings.get(name)})
    if channels is not None:
        found = {name: (channels, *value[1:]) for name, value in found.items()}
    if size is not None and settings.get("fixed_input_size"):
        found["input_size"] = (found["input_size"][0], *(size if isinstance(size, (list, tuple)) else (size, size)))
    if any(len(value) != 3 or not all(type(each) is int and each > 0 for each in value) for value in found.values()):
        raise ValueError(f"{found}; an image size is [channels, height, width], above 0")
    return found
