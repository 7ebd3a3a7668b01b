"""What a run tells of itself: text log, progress bar, summary.csv and VisualDL; the first process speaks for all."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from pimm.utils import is_main_process, setup_default_logging, update_summary

log = logging.getLogger("cream")


class RunLog:
    """Writes into ``folder``: ``log.txt``, ``summary.csv`` with a row an epoch, and ``visualdl/``."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._writer = None
        if is_main_process():
            setup_default_logging(log_path=str(folder / "log.txt"))
        else:
            log.setLevel(logging.WARNING)

    def scalars(self, group: str, values: Mapping[str, float], step: int) -> None:
        """Curves ``group/name`` in VisualDL."""
        if not is_main_process():
            return
        if self._writer is None:
            from visualdl import LogWriter  # takes seconds to import

            self._writer = LogWriter(logdir=str(self.folder / "visualdl"))
        for name, value in values.items():
            self._writer.add_scalar(f"{group}/{name}", value, step)

    def epoch(self, epoch: int, train: Mapping[str, float], evaluated: Mapping[str, float]) -> None:
        """One row of summary.csv, and the evaluation's curves."""
        if is_main_process():
            filename = self.folder / "summary.csv"
            update_summary(epoch, train, evaluated, str(filename), write_header=not filename.exists())
        self.scalars("eval", evaluated, epoch)

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
        if self._writer is not None:
            self._writer.close()
