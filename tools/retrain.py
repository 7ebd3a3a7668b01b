"""Retrain the network that a search found, or a published one: ``python tools/retrain.py --cfg FILE [KEY=VALUE ...]``.

Runs from a clone that is not installed, and under ``python -m paddle.distributed.launch``.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent  # must not be searched for modules: its select.py would hide Python's
sys.path = [str(HERE.parent), *(path for path in sys.path if Path(path).resolve() != HERE)]

from cream.cli import retrain

if __name__ == "__main__":
    sys.exit(retrain())
