"""Measure time and memory to index class folders of 130,000 files, new and from the kept index.

    OMP_NUM_THREADS=1 python benchmarks/folder_index.py [--files 130000]

The measurements are at a quarter, a half and all of the files; a straight line through them predicts ImageNet's 1.28
million. The files are empty and their names in the kernel's cache, as after unpacking: on a cold disk or a network,
listing takes longer, and threads then wait together. The table also has the list of (path, class) tuples that timm
keeps, and the memory that a worker process comes to own of either by reading it once: counting references writes to
Python objects, and so copies their pages.
"""

import argparse
import logging
import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pimm.data import ImageDataset

CLASSES = 1000
IMAGENET = 1_281_167
FORK = multiprocessing.get_context("fork")


def grow_tree(root, files):
    """Make class folders with names of ImageNet's form and ``files`` files, all last changed long ago."""
    for number in range(CLASSES):
        folder = root / f"n{number + 1440764:08}"
        folder.mkdir(exist_ok=True)
        for image in range(len(os.listdir(folder)), files // CLASSES):
            (folder / f"{folder.name}_{image * 7919 % 40000}.JPEG").touch()
        os.utime(folder, (1e9, 1e9 + files))


def kilobytes(file, name):
    return next(int(line.split()[1]) for line in Path(file).read_text().splitlines() if line.startswith(name))


def in_child(work, *args):
    """Return what ``work`` returns in a process of its own, which starts with a copy of this process."""
    receive, send = FORK.Pipe(duplex=False)
    child = FORK.Process(target=lambda: send.send(work(*args)))
    child.start()
    result = receive.recv()
    child.join()
    return result


def measure(root, cache_index):
    """Return the seconds to open the data set, and the growth of memory at its peak and afterwards, in MB."""
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = kilobytes("/proc/self/status", "VmRSS")
    start = time.perf_counter()
    dataset = ImageDataset(root, cache_index=cache_index)
    seconds = time.perf_counter() - start
    peak, after = (kilobytes("/proc/self/status", name) - before for name in ("VmHWM", "VmRSS"))
    return {"files": len(dataset), "seconds": seconds, "peak": peak / 1e3, "stays": after / 1e3}


def memory_of_tuples(root):
    """Return the MB of the list that timm and torchvision keep."""
    samples = ImageDataset(root).samples
    before = kilobytes("/proc/self/status", "VmRSS")
    samples = list(samples)
    return (kilobytes("/proc/self/status", "VmRSS") - before) / 1e3


def owned_by_a_worker(root, as_tuples):
    """Return the MB that a forked process owns after reading every sample once."""
    samples = ImageDataset(root).samples
    return in_child(read_all, list(samples) if as_tuples else samples)


def read_all(samples):
    before = kilobytes("/proc/self/smaps_rollup", "Private_Dirty")
    for index in range(len(samples)):
        samples[index]
    return (kilobytes("/proc/self/smaps_rollup", "Private_Dirty") - before) / 1e3


def measure_all(root, files):
    """Return one row of the table."""
    grow_tree(root, files)
    new = in_child(measure, root, False)
    in_child(measure, root, True)  # writes the index
    kept = in_child(measure, root, None)
    return {
        "files": new["files"],
        "new, s": new["seconds"],
        "new, peak MB": new["peak"],
        "kept, s": kept["seconds"],
        "kept, stays MB": kept["stays"],
        "file, MB": (root / ".pimm_index.folder.npz").stat().st_size / 1e6,
        "tuples, MB": in_child(memory_of_tuples, root),
        "worker, MB": in_child(owned_by_a_worker, root, False),
        "worker with tuples, MB": in_child(owned_by_a_worker, root, True),
    }


def extrapolate(rows, name):
    slope, start = np.polyfit([row["files"] for row in rows], [row[name] for row in rows], 1)
    return start + slope * IMAGENET


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=130_000)
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        rows = [measure_all(Path(folder), args.files // part) for part in (4, 2, 1)]
    names = list(rows[0])
    print(" | ".join(names))
    for row in rows:
        print(" | ".join(f"{row[name]:{len(name)}.{0 if name == 'files' else 2}f}" for name in names))
    line = [f"{extrapolate(rows, name):{len(name)}.2f}" for name in names[1:]]
    print(" | ".join([f"{IMAGENET}", *line]), "(on the straight line)")


if __name__ == "__main__":
    main()
