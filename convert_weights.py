"""Convert weights that PyTorch saved: ``python convert_weights.py IN [OUT] [--model NAME|auto] [--verify IMAGE]``.

It runs from a clone that is not installed, and needs no PyTorch.
"""

import sys

from cream.convert import main

if __name__ == "__main__":
    sys.exit(main())
