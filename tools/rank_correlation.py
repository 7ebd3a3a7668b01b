"""Does a supernet rank nets as training from scratch does?

``python tools/rank_correlation.py SEARCH [SEARCH ...] --cfg RECIPE --output FOLDER [--paths N] [KEY=VALUE ...]``

Runs from a clone that is not installed, and under ``python -m paddle.distributed.launch``, whose processes share the
paths.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent  # must not be searched for modules: its select.py would hide Python's
sys.path = [str(HERE.parent), *(path for path in sys.path if Path(path).resolve() != HERE)]

from cream.cli import rank_correlation

if __name__ == "__main__":
    sys.exit(rank_correlation())
