"""Search, train and test on the embedded images: ``python tools/demo.py [cream|spos]``.

Runs from a clone that is not installed.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent  # must not be searched for modules: its select.py would hide Python's
sys.path = [str(HERE.parent), *(path for path in sys.path if Path(path).resolve() != HERE)]

from cream.demo import main

if __name__ == "__main__":
    sys.exit(main())
