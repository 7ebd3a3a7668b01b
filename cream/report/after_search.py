"""The report at the end of a search."""

from __future__ import annotations

import logging
import shlex

from cream import typed
from cream.report.operations import anatomy, write_anatomy
from cream.train.search_net import SearchNet
from pimm.engine import RunLog
from pimm.utils import is_main_process

_logger = logging.getLogger(__name__)


def report_search(run: RunLog, searched: SearchNet, epoch: int) -> None:
    """Write report.html and show its pictures in VisualDL; a report that fails does not fail the search."""
    if not is_main_process():
        return
    try:
        from cream.report.report import REPORT, write_report  # brings matplotlib, which training need not wait for

        write_anatomy(run.folder, anatomy(searched.net, searched.resolution, searched.tables))
        run.images("report", write_report(run.folder), epoch)
        _logger.info("report in %s", run.folder / REPORT)
    except Exception as error:
        _logger.warning(
            "there is no report (%s: %s): %s %s writes it again",
            *(type(error).__name__, error, typed.command("report"), shlex.quote(str(run.folder))),
        )
