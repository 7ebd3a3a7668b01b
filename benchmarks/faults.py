"""Kill trainings at random moments, resume them, and compare their last states, by hash, with an uninterrupted run's.

    python benchmarks/faults.py [--kills 30] [--seed 0] [--jobs JOB ...] [--output FOLDER]

Searches of several kinds and a retraining on the embedded images, alone and as two processes under
paddle.distributed.launch, are killed by SIGKILL and SIGTERM in turns, at any moment from the start to the end, in
the middle of batches and of checkpoints too. Exit code 1 if any state differs.
"""

import argparse
import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pimm.utils import latest_checkpoint, read_checkpoint

ROOT = Path(__file__).resolve().parents[1]
COMMON = ["EPOCHS=3", "WORKERS=1", "LOG_INTERVAL=5", "RECOVERY_INTERVAL=2", "DATA_DIR=data/fashion_mnist"]
SEARCH = [
    *("SUPERNET.META_STA_EPOCH=0", "SUPERNET.UPDATE_ITER=4", "SUPERNET.POOL_SIZE=3", "SUPERNET.PROBES=1"),
    *("SUPERNET.SELECT_BATCHES=2", "DATASET.BATCH_SIZE=40"),
]
FAIR = [
    *("SUPERNET.METHOD=multi_path", "SUPERNET.PATHS=3", "SUPERNET.DRAW=fair", "SUPERNET.UPDATES=each"),
    *("SUPERNET.ZERO_RESIDUAL=True", "SUPERNET.ESTIMATE=True", "SUPERNET.FIT_WINDOW=20", "SUPERNET.AVERAGE=0.9"),
    *("SUPERNET.HOW_TO_PROB=even", "SUPERNET.FLOPS_MINIMUM=0", "SUPERNET.FLOPS_MAXIMUM=1000"),
    "SUPERNET.SELECT_RANDOM=2",
]
ESTIMATED = [
    *("SUPERNET.BOARD_SCORE=estimate", "SUPERNET.FIT_WINDOW=20", "SUPERNET.TEACHING=added", "SUPERNET.ACCUMULATE=2"),
    *("SUPERNET.TEACH_SHARE=0.5", "SUPERNET.TEACH_ONLY_BETTER=True"),
]
HELD_OUT = ["SUPERNET.BOARD_SCORE=held_out", "SUPERNET.SELECT_ON=held_out"]
RETRAIN = [
    *("NET.INPUT_ARCH=[[0],[0],[0],[0],[0],[0],[0]]", "WARMUP_EPOCHS=1", "DATASET.BATCH_SIZE=40"),
    "DATASET.IMAGE_SIZE=32",
]
JOBS = {  # script, settings file, settings
    "search": ("tools/train.py", "configs/demo/search.yaml", SEARCH),
    "search by fair paths": ("tools/train.py", "configs/demo/search.yaml", SEARCH + FAIR),
    "search with an estimated board": ("tools/train.py", "configs/demo/search.yaml", SEARCH + ESTIMATED),
    "search with a held-out board": ("tools/train.py", "configs/demo/search.yaml", SEARCH + HELD_OUT),
    "retraining": ("tools/retrain.py", "configs/demo/retrain.yaml", RETRAIN),
}
SIGNALS = (signal.SIGKILL, signal.SIGTERM)
LATEST = 4.0  # seconds after its first sign of life within which a training is killed


def start(job, processes, folder):
    """The training as a process group of its own, and the run's folder."""
    script, cfg, settings = JOBS[job]
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "paddle.distributed.launch", f"--nproc_per_node={processes}", "--log_dir", f"{folder}/logs"]
    command += [script, "--cfg", cfg, *COMMON, *settings, f"SAVE_PATH={folder}", "MODEL=run"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with open(f"{folder}/terminal.txt", "a") as log:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True)


def state_hash(folder):
    """SHA-256 of all that a run's last checkpoint holds."""
    digest = hashlib.sha256()

    def add(value):
        if isinstance(value, dict):
            for name in sorted(value):
                digest.update(name.encode())
                add(value[name])
        elif isinstance(value, (list, tuple)):
            for item in value:
                add(item)
        elif isinstance(value, np.ndarray):
            digest.update(np.ascontiguousarray(value).tobytes())
        else:
            digest.update(repr(value).encode())

    add(read_checkpoint(latest_checkpoint(Path(folder) / "run")).files)
    return digest.hexdigest()


def size_of(path):
    return path.stat().st_size if path.exists() else 0


def wait_for_life(process, folder):
    """Returns when the run's log grows, or the process has ended."""
    log = Path(folder) / "run" / "log.txt"
    before = size_of(log)
    while process.poll() is None and size_of(log) == before:
        time.sleep(0.05)


def run_whole(job, processes, folder):
    process = start(job, processes, folder)
    if process.wait():
        raise SystemExit(f"{job} failed by itself, see {folder}/terminal.txt")
    return state_hash(folder)


def end(process, sent):
    """Sends a signal to the training, SIGKILL also to the launcher's processes, which are in groups of their own."""
    family = [process.pid]
    if sent == signal.SIGKILL:
        listed = subprocess.run(["ps", "-e", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
        parents = dict(map(int, line.split()) for line in listed.splitlines())
        for pid in family:  # which grows
            family += [child for child, parent in parents.items() if parent == pid]
    os.killpg(process.pid, sent)
    for pid in family[1:]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, sent)
    process.wait()


def run_with_kills(job, processes, folder, kills, rng):
    """Kills the run so many times, at most, lets it end, and returns how often and its hash."""
    done = 0
    for kill in range(kills):
        process = start(job, processes, folder)
        wait_for_life(process, folder)
        time.sleep(rng.uniform(0, LATEST))
        if process.poll() is not None:
            break
        end(process, SIGNALS[kill % len(SIGNALS)])
        done += 1
    return done, run_whole(job, processes, folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS), metavar="JOB", help=", ".join(JOBS))
    parser.add_argument("--output", help="keeps the runs' folders (default: a temporary one)")
    args = parser.parse_args()
    base = Path(args.output or tempfile.mkdtemp(prefix="faults-"))
    rng = np.random.default_rng(args.seed)
    scenarios = [(job, processes) for processes in (1, 2) for job in args.jobs]
    differing = 0
    for number, (job, processes) in enumerate(scenarios):
        wanted = args.kills // len(scenarios) + (number < args.kills % len(scenarios))
        whole = base / f"{job}-{processes}-whole"
        whole.mkdir(parents=True)
        expected = run_whole(job, processes, whole)
        attempt = 0
        while wanted > 0:
            folder = base / f"{job}-{processes}-killed-{attempt}"
            folder.mkdir()
            done, found = run_with_kills(job, processes, folder, wanted, rng)
            wanted, attempt, differing = wanted - done, attempt + 1, differing + (found != expected)
            verdict = "the same state" if found == expected else "ANOTHER STATE"
            print(f"{job}, {processes} process(es), killed {done} times: {verdict} ({found[:12]})", flush=True)
    if not args.output:
        shutil.rmtree(base)
    return int(differing > 0)


if __name__ == "__main__":
    sys.exit(main())
