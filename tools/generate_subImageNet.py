"""Make subImageNet, a small image set for rank correlation: ``python tools/generate_subImageNet.py [--help]``.

Runs from a clone that is not installed.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent  # must not be searched for modules: its select.py would hide Python's
sys.path = [str(HERE.parent), *(path for path in sys.path if Path(path).resolve() != HERE)]

from cream.cli import generate_sub_imagenet

if __name__ == "__main__":
    sys.exit(generate_sub_imagenet())
