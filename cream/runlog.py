"""What a run tells of itself: text log, progress bar, summary.csv and VisualDL; the first process speaks for all."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from pimm.utils import FormatterNoInfo, atomic_file, is_main_process, update_summary

log = logging.getLogger("cream")
LOGGERS = (log, logging.getLogger("pimm"))


class RunLog:
    """Writes into ``folder``: ``log.txt``, ``summary.csv`` with a row an epoch, and VisualDL's curves.

    Without a folder the log goes to the terminal alone.
    """

    current: RunLog | None = None  # whose logs are open; a run that failed leaves them to the next one to close

    def __init__(self, folder: Path | None = None):
        if RunLog.current is not None:
            RunLog.current.close()
        RunLog.current = self
        self.folder = folder
        self._writer = None
        self._handlers = []
        if is_main_process():
            self._handlers.append(logging.StreamHandler())
            self._handlers[0].setFormatter(FormatterNoInfo())
            if folder is not None:
                self._handlers.append(logging.FileHandler(folder / "log.txt", encoding="utf-8"))
                self._handlers[1].setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s: %(message)s"))
        for logger in LOGGERS:
            # Not the root: libraries hang handlers of their own there, and every line would come twice.
            logger.propagate = False
            logger.setLevel(logging.INFO if is_main_process() else logging.WARNING)
            for handler in self._handlers:
                logger.addHandler(handler)

    def scalars(self, group: str, values: Mapping[str, float], step: int) -> None:
        """Curves ``group/name`` in VisualDL."""
        if not is_main_process():
            return
        if self._writer is None:
            from visualdl import LogWriter  # takes seconds to import

            self._writer = LogWriter(logdir=str(self.folder / "visualdl"))
        for name, value in values.items():
            if math.isfinite(value):
                self._writer.add_scalar(f"{group}/{name}", value, step)

    def epoch(self, epoch: int, train: Mapping[str, float], evaluated: Mapping[str, float]) -> None:
        """One row of summary.csv, and the evaluation's curves."""
        if is_main_process():
            filename = self.folder / "summary.csv"
            empty = not filename.exists() or filename.stat().st_size == 0
            update_summary(epoch, train, evaluated, str(filename), write_header=empty)
        self.scalars("eval", evaluated, epoch)

    def rewind(self, epoch: int) -> None:
        """Takes rows from ``epoch`` on out of summary.csv: a killed run had written them, and they will come again."""
        filename = self.folder / "summary.csv"
        if is_main_process() and filename.exists():
            header, *rows = filename.read_text().splitlines() or [""]
            numbered = [(row.partition(",")[0], row) for row in rows]
            kept = [row for number, row in numbered if number.isdecimal() and int(number) < epoch]
            with atomic_file(filename) as file:
                file.write("".join(f"{row}\n" for row in [header, *kept] if row).encode())

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
        RunLog.current = None
