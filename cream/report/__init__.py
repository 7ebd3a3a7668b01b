"""The report of a search, as a page with figures."""
