"""Measure what each choice of a search takes on this machine: ``python tools/latency.py --cfg FILE --output FILE``.

Runs from a clone that is not installed.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cream.cli import latency

if __name__ == "__main__":
    sys.exit(latency())
