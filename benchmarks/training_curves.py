"""Train a ResNet-18 and a ViT-Tiny with pimm-train and with timm, by the same options and seed, and draw the losses.

    python benchmarks/training_curves.py DATA --timm-python PYTHON

DATA is a folder ``train/CLASS/NAME`` and ``val/CLASS/NAME`` of images of CIFAR-10. PYTHON is an interpreter with torch
and timm 1.x, which may be this one. The training script of timm is in no package, so this script puts together what it
does: data sets, loader, model, loss, optimizer and schedule of timm. The first weights and the order of images differ
between the two, as their random numbers do. A training that is finished in the output folder is not repeated.
"""

import argparse
import csv
import json
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SIDE, BATCH, CLASSES, INTERVAL = 32, 128, 10, 25
MODELS = {  # name: (arguments of the model, optimizer, rate)
    "resnet18": ({}, "sgd", 0.05),
    "vit_tiny_patch16_224": ({"img_size": SIDE}, "adamw", 0.001),
}
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
SCALE, WEIGHT_DECAY, SMOOTHING, WARMUP_LR, MIN_LR = (0.5, 1.0), 0.05, 0.1, 1e-4, 1e-5
LOG_LINE = re.compile(r"^epoch (\d+) \[(\d+)/(\d+)\] loss ([\d.]+)", flags=re.M)
DECAY = {"sgd": 5e-4, "adamw": WEIGHT_DECAY}


def train_here(args, name, folder):
    """Train with pimm-train; return losses by epoch, and evaluations."""
    kwargs, opt, rate = MODELS[name]
    options = {
        **{"--model": name, "--num-classes": CLASSES, "--img-size": SIDE, "-b": BATCH, "--epochs": args.epochs},
        **{"--opt": opt, "--lr": rate, "--weight-decay": DECAY[opt], "--warmup-epochs": 1, "--warmup-lr": WARMUP_LR},
        **{"--min-lr": MIN_LR, "--cooldown-epochs": 0, "--smoothing": SMOOTHING, "--color-jitter": 0, "--crop-pct": 1},
        **{"--seed": args.seed, "--workers": 0, "--log-interval": INTERVAL, "--device": "cpu", "--output": folder},
        **{"--interpolation": "bicubic", "--train-interpolation": "bicubic"},
    }
    command = [sys.executable, ROOT / "tools" / "pimm_train.py", args.data, "--sched-on-updates", "--warmup-prefix"]
    command += [part for pair in options.items() for part in pair]
    command += ["--scale", *SCALE, "--mean", *MEAN, "--std", *STD]
    command += ["--model-kwargs", *(f"{key}={value}" for key, value in kwargs.items())] if kwargs else []
    command = list(map(str, command))
    print(" ".join(command), flush=True)
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    log = found.stdout + found.stderr
    (folder / "log.txt").write_text(log)
    steps = [(int(epoch) + int(batch) / int(count), float(loss)) for epoch, batch, count, loss in LOG_LINE.findall(log)]
    with open(next(folder.rglob("summary.csv"))) as file:
        rows = list(csv.DictReader(file))
    return {"steps": steps, "top1": [float(row["eval_top1"]) for row in rows]}


def train_with_timm(args, name):
    """Train with timm's parts, as its script does; return what `train_here` does."""
    import timm
    import torch
    from timm.data import create_dataset, create_loader
    from timm.loss import LabelSmoothingCrossEntropy
    from timm.optim import create_optimizer_v2
    from timm.scheduler import create_scheduler_v2

    timm.utils.random_seed(args.seed, 0)
    kwargs, opt, rate = MODELS[name]
    model = timm.create_model(name, num_classes=CLASSES, **kwargs)
    common = {"input_size": (3, SIDE, SIDE), "batch_size": BATCH, "mean": MEAN, "std": STD, "num_workers": 0}
    common |= {"use_prefetcher": False, "device": torch.device("cpu"), "interpolation": "bicubic"}
    train = create_loader(
        create_dataset("", args.data, split="train"),
        is_training=True,
        scale=SCALE,
        color_jitter=0,
        **common,
    )
    validation = create_loader(create_dataset("", args.data, split="val"), crop_pct=1.0, **common)
    optimizer = create_optimizer_v2(model, opt, lr=rate, weight_decay=DECAY[opt], momentum=0.9)
    schedule, epochs = create_scheduler_v2(
        optimizer,
        "cosine",
        num_epochs=args.epochs,
        cooldown_epochs=0,
        warmup_epochs=1,
        warmup_lr=WARMUP_LR,
        warmup_prefix=True,
        min_lr=MIN_LR,
        step_on_epochs=False,
        updates_per_epoch=len(train),
    )
    criterion, steps, top1, update = LabelSmoothingCrossEntropy(SMOOTHING), [], [], 0
    for epoch in range(epochs):  # with that of the warm-up
        model.train()
        total = 0.0
        for batch, (images, classes) in enumerate(train, start=1):
            loss = criterion(model(images), classes)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            update += 1
            schedule.step_update(num_updates=update)
            total += loss.item()
            if batch % INTERVAL == 0 or batch == len(train):
                steps.append((epoch + batch / len(train), total / batch))
        top1.append(accuracy(model, validation))
        print(name, epoch, steps[-1], top1[-1], file=sys.stderr, flush=True)
    return {"steps": steps, "top1": top1}


def accuracy(model, images_and_classes):
    """Return timm's top-1 in percent."""
    import torch

    model.eval()
    right = count = 0
    with torch.no_grad():
        for images, classes in images_and_classes:
            right += (model(images).argmax(1) == classes).sum().item()
            count += len(classes)
    return 100 * right / count


def run(args, name, by):
    """Return what a training gave, which is kept in a file, and its seconds."""
    path = args.output / f"{name}-{by}.json"
    if not path.exists():
        begun, folder = time.time(), args.output / f"{name}-{by}"
        folder.mkdir(parents=True, exist_ok=True)
        if by == "pimm":
            found = train_here(args, name, folder)
        else:
            command = [args.timm_python, __file__, *sys.argv[1:], "--timm-alone", name]
            found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        path.write_text(json.dumps({**found, "seconds": time.time() - begun}))
    return json.loads(path.read_text())


def draw(args, results):
    """Draw the losses, a panel for each model."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(MODELS), figsize=(10, 4), layout="constrained")
    for panel, name in zip(panels, MODELS):
        for by, style in (("pimm", "-"), ("timm", "--")):
            found = results[name, by]
            epochs, losses = zip(*found["steps"])
            panel.plot(epochs, losses, style, label=f"{by}: top-1 {found['top1'][-1]:.1f}%")
        panel.set(title=name, xlabel="epoch", ylabel="training loss, mean of the epoch so far")
        panel.legend()
    figure.savefig(args.picture)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, metavar="DATA", help="folder of images")
    parser.add_argument("--timm-python", default=sys.executable, metavar="PYTHON", help="interpreter with timm")
    parser.add_argument("--output", type=Path, default=Path("output/training_curves"), metavar="DIR")
    parser.add_argument("--picture", type=Path, default=Path("training_curves.svg"), metavar="FILE")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--timm-alone", default="", choices=("", *MODELS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.timm_alone:
        print(json.dumps(train_with_timm(args, args.timm_alone)))
        return
    results = {(name, by): run(args, name, by) for name in MODELS for by in ("pimm", "timm")}
    print("| model | by | top-1 after each epoch | last training loss | seconds |\n|---|---|---|--:|--:|")
    for (name, by), found in results.items():
        top1 = ", ".join(f"{each:.1f}" for each in found["top1"])
        print(f"| {name} | {by} | {top1} | {found['steps'][-1][1]:.3f} | {found['seconds']:.0f} |")
    draw(args, results)


if __name__ == "__main__":
    main()
