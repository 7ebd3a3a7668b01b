"""Measure time and memory of the conversion of a training checkpoint of Cream-604 with the optimizer's state.

OMP_NUM_THREADS=1 python benchmarks/convert_checkpoint.py
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from cream.convert.convert import from_torch  # noqa: E402
from cream.mobile.nets import ChildNet  # noqa: E402
from cream.mobile.published import CHILD_NETS  # noqa: E402
from pimm.models.torch_names import torch_names  # noqa: E402


def checkpoint(selection):
    """Return what the official training writes: weights, their averages, and RMSprop's two averages of each weight."""
    rng = np.random.default_rng(0)
    names = torch_names(ChildNet(CHILD_NETS[selection].arch))
    plain, averaged, *slots = (
        {name: np.asarray(rng.standard_normal(shape), np.float32) for name, shape in names} for _ in range(4)
    )
    trained = [name for name, _ in names if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))]
    entries = [{"step": 1, "square_avg": slots[0][name], "momentum_buffer": slots[1][name]} for name in trained]
    optimizer = {
        "state": dict(enumerate(entries)),
        "param_groups": [{"lr": 0.01, "alpha": 0.9, "params": list(range(len(entries)))}],
    }
    return {"epoch": 499, "version": 2, "state_dict": plain, "state_dict_ema": averaged, "optimizer": optimizer}


def memory(name):
    """Return the resident memory of this process in bytes: ``VmRSS`` is that of now, ``VmHWM`` the most so far."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return 1024 * int(line.split()[1])


def convert(path, repeats):
    """Print as JSON the seconds and the growth of resident memory in bytes, which includes mapped pages of the file."""
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of the start-up
    before = memory("VmRSS")
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        from_torch(path, path.with_suffix(".pdparams"))
        times.append(time.perf_counter() - start)
    print(json.dumps({"first": times[0], "median": statistics.median(times), "grown": memory("VmHWM") - before}))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--selection", type=int, default=604, choices=CHILD_NETS, help="which of the published nets")
    parser.add_argument("--repeats", type=int, default=3, help="conversions of each file")
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)  # how this script starts itself
    args = parser.parse_args()
    if args.file:
        convert(args.file, args.repeats)
        return
    from torch_bytes import FORMATS

    with tempfile.TemporaryDirectory() as folder:
        for form, save in FORMATS.items():
            path = Path(folder) / f"{form}.pth"
            save(path, checkpoint(args.selection))
            command = [sys.executable, __file__, "--file", path, "--repeats", str(args.repeats)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found = json.loads(done.stdout.splitlines()[-1])
            size = path.stat().st_size
            print(
                f"{form:7} {size / 1e6:4.0f} MB: first {found['first']:.2f} s, median {found['median']:.2f} s; "
                f"memory grows by {found['grown'] / 1e6:.0f} MB, {found['grown'] / size:.2f} times the file"
            )


if __name__ == "__main__":
    main()
