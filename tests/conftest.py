"""Settings and fixtures of all tests."""

import os
import signal
import types

import pytest

from pimm.ops import reuse_freed_memory

# isort: split
import paddle

os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start; Paddle warns of any other value

reuse_freed_memory()


@pytest.fixture(autouse=True)
def sigterm():
    """Restore the handler of SIGTERM after a test: jobs that the signal has ended ignore it from then on."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def gpu(monkeypatch):
    """Let Paddle's scaler believe that it trains in float16 on a GPU; its arithmetic runs on a CPU too."""
    place = types.SimpleNamespace(is_gpu_place=lambda: True)
    tracer = types.SimpleNamespace(_expected_place=place)
    monkeypatch.setattr("paddle.amp.grad_scaler._dygraph_tracer", lambda: tracer)
    monkeypatch.setattr("paddle.amp.grad_scaler.amp_global_state", lambda: types.SimpleNamespace(amp_dtype="float16"))
    monkeypatch.setattr(paddle, "get_device", lambda: "gpu:0")
