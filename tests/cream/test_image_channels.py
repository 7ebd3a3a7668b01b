"""Supernets for images of other channels than three: costs, and the searches that count them."""

import golden
import paddle
import pytest
from paddle import nn

from cream import CreamSupernetTrainer, SPOSEvolution
from cream.flops import cost_tables
from cream.mobile import MobileSuperNet, mobile_space
from cream.shuffle import ShuffleSuperNet
from cream.space import SearchSpace
from cream.supernet import Choices, SuperNet
from pimm.layers import BatchNorm2d

SIZE, CLASSES = 8, 5


class OwnNet(SuperNet):
    """A supernet as a user writes one, whose stem takes images of ``channels`` channels."""

    def __init__(self, channels):
        super().__init__()
        self.num_classes = CLASSES
        self.first = nn.Sequential(nn.Conv2D(channels, 4, 3, 2, 1, bias_attr=False), BatchNorm2d(4), nn.ReLU())
        self.blocks = nn.LayerList([nn.LayerList([self.choices(), self.choices()])])
        self.last = nn.Linear(4, CLASSES)
        self.space = SearchSpace(choices=((2, 2),), keeps_shape=((True, True),))

    @staticmethod
    def choices():
        return Choices([nn.Conv2D(4, 4, kernel, 1, kernel // 2, groups=4, bias_attr=False) for kernel in (3, 5)])

    def stem(self, x):
        return self.first(x)

    def head(self, x):
        return self.last(x.mean(axis=[2, 3]))


class GreyOfColour(OwnNet):
    """A net whose stem averages the channels of a colour image before its first convolution."""

    in_chans = 3

    def stem(self, x):
        return super().stem(x.mean(axis=1, keepdim=True))


def by_hand(channels):
    """Multiply-adds of stem and classifier, in millions: 4 x 4 pixels of 4 channels, kernels of 9 values."""
    return (4 * 4 * 4 * 9 * channels + 4 * CLASSES) / 1e6


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_costs_are_counted_for_as_many_channels_as_the_stem_takes(channels):
    net = OwnNet(channels)
    mflops, mparams = cost_tables(net, SIZE)
    assert net.in_chans == channels
    assert mflops.fixed == pytest.approx(by_hand(channels), abs=1e-12)
    assert mflops(((0, 1),)) == pytest.approx(by_hand(channels) + 16 * 4 * (9 + 25) / 1e6, abs=1e-12)
    assert mparams.fixed == pytest.approx((4 * 9 * channels + 2 * 4 + 4 * CLASSES + CLASSES) / 1e6, abs=1e-12)
    assert cost_tables(net, SIZE, in_chans=channels)[0].fixed == mflops.fixed


def test_a_net_may_say_itself_how_many_channels_it_takes():
    net = GreyOfColour(1)
    assert net.in_chans == 3 and cost_tables(net, SIZE)[0].fixed == pytest.approx(by_hand(1), abs=1e-12)
    assert cost_tables(net, SIZE, in_chans=7)[0].fixed == pytest.approx(by_hand(1), abs=1e-12)


@pytest.mark.parametrize(
    "build",
    [
        lambda channels: MobileSuperNet(mobile_space((1, 1, 1, 1, 1)), CLASSES, in_chans=channels),
        lambda channels: ShuffleSuperNet(CLASSES, in_chans=channels),
    ],
    ids=["mobile", "shuffle"],
)
def test_the_stems_of_both_spaces(build):
    grey, colour = (cost_tables(build(channels), 32)[0] for channels in (1, 3))
    assert colour.fixed - grey.fixed == pytest.approx(2 * 16 * 9 * 16 * 16 / 1e6)
    assert colour.choices == grey.choices


def batch(number, count=6):
    images = golden.inputs((count, 1, SIZE, SIZE), stream=number)
    return paddle.to_tensor(images), paddle.to_tensor(golden.targets(count, CLASSES, stream=1000 + number))


def test_both_searches_train_on_images_of_one_channel():
    train, val = [batch(i) for i in range(3)], [batch(10)]
    net = OwnNet(1)
    optimizer = paddle.optimizer.Momentum(0.1, parameters=net.parameters())
    options = {"resolution": SIZE, "meta_sta_epoch": 0, "update_iter": 2, "slices": 2, "pool_size": 2}
    trainer = CreamSupernetTrainer(net, nn.CrossEntropyLoss(), None, optimizer, 2, train, val, None, **options)
    trainer.train()
    costs = cost_tables(net, SIZE)[0]
    assert trainer.candidates and all(found.mflops == costs(found.arch) for found in trainer.candidates)
    evolution = SPOSEvolution(max_epochs=1, num_select=2, num_population=3, num_crossover=1, num_mutation=1)
    found = evolution.search(net, train, val, resolution=SIZE, select_batches=1)
    assert len(found) >= 3 and all(candidate.mflops == costs(candidate.arch) for candidate in found)
