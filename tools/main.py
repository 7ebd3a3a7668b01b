"""Run a job as the official code is run: ``python tools/main.py train FILE [KEY=VALUE ...]``.

The job runs in this process; ``python -m paddle.distributed.launch`` starts several. Runs from a clone that is not
installed.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent  # must not be searched for modules: its select.py would hide Python's
sys.path = [str(HERE.parent), *(path for path in sys.path if Path(path).resolve() != HERE)]

from cream.cli import main

if __name__ == "__main__":
    sys.exit(main())
