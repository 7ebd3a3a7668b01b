"""Values for each channel of an image, whatever number of channels the image has."""

from __future__ import annotations


def per_channel(values, channels):
    """Return one value for each of ``channels``: the given ones, or their mean for all where their number differs."""
    values = tuple(values) if isinstance(values, (tuple, list)) else (values,)
    return values if len(values) == channels else (sum(values) / len(values),) * channels


def fill_for(image, color):
    """Return a colour to fill parts of a PIL image with, as Pillow takes it.

    Args:
        image: of any mode of 8 bits a channel.
        color: one number for all channels, or one for each; where their number differs, their mean for all.
    """
    if not isinstance(color, (tuple, list)):
        return color
    values = tuple(color)
    if len(values) != len(image.getbands()):
        values = tuple(round(value) for value in per_channel(values, len(image.getbands())))
    return values if len(values) > 1 else values[0]
