"""What every test runs under."""

import os

from pimm.ops import reuse_freed_memory

os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start; Paddle warns of any other value

reuse_freed_memory()
