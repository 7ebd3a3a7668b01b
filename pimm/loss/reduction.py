"""From a loss by image and class to what is returned."""

from __future__ import annotations

from pimm.errors import ConfigError

REDUCTIONS = {
    "mean": lambda loss: loss.mean(),
    "batchmean": lambda loss: loss.sum() / loss.shape[0],  # the sum over classes, the mean over images
    "sum": lambda loss: loss.sum(),
    "none": lambda loss: loss,
}


def reduction_named(name, valid=tuple(REDUCTIONS)):
    """The reduction of that name; ConfigError if it is not among the ``valid`` ones."""
    if name not in valid:
        raise ConfigError(f"unknown reduction {name!r}; valid are {', '.join(valid)}")
    return REDUCTIONS[name]


def require_share(smoothing):
    """ConfigError for a label smoothing that is no share from 0 to below 1."""
    if not 0.0 <= smoothing < 1.0:
        raise ConfigError(f"label smoothing is a share from 0 to below 1, got {smoothing}")
