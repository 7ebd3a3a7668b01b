"""Two processes under the launcher, each on a device of its own, which exchange by the collectives of the device."""

import json
import subprocess
import sys
import time

import pytest
from device_library import DEVICE, FOLDER, environment, run_jobs
from tiny import write_images

JOBS = ["searches", "retraining", "scripts", "LOG_INTERVAL=1"]
LAUNCH = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", "2", "--log_dir"]


@pytest.fixture(scope="module")
def ranks(in_full, library, tmp_path_factory):
    """Return the numbers of both processes of a launch, by device."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("cpu", DEVICE)}
    for folder in folders.values():
        write_images(folder / "data")
    return run_jobs(library, dict.fromkeys(folders, JOBS), folders, [*LAUNCH, "log"])


def test_two_processes_on_two_devices_exchange_by_the_collectives_of_the_device(ranks):
    assert [found["device"] for found in ranks[DEVICE]] == [f"{DEVICE}:0", f"{DEVICE}:1"]
    assert [found["device"] for found in ranks["cpu"]] == ["cpu", "cpu"]
    for found in ranks[DEVICE]:
        assert all(step["collectives"] > 0 for steps in found["steps"].values() for step in steps)


@pytest.mark.parametrize("name", ["single path state", "cream state", "retrain state", "script state", "test"])
def test_two_processes_train_what_two_processes_on_the_cpu_train(ranks, name):
    """The script normalises by the batches of both processes together."""
    first, second = ranks[DEVICE]
    assert first[name] == second[name] == pytest.approx(ranks["cpu"][0][name], rel=1e-5)


def test_two_processes_classify_as_two_processes_on_the_cpu_do(ranks):
    on_cpu, there = ranks["cpu"][0]["inference"], ranks[DEVICE][0]["inference"]
    assert [row["index"] for row in there] == [row["index"] for row in on_cpu]
    assert len(there) == 15


@pytest.fixture(scope="module")
def launch(in_full, library, tmp_path_factory):
    """Return what retrains on two devices, and returns exit code, logs, and a digest of the last checkpoint."""
    folder = tmp_path_factory.mktemp("launches")
    write_images(folder / "data")

    def run(name, batch=0, signal="SIGTERM"):
        logs = folder / f"log of {name} {batch}"
        script = [FOLDER / "device_ranks.py", DEVICE, folder / name, str(batch), signal]
        environ = environment(library)
        outcome = subprocess.run([*LAUNCH, logs, *script], env=environ, cwd=folder, capture_output=True, timeout=300)
        texts = [(logs / f"workerlog.{rank}").read_text() for rank in (0, 1)]
        digest = folder / name / "digest.json"
        return outcome.returncode, texts, json.loads(digest.read_text()) if digest.exists() else None

    return run


def test_sigterm_to_one_process_saves_all_and_a_resumed_training_is_the_same_to_the_bit(launch):
    whole, ended = launch("whole"), launch("resumed", batch=5)
    for log in ended[1]:
        assert "ended by SIGTERM and saved" in log and "at epoch 1, batch 2;" in log, log[-2000:]
    resumed = launch("resumed")
    assert "epoch 1, batch 2" in resumed[1][0]
    assert whole[0] == resumed[0] == 0
    assert whole[2] == resumed[2] is not None
    for log in (*whole[1], *resumed[1]):
        assert int(log.split()[-1]) > 100, log[-2000:]  # collectives of the device


def test_a_process_that_dies_is_named_and_ends_the_others(launch):
    started = time.monotonic()
    code, logs, _ = launch("killed", batch=5, signal="SIGKILL")
    assert code != 0
    assert "error: rank 1 (" in logs[0] and "ended before its work was done" in logs[0], logs[0][-2000:]
    assert time.monotonic() - started < 120
