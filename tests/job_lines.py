"""Small settings of each job as command lines, and images of noise for them."""

import numpy as np
from PIL import Image

SMALL = ["DATASET.NUM_CLASSES=2", "DATASET.BATCH_SIZE=8", "WORKERS=0", "EPOCHS=2"]
JOBS = {
    "search": [
        *("--cfg", "configs/demo/search.yaml", *SMALL, "LOG_INTERVAL=50", "SUPERNET.META_STA_EPOCH=0"),
        *("SUPERNET.UPDATE_ITER=1", "SUPERNET.POOL_SIZE=2", "SUPERNET.PROBES=1", "SUPERNET.SELECT_BATCHES=1"),
    ],
    "retrain": ["--cfg", "configs/demo/retrain.yaml", *SMALL, "DATASET.IMAGE_SIZE=32", "OPT=sgd", "SCHED=sgd"],
    "test": ["--cfg", "configs/demo/retrain.yaml", *SMALL, "DATASET.IMAGE_SIZE=32"],
}
ARCH = "NET.INPUT_ARCH=[[0],[0],[0],[0],[0],[0],[0]]"


def write_images(folder, classes=("apple", "pear"), count=8):
    """Write a data set of noise, ``folder/{train,val}/CLASS/NUMBER.png``, and return its folder."""
    rng = np.random.default_rng(0)
    for path in (folder / split / name for split in ("train", "val") for name in classes):
        path.mkdir(parents=True)
        for number in range(count):
            Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(path / f"{number}.png")
    return folder


def says(message, parts):
    """Check that a message holds all parts."""
    assert [part for part in parts if part not in message] == [], message
