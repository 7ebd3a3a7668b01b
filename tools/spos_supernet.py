"""Train a supernet by single paths: ``python tools/spos_supernet.py --cfg FILE [KEY=VALUE ...]``.

Runs from a clone that is not installed, and under ``python -m paddle.distributed.launch``.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent  # must not be searched for modules: its select.py would hide Python's
sys.path = [str(HERE.parent), *(path for path in sys.path if Path(path).resolve() != HERE)]

from cream.cli import spos_supernet

if __name__ == "__main__":
    sys.exit(spos_supernet())
