"""SIGTERM, by which clusters take their machines back: the training saves after the batch at hand and ends well."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import paddle

from pimm.utils.distributed import all_reduce_sum, world_size


class Preempted(BaseException):  # which no `except Exception` takes for a broken image
    """The run ended because it was asked to; the message says where, ``saved`` whether its work is safe."""

    def __init__(self, message: str = "ended by SIGTERM", saved: bool = False):
        super().__init__(message)
        self.saved = saved


_deferring = False
_asked = False


def _handle(signum: int, frame: object) -> None:
    global _asked
    first, _asked = not _asked, True
    if first and not _deferring:  # the launcher sends several: what the first one ends must not be broken off
        raise Preempted


@contextmanager
def raising() -> Iterator[None]:
    """Inside, SIGTERM raises `Preempted` and is ignored from then on; for a whole program, in its main thread."""
    global _asked
    _asked = False
    before = signal.signal(signal.SIGTERM, _handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN if _asked else before)


@contextmanager
def deferred() -> Iterator[None]:
    """Inside, SIGTERM only makes `asked` true, so that what is half done can be finished and saved."""
    global _deferring, _asked
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's business
        return
    before = signal.signal(signal.SIGTERM, _handle)
    _deferring, _asked = True, False
    try:
        yield
    finally:
        _deferring = False
        signal.signal(signal.SIGTERM, before)


@contextmanager
def acting() -> Iterator[None]:
    """Inside `deferred`, for what may be broken off anywhere: SIGTERM, one before it too, raises `Preempted`."""
    global _deferring
    before, _deferring = _deferring, False
    try:
        if _asked:
            raise Preempted
        yield
    finally:
        _deferring = before


def asked(waiting: bool = True) -> bool:
    """Whether SIGTERM has come to any process of the launch: all of them ask together, and all get the same answer.

    On several GPUs asking makes the device wait, so that without ``waiting`` for it anyway the answer is no.
    """
    if world_size() == 1:
        return _asked
    if not waiting and not paddle.get_device().startswith("cpu"):
        return False
    return bool(all_reduce_sum(paddle.to_tensor([int(_asked)], "int64")).item())
