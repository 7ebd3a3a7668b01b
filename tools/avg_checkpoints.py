"""Average the weights of checkpoints: ``python tools/avg_checkpoints.py --input DIR --output FILE.pdparams``."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent  # must not be searched for modules: its select.py would hide Python's
sys.path = [str(HERE.parent), *(path for path in sys.path if Path(path).resolve() != HERE)]

from pimm.commands.lines import avg_checkpoints

if __name__ == "__main__":
    sys.exit(avg_checkpoints())
