"""The net and the images of the scripts' tests, and a training on them."""

import pytest
import script_runs
from script_net import script_net

from pimm.models import registry


@pytest.fixture(scope="module")
def registered():
    """Register the net by its name, for the tests of one file alone: others count all models."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry._entrypoints, "script_net", script_net)
        yield


@pytest.fixture(scope="module")
def images(registered, tmp_path_factory):
    """Return a folder of images, those of `script_runs.write_images`."""
    folder = tmp_path_factory.mktemp("images")
    script_runs.write_images(folder)
    return str(folder)


@pytest.fixture(scope="module")
def trained(images, tmp_path_factory):
    """Return the folder of a training with averaged weights."""
    output = tmp_path_factory.mktemp("output")
    return script_runs.train(images, output, "net", "--model-ema", "--model-ema-decay", "0.5")
