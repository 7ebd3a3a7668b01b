"""Run the scripts of pimm on the net of `script_net` and images of eight pixels."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from pimm.commands import train as pimm_train

CLASSES = ("dark", "grey", "light")
NET = ("--model", "script_net", "--num-classes", "3", "-j", "0", "-b", "6", "--device", "cpu")
BRIEF = ("--epochs", "2", "--warmup-epochs", "0", "--lr", "0.1", "--log-interval", "1")


def write_images(folder, train=8, val=5):
    """Write ``train`` and ``val`` with so many images a class."""
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        write_classes(folder / split, CLASSES, count, rng)


def write_classes(folder, names=CLASSES, count=2, rng=None):
    """Write a folder a class, whose images are told apart by brightness, and return the folder of them all."""
    rng = rng or np.random.default_rng(0)
    for level, name in enumerate(names):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = rng.normal(60 + 60 * level, 30, (8, 8, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{name}{number}.png")
    return folder


def train(images, output, name, *options):
    """Return the folder of a finished training."""
    pimm_train.main([images, *NET, *BRIEF, "--output", str(output), "--experiment", name, *options])
    return Path(output, name)


def result(capsys):
    """Return what a script printed after ``--result``."""
    return json.loads(capsys.readouterr().out.rpartition("--result\n")[2])
