"""The report of a search."""

from cream.report.after_search import report_search

__all__ = ["report_search"]
