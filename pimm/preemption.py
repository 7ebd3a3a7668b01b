"""SIGTERM, by which clusters take their machines back: the training saves after the batch at hand and ends well."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Preempted(BaseException):  # no `except Exception` takes it for a broken image
    """Ends a run that SIGTERM asked to end.

    Args:
        message: where the run ended.
        saved: whether its work is saved.
    """

    def __init__(self, message: str = "ended by SIGTERM", saved: bool = False):
        super().__init__(message)
        self.saved = saved


_deferring = False
_asked = False


def _handle(signum: int, frame: object) -> None:
    global _asked
    first, _asked = not _asked, True
    if first and not _deferring:  # the launcher sends several signals: the later ones must not break off the saving
        raise Preempted


@contextmanager
def raising() -> Iterator[None]:
    """Let the first SIGTERM inside raise `Preempted`, and ignore later ones; for the main thread of a program."""
    global _asked
    _asked = False
    before = signal.signal(signal.SIGTERM, _handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN if _asked else before)


def reclaim() -> None:
    """Let the handler of `raising` get SIGTERM again: Paddle, as it is imported, puts one of its own before it.

    Raises:
        Preempted: SIGTERM came during the import, which may lose an exception.
    """
    if signal.getsignal(signal.SIGTERM) is _handle:
        signal.signal(signal.SIGTERM, _handle)
        if _asked:
            raise Preempted


@contextmanager
def deferred() -> Iterator[None]:
    """Let SIGTERM inside do no more than make `came` true, so that unfinished work can be finished and saved."""
    global _deferring, _asked
    if threading.current_thread() is not threading.main_thread():
        yield  # Python lets the main thread alone handle signals
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
    """Let SIGTERM raise `Preempted` again inside `deferred`, even one that came before: for work that may break off."""
    global _deferring
    before, _deferring = _deferring, False
    try:
        if _asked:
            raise Preempted
        yield
    finally:
        _deferring = before


def came() -> bool:
    """Return whether SIGTERM has come to this process; `pimm.utils.asked_to_end` asks all processes of a launch."""
    return _asked
