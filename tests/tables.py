"""Read the tables (CSV) that jobs and scripts write."""

import csv


def rows_of(path):
    """Return the rows of a table, a dict for each."""
    with open(path, newline="") as file:
        return list(csv.DictReader(file))
