"""Mistakes in calls under NNI's names: what the errors say."""

import math

import paddle
import pytest
from nni_net import CLASSES, PAGE, SIZE, TRAIN, VAL, cream_trainer, make_net, spos_trainer
from paddle import nn

from cream.flops import cost_tables
from cream.nni import (
    CreamSupernetTrainingMutator,
    SPOSEvolution,
    SPOSSupernetTrainingMutator,
)
from cream.nni.loop import Batches
from pimm.errors import ConfigError, DataError

# Mistakes


class Foreign(PAGE["MyNet"]):
    def __init__(self):
        super().__init__(CLASSES)
        self.extra = nn.BatchNorm2D(3)


class Short(PAGE["MyNet"]):
    def __init__(self):
        super().__init__(CLASSES)
        self.blocks = nn.LayerList([self.stage(8, 32)])


class Nameless(PAGE["MyNet"]):
    def __init__(self):
        super().__init__(CLASSES)
        del self.num_classes


MISTAKES = {
    "another kind of net": (lambda: cream_trainer(nn.Linear(2, 2)), "Linear is no cream.supernet.SuperNet"),
    "positions that the space does not know": (lambda: cream_trainer(Short()), r"\[2\] positions, .* \[2, 2\]"),
    "paddle's batch norm": (lambda: cream_trainer(Foreign()), "extra and 0 more are paddle.nn.BatchNorm2D"),
    "no number of classes": (lambda: cream_trainer(Nameless()), "needs Nameless.num_classes"),
    "no image size": (lambda: cream_trainer(make_net(), resolution=None), "give resolution"),
    "too few epochs": (lambda: cream_trainer(make_net(), epochs=1), "it must be at least 2"),
    "choice_num": (lambda: cream_trainer(make_net(), choice_num=6), "choice_num is 6, but .* has 3"),
    "sta_num": (lambda: cream_trainer(make_net(), sta_num=(4, 4)), r"sta_num is \(4, 4\), but .* \[2, 2\]"),
    "flops_dict": (lambda: cream_trainer(make_net(), flops_dict=[[1, 2]]), r"\[2\] choices .* \[3, 3, 3, 3\]"),
    "a range of nothing": (lambda: SPOSSupernetTrainingMutator(make_net(), flops_lb=1.0, flops_ub=2.0), "go together"),
    "a range that no path keeps": (
        lambda: SPOSSupernetTrainingMutator(make_net(), lambda arch: 1.0, 2.0, 3.0, 1, 9).sample_search(),
        "none of flops_sample_timeout=9 sampled paths costs between 2 and 3",
    ),
    "a plateau of Paddle's": (
        lambda: cream_trainer(make_net(), lr_scheduler=paddle.optimizer.lr.ReduceOnPlateau(0.1)),
        "must be pimm's PlateauLRScheduler",
    ),
    "an unknown way to draw": (lambda: CreamSupernetTrainingMutator(make_net(), "best"), "'best'; must be even"),
    "a range upside down": (
        lambda: SPOSSupernetTrainingMutator(make_net(), len, 5, 1),
        "flops_lb is 5 and",
    ),
    "no trials": (lambda: SPOSSupernetTrainingMutator(make_net(), len, 1, 5, 1, 0), "flops_sample_timeout is 0"),
    "parts of an infinite range": (
        lambda: SPOSSupernetTrainingMutator(make_net(), len, 0, math.inf),
        "flops_ub=inf have no equal parts: give flops_bin_num=1",
    ),
    "weights below 0": (
        lambda: CreamSupernetTrainingMutator(make_net(), "pre_prob", (1, -1, 1, 1)),
        r"PRE_PROB is \[1.0, -1.0, 1.0, 1.0\]; must be at least 0",
    ),
    "no weights": (lambda: CreamSupernetTrainingMutator(make_net(), "pre_prob", None), "PRE_PROB has 1 entries"),
    "a picker": (lambda: cream_trainer(make_net(), pick_method="Meta"), "pick_method is 'Meta'; must be meta or top1"),
    "an image size": (lambda: cost_tables(make_net(), 8.0), "resolution is 8.0; must be a whole number of at least 1"),
    "a mutation": (
        lambda: SPOSEvolution(m_prob=2).search(make_net(), TRAIN, VAL, resolution=SIZE),
        "is 2; must be",
    ),
    "no generation": (lambda: SPOSEvolution(0).search(make_net(), TRAIN, VAL, resolution=SIZE), "GENERATIONS is 0"),
}
OUT_OF_BOUNDS = {
    **{"slices": 0, "pool_size": 0, "update_iter": -3, "select_batches": -1},  # NNI's
    **{"epochs": 2.5, "probes": 0, "seed": -1},
}


@pytest.mark.parametrize("name", OUT_OF_BOUNDS)
def test_numbers_out_of_bounds_are_told_before_anything_is_trained(name):
    value = OUT_OF_BOUNDS[name]
    with pytest.raises(ConfigError, match=f"{name} is {value}; must be a whole number of at least"):
        cream_trainer(make_net(), **{name: value})


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named(name):
    make, message = MISTAKES[name]
    with pytest.raises(ConfigError, match=message):
        make()


def test_arguments_of_nni_that_something_else_decides_are_passed_over_and_others_refused(caplog):
    with caplog.at_level("INFO", logger="cream"):
        spos_trainer(make_net(), device="gpu")
    assert "device is ignored: paddle.set_device decides" in caplog.text
    with pytest.raises(TypeError, match="there is no argument 'log_freqency'"):
        spos_trainer(make_net(), log_freqency=3)


@pytest.mark.parametrize(
    ("labels", "least", "message"),
    [
        (paddle.zeros([6, 5]), 1, r"labels of shape \[6, 5\]; class indices have"),
        (TRAIN[0][1], 8, "a batch has 6 images; must be at least 8"),
    ],
)
def test_batches_that_cannot_be_learnt_from(labels, least, message):
    with pytest.raises(DataError, match=message):
        list(Batches([(TRAIN[0][0], labels)], least))
