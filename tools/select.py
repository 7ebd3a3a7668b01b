"""Choose again among the paths of a finished search: ``python tools/select.py SEARCH [KEY=VALUE ...]``.

Runs from a clone that is not installed, and under ``python -m paddle.distributed.launch``.
"""

import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path

TOOLS = Path(__file__).resolve().parent

if __name__ == "__main__":
    sys.path.insert(0, str(TOOLS.parent))
    from cream.cli import select

    sys.exit(select())

# Scripts in this folder find this file when the standard library's `select` is meant, as by subprocess and asyncio:
# give way to it.
spec = PathFinder.find_spec(__name__, [path for path in sys.path if Path(path).resolve() != TOOLS])
sys.modules[__name__] = module_from_spec(spec)
spec.loader.exec_module(sys.modules[__name__])
