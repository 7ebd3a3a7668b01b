"""Two processes under Paddle's launcher, on CPUs over gloo."""

import json
import os
import subprocess
import sys

import pytest
from paths import ROOT

SEARCH = [
    *("EPOCHS=2", "WORKERS=0", "DATASET.BATCH_SIZE=20", "SUPERNET.META_STA_EPOCH=0", "SUPERNET.UPDATE_ITER=3"),
    *("SUPERNET.POOL_SIZE=3", "SUPERNET.PROBES=1", "SUPERNET.SELECT_BATCHES=2"),
]


def launch(folder, script, *args, processes=2):
    command = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", str(processes)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, "--log_dir", str(folder / "logs"), str(script), *args],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_weights_board_and_matching_network_are_the_same_at_every_step(tmp_path):
    outcome = launch(tmp_path, "tests/two_ranks.py", str(tmp_path), *SEARCH)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1))
    assert len(first["trail"]) == 2 * 25
    states, images = zip(*first["trail"])
    other_states, other_images = zip(*second["trail"])
    assert states == other_states
    assert len(set(states)) == len(states)  # every step moves something
    assert not set(images) & set(other_images)
    assert (first["arch"], first["prec1"]) == (second["arch"], second["prec1"])


LATE = """
import time
import numpy as np, paddle
from pimm.utils import all_reduce_gradients, all_reduce_sum, barrier, init_distributed, rank
from pimm.engine import evaluate

init_distributed()
barrier()
batch = paddle.eye(4)[rank() : rank() + 1] * 9, paddle.to_tensor([rank()])
found = evaluate(lambda x: x, (time.sleep(35 * rank()) or batch for _ in range(1)))
print(found["top1"], all_reduce_sum(paddle.ones([1])).item())
weight = paddle.create_parameter([1], "float32")
(weight * (1 + 2 * rank())).sum().backward()
time.sleep(35 * (1 - rank()))
all_reduce_gradients([weight])
print("gradient", weight.grad.item())
"""


def test_a_process_may_be_later_than_gloo_has_patience_for(tmp_path):
    script = tmp_path / "late.py"
    script.write_text(LATE)
    outcome = launch(tmp_path, script)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    log = (tmp_path / "logs" / "workerlog.0").read_text()
    assert "100.0 2.0" in log and "gradient 2.0" in log


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A retrained net, and the command line that tests it."""
    from cream import cli

    folder = tmp_path_factory.mktemp("net")
    data = ["DATA_DIR=data/fashion_mnist", "DATASET.IMAGE_SIZE=32", f"SAVE_PATH={folder}", "MODEL=net", "WORKERS=0"]
    net = ["NET.INPUT_ARCH=[[0],[0],[0],[0],[0],[0],[0]]"]
    args = ["--cfg", "configs/demo/retrain.yaml", *data, *net]
    os.chdir(ROOT)
    assert cli.retrain([*args, "EPOCHS=1", "WARMUP_EPOCHS=0"]) == 0
    return [*args, f"RESUME_PATH={folder / 'net' / 'checkpoint-0'}"]


def test_the_result_of_a_test_does_not_depend_on_the_number_of_processes(checkpoint, tmp_path):
    results = []
    for processes in (1, 2):
        outcome = launch(tmp_path, "tools/test.py", *checkpoint, "DATASET.BATCH_SIZE=7", processes=processes)
        assert outcome.returncode == 0, outcome.stdout + outcome.stderr
        results.append([line for line in outcome.stdout.splitlines() if "prec1" in line])
    assert len(results[0]) == 1
    assert results[0] == results[1]


def test_a_mistake_ends_all_ranks_with_one_line(tmp_path):
    data = ["DATA_DIR=data/fashion_mnist", f"SAVE_PATH={tmp_path}"]
    outcome = launch(tmp_path, "tools/train.py", "--cfg", "configs/demo/search.yaml", *data, "LR=1e9", *SEARCH)
    assert outcome.returncode != 0
    log = (tmp_path / "logs" / "workerlog.0").read_text()
    assert [line for line in log.splitlines() if line.startswith("error: the loss became")]
    assert "Traceback" not in log
