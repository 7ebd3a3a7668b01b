"""Choose batch sizes to try when a batch does not fit into memory."""

from __future__ import annotations

# Words in an error that another batch size does not mend: after an illegal access the process is unusable.
_FINAL = ("illegal",)


def decay_batch_step(batch_size, num_intra_steps=2, no_odd=False):
    """Return the next smaller batch size, or 0 after the last: 64, 48, 32, 24, 16, ... with two steps.

    Args:
        batch_size: the present size.
        num_intra_steps: the number of equal steps from a power of two to the next.
        no_odd: round odd sizes down to even ones.
    """
    if batch_size <= 1:
        return 0
    base = 1 << ((batch_size - 1).bit_length() - 1)  # the power of two below
    step = max(base // num_intra_steps, 1)
    smaller = base + (batch_size - base - 1) // step * step
    return smaller - smaller % 2 if no_odd else smaller


def check_batch_size_retry(error_str):
    """Tell whether a smaller batch may help after the error with this text."""
    return not any(word in error_str.lower() for word in _FINAL)
