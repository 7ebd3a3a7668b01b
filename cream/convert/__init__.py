"""Conversion of weights from PyTorch's files into Paddle's and back."""

import importlib
from typing import Any

# The modules bring Paddle, which --help need not wait for.
_MODULES = {
    "from_torch": "cream.convert.convert",
    "main": "cream.convert.command",
    "to_torch": "cream.convert.convert",
}

__all__ = ["from_torch", "main", "to_torch"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is asked for."""
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
