"""What a run tells of itself: log, progress bar, tables of its epochs, VisualDL; the first process speaks for all."""

from __future__ import annotations

import fcntl
import json
import logging
import math
import os
import shlex
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from cream.train.history import HISTORY, read_history
from pimm.errors import ConfigError
from pimm.utils import FormatterNoInfo, is_main_process, trim_summary, update_summary, write_text

if TYPE_CHECKING:
    from cream.build.build import SearchNet

log = logging.getLogger("cream")
LOGGERS = (log, logging.getLogger("pimm"))


class LogFile(logging.FileHandler):
    """A log that says once, in one line, that it cannot be written, on a full disk for example."""

    told = False

    def handleError(self, record):
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self.told:
            self.told = True
            print(f"warning: {self.baseFilename} cannot be written: {error.strerror}", file=sys.stderr)

    def close(self):
        with suppress(OSError):  # which was told
            super().close()


class RunLog:
    """Writes into ``folder``: ``log.txt``, VisualDL's records, and of each epoch a row in ``summary.csv`` and, where
    there is more to tell than numbers, a line in ``history.jsonl``.

    Without a folder the log goes to the terminal alone, and nothing is written. With ``exclusive`` no other process's
    exclusive run may be in the folder: ConfigError.
    """

    current: RunLog | None = None  # whose logs are open; a run that failed leaves them to the next one to close

    def __init__(self, folder: Path | None = None, exclusive: bool = False):
        if RunLog.current is not None:
            RunLog.current.close()
        self.folder = folder
        self.writes = folder is not None and is_main_process()
        self._lock = lock(folder) if exclusive and self.writes else None
        RunLog.current = self
        self._writer = None
        self._handlers = []
        if is_main_process():
            self._handlers.append(logging.StreamHandler())
            self._handlers[0].setFormatter(FormatterNoInfo())
            if folder is not None:
                self._handlers.append(LogFile(folder / "log.txt", encoding="utf-8"))
                self._handlers[1].setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s: %(message)s"))
        for logger in LOGGERS:
            # Not the root: libraries hang handlers of their own there, and every line would come twice.
            logger.propagate = False
            logger.setLevel(logging.INFO if is_main_process() else logging.WARNING)
            for handler in self._handlers:
                logger.addHandler(handler)

    def scalars(self, group: str, values: Mapping[str, float], step: int) -> None:
        """Curves ``group/name`` in VisualDL."""
        if self.writes:
            for name, value in values.items():
                if math.isfinite(value):
                    self._visualdl().add_scalar(f"{group}/{name}", value, step)

    def images(self, group: str, pictures: Mapping[str, np.ndarray], step: int) -> None:
        """Pictures ``group/name`` in VisualDL, each [height, width, 3] uint8."""
        if self.writes:
            for name, pixels in pictures.items():
                self._visualdl().add_image(f"{group}/{name}", pixels, step, dataformats="HWC")

    def _visualdl(self):
        if self._writer is None:
            from visualdl import LogWriter  # takes seconds to import

            self._writer = LogWriter(logdir=str(self.folder / "visualdl"))
        return self._writer

    def epoch(self, epoch: int, train: Mapping[str, float], evaluated: Mapping[str, float]) -> None:
        """One row of summary.csv, and the evaluation's curves."""
        if self.writes:
            update_summary(epoch, train, evaluated, str(self.folder / "summary.csv"))
        self.scalars("eval", evaluated, epoch)

    def record(self, epoch: int, **course: object) -> None:
        """One line of history.jsonl: plain data, under ``epoch`` and the names given."""
        if self.writes:
            with open(self.folder / HISTORY, "a", encoding="utf-8") as file:
                file.write(json.dumps({"epoch": epoch, **course}) + "\n")

    def rewind(self, epoch: int) -> None:
        """Takes what tells of ``epoch`` and later ones out of the records: it was killed, and they will come again."""
        if not self.writes:
            return
        trim_summary(str(self.folder / "summary.csv"), epoch)
        history = self.folder / HISTORY
        if history.exists():
            kept = [json.dumps(line) for line in read_history(history) if line["epoch"] < epoch]
            write_text(history, "".join(f"{line}\n" for line in kept))

    def report(self, searched: SearchNet, epoch: int) -> None:
        """Writes report.html and shows its pictures in VisualDL; if that fails the search is none the worse."""
        if not is_main_process():
            return
        try:
            from cream.report.operations import anatomy, write_anatomy
            from cream.report.report import REPORT, write_report  # brings matplotlib, which training need not wait for

            write_anatomy(self.folder, anatomy(searched.net, searched.resolution, searched.tables))
            self.images("report", write_report(self.folder), epoch)
            log.info("report in %s", self.folder / REPORT)
        except Exception as error:
            log.warning(
                "there is no report (%s: %s): python tools/report.py %s writes it again",
                type(error).__name__, error, shlex.quote(str(self.folder)),
            )  # fmt: skip

    @contextmanager
    def progress(self, total: int, done: int, title: str) -> Iterator[tqdm]:
        """A progress bar on a terminal; nothing where output goes to a file."""
        hidden = not (is_main_process() and sys.stderr.isatty())
        with (
            logging_redirect_tqdm(),
            tqdm(
                total=total, initial=done, desc=title, unit="batch", leave=False, disable=hidden, dynamic_ncols=True
            ) as bar,
        ):
            yield bar

    def close(self) -> None:
        """Ends the logs, so that the next run of this process has its own."""
        if self._writer is not None:
            self._writer.close()
        for handler in self._handlers:
            for logger in LOGGERS:
                logger.removeHandler(handler)
            handler.close()
        if self._lock is not None:
            self._lock.close()
        RunLog.current = None


def lock(folder: Path) -> IO:
    """A file whose closing lets others into the folder; ConfigError if another process holds it."""
    file = open(folder / ".lock", "a+b", buffering=0)  # noqa: SIM115 (it stays open)
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # of the process: its workers do not inherit it
    except (BlockingIOError, PermissionError):
        file.seek(0)
        holder = file.read().decode()
        file.close()
        raise ConfigError(
            f"another process is at work in {folder}{holder}: wait for its end, or choose another folder"
        ) from None
    except OSError:
        log.warning("%s is on storage without locks: nothing keeps a second run out of it", folder)
    with suppress(OSError):  # of a full disk the first checkpoint tells
        file.truncate(0)
        file.write(f" ({socket.gethostname()}, process {os.getpid()})".encode())
    return file
