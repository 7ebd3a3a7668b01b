"""Tell the likeliest classes of images: ``python tools/predict.py SOURCE IMAGES ...``.

Runs from a clone that is not installed.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent  # must not be searched for modules: its select.py would hide Python's
sys.path = [str(HERE.parent), *(path for path in sys.path if Path(path).resolve() != HERE)]

from cream.deploy.command import predict

if __name__ == "__main__":
    sys.exit(predict())
