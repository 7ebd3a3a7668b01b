"""Data of every kind that files of arrays hold, and how to compare what was read with what was written."""

from collections import OrderedDict

import numpy as np

TREE = {
    "float": np.arange(6, dtype=np.float32).reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "sliced": np.arange(10)[::3],
    "big endian": np.arange(3, dtype=">i4"),
    "empty": np.zeros((0, 3)),
    "number": np.array(7, np.uint8),
    "scalar": np.float32(3.5),
    "text": np.array(["ab", "c"]),
    "bool": np.array([True, False]),
    "complex": np.array([1 + 2j]),
    "nested": {"list": [1, 2.5, None, True, "é", b"\x00", (2, "x", 3)], 5: {"rng": 2**100, "inf": float("inf")}},
    "set": {1, 2},
    "ordered": OrderedDict(b=1, a=[np.ones(2)]),
}


def assert_same(found, expected):
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        for key in expected:
            assert_same(found[key], expected[key])
    elif isinstance(expected, (list, tuple)):
        assert type(found) is type(expected) and len(found) == len(expected)
        for item, other in zip(found, expected):
            assert_same(item, other)
    elif isinstance(expected, (np.ndarray, np.generic)):
        assert isinstance(found, np.ndarray) and found.dtype == expected.dtype.newbyteorder("=")
        np.testing.assert_array_equal(found, expected)
    else:
        assert found == expected and type(found) is type(expected)
