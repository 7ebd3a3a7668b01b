"""Search a trained supernet by evolution: ``python tools/spos_search.py SEARCH [KEY=VALUE ...]``.

Runs from a clone that is not installed, and under ``python -m paddle.distributed.launch``, whose processes share
the paths.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cream.cli import spos_search

if __name__ == "__main__":
    sys.exit(spos_search())
