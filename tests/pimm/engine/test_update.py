"""The levels of mixed precision, of which a CPU has none."""

import paddle
import pytest
from paddle import nn

from pimm.engine import Update
from pimm.errors import ConfigError
from pimm.options import make_train_parser


def update_of(net, **options):
    return Update(paddle.optimizer.SGD(parameters=net.parameters()), amp=True, **options)


def test_a_cpu_keeps_its_weights_in_float32():
    net = nn.Linear(2, 2)
    update = update_of(net, amp_level="O2")
    update.cast_weights(net)
    with update.autocast():
        logits = net(paddle.ones([1, 2]))
    assert (net.weight.dtype, logits.dtype) == (paddle.float32, paddle.float32)


def test_level_o2_takes_one_batch_for_an_update():
    net = nn.Linear(2, 2)
    with pytest.raises(ConfigError, match="level O2 takes one batch for an update, and 2 are given"):
        update_of(net, amp_level="O2", accumulate=2)
    assert update_of(net, amp_level="O1", accumulate=2).accumulate == 2


@pytest.mark.parametrize(("words", "level"), [([], "O1"), (["--amp-level", "O2"], "O2")])
def test_the_option_of_the_level(words, level):
    assert make_train_parser().parse_args(words).amp_level == level
