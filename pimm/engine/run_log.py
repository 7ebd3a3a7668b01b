"""The records of a run: log, progress bar, table of epochs, VisualDL; the first process writes for all."""

from __future__ import annotations

import collections
import logging
import logging.handlers
import math
import os
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import numpy as np
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from pimm.errors import ConfigError
from pimm.utils import FormatterNoInfo, is_main_process, trim_summary, update_summary
from pimm.utils.locks import try_lock

_logger = logging.getLogger(__name__)

SUMMARY = "summary.csv"
LOG = "log.txt"
_KEPT_RECORDS = 1000  # lines logged before the folder is known


class LogFile(logging.FileHandler):
    """A log file that reports once, in one line, that it cannot be written, for example on a full disk."""

    reported = False

    def handleError(self, record):
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self.reported:
            self.reported = True
            print(f"warning: {self.baseFilename} cannot be written: {error.strerror}", file=sys.stderr)

    def close(self):
        with suppress(OSError):  # the line above has reported it
            super().close()


class RunLog:
    """Writes the records of a run, as a context manager inside which the named loggers write to the run's log.

    The log goes to the terminal, and with a folder into ``log.txt``; an epoch is a row of ``summary.csv`` and curves of
    VisualDL. Without a folder no file is written. While a run is open inside another run, the inner run alone gets the
    lines.

    Args:
        folder: where the run writes; ``open`` may name the folder later, and lines logged before are not lost.
        exclusive: lock the folder; ConfigError if another process holds the lock.
        loggers: names of the loggers whose lines are the run's.
        curves: write VisualDL's records.
        rates: give ``summary.csv`` a column ``lr``.
    """

    def __init__(
        self,
        folder: Path | None = None,
        exclusive: bool = False,
        *,
        loggers: Sequence[str] = (),
        curves: bool = True,
        rates: bool = False,
    ):
        self.folder: Path | None = None
        self._asked_for = folder, exclusive
        self._loggers = [logging.getLogger(name) for name in loggers]
        self._curves, self._rates = curves, rates
        self._lock: IO | None = None
        self._writer = None
        self._handlers: list[logging.Handler] = []
        self._before: list[tuple] = []

    def __enter__(self) -> RunLog:
        for logger in self._loggers:
            outer = [handler for handler in logger.handlers if getattr(handler, "of_run_log", False)]
            self._before.append((logger, outer, logger.propagate, logger.level))
            for handler in outer:
                logger.removeHandler(handler)
            # The root logger gets no lines: libraries add handlers to it, and every line would appear twice.
            logger.propagate = False
            logger.setLevel(logging.INFO if is_main_process() else logging.WARNING)
        if is_main_process() and self._loggers:
            terminal = logging.StreamHandler()
            terminal.setFormatter(FormatterNoInfo())
            self._add(terminal)
            self._early = logging.handlers.BufferingHandler(_KEPT_RECORDS)
            self._early.shouldFlush = lambda record: False
            self._early.buffer = collections.deque(maxlen=_KEPT_RECORDS)
            self._add(self._early)
        folder, exclusive = self._asked_for
        if folder is not None:
            try:
                self.open(folder, exclusive)
            except BaseException:
                self.__exit__()
                raise
        return self

    def __exit__(self, *exception) -> None:
        if self._writer is not None:
            self._writer.close()
        for handler in self._handlers:
            for logger in self._loggers:
                logger.removeHandler(handler)
            handler.close()
        for logger, outer, propagate, level in self._before:
            for handler in outer:
                logger.addHandler(handler)
            logger.propagate, logger.level = propagate, level
        self._handlers, self._before, self._writer = [], [], None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def open(self, folder: Path, exclusive: bool = False) -> None:
        """Write into ``folder`` from now on; the lines logged before go into the folder's log, too."""
        self.folder = folder
        if not self.writes:
            return
        if exclusive:
            self._lock = lock(folder)
        if not self._loggers:
            return
        file = LogFile(folder / LOG, encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s: %(message)s"))
        for record in self._early.buffer:
            file.handle(record)
        self._handlers.remove(self._early)
        for logger in self._loggers:
            logger.removeHandler(self._early)
        self._add(file)

    @property
    def writes(self) -> bool:
        """Whether this process writes into the folder."""
        return self.folder is not None and is_main_process()

    def _add(self, handler: logging.Handler) -> None:
        handler.of_run_log = True
        self._handlers.append(handler)
        for logger in self._loggers:
            logger.addHandler(handler)

    def scalars(self, group: str, values: Mapping[str, float], step: int) -> None:
        """Add points to the curves ``group/name`` in VisualDL."""
        if self.writes and self._curves:
            for name, value in values.items():
                if math.isfinite(value):
                    self._visualdl().add_scalar(f"{group}/{name}", value, step)

    def images(self, group: str, pictures: Mapping[str, np.ndarray], step: int) -> None:
        """Show pictures ``group/name`` in VisualDL, each [height, width, 3] uint8."""
        if self.writes and self._curves:
            for name, pixels in pictures.items():
                self._visualdl().add_image(f"{group}/{name}", pixels, step, dataformats="HWC")

    def _visualdl(self):
        if self._writer is None:
            from visualdl import LogWriter  # takes seconds to import

            self._writer = LogWriter(logdir=str(self.folder / "visualdl"))
        return self._writer

    def epoch(self, epoch: int, train: Mapping[str, float], evaluated: Mapping[str, float], lr: float) -> None:
        """Write a row of summary.csv, and the evaluation's curves."""
        if self.writes:
            rate = lr if self._rates else None
            update_summary(epoch, train, evaluated, str(self.folder / SUMMARY), lr=rate)
        self.scalars("eval", evaluated, epoch)

    def rewind(self, epoch: int) -> None:
        """Remove ``epoch`` and later epochs from summary.csv: a resumed training will write their rows again."""
        if self.writes:
            trim_summary(str(self.folder / SUMMARY), epoch)

    @contextmanager
    def progress(self, total: int, done: int, title: str) -> Iterator[tqdm]:
        """Show a progress bar on a terminal, and nothing where output goes to a file."""
        hidden = not (is_main_process() and sys.stderr.isatty())
        options = {"unit": "batch", "leave": False, "disable": hidden, "dynamic_ncols": True}
        with logging_redirect_tqdm(), tqdm(total=total, initial=done, desc=title, **options) as bar:
            yield bar


def lock(folder: Path) -> IO:
    """Lock a folder, and return the file that unlocks it when closed; ConfigError if another process has the lock."""
    file = open(folder / ".lock", "a+b", buffering=0)  # noqa: SIM115 (it stays open)
    try:
        is_mine = try_lock(file)
    except OSError:
        _logger.warning("%s is on storage without locks: nothing keeps a second run out of it", folder)
        is_mine = True
    if not is_mine:
        file.seek(0)
        holder = file.read().decode()
        file.close()
        raise ConfigError(f"another process is at work in {folder}{holder}: wait for its end, or choose another folder")
    with suppress(OSError):  # the first checkpoint reports a full disk
        file.truncate(0)
        file.write(f" ({socket.gethostname()}, process {os.getpid()})".encode())
    return file
