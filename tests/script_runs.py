"""Run the scripts of pimm on the net of `script_net` and images of eight pixels."""

import csv
import json
from pathlib import Path

import numpy as np
from PIL import Image

from pimm.commands import train as pimm_train

CLASSES = ("dark", "grey", "light")
NET = ("--model", "script_net", "--num-classes", "3", "-j", "0", "-b", "6", "--device", "cpu")
BRIEF = ("--epochs", "2", "--warmup-epochs", "0", "--lr", "0.1", "--log-interval", "1")


def write_images(folder):
    """Write ``train`` with eight and ``val`` with five images a class, told apart by brightness."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 5)):
        for level, name in enumerate(CLASSES):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.normal(60 + 60 * level, 30, (8, 8, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{name}{number}.png")


def train(images, output, name, *options):
    """Return the folder of a finished training."""
    pimm_train.main([images, *NET, *BRIEF, "--output", str(output), "--experiment", name, *options])
    return Path(output, name)


def rows(path):
    """Return the rows of a table, a dict for each."""
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def result(capsys):
    """Return what a script printed after ``--result``."""
    return json.loads(capsys.readouterr().out.rpartition("--result\n")[2])
