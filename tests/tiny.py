"""A search that takes a second: 24 training images of 16 pixels in three classes, and a space of 18 small nets.

Who wants to see the parts of a search at work starts here: `write_images`, then `run_search`.
"""

from unittest import mock

import numpy as np
import yaml
from PIL import Image

from cream.config.load import load_config
from cream.jobs import search

CLASSES = ("dark", "grey", "light")
SPACE = {
    "stem": 8,
    "head": 16,
    "activation": "relu",
    "operations": [{"kernel": 3, "expansion": 1}, {"kernel": 3, "expansion": 2}],
    "stages": [{"channels": 8, "stride": 2, "depth": [1, 3]}],
}
SETTINGS = (
    *("DATASET.NUM_CLASSES=3", "DATASET.BATCH_SIZE=6", "DATASET.CROP_PCT=1.0", "WORKERS=0", "LR=0.05", "SEED=1"),
    *("SUPERNET.RESOLUTION=16", "SUPERNET.METHOD=single_path", "SUPERNET.HOW_TO_PROB=even", "SUPERNET.PROBES=1"),
    *("SUPERNET.SELECT_BATCHES=2", "SUPERNET.SELECT_RANDOM=3", "EPOCHS=1", "LOG_INTERVAL=1"),
)
RECIPE = ("OPT=momentum", "LR=0.1", "EPOCHS=2", "WORKERS=0", "DATASET.BATCH_SIZE=6", "DATASET.CROP_PCT=1.0")


def write_images(folder):
    """Write ``train`` (eight images a class) and ``val`` (five), told apart by brightness, and ``space.yaml``."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 5)):
        for level, name in enumerate(CLASSES):
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.normal(60 + 60 * level, 50, (16, 16, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{i}.png")
    (folder / "space.yaml").write_text(yaml.safe_dump(SPACE))


def settings(data, save_path, *more):
    """Return the settings of a search on these images that writes to ``save_path/search``; ``more`` are KEY=VALUE."""
    places = (f"DATA_DIR={data}", f"SAVE_PATH={save_path}", "MODEL=search", f"SUPERNET.SPACE={data / 'space.yaml'}")
    return load_config(None, [*SETTINGS, *places, *more])


def run_search(data, save_path, *more):
    """Run a search and return its folder."""
    with without_report():
        search(settings(data, save_path, *more))
    return save_path / "search"


def without_report():
    """Return a context in which no report is drawn: a report takes longer than all else."""
    return mock.patch("cream.jobs.report_search")
