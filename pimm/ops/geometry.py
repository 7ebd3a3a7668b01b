"""Sizes of two-dimensional convolutions, and which of them make sense."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from paddle import Tensor

from ..errors import ConfigError

MOST_PADDING = 4096  # pixels a side: more is a mistake, whose output would fill the memory with zeros
_LARGEST = 2**31 - 1  # what Paddle's attributes hold


def to_pair(value: int | Sequence[int]) -> tuple[int, ...]:
    """Return ``(value, value)`` for a number, and the values of a sequence as a tuple."""
    return tuple(value) if isinstance(value, (tuple, list)) else (value, value)


def four_sides(padding: int | Sequence[int]) -> tuple[int, ...]:
    """Return ``(top, bottom, left, right)`` for a number, a pair (height, width) or four sides."""
    padding = to_pair(padding)
    return (padding[0], padding[0], padding[1], padding[1]) if len(padding) == 2 else padding


@functools.lru_cache(maxsize=4096)
def check_geometry(
    size: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
) -> None:
    """Check that a convolution has an output, which Paddle's own does not: it returns a tensor of size -1, or aborts.

    Args:
        size: height and width of the image.
        kernel: height and width of the kernel.
        stride: pixels between outputs, (height, width).
        padding: pixels around the image, (top, bottom, left, right).
        dilation: pixels between the values of the kernel, (height, width).

    Raises:
        ConfigError: if a number is out of its range, or the kernel does not fit into the padded image.
    """
    named = {"kernel": kernel, "stride": stride, "dilation": dilation, "padding": padding}
    for name, values in named.items():
        low, high = (0, MOST_PADDING) if name == "padding" else (1, _LARGEST)
        count = 4 if name == "padding" else 2
        if len(values) != count or not all(isinstance(value, int) and low <= value <= high for value in values):
            raise ConfigError(f"{name} of a convolution is {values}; it must be whole numbers from {low} to {high}")
    padded = tuple(pixels + before + after for pixels, before, after in zip(size, padding[::2], padding[1::2]))
    spans = tuple(rate * (length - 1) + 1 for length, rate in zip(kernel, dilation))
    if min(size) < 1 or any(span > pixels for span, pixels in zip(spans, padded)):
        raise ConfigError(
            f"a kernel of {spans[0]}x{spans[1]} pixels (with its dilation) does not fit into an image of "
            f"{size[0]}x{size[1]}, padded to {padded[0]}x{padded[1]}: take a larger image or more padding"
        )


def check_bias(weight: Tensor, bias: Tensor | None) -> None:
    """Check that a convolution's bias, if there is one, has one value for each filter, instead of broadcasting it."""
    if bias is not None and list(bias.shape) != [weight.shape[0]]:
        raise ConfigError(f"bias of a convolution has shape {list(bias.shape)}; it must be [{weight.shape[0]}]")
