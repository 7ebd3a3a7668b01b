"""Output folders and the table of epochs."""

from __future__ import annotations

import csv
import itertools
import os


def get_outdir(path, *paths, inc=False):
    """Make the folder ``path/paths...`` and return it; with ``inc`` a name in use gets the first free number."""
    folder = os.path.join(path, *paths)
    if inc and os.path.exists(folder):
        folder = next(name for name in (f"{folder}-{n}" for n in itertools.count(1)) if not os.path.exists(name))
    os.makedirs(folder, exist_ok=True)
    return folder


def update_summary(epoch, train_metrics, eval_metrics, filename, write_header=False):
    """Append an epoch's metrics to a CSV file, in columns ``epoch, train_..., eval_...``."""
    row = {"epoch": epoch}
    row.update({f"train_{name}": value for name, value in train_metrics.items()})
    row.update({f"eval_{name}": value for name, value in eval_metrics.items()})
    with open(filename, "a", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(row), lineterminator="\n")
        if write_header:
            writer.writeheader()
        writer.writerow(row)
