"""SIGTERM to one process of several: all of them learn of it together."""

import os
import signal
import subprocess
import sys

import pytest
from paths import ROOT

from pimm import preemption
from pimm.utils import asked_to_end

SCRIPT = """
import os, signal, sys
import paddle
from pimm import preemption
from pimm.utils import asked_to_end, init_distributed, rank, single_process

paddle.set_device("cpu")
init_distributed()
with preemption.deferred():
    answers = [asked_to_end()]
    if rank() == 1:
        os.kill(os.getpid(), signal.SIGTERM)
    answers += [asked_to_end(), asked_to_end(waiting=False)]
    with single_process():
        answers.append(asked_to_end())
print("answers", *answers, flush=True)
"""


def test_one_process_answers_for_itself():
    with preemption.deferred():
        assert (asked_to_end(), asked_to_end(waiting=False)) == (False, False)
        os.kill(os.getpid(), signal.SIGTERM)
        assert (asked_to_end(), asked_to_end(waiting=False)) == (True, True)
        with pytest.raises(preemption.Preempted), preemption.acting():
            pass


def test_all_processes_get_the_same_answer(tmp_path):
    script = tmp_path / "ask.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", "2", "--log_dir", "log", script]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    logs = [(tmp_path / "log" / f"workerlog.{rank}").read_text() for rank in (0, 1)]
    assert done.returncode == 0, logs
    assert "answers False True True False" in logs[0] and "answers False True True True" in logs[1]


@pytest.mark.parametrize("before", ["", "lose()"])
def test_a_job_without_training_ends_in_one_line(before):
    """Though Paddle's import puts a handler before ours, and though an import may lose the exception."""
    code = f"""
import os, signal, sys, time
from pimm import cli

def lose():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except BaseException:
        pass

def job():
    import paddle
    {before or "pass"}
    cli.use_cores()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(20)

sys.exit(cli.run(job))
"""
    code = code.replace("import paddle\n    lose()", "lose()")
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (143, "ended by SIGTERM\n")
