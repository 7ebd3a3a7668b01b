"""Reduce a loss of each image and class to what is returned."""

from __future__ import annotations

from pimm.errors import ConfigError

REDUCTIONS = {
    "mean": lambda loss: loss.mean(),
    "batchmean": lambda loss: loss.sum() / loss.shape[0],  # sum over classes, mean over images
    "sum": lambda loss: loss.sum(),
    "none": lambda loss: loss,
}


def reduction_named(name, valid=tuple(REDUCTIONS)):
    """Return the reduction of a name.

    Raises:
        ConfigError: if the name is not among the ``valid`` ones.
    """
    if name not in valid:
        raise ConfigError(f"unknown reduction {name!r:.80}; valid are {', '.join(valid)}")
    return REDUCTIONS[name]


def require_share(smoothing):
    """Raise `ConfigError` for a label smoothing that is not a share from 0 to below 1."""
    if not 0.0 <= smoothing < 1.0:
        raise ConfigError(f"label smoothing must be at least 0 and below 1, got {smoothing}")
