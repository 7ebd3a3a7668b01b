"""Train a supernet by single paths: ``python tools/spos_supernet.py --cfg FILE [KEY=VALUE ...]``.

Runs from a clone that is not installed, and under ``python -m paddle.distributed.launch``.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cream.cli import spos_supernet

if __name__ == "__main__":
    sys.exit(spos_supernet())
