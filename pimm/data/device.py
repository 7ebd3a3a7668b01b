"""Move batches to the device."""

from __future__ import annotations

import paddle

from pimm.device import device_of


def to_device(values, place=None):
    """Return an array as a tensor on a device; a tensor stays where it is.

    The function does not wait for a GPU: out of pinned memory the copy takes its turn among the queued kernels, and
    Paddle keeps that memory until then. The array may be changed at once.

    Args:
        values: array or tensor.
        place: Paddle's place or its name; the current device if None.
    """
    if isinstance(values, paddle.Tensor):
        return values
    device = device_of(place)
    if not device.has_pinned_memory:
        return paddle.to_tensor(values, place=str(device))
    return paddle.to_tensor(values, place=paddle.CUDAPinnedPlace()).to(device=str(device), blocking=False)
