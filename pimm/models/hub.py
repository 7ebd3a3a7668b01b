"""Load pretrained weights that a model's settings name: from the Hugging Face Hub, a URL, a file or a folder.

Names and arguments are those of timm 1.x. Files are read without running what is in them, and converted in memory.
"""

from __future__ import annotations

import logging
import sys
from functools import partial
from pathlib import Path

import numpy as np

from pimm.errors import CheckpointError, ConfigError
from pimm.models.adapt import adapt_arrays
from pimm.models.helpers import keep_fitting, load_weights, set_torch_weights, weights_kind
from pimm.models.hub_files import folder_weights, hub_weights
from pimm.models.pretrained_cfg import PretrainedCfg, merge_cfg
from pimm.models.registry import get_arch_pretrained_cfgs, model_entrypoint
from pimm.models.torch_weights import find_state_dict
from pimm.models.url_files import url_file
from pimm.torch_file import is_bfloat16, load_torch
from pimm.utils.bfloat16 import widened

_logger = logging.getLogger(__name__)

_LISTED = 8  # tags in a message


def load_pretrained(
    model, pretrained_cfg=None, num_classes=None, in_chans=None, filter_fn=None, strict=True, cache_dir=None
):
    """Set a model's weights to those that its settings name.

    Where the model has another number of classes or image channels than the settings, the classifier begins anew, and
    the first convolution is adapted (`pimm.models.adapt`).

    Args:
        model: the net.
        pretrained_cfg: the settings, a `PretrainedCfg` or a dict; None for those of the model. Weights come from the
            first that there is of ``state_dict``, ``file``, ``hf_hub_id`` and ``url``.
        num_classes: classes of the model; None for its ``num_classes``.
        in_chans: image channels of the model; None if they may differ from those of the settings.
        filter_fn: a function that takes PyTorch's ``{name: array}`` and the model, and returns ``{name: array}`` under
            the names of the model; None for the ``checkpoint_filter_fn`` of the model's module, if there is one.
        strict: refuse weights that do not fit; otherwise what does not fit is left alone and named in the log.
        cache_dir: folder for downloads in place of the usual ones.

    Raises:
        ConfigError: if the settings name no weights.
        CheckpointError: if the weights cannot be had or do not fit.
    """
    cfg = pretrained_cfg or getattr(model, "pretrained_cfg", None) or {}
    cfg = cfg if isinstance(cfg, PretrainedCfg) else merge_cfg(PretrainedCfg(), cfg, "pretrained_cfg")
    source, find = _find_source(cfg)
    num_classes = model.num_classes if num_classes is None else num_classes
    adapted = ["num_classes"] * (num_classes != cfg.num_classes)
    adapted += ["in_chans"] * (in_chans is None or in_chans != cfg.input_size[0])
    fit = partial(_fit, model, adapted, strict) if adapted or not strict else None
    found = find(cfg, cache_dir)
    if isinstance(found, Path) and weights_kind(found) == "paddle":
        load_weights(model, found, None, fit)
        return
    filter_fn = filter_fn or _filter_of(cfg.architecture)
    arrays = _read_arrays(found, source)
    if filter_fn:
        arrays = filter_fn(arrays, model)
    if cfg.label_offset and "num_classes" not in adapted:
        arrays = _without_first_classes(arrays, cfg)
    set_torch_weights(model, arrays, source, fit)
    _logger.info("loaded pretrained weights from %s", source)


def check_weights(cfg):
    """Raise `ConfigError` if the settings of a model name no weights; the message lists its tags that do."""
    _find_source(cfg)


def _find_source(cfg):
    """Return where weights are, in words, and the function ``(cfg, cache_dir)`` that returns their file or arrays."""
    if cfg.source == "local-dir":
        return cfg.file, lambda cfg, cache_dir: folder_weights(cfg.file)
    if cfg.state_dict:
        return "state_dict", lambda cfg, cache_dir: cfg.state_dict
    if cfg.file and cfg.source != "hf-hub":
        return cfg.file, lambda cfg, cache_dir: Path(cfg.file)
    if cfg.hf_hub_id:
        return cfg.hf_hub_id, lambda cfg, cache_dir: hub_weights(cfg.hf_hub_id, cfg.hf_hub_filename, cache_dir)
    if cfg.url:
        return cfg.url, lambda cfg, cache_dir: url_file(cfg.url, cache_dir)
    raise ConfigError(_explain_missing(cfg))


def _explain_missing(cfg):
    name = f"{cfg.architecture}.{cfg.tag}" if cfg.tag else cfg.architecture or "this model"
    known = get_arch_pretrained_cfgs(cfg.architecture) if cfg.architecture else {}
    known = [tagged for tagged, each in known.items() if each.has_weights]
    more = f" and {len(known) - _LISTED} more" if len(known) > _LISTED else ""
    valid = f"; there are some of {', '.join(known[:_LISTED])}{more}" if known else ""
    return f"there are no pretrained weights of {name}{valid}; files of weights are loaded by checkpoint_path"


def _read_arrays(found, source):
    """Return PyTorch's ``{name: array}`` of a file or a state dict; bfloat16 becomes float32, as numpy needs it."""
    if isinstance(found, Path):
        content = load_torch(found)
        try:
            found = find_state_dict(content)
        except CheckpointError as error:
            raise CheckpointError(f"{source}: {error}") from None
    arrays = {name: value.numpy() if hasattr(value, "numpy") else np.asarray(value) for name, value in found.items()}
    return {name: widened(value) if is_bfloat16(value) else value for name, value in arrays.items()}


def _filter_of(architecture):
    """Return the ``checkpoint_filter_fn`` of the module that has a model, or None."""
    if not architecture:
        return None
    return getattr(sys.modules[model_entrypoint(architecture).__module__], "checkpoint_filter_fn", None)


def _without_first_classes(arrays, cfg):
    """Return the arrays without the classes of the classifier that come before the first class of the data set."""
    names = [cfg.classifier] if isinstance(cfg.classifier, str) else list(cfg.classifier or ())
    of_classifier = {f"{name}.{kind}" for name in names for kind in ("weight", "bias")}
    return {name: value[cfg.label_offset :] if name in of_classifier else value for name, value in arrays.items()}


def _fit(model, adapted, strict, own, arrays, source):
    """Return the arrays as the model needs them: an adapted classifier and first convolution, and not strictly all."""
    arrays = adapt_arrays(model, own, arrays, source, adapted, new_classifier="num_classes" in adapted)
    return arrays if strict else keep_fitting(own, arrays, source)
