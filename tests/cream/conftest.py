"""The images and a search of `tiny`, for the tests of cream."""

import pytest
import tiny


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Return a folder of images and a space, those of `tiny.write_images`."""
    folder = tmp_path_factory.mktemp("data")
    tiny.write_images(folder)
    return folder


@pytest.fixture(scope="module")
def searched(data, tmp_path_factory):
    """Return the folder of a finished search of `tiny`."""
    return tiny.run_search(data, tmp_path_factory.mktemp("search"))


@pytest.fixture
def without_report():
    """Draw no report in this test."""
    with tiny.without_report():
        yield
