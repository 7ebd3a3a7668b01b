"""The modules of other packages that register models, imported when a name is not known yet or models are listed."""

from __future__ import annotations

import importlib
import logging
import sys
from importlib import metadata

GROUP = "pimm.models"  # of entry points, which installed packages declare
_modules: dict = {}  # name: whether it has been imported, or tried in vain
_logger = logging.getLogger(__name__)


def add_models_of(module):
    """Note that importing the module of this name registers models."""
    _modules.setdefault(module, False)


def import_models():
    """Import the modules noted so far and those of entry points, each once; one that fails is named in a warning."""
    for module in [*_modules, *_of_entry_points()]:
        if _modules.get(module) or module in sys.modules:
            continue
        _modules[module] = True
        try:
            importlib.import_module(module)
        except Exception as error:  # no fault of another package may take away pimm's own models
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            _logger.warning("the models of %s are left out: %.300s", module, reason)


def _of_entry_points():
    found = metadata.entry_points()
    # Python 3.9 returns a dict of groups.
    points = found.select(group=GROUP) if hasattr(found, "select") else found.get(GROUP, ())
    return [point.value for point in points]
