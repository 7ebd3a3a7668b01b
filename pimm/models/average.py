"""Average the weights of several checkpoints."""

from __future__ import annotations

import numpy as np

from pimm.errors import CheckpointError, ConfigError
from pimm.models.helpers import load_state_dict
from pimm.utils.bfloat16 import BFLOAT16, widened
from pimm.utils.state import check_state


def average_checkpoints(paths, use_ema=False):
    """Return the mean weights ``{name: array}`` of several checkpoints (arXiv 1803.05407).

    Sums are taken in float64; results are float32 or the wider type of the weights; whole numbers are those of the last
    checkpoint. One checkpoint is in memory at a time.

    Args:
        paths: checkpoint folders or ``.pdparams`` files.
        use_ema: take the averaged weights of each checkpoint.

    Raises:
        ConfigError: without a path.
        CheckpointError: for a damaged checkpoint, and for one of another net, by path and first differences.
    """
    if not paths:
        raise ConfigError("there is no checkpoint to average")
    sums, shapes, dtypes = {}, None, {}
    for path in paths:
        arrays = {name: _as_numbers(array) for name, array in load_state_dict(path, use_ema).items()}
        shapes = shapes or {name: array.shape for name, array in arrays.items()}
        check_state(shapes, {name: array.shape for name, array in arrays.items()}, str(path))
        for name, array in arrays.items():
            if np.issubdtype(array.dtype, np.floating):
                _require_finite(array, name, path)
                sums[name] = sums.get(name, 0.0) + array.astype(np.float64)
                dtypes[name] = np.promote_types(array.dtype, np.float32)
            else:
                sums[name] = array
    return {
        name: (value / len(paths)).astype(dtypes[name]) if name in dtypes else value for name, value in sums.items()
    }


def _as_numbers(array):
    return widened(array) if array.dtype == BFLOAT16 else array  # with or without its mark


def _require_finite(array, name, path):
    if not np.isfinite(array).all():
        raise CheckpointError(f"{path}: {name} is not finite, and would spoil the mean")
