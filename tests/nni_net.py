"""The net of the documented examples, batches of small images, and trainers under NNI's names."""

import itertools
import re

import golden
import paddle
from paddle import nn
from paths import ROOT

from cream.nni import (
    CreamSupernetTrainer,
    SPOSSupernetTrainer,
)

EXAMPLES = re.findall(r"```python\n(.*?)```", (ROOT / "docs/api.md").read_text(), re.DOTALL)
SIZE, CLASSES, SLICE = 8, 5, 2
PAGE: dict = {}
exec(EXAMPLES[0], PAGE)


def make_net(seed=0):
    """Make the net of the documented example."""
    paddle.seed(seed)
    return PAGE["MyNet"](CLASSES)


def batch(number, count=6):
    """Draw images and labels."""
    images = golden.inputs((count, 3, SIZE, SIZE), stream=number)
    return paddle.to_tensor(images), paddle.to_tensor(golden.targets(count, CLASSES, stream=1000 + number))


TRAIN, VAL = [batch(i) for i in range(3)], [batch(10), batch(11, count=3)]
CREAM = {"resolution": SIZE, "meta_sta_epoch": 0, "update_iter": 2, "slices": SLICE, "pool_size": 2}


def cream_trainer(net, epochs=3, rate=0.1, mutator=None, val_loss=None, **options):
    """Return a trainer by Cream on `TRAIN` and `VAL`."""
    optimizer = paddle.optimizer.Momentum(rate, parameters=net.parameters())
    options = {**CREAM, "meta_lr": 0.5, "select_batches": 2, **options}
    return CreamSupernetTrainer(net, nn.CrossEntropyLoss(), val_loss, optimizer, epochs, TRAIN, VAL, mutator, **options)


def spos_trainer(net, train=TRAIN, metrics=None, epochs=1, **options):
    """Return a trainer by SPOS that validates on `VAL`."""
    optimizer = paddle.optimizer.Momentum(0.1, parameters=net.parameters())
    return SPOSSupernetTrainer(net, nn.CrossEntropyLoss(), metrics, optimizer, epochs, train, VAL, **options)


def all_paths(space):
    """List all paths of a space."""
    return [space.decode(row) for row in itertools.product(*space.options)]
