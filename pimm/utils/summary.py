"""Make output folders, and write tables of epochs."""

from __future__ import annotations

import csv
import io
import itertools
import json
import logging
import os

from pimm.utils.serialization import atomic_file, write_text

_logger = logging.getLogger(__name__)


def get_outdir(path, *paths, inc=False):
    """Make the folder ``path/paths...`` and return its name; with ``inc`` a name in use gets the first free number."""
    folder = os.path.join(path, *paths)
    if inc and os.path.exists(folder):
        folder = next(name for name in (f"{folder}-{n}" for n in itertools.count(1)) if not os.path.exists(name))
    os.makedirs(folder, exist_ok=True)
    return folder


def update_summary(epoch, train_metrics, eval_metrics, filename, lr=None, write_header=None):
    """Append an epoch's metrics to a CSV file, in columns ``epoch, train_..., eval_...`` and ``lr``.

    Args:
        epoch: the number of the epoch.
        train_metrics: ``{name: value}`` of the training.
        eval_metrics: ``{name: value}`` of the evaluation, or None.
        filename: the CSV file.
        lr: the learning rate; None leaves the column out.
        write_header: whether to write the names of the columns first; None does so in a file that is new or empty.
    """
    row = {"epoch": epoch}
    row.update({f"train_{name}": value for name, value in train_metrics.items()})
    row.update({f"eval_{name}": value for name, value in (eval_metrics or {}).items()})
    if lr is not None:
        row["lr"] = lr
    if write_header is None:
        write_header = not os.path.exists(filename) or os.path.getsize(filename) == 0
    columns = list(row) if write_header else _columns_with(filename, row)
    with open(filename, "a", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=columns, lineterminator="\n")
        if write_header:
            writer.writeheader()
        writer.writerow(row)


def _columns_with(filename, row):
    """Return the columns of a summary after adding those of ``row`` that the summary lacks, as after a changed setting.

    A file without a header stays as it is, and the columns are those of ``row``.
    """
    rows = _read_rows(filename)
    if not rows or rows[0][:1] != ["epoch"]:
        return list(row)
    header = rows[0]
    added = [name for name in row if name not in header]
    if added:
        filled = [[*cells, *[""] * (len(header) + len(added) - len(cells))] for cells in rows[1:]]
        _write_rows(filename, [[*header, *added], *filled])
    return header + added


def _read_rows(filename):
    if not os.path.exists(filename):
        return []
    with open(filename, newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.reader(file))


def _write_rows(filename, rows):
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    with atomic_file(filename) as file:
        file.write(text.getvalue().encode("utf-8", "surrogateescape"))


def write_csv(filename, rows):
    """Write dicts with equal keys as a CSV file with a header, whole or not at all; lists in cells are JSON."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {key: json.dumps(cell) if isinstance(cell, list) else cell for key, cell in row.items()} for row in rows
    )
    write_text(filename, text.getvalue())


def trim_summary(filename, start_epoch):
    """Remove the rows from ``start_epoch`` on from a summary, so that a resumed training does not write them twice."""
    rows = _read_rows(filename)
    if not rows or rows[0][:1] != ["epoch"]:
        return
    kept = [row for row in rows[1:] if row and not _is_from(row[0], start_epoch)]
    if len(kept) == len(rows) - 1:
        return
    _logger.info("%s: %d rows from epoch %d on are left out", filename, len(rows) - 1 - len(kept), start_epoch)
    _write_rows(filename, [rows[0], *kept])


def _is_from(cell, start_epoch):
    try:
        return float(cell) >= start_epoch
    except ValueError:
        return False
