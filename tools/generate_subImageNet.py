"""Make subImageNet, a small image set for rank correlation: ``python tools/generate_subImageNet.py [--help]``.

Runs from a clone that is not installed.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cream.cli import generate_sub_imagenet

if __name__ == "__main__":
    sys.exit(generate_sub_imagenet())
