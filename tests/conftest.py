"""What every test runs under."""

from pimm.ops import reuse_freed_memory

reuse_freed_memory()
