"""What other packages add: modules that register models, and a function that loads a trained net by its path.

A module is imported when a name is not known yet or models are listed. The function is a reference ``MODULE:NAME``; it
takes a path, and returns the net and how it sees images, as ``cream.load`` does.
"""

from __future__ import annotations

import importlib
import logging
import sys
from importlib import metadata

GROUP = "pimm.models"  # of entry points, which installed packages declare
LOADERS = "pimm.loaders"
_modules: dict = {}  # name: whether it has been imported, or tried in vain
_loaders: list = []
_logger = logging.getLogger(__name__)


def add_models_of(module):
    """Note that importing the module of this name registers models."""
    _modules.setdefault(module, False)


def import_models():
    """Import the modules noted so far and those of entry points, each once; one that fails is named in a warning."""
    for module in [*_modules, *_of_entry_points(GROUP)]:
        if _modules.get(module) or module in sys.modules:
            continue
        _modules[module] = True
        try:
            importlib.import_module(module)
        except Exception as error:  # no fault of another package may take away pimm's own models
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            _logger.warning("the models of %s are left out: %.300s", module, reason)


def add_net_loader(reference):
    """Note that the function ``MODULE:NAME`` loads trained nets by their paths."""
    _loaders.append(reference)


def net_loader():
    """Return the function of another package that loads a trained net by its path, or None if there is none."""
    references = [*_loaders, *_of_entry_points(LOADERS)]
    return metadata.EntryPoint("", references[0], LOADERS).load() if references else None


def _of_entry_points(group):
    found = metadata.entry_points()
    # Python 3.9 returns a dict of groups.
    points = found.select(group=group) if hasattr(found, "select") else found.get(group, ())
    return [point.value for point in points]
