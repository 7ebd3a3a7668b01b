"""Hold bfloat16 values, a type that numpy does not have, as arrays of their bits."""

import numpy as np

# The mark says that the bits are PyTorch's bfloat16, through reading and writing. Paddle's files hold the same bits,
# without a mark.
BFLOAT16 = np.dtype(np.uint16, metadata={"torch": "bfloat16"})


def is_bfloat16(array):
    """Tell whether an array holds the bits of bfloat16 values."""
    return bool(array.dtype.metadata) and array.dtype.metadata.get("torch") == "bfloat16"


def widened(bits):
    """Return the values of bfloat16 bits as float32, which holds each of them exactly."""
    return (bits.astype(np.uint32) << 16).view(np.float32)
