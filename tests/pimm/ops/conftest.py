"""The backends under which the tests of the operators run."""

import pytest

from pimm.errors import ConfigError
from pimm.ops import build, cpu_backend
from pimm.ops.backend import INSTRUCTION_SETS


@pytest.fixture(autouse=True)
def default_backend(monkeypatch):
    monkeypatch.delenv("PIMM_CPU_OPS", raising=False)


@pytest.fixture(params=INSTRUCTION_SETS)
def instruction_set(request, monkeypatch):
    monkeypatch.setenv("PIMM_CPU_OPS", request.param)
    if not build.load_library().pimm_cpu_ops_support(request.param.encode()):
        with pytest.raises(ConfigError, match="this machine has only"):
            cpu_backend()
        pytest.skip(f"no {request.param} here")
    assert cpu_backend() == request.param
