"""Move batches to the device."""

from __future__ import annotations

import atexit
from collections import deque

import paddle

from pimm.device import Device, device_of, event_after

_under_way: deque = deque()  # copies to a plug-in device: the event after the copy, and the tensor that is copied


def to_device(values, place=None):
    """Return an array as a tensor on a device; a tensor stays where it is.

    The function does not wait for a GPU or a plug-in device: the copy takes its turn among the queued kernels, and what
    is copied is kept until then. The array may be changed at once.

    Args:
        values: array or tensor.
        place: Paddle's place or its name; the current device if None.
    """
    if isinstance(values, paddle.Tensor):
        return values
    device = device_of(place)
    if device.has_pinned_memory:
        return paddle.to_tensor(values, place=paddle.CUDAPinnedPlace()).to(device=str(device), blocking=False)
    if device.is_plugin:
        return _copy_in_turn(paddle.to_tensor(values, place="cpu"), device)
    return paddle.to_tensor(values, place=str(device))


def _copy_in_turn(source: paddle.Tensor, device: Device) -> paddle.Tensor:
    """Launch the copy of a tensor, and keep the tensor until the device has copied it: Paddle does not."""
    copy = source.to(device=str(device), blocking=False)
    _under_way.append((event_after(device), source))
    while _under_way and _under_way[0][0].query():
        _under_way.popleft()
    return copy


@atexit.register
def _finish() -> None:
    """Wait for the copies under way as the process ends, before Paddle gives up the device."""
    while _under_way:
        _under_way.popleft()[0].synchronize()
