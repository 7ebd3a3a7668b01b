"""Write the report of a finished search again: ``python tools/report.py SAVE_PATH/MODEL``.

Leaves ``report.html``, one file that needs no other, and its figures as PNG in ``report/``.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent  # must not be searched for modules: its select.py would hide Python's
sys.path = [str(HERE.parent), *(path for path in sys.path if Path(path).resolve() != HERE)]

from cream.cli import report

if __name__ == "__main__":
    sys.exit(report())
