"""The stems of ByobNet: convolutions before the stages, with or without pooling."""

from __future__ import annotations

from paddle import nn

from pimm.errors import ConfigError
from pimm.layers import create_conv2d
from pimm.messages import did_you_mean
from pimm.models.byobnet_rep import MobileOneBlock, RepVggBlock
from pimm.models.features import feature_map

_POOLS = {
    "max2": lambda: nn.MaxPool2D(2),
    "avg2": lambda: nn.AvgPool2D(2),
    "maxpool": lambda: nn.MaxPool2D(3, 2, 1),
    "avgpool": lambda: nn.AvgPool2D(3, 2, 1, exclusive=True),
}


class Stem(nn.Sequential):
    """Apply 3x3 convolutions, the first of stride 2, and a pooling or a last convolution of stride 2.

    Args:
        in_chs: channels of the images.
        out_chs: channels of each convolution.
        kernel_size: of the convolutions.
        pool: ``maxpool``, ``avgpool`` (of 3x3 pixels), ``max2``, ``avg2`` (of 2x2 pixels), or nothing.
        num_act: how many of the convolutions, from the last, have normalisation and activation; None for all.
        layers: the `pimm.models.byobnet_blocks.LayerFn`.

    Raises:
        ConfigError: for another ``pool``.
    """

    stride = 4

    def __init__(self, in_chs, out_chs, kernel_size=3, pool="maxpool", num_act=None, layers=None):
        if pool and pool not in _POOLS:
            raise ConfigError(f"pool is {pool!r:.80}; valid are {', '.join(_POOLS)}, and '' for none")
        count, parts = len(out_chs), []
        strides = [2, *[1] * (count - 1)]
        if not pool:
            strides[-1] = 2
        plain = count - (count if num_act is None else num_act)
        for index, (width, stride) in enumerate(zip(out_chs, strides)):
            create = create_conv2d if index < plain else layers.conv_norm_act
            parts.append((f"conv{index + 1}", create(in_chs, width, kernel_size=kernel_size, stride=stride)))
            in_chs = width
        if pool:
            parts.append(("pool", _POOLS[pool]()))
        super().__init__(*parts)
        names = [name for name, _ in parts]
        self.tap = len(parts) - 2  # the last layer before the image is halved again
        halved = feature_map(names[self.tap], 0, out_chs[-1 if pool else -2], 2)
        self.feature_info = [halved, feature_map(names[-1], 0, in_chs, 4)]

    def forward_intermediates(self, x):
        """Return the output, and the feature maps of half the image's size."""
        halved = None
        for index, layer in enumerate(self):
            x = layer(x)
            halved = x if index == self.tap else halved
        return x, halved

    def prune_to_tap(self):
        """Take out the layers after the feature maps of half the image's size."""
        for name in list(self._sub_layers)[self.tap + 1 :]:
            setattr(self, name, nn.Identity())


def _widths(out_chs, count, decay=0.5):
    return [round(out_chs * decay**index) for index in reversed(range(count))]


def _convs(widths_of, num_act=None):
    def create(in_chs, out_chs, pool, layers):
        return Stem(in_chs, widths_of(out_chs), pool=pool, num_act=num_act, layers=layers)

    return create


def _single(kernel_size):
    def create(in_chs, out_chs, pool, layers):
        if isinstance(out_chs, (tuple, list)):
            return Stem(in_chs, out_chs, kernel_size, pool, layers=layers)
        if pool:
            return Stem(in_chs, [out_chs], kernel_size, pool, layers=layers)
        return layers.conv_norm_act(in_chs, out_chs, kernel_size, stride=2)

    return create


_STEMS = {  # name: creates the stem
    "": _single(3),
    "3x3": _single(3),
    "7x7": _single(7),
    "quad": _convs(lambda width: _widths(width, 4)),
    "quad2": _convs(lambda width: _widths(width, 4), num_act=2),
    "tiered": _convs(lambda width: [3 * width // 8, width // 2, width]),
    "deep": _convs(lambda width: _widths(width, 3, decay=1.0)),
    "rep": lambda in_chs, out_chs, pool, layers: RepVggBlock(in_chs, out_chs, stride=2, layers=layers),
    "one": lambda in_chs, out_chs, pool, layers: MobileOneBlock(in_chs, out_chs, stride=2, layers=layers),
}


def create_byob_stem(in_chs, out_chs, stem_type, pool_type, layers):
    """Return a stem and the description of its feature maps, of which the last is its output.

    Args:
        in_chs: channels of the images.
        out_chs: channels of the output, or of each convolution.
        stem_type: ``3x3``, ``7x7``, ``quad``, ``quad2``, ``tiered``, ``deep``, ``rep`` or ``one``.
        pool_type: the pooling, as `Stem` takes it; ``rep`` and ``one`` have none.
        layers: the `pimm.models.byobnet_blocks.LayerFn`.

    Raises:
        ConfigError: for another ``stem_type``.
    """
    if stem_type not in _STEMS:
        hint = did_you_mean(stem_type, _STEMS)
        raise ConfigError(f"stem_type is {stem_type!r:.80}; valid are {', '.join(filter(None, _STEMS))}{hint}")
    stem = _STEMS[stem_type](in_chs, out_chs, pool_type, layers)
    if isinstance(stem, Stem):
        return stem, [{**info, "module": f"stem.{info['module']}"} for info in stem.feature_info]
    return stem, [feature_map("stem", 0, out_chs, 2)]
