"""Builds the test device for the tests of this folder."""

import pytest
from device_library import build, why_not


@pytest.fixture(scope="session")
def library():
    """Return the library of the test device, or skip the test where the library cannot be built."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    return build()
