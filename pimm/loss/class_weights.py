"""Weights of classes by their frequencies."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import paddle

from pimm.errors import ConfigError, DataError

# A method and the argument of a loss that its weights are for.
CLASS_WEIGHT_METHOD_KINDS = {"neg_pos": "pos_weight", "inv_freq": "class_weight", "effective_num": "class_weight"}
CLASS_WEIGHT_METHODS = tuple(CLASS_WEIGHT_METHOD_KINDS)


def checked_counts(counts, num_samples):
    """Numbers of images of each class among ``num_samples`` in float64; ConfigError if they cannot be."""
    array = np.asarray(counts, np.float64)
    if array.ndim != 1 or not array.size or not np.all((array >= 0) & (array <= num_samples)):
        raise ConfigError(f"counts are numbers from 0 to num_samples={num_samples}, one a class, got {counts}")
    return array


def compute_class_weights(pos_counts, num_samples, method="neg_pos", power=1.0, beta=0.999, max_weight=None):
    """The argument that the weights are for, and the weights [C] in float32.

    ``pos_counts`` are the positives of each class among ``num_samples`` images; none counts as one. ``neg_pos`` is
    (negatives / positives) ** power; ``inv_freq`` (images / positives) ** power and ``effective_num``
    (1 - beta) / (1 - beta ** positives) (arXiv 1901.05555), both with mean 1. ``max_weight`` is the highest.
    ConfigError for another method, for counts that cannot be, and for ``beta`` outside 0 to 1.
    """
    counts = checked_counts(pos_counts, num_samples).clip(1)
    if method not in CLASS_WEIGHT_METHOD_KINDS:
        raise ConfigError(f"unknown class weights {method!r}; valid are {', '.join(CLASS_WEIGHT_METHODS)}")
    if not 0.0 < beta < 1.0:
        raise ConfigError(f"beta is above 0 and below 1, got {beta}")
    if method == "neg_pos":
        weights = ((num_samples - counts).clip(0) / counts) ** power
    else:
        weights = (num_samples / counts) ** power if method == "inv_freq" else (1 - beta) / (1 - beta**counts)
        weights = weights / weights.mean()
    return CLASS_WEIGHT_METHOD_KINDS[method], _tensor(weights.clip(max=max_weight))


def load_class_stats(path):
    """The positives of each class [C] and the number of images, from a JSON file with both; None without a path.

    The file has ``pos_counts`` and ``num_samples``. DataError if it cannot be read or lacks one of them.
    """
    if not path:
        return None
    stats = _read_json(path)
    if not isinstance(stats, dict) or not {"pos_counts", "num_samples"} <= set(stats):
        raise DataError(f"{path} needs the entries pos_counts and num_samples")
    return _tensor(stats["pos_counts"]), int(stats["num_samples"])


def load_class_weights(value, key="class_weight"):
    """Weights given as a number, a list, text with several numbers, or a file: a float, or a tensor [C]; or None.

    A ``.json`` file holds a list, or an object with one under ``key``; another holds numbers. DataError if it cannot be
    read, ConfigError for weights that are not finite numbers from 0 on.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, str):
        value = _numbers_of(value, key)
    weights = np.asarray(value, np.float64)
    if isinstance(value, bool) or weights.ndim > 1 or not weights.size:
        raise ConfigError(f"weights are one number or one a class, got {value!r}")
    if not np.all(np.isfinite(weights) & (weights >= 0)):
        raise ConfigError(f"weights are finite and not negative, got {value!r}")
    return weights.item() if weights.size == 1 else _tensor(weights)


def resolve_class_weights(value, kind="class_weight", class_stats=None, power=1.0, beta=0.999, max_weight=None):
    """Weights for the argument ``kind`` of a loss: a method's, from ``load_class_stats``, or `load_class_weights`'.

    ConfigError for a method whose weights are for another argument, and for one without ``class_stats``.
    """
    method = value.strip() if isinstance(value, str) else None
    if method not in CLASS_WEIGHT_METHOD_KINDS:
        return load_class_weights(value, key=kind)
    if CLASS_WEIGHT_METHOD_KINDS[method] != kind:
        valid = ", ".join(name for name, given in CLASS_WEIGHT_METHOD_KINDS.items() if given == kind)
        raise ConfigError(f"{method} gives a {CLASS_WEIGHT_METHOD_KINDS[method]}; for a {kind} there are {valid}")
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
            f"{text!r} is neither a file nor numbers nor one of {', '.join(CLASS_WEIGHT_METHODS)}"
        ) from None


def _read_json(path):
    try:
        return json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {error}") from error


def _tensor(values):
    return paddle.to_tensor(np.asarray(values, np.float32))
