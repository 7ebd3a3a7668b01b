"""The report of a search, as a page with figures."""

from cream.report.after_search import report_search

__all__ = ["report_search"]
