"""Experiments around a search: rank correlation, and small image sets."""
