"""Both formats of PyTorch's files."""

import pytest
from torch_bytes import FORMATS


@pytest.fixture(params=FORMATS)
def save(request):
    """Return the writer of a format, called with a path and the content."""
    return FORMATS[request.param]
