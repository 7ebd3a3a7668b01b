"""The training loop by itself: what it refuses, and what it must not do in silence."""

import os
import subprocess
import sys

import numpy as np
import paddle
import pytest
from paddle import nn
from paths import ROOT

from pimm.engine import ClassifyStep, RunLog, Trainer, Update
from pimm.errors import ConfigError, DataError


class Batches:
    """Gives ``count`` batches and says that there are ``length``."""

    def __init__(self, count, length=None):
        self.count, self.length, self.start = count, count if length is None else length, 0

    def __len__(self):
        return self.length

    def set_epoch(self, epoch, start_batch=0):
        self.start = start_batch

    def __iter__(self):
        rng = np.random.default_rng(0)
        for number in range(self.count):
            images, labels = rng.normal(size=(4, 5)).astype("float32"), rng.integers(0, 3, 4)
            if number >= self.start:
                yield paddle.to_tensor(images), paddle.to_tensor(labels)


def trained(loader, accumulate=1, **options):
    """Train a linear net for two epochs, and return its weights."""
    paddle.seed(0)
    net = nn.Linear(5, 3)
    optimizer = paddle.optimizer.SGD(0.1, parameters=net.parameters())
    step = ClassifyStep(net, nn.CrossEntropyLoss(), Update(optimizer, accumulate=accumulate), topk=(1,))
    options = {"epochs": 2, "scheduler": None, "saver": None, "seed_batch": lambda epoch, batch: None, **options}
    Trainer(step, loader, [], run=RunLog(), settings={}, **options).fit()
    return net.weight.numpy()


@pytest.mark.parametrize("count, length, accumulate", [(3, 4, 2), (5, 4, 2), (6, 4, 3), (0, 0, 1), (0, 5, 1)])
def test_a_loader_of_another_length_leaves_no_gradients_for_the_next_epoch(count, length, accumulate):
    with pytest.raises(DataError, match=f"the loader gave {count} batches in epoch 0, and its length is {length}"):
        trained(Batches(count, length), accumulate)


def test_a_loader_of_another_length_trains_where_each_batch_is_an_update():
    np.testing.assert_array_equal(trained(Batches(3, 4)), trained(Batches(3)))


@pytest.mark.parametrize(
    "options, says",
    [
        ({"log_interval": 0}, "log_interval is 0; must be a whole number of at least 1"),
        ({"recovery_interval": -1}, "recovery_interval is -1; must be a whole number of at least 0"),
        ({"share_statistics": "redcue"}, "share_statistics is 'redcue'; must be reduce, broadcast or empty"),
        ({"metric": "prec5"}, "no checkpoint can be ranked by 'prec5'; there are loss, prec1"),
        ({"accumulate": 0}, "accumulate is 0; must be a whole number of at least 1"),
        ({"accumulate": 1.5}, "accumulate is 1.5; must be"),
    ],
)
def test_what_cannot_be(options, says):
    with pytest.raises(ConfigError, match=says):
        trained(Batches(2), **options)


TWO = """
import sys
sys.path[:0] = ["tests", "tests/pimm/engine"]
from types import SimpleNamespace
import paddle
from test_trainer import Batches, trained
from pimm.errors import PimmError
from pimm.utils import init_distributed, rank

paddle.set_device("cpu")
init_distributed()
for case in ({"count": 2 + rank()}, {"names": "ab"[:: 1 - 2 * rank()]}, {"epochs": 1 + rank()}, {}):
    loader = Batches(case.pop("count", 2))
    loader.dataset = SimpleNamespace(class_to_idx={name: i for i, name in enumerate(case.pop("names", "ab"))})
    try:
        print("weights", trained(loader, **case).sum())
    except PimmError as error:
        print(type(error).__name__, error)
"""


def test_processes_that_do_not_train_alike_say_so_at_once(tmp_path):
    script = tmp_path / "two.py"
    script.write_text(TWO)
    command = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", "2"]
    outcome = subprocess.run(
        [*command, "--log_dir", str(tmp_path / "logs"), str(script)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    for number, names in enumerate(("a, b", "b, a")):
        lines = (tmp_path / "logs" / f"workerlog.{number}").read_text().splitlines()
        found = [line for line in lines if line.startswith(("weights", "DataError", "ConfigError"))]
        says = f"DataError the processes see different images: number {number} has"
        assert found[0].startswith(f"{says} {2 + number} batches in an epoch of 2 classes (a, b)")
        assert found[1].startswith(f"{says} 2 batches in an epoch of 2 classes ({names})")
        says = f"ConfigError the processes have different settings or checkpoints: number {number} begins at epoch 0"
        assert found[2].startswith(says) and f"of {1 + number} epochs" in found[2]
        assert found[3].startswith("weights")
