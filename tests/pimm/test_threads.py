"""The threads of operators on a CPU, which Paddle Inference sets to one after each of its runs."""

import ctypes
from pathlib import Path

import paddle
import pytest
from paddle import nn

from pimm import threads
from pimm.engine.program import PaddleNet, save_program

OPENMP = Path(paddle.__file__).parent / "libs" / "libiomp5.so"  # the runtime of Paddle's operators and of pimm's


@pytest.fixture
def threads_now(monkeypatch):
    """Return what returns the threads that the next operator takes."""
    if not OPENMP.exists():
        pytest.skip("Paddle has another OpenMP here")
    before = ctypes.CDLL(str(OPENMP)).omp_get_max_threads()
    monkeypatch.setattr(threads, "_in_use", None)
    yield ctypes.CDLL(str(OPENMP)).omp_get_max_threads
    threads.use_threads(before)


@pytest.mark.parametrize("asked, used, expected", [(None, 3, 3), ("2", None, 2), ("2", 3, 3), (None, None, 1)])
def test_operators_keep_their_threads_after_paddle_inference(asked, used, expected, threads_now, monkeypatch, tmp_path):
    monkeypatch.setattr(threads, "THREADS", asked)
    save_program(nn.Linear(4, 2), [None, 4], tmp_path)
    if used:
        threads.use_threads(used)
    program, images = PaddleNet(tmp_path), paddle.ones([1, 4])
    assert threads_now() == expected
    program.logits(images)
    assert threads_now() == expected
    program(images.numpy())
    assert threads_now() == expected
