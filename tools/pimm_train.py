"""Train a model on images: ``python tools/pimm_train.py --data-dir DIR --model NAME ...``, with timm's options.

Runs from a clone that is not installed, and under ``python -m paddle.distributed.launch``.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent  # must not be searched for modules: its select.py would hide Python's
sys.path = [str(HERE.parent), *(path for path in sys.path if Path(path).resolve() != HERE)]

import cream  # noqa: F401  (its nets are models of pimm)
from pimm.commands.lines import train

if __name__ == "__main__":
    sys.exit(train())
