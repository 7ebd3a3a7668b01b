"""Cream of the Crop: search, retrain and test image networks."""

import importlib
import warnings

# Paddle says so on every import; nothing here compiles often enough to want ccache.
warnings.filterwarnings("ignore", message="No ccache found")


def __getattr__(name: str):
    """The names of `cream.nni`, which brings Paddle, when they are asked for."""
    if name.startswith(("Cream", "SPOS")):
        return getattr(importlib.import_module("cream.nni"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
