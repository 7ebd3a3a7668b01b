"""Run by the launcher: a retraining on several devices whose second process may come to an end.

Usage: device_ranks.py DEVICE FOLDER BATCH SIGNAL; the second process sends itself SIGNAL after BATCH batches, unless
this is 0. The last line of each log has the number of collectives of the device.
"""

import json
import os
import signal
import sys
from pathlib import Path

from recording import bits, counts
from tiny import RECIPE

from cream import cli
from pimm.engine import ClassifyStep
from pimm.utils import rank

NET = ("NET.SELECTION=-1", "NET.INPUT_ARCH=[[0, 1, 1]]", "DATASET.NUM_CLASSES=3", "DATASET.IMAGE_SIZE=16")
TRAINING = (
    *("BATCHNORM.SYNC_BN=True", "DATASET.BATCH_SIZE=3", "LOG_INTERVAL=2", "AUTO_RESUME=True"),
    *("EPOCHS=3", "COOLDOWN_EPOCHS=0", "WARMUP_EPOCHS=0"),
)


def main(name, folder, batch, number):
    plain, done = ClassifyStep.__call__, []

    def call(self, *args):
        metrics = plain(self, *args)
        done.append(self)
        if rank() == 1 and len(done) == int(batch):
            os.kill(os.getpid(), getattr(signal, number))
        return metrics

    ClassifyStep.__call__ = call
    data = Path(folder).parent / "data"
    places = (f"DATA_DIR={data}", f"SAVE_PATH={folder}", "MODEL=retrain", f"SUPERNET.SPACE={data / 'space.yaml'}")
    cfg = Path(__file__).parents[2] / "configs/retrain.yaml"
    code = cli.retrain(["--cfg", str(cfg), *RECIPE, *NET, *TRAINING, *places, f"DEVICE={name}"])
    if rank() == 0 and code == 0:
        Path(folder, "digest.json").write_text(json.dumps(bits(Path(folder, "retrain"))))
    print("collectives", counts()["collectives"])
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
