"""Settings and fixtures of all tests."""

import logging
import os
import random
import resource
import signal
import types
from pathlib import Path

import numpy as np
import pytest

# Of this process and of those that tests start, whose results are compared: another number rounds in another order.
os.environ["OMP_NUM_THREADS"] = "1"

# isort: split
from pimm.ops import reuse_freed_memory

# isort: split
import paddle

reuse_freed_memory()


@pytest.fixture(autouse=True)
def seed():
    """Draw the same random numbers in each run of a test, alone or among others."""
    random.seed(0)
    np.random.seed(0)
    paddle.seed(0)


@pytest.fixture(autouse=True)
def sigterm():
    """Restore the handler of SIGTERM after a test: jobs that the signal has ended ignore it from then on."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(autouse=True)
def console():
    """Remove the console from the log after a test: the stream that a command has logged to is closed by then."""
    before = list(logging.root.handlers)
    yield
    for handler in list(logging.root.handlers):
        if type(handler) is logging.StreamHandler and handler not in before:
            logging.root.removeHandler(handler)


@pytest.fixture
def gpu(monkeypatch):
    """Let Paddle's scaler believe that it trains in float16 on a GPU; its arithmetic runs on a CPU too."""
    place = types.SimpleNamespace(is_gpu_place=lambda: True)
    tracer = types.SimpleNamespace(_expected_place=place)
    monkeypatch.setattr("paddle.amp.grad_scaler._dygraph_tracer", lambda: tracer)
    monkeypatch.setattr("paddle.amp.grad_scaler.amp_global_state", lambda: types.SimpleNamespace(amp_dtype="float16"))
    monkeypatch.setattr(paddle, "get_device", lambda: "gpu:0")


@pytest.fixture
def bounded_memory():
    """Fails what would take more than a gigabyte beyond what there is, where the system can tell how much that is."""
    if not Path("/proc/self/statm").exists():
        yield
        return
    limits = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, limits)
