"""Compare images per second of pimm's and timm's loaders on the same photographs, transforms and workers, in turns.

python benchmarks/loader.py FOLDER --timm-python PYTHON [--rounds 5] [--workers 2] [--sizes 224 160 96]

FOLDER holds class folders of photographs, PYTHON is an interpreter that has torch and timm. Training is a random crop
with flip and colour jitter, evaluation a resize and a central crop; both end with normalised float32 on the CPU.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from statistics import median

BATCH_SIZE = 50
DRAFT_SIZES = range(161)  # pixels at which decoding at a smaller scale is worth measuring


def repeat_photographs(folder, target, images):
    """Link the photographs of ``folder`` into ``target`` until there are ``images`` of them; return how many."""
    paths = sorted(path for path in Path(folder).resolve().glob("*/*") if path.is_file())
    if not paths:
        raise SystemExit(f"{folder} has no class folders with photographs")
    for number in range(images):
        path = paths[number % len(paths)]
        link = Path(target, path.parent.name, f"{number}{path.suffix.lower()}")
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(path)
    return images


def pimm_loader(folder, size, is_training, draft, workers):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from pimm.data import Dataset, create_loader

    return create_loader(
        Dataset(folder),
        (3, size, size),
        BATCH_SIZE,
        is_training=is_training,
        num_workers=workers,
        persistent_workers=True,  # as timm's are
        draft=draft,
    )


def timm_loader(folder, size, is_training, draft, workers):
    import torch
    from timm.data import ImageDataset, create_loader

    return create_loader(
        ImageDataset(folder),
        (3, size, size),
        BATCH_SIZE,
        is_training=is_training,
        num_workers=workers,
        device=torch.device("cpu"),
    )


LOADERS = {"pimm": pimm_loader, "timm": timm_loader}


def serve(library, folder, workers):
    """Answer each line ``size is_training draft`` on the standard input with the images per second of one pass.

    The start of the workers is timed too; the first pass over a case is not.
    """
    loaders = {}
    for line in sys.stdin:
        case = tuple(map(int, line.split()))
        if case not in loaders:
            loaders[case] = LOADERS[library](folder, case[0], bool(case[1]), bool(case[2]), workers)
            sum(len(labels) for _, labels in loaders[case])
        start = time.perf_counter()
        images = sum(len(labels) for _, labels in loaders[case])
        print(images / (time.perf_counter() - start), flush=True)


class Library:
    """Run one of the two libraries in a process of its own."""

    def __init__(self, name, python, folder, workers):
        command = [python, __file__, folder, "--serve", name, "--workers", str(workers)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def images_per_second(self, size, is_training, draft=False):
        self.process.stdin.write(f"{size} {int(is_training)} {int(draft)}\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def compare(pimm, timm, sizes, rounds):
    """Print the medians of every case, and the medians of the rounds' ratios."""
    print(f"{'':16}{'timm':>8}{'pimm':>8}{'ratio':>7}{'draft':>8}{'ratio':>7}   (images per second)")
    for is_training, size in product((True, False), sizes):
        results = []
        for _ in range(rounds):
            theirs, ours = timm.images_per_second(size, is_training), pimm.images_per_second(size, is_training)
            drafted = pimm.images_per_second(size, is_training, draft=True) if size in DRAFT_SIZES else None
            results.append((theirs, ours, drafted))
        theirs, ours, drafted = zip(*results)
        line = f"{'training' if is_training else 'evaluation':12}{size:4}{median(theirs):8.0f}{median(ours):8.0f}"
        line += f"{median(our / their for our, their in zip(ours, theirs)):7.2f}"
        if size in DRAFT_SIZES:
            line += f"{median(drafted):8.0f}{median(our / their for our, their in zip(drafted, theirs)):7.2f}"
        print(line, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--timm-python", default=sys.executable)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--sizes", type=int, nargs="+", default=[224, 160, 96])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--serve", choices=LOADERS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(args.serve, args.folder, args.workers)
        return
    with tempfile.TemporaryDirectory() as folder:
        repeat_photographs(args.folder, folder, args.images)
        pythons = {"pimm": sys.executable, "timm": args.timm_python}
        libraries = {name: Library(name, python, folder, args.workers) for name, python in pythons.items()}
        try:
            compare(**libraries, sizes=args.sizes, rounds=args.rounds)
        finally:
            for library in libraries.values():
                library.close()


if __name__ == "__main__":
    main()
