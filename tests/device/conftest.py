"""Builds the test device for the tests of this folder."""

import os

import pytest
from device_library import build, why_not


@pytest.fixture(scope="session")
def library():
    """Return the library of the test device, or skip the test where the library cannot be built."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    return build()


@pytest.fixture(scope="session")
def in_full():
    """Skip what takes long, unless `make test-device` asks for it."""
    if os.environ.get("PIMM_TEST_DEVICE") != "1":
        pytest.skip("`make test-device` runs it")
