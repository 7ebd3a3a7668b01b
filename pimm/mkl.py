"""The code that MKL takes, the library with which Paddle multiplies matrices on x86 processors.

The MKL in Paddle's wheels is of 2019. On a processor of another vendor than Intel, this version takes code without AVX,
whatever the processor can do, unless the environment names the code: on an EPYC, AVX2 makes products of large matrices
3.2 times as fast. MKL reads the environment when it is first used, which is after Paddle's import.
"""

import contextlib
import os

_VARIABLE, _AVX2 = "MKL_DEBUG_CPU_TYPE", "5"  # later versions of MKL do not read it


def read_processor(path="/proc/cpuinfo"):
    """Return what Linux says of the first processor, ``{name: text}``; nothing elsewhere."""
    found = {}
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            if not line.strip():  # the next processor follows
                break
            name, _, text = line.partition(":")
            found[name.strip()] = text.strip()
    return found


def wants_avx2(processor):
    """Return whether MKL must be told that a processor, as of `read_processor`, has AVX2."""
    return processor.get("vendor_id", "GenuineIntel") != "GenuineIntel" and {"avx2", "fma"} <= set(
        processor.get("flags", "").split()
    )


if wants_avx2(read_processor()):
    os.environ.setdefault(_VARIABLE, _AVX2)
