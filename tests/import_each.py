"""Import each module of the packages alone, and print the error of each that fails as JSON.

This process imports Paddle and the other packages of others once, and forgets all modules of ours before it imports
the next one: a process for each would take minutes.
"""

import gc
import importlib
import json
import sys
import traceback
from importlib.machinery import FileFinder, SourceFileLoader

import paddle  # noqa: F401
from paths import ROOT

PACKAGES = ("pimm", "cream")
OURS = tuple(str(ROOT / package) for package in PACKAGES)


class Loader(SourceFileLoader):
    """Compile each file once."""

    compiled = {}

    def get_code(self, fullname):
        if fullname not in self.compiled:
            self.compiled[fullname] = super().get_code(fullname)
        return self.compiled[fullname]


def find_ours(path):
    """Give the folders of the packages a finder that uses `Loader`, and leave others to Python's own."""
    if path != str(ROOT) and not path.startswith(OURS):
        raise ImportError
    return FileFinder(path, (Loader, [".py"]))


def modules():
    """List the names of all modules by their files."""
    files = [path.relative_to(ROOT).with_suffix("") for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    return sorted(".".join(part for part in file.parts if part != "__init__") for file in files)


def import_alone(name):
    """Import a module as the first of ours, and return the last line of the error, or nothing."""
    for known in [known for known in sys.modules if known.split(".")[0] in PACKAGES]:
        del sys.modules[known]
    try:
        importlib.import_module(name)
    except Exception:
        return traceback.format_exc().splitlines()[-1]
    return ""


if __name__ == "__main__":
    gc.disable()  # it would look through Paddle's objects again and again
    sys.path.insert(0, str(ROOT))
    sys.path_hooks.insert(0, find_ours)
    sys.path_importer_cache.clear()
    errors = {name: import_alone(name) for name in modules()}
    print(json.dumps({"imported": len(errors), "errors": {name: said for name, said in errors.items() if said}}))
