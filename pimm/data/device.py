"""How batches reach the device."""

from __future__ import annotations

import paddle


def to_device(values, place=None):
    """An array as a tensor on ``place`` (or its name), the current device if None; a tensor stays where it is.

    A GPU is not waited for: out of pinned memory the copy takes its turn among the kernels that are queued already, and
    Paddle keeps that memory until then. The array may be changed at once.
    """
    if isinstance(values, paddle.Tensor):
        return values
    place = place or paddle.get_device()
    if "gpu" not in str(place):
        return paddle.to_tensor(values, place=place)
    return paddle.to_tensor(values, place=paddle.CUDAPinnedPlace()).to(device=place, blocking=False)
