"""A wrong name of any length is answered by one line of less than 400 characters that shows its beginning."""

import paddle
import pytest

from pimm.data import auto_augment_transform, create_dataset, create_transform
from pimm.errors import ConfigError
from pimm.layers import get_act_layer
from pimm.loss import create_classification_loss
from pimm.messages import did_you_mean
from pimm.models import create_model
from pimm.optim import create_optimizer_v2
from pimm.scheduler import create_scheduler_v2

LONG = "y" * 1000 + "\n" + "z" * 1000
PREFIXES = {
    "optimizer": ("", "fused", "bnb", "lookahead_"),
    "augmentation": ("", "rand-", "rand-m9-", "augmix-", "v0-"),
}


def optimizer(name="sgd"):
    return create_optimizer_v2(paddle.nn.Linear(2, 2), opt=name, lr=0.1)


TAKE = {
    "optimizer": optimizer,
    "schedule": lambda name: create_scheduler_v2(optimizer(), sched=name),
    "model": create_model,
    "activation": get_act_layer,
    "loss": create_classification_loss,
    "augmentation": lambda name: auto_augment_transform(name, {}),
    "interpolation": lambda name: create_transform(32, interpolation=name),
    "crop mode": lambda name: create_transform(32, crop_mode=name),
    "random erasing": lambda name: create_transform(32, is_training=True, re_prob=1, re_mode=name),
    "data set": lambda name: create_dataset(name, "."),
    "data set of Paddle's": lambda name: create_dataset(f"paddle/{name}", "."),
}


@pytest.mark.parametrize(("kind", "prefix"), [(kind, prefix) for kind in TAKE for prefix in PREFIXES.get(kind, ("",))])
def test_long_names(kind, prefix):
    with pytest.raises(ConfigError) as error:
        TAKE[kind](prefix + LONG)
    assert len(str(error.value)) < 400
    assert "yyyyyyyyyy" in str(error.value)
    assert "\n" not in str(error.value)


def test_near_names_of_long_ones_take_no_time():
    assert did_you_mean("abcdefghij" * 100_000, ["abcdefghij" * 10]) == f"; did you mean {'abcdefghij' * 10}?"
    assert did_you_mean("swihs", ["swish", "relu"]) == "; did you mean swish?"
