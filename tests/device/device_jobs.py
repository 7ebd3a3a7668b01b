"""Run by tests in a process of its own: the jobs on a device in short form; writes their numbers, as JSON.

Usage: device_jobs.py DEVICE FOLDER [KEY=VALUE ...]
"""

import ctypes
import hashlib
import json
import os
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from tiny import RECIPE, run_search, write_images

from cream.config.load import load_config
from cream.jobs import retrain, test
from cream.train.steps import CreamStep, SinglePathStep
from pimm import device
from pimm.commands.train import main as train
from pimm.engine import ClassifyStep
from pimm.utils import barrier, latest_checkpoint, rank, read_checkpoint

# In the order of the counters of tests/device/runtime.h.
COUNTERS = (
    *("copies_in", "copies_in_async", "copies_out", "copies_out_async", "copies_inside", "waits"),
    *("kernels", "half_kernels", "behind", "collectives"),
)
CREAM = (
    "EPOCHS=2",
    "SUPERNET.METHOD=cream",
    "SUPERNET.META_STA_EPOCH=0",
    "SUPERNET.UPDATE_ITER=2",
    "SUPERNET.POOL_SIZE=2",
    "SUPERNET.SLICE=2",
)


def counts():
    """Return the counters of the test device, all zero without one."""
    if "TEST_DEVICE_LIBRARY" not in os.environ:
        return dict.fromkeys(COUNTERS, 0)
    count = ctypes.CDLL(os.environ["TEST_DEVICE_LIBRARY"]).test_device_count
    count.restype = ctypes.c_int64
    return {name: count(index) for index, name in enumerate(COUNTERS)}


def leave():
    """End the process at once: how Paddle takes a plug-in down while streams run is no matter of these jobs."""
    device.synchronize()
    sys.stdout.flush()
    os._exit(0)


@contextmanager
def recorded(*kinds):
    """Give a list to which each training step of these classes appends what it made the device do."""
    steps, plain = [], {kind: kind.__call__ for kind in kinds}

    def call(self, images, labels, epoch):
        before = counts()
        metrics = plain[type(self)](self, images, labels, epoch)
        steps.append({name: count - before[name] for name, count in counts().items()})
        return metrics

    for kind in kinds:
        kind.__call__ = call
    yield steps
    for kind in kinds:
        kind.__call__ = plain[kind]


def saved(folder):
    """Return the sums of absolute values of what the furthest checkpoint of a run holds, by name of the file."""
    files = read_checkpoint(latest_checkpoint(folder)).files
    return {name: total(content) for name, content in files.items()}


def bits(folder):
    """Return a digest of all that the furthest checkpoint of a run holds."""
    return hashlib.sha256(repr(plain(read_checkpoint(latest_checkpoint(folder)).files)).encode()).hexdigest()


def plain(content):
    if isinstance(content, dict):
        return {name: plain(value) for name, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [plain(value) for value in content]
    return (content.dtype.str, content.tobytes()) if isinstance(content, np.ndarray) else content


def total(content):
    if isinstance(content, dict):
        return sum(total(value) for value in content.values())
    if isinstance(content, (list, tuple)):
        return sum(total(value) for value in content)
    return float(np.abs(np.asarray(content, np.float64)).sum()) if isinstance(content, np.ndarray) else 0.0


def searches(data, folder, options, numbers):
    for name, more in {"single path": (), "cream": CREAM}.items():
        path = folder / name.replace(" ", "_")
        with recorded(SinglePathStep, CreamStep) as numbers["steps"][name]:
            run_search(data, path, *options, *more)
        barrier()  # the first process writes the files
        numbers[f"{name} architecture"] = json.loads((path / "search" / "architecture.json").read_text())["arch"]
        numbers[f"{name} state"] = saved(path / "search")


def retraining(data, folder, options, numbers):
    recipe = folder / "single_path" / "search" / "retrain.yaml"
    places = (f"DATA_DIR={data}", f"SAVE_PATH={folder}", "MODEL=retrain", "NET.EMA.USE=True", "NET.EMA.DECAY=0.5")
    cfg = load_config(recipe, [*RECIPE, *places, *options])
    with recorded(ClassifyStep) as numbers["steps"]["classify"]:
        retrain(cfg)
    barrier()
    numbers["retrain state"] = saved(folder / "retrain")
    weights = f"RESUME_PATH={latest_checkpoint(folder / 'retrain')}"
    numbers["test"] = test(load_config(recipe, [*RECIPE, *places, *options, weights, "MODEL=test"]))


def resuming(data, folder, name, numbers):
    """Go on from the middle of the retraining, on the device and on the CPU."""
    whole = folder / "retrain"
    middle = min(whole.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    numbers["retrain bits"] = bits(whole)
    for place in (name, "cpu"):
        path = folder / f"resumed_{place}"
        options = (f"DATA_DIR={data}", f"SAVE_PATH={path}", f"RESUME_PATH={middle}", f"DEVICE={place}")
        retrain(load_config(whole / "config.yaml", options))
        numbers[f"resumed on {'the CPU' if place == 'cpu' else 'the device'}"] = [
            bits(path / "retrain"),
            saved(path / "retrain"),
        ]


def scripts(data, folder, name, numbers):
    places = ["--data-dir", str(data), "--output", str(folder), "--experiment", "script", "--device", name]
    net = ["--model", "mobilenetv3_small_075", "--num-classes", "3", "--img-size", "32", "-b", "6", "-j", "0"]
    average = [
        "--epochs",
        "1",
        "--model-ema",
        "--lr",
        "0.01",
        "--opt",
        "rmsproptf",
        "--mixup",
        "0.2",
        "--clip-grad",
        "1",
    ]
    train([*places, *net, *average])
    numbers["script state"] = saved(folder / "script")


def main(name, folder, *options):
    folder = Path(folder)
    data = folder / "data"
    if rank() == 0 and not data.exists():
        write_images(data)
    numbers = {"steps": {}, "device": str(device.choose(name, "DEVICE"))}
    options = (f"DEVICE={name}", *options)
    searches(data, folder, options, numbers)
    retraining(data, folder, options, numbers)
    if not options[1:]:
        scripts(data, folder, name, numbers)
        resuming(data, folder, name, numbers)
    numbers["counts"] = counts()
    (folder / f"numbers{rank()}.json").write_text(json.dumps(numbers))


if __name__ == "__main__":
    main(*sys.argv[1:])
    leave()
