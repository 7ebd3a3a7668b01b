"""Compute or read weights of classes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import paddle

from pimm.errors import ConfigError, DataError

# Method: the argument of a loss that its weights are for.
CLASS_WEIGHT_METHOD_KINDS = {"neg_pos": "pos_weight", "inv_freq": "class_weight", "effective_num": "class_weight"}
CLASS_WEIGHT_METHODS = tuple(CLASS_WEIGHT_METHOD_KINDS)


def checked_counts(counts, num_samples):
    """Return the images of each class in float64.

    Raises:
        ConfigError: for numbers that are not from 0 to ``num_samples``.
    """
    array = np.asarray(counts, np.float64)
    if array.ndim != 1 or not array.size or not np.all((array >= 0) & (array <= num_samples)):
        raise ConfigError(f"each class needs a count from 0 to num_samples={num_samples}, got {str(counts)[:200]}")
    return array


def compute_class_weights(pos_counts, num_samples, method="neg_pos", power=1.0, beta=0.999, max_weight=None):
    """Return the name of the argument that the weights are for, and the weights [C] in float32.

    Args:
        pos_counts: positives of each class [C]; 0 counts as 1.
        num_samples: number of images.
        method: ``neg_pos``, (negatives / positives) ** power; ``inv_freq``, (images / positives) ** power; or
            ``effective_num``, (1 - beta) / (1 - beta ** positives) (arXiv 1901.05555). The latter two have the mean 1.
        power: see ``method``.
        beta: see ``method``.
        max_weight: limit of the weights.

    Raises:
        ConfigError: for an unknown method, impossible counts and a ``beta`` that is not between 0 and 1.
    """
    counts = checked_counts(pos_counts, num_samples).clip(1)
    if method not in CLASS_WEIGHT_METHOD_KINDS:
        raise ConfigError(f"unknown class weights {method!r:.80}; valid are {', '.join(CLASS_WEIGHT_METHODS)}")
    if not 0.0 < beta < 1.0:
        raise ConfigError(f"beta must be above 0 and below 1, got {beta}")
    if method == "neg_pos":
        weights = ((num_samples - counts).clip(0) / counts) ** power
    else:
        weights = (num_samples / counts) ** power if method == "inv_freq" else (1 - beta) / (1 - beta**counts)
        weights = weights / weights.mean()
    return CLASS_WEIGHT_METHOD_KINDS[method], _tensor(weights.clip(max=max_weight))


def load_class_stats(path):
    """Read the positives of each class [C] and the number of images from a JSON file; return None without a path.

    The file has the entries ``pos_counts`` and ``num_samples``.

    Raises:
        DataError: for a file that cannot be read or lacks an entry.
    """
    if not path:
        return None
    stats = _read_json(path)
    if not isinstance(stats, dict) or not {"pos_counts", "num_samples"} <= set(stats):
        raise DataError(f"{path} needs the entries pos_counts and num_samples")
    return _tensor(stats["pos_counts"]), int(stats["num_samples"])


def load_class_weights(value, key="class_weight"):
    """Return weights as a float, a tensor [C], or None for no weights.

    Args:
        value: a number, a list, a text with numbers, or the path of a file: JSON with a list or with an object that has
            a list under ``key``, or a text with numbers.
        key: see ``value``.

    Raises:
        DataError: for a file that cannot be read.
        ConfigError: for weights that are not finite or negative.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, str):
        value = _numbers_of(value, key)
    weights = np.asarray(value, np.float64)
    if isinstance(value, bool) or weights.ndim > 1 or not weights.size:
        raise ConfigError(f"weights must be one number or one a class, got {str(value)[:200]}")
    if not np.all(np.isfinite(weights) & (weights >= 0)):
        raise ConfigError(f"weights must be finite and not negative, got {str(value)[:200]}")
    return weights.item() if weights.size == 1 else _tensor(weights)


def resolve_class_weights(value, kind="class_weight", class_stats=None, power=1.0, beta=0.999, max_weight=None):
    """Return the weights for an argument of a loss, computed by a method or read by `load_class_weights`.

    Args:
        value: name of a method of `compute_class_weights`, or what `load_class_weights` takes.
        kind: the argument, ``class_weight`` or ``pos_weight``.
        class_stats: result of `load_class_stats`, which a method needs.
        power, beta, max_weight: see `compute_class_weights`.

    Raises:
        ConfigError: for a method whose weights are for the other argument, and for a method without ``class_stats``.
    """
    method = value.strip() if isinstance(value, str) else None
    if method not in CLASS_WEIGHT_METHOD_KINDS:
        return load_class_weights(value, key=kind)
    if CLASS_WEIGHT_METHOD_KINDS[method] != kind:
        valid = ", ".join(name for name, given in CLASS_WEIGHT_METHOD_KINDS.items() if given == kind)
        raise ConfigError(f"{method} computes a {CLASS_WEIGHT_METHOD_KINDS[method]}; for a {kind} there are {valid}")
    if class_stats is None:
        raise ConfigError(f"{method} needs class_stats, the positives of each class")
    counts, num_samples = class_stats
    return compute_class_weights(counts, num_samples, method, power, beta, max_weight)[1]


def _numbers_of(text, key):
    if Path(text).is_file():
        if Path(text).suffix == ".json":
            content = _read_json(text)
            if isinstance(content, dict) and key not in content:
                raise DataError(f"{text} has no {key}; it has {', '.join(sorted(content))}")
            return content[key] if isinstance(content, dict) else content
        text = Path(text).read_text()
    try:
        return [float(word) for word in text.replace(",", " ").split()]
    except ValueError:
        raise ConfigError(
            f"{text!r:.80} is neither a file nor numbers nor one of {', '.join(CLASS_WEIGHT_METHODS)}"
        ) from None


def _read_json(path):
    try:
        return json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {error}") from error


def _tensor(values):
    return paddle.to_tensor(np.asarray(values, np.float32))
