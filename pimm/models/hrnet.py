"""HRNet (https://arxiv.org/abs/1908.07919): branches of four sizes side by side, which exchange what they see.

Names, state names and numbers are those of timm.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from paddle import nn

from pimm.errors import ConfigError
from pimm.layers import BatchNorm2d, Conv2d
from pimm.models.features import feature_map, feature_take_indices
from pimm.models.interface import ImageModel
from pimm.models.registry import register_variants
from pimm.models.resnet_blocks import BasicBlock, Bottleneck, downsample_conv
from pimm.optim.layer_groups import MATCH_PREV_GROUP

_STEM = 64  # channels
_HEAD = (32, 64, 128, 256)  # planes of the bottlenecks that widen the branches
_HEADS = ("classification", "incre", "")
_TRUNK = ("conv2", "bn2", "act2", "layer1", "transition1", "stage2", "transition2", "stage3", "transition3", "stage4")


class Stage(NamedTuple):
    """A stage of modules: their number, the blocks of each branch, and the channels of each branch."""

    num_modules: int
    num_blocks: int
    num_channels: tuple


def _conv_norm(in_chs, out_chs, kernel_size, stride=1, bias=False, act=True):
    layers = [
        Conv2d(in_chs, out_chs, kernel_size, stride, kernel_size // 2, bias=bias),
        BatchNorm2d(out_chs),
    ]
    return nn.Sequential(*layers, nn.ReLU()) if act else nn.Sequential(*layers)


def _blocks(block, in_chs, planes, count):
    """Return blocks in a row, of which the first changes the channels."""
    out_chs = planes * block.expansion
    downsample = None if in_chs == out_chs else downsample_conv(in_chs, out_chs, 1)
    return nn.Sequential(block(in_chs, planes, 1, downsample), *(block(out_chs, planes) for _ in range(1, count)))


def _shrinking(in_chs, out_chs, count, last_act):
    """Return convolutions that shrink images ``count`` times; the last one changes the channels."""
    last = count - 1
    return nn.Sequential(
        *(
            _conv_norm(in_chs, out_chs if index == last else in_chs, 3, 2, act=last_act or index < last)
            for index in range(count)
        )
    )


class HighResolutionModule(nn.Layer):
    """Apply blocks to each branch, and give each branch the sum of all, resized.

    Args:
        num_blocks: blocks of each branch.
        num_channels: channels of each branch.
    """

    def __init__(self, num_blocks, num_channels):
        super().__init__()
        self.branches = nn.LayerList(_blocks(BasicBlock, width, width, num_blocks) for width in num_channels)
        self.fuse_layers = nn.LayerList(
            nn.LayerList(self._resize(source, target, num_channels) for source in range(len(num_channels)))
            for target in range(len(num_channels))
        )
        self.fuse_act = nn.ReLU()

    @staticmethod
    def _resize(source, target, num_channels):
        """Return the layers that bring the output of one branch to the size of another."""
        if source == target:
            return nn.Identity()
        ins, outs = num_channels[source], num_channels[target]
        if source < target:
            return _shrinking(ins, outs, target - source, last_act=False)
        upsample = nn.Upsample(scale_factor=2 ** (source - target), mode="nearest")
        return nn.Sequential(*_conv_norm(ins, outs, 1, act=False), upsample)

    def forward(self, x):
        x = [branch(each) for branch, each in zip(self.branches, x)]
        return [self.fuse_act(sum(resize(each) for resize, each in zip(layers, x))) for layers in self.fuse_layers]


def _transition(before, after):
    """Return the layers that make the inputs of a stage's branches, by the channels of branches before and after."""
    layers = []
    for index, width in enumerate(after):
        if index >= len(before):
            layers.append(_shrinking(before[-1], width, index + 1 - len(before), last_act=True))
        else:
            same = width == before[index]
            layers.append(nn.Identity() if same else _conv_norm(before[index], width, 3))
    return nn.LayerList(layers)


class HighResolutionNet(ImageModel):
    """Classify images with a stem, four stages of parallel branches, and a head that joins the branches.

    Args:
        cfg: the `Stage` of each of the four stages.
        in_chans: channels of the images.
        num_classes: classes; 0 for a net that returns the pooled features.
        output_stride: 32.
        global_pool: ``avg``, ``max``, ``avgmax``, ``catavgmax``, or without pooling ``""``.
        drop_rate: dropout before the classifier.
        head: ``classification``; ``incre`` for a net that returns the widened branches; ``""`` for the branches.
        head_conv_bias: whether the convolutions of the head have a bias.

    Raises:
        ConfigError: for another ``output_stride`` or ``head``.
    """

    def __init__(
        self,
        cfg,
        in_chans=3,
        num_classes=1000,
        output_stride=32,
        global_pool="avg",
        drop_rate=0.0,
        head="classification",
        head_conv_bias=True,
    ):
        super().__init__()
        if output_stride != 32:
            raise ConfigError(f"output_stride is {output_stride!r:.80}; HRNet cannot be dilated, valid is 32")
        if head not in _HEADS:
            raise ConfigError(f"head is {head!r:.80}; valid are classification, incre, and '' for none")
        self.in_chans, self.drop_rate = in_chans, drop_rate
        self.conv1, self.bn1, self.act1 = _conv_norm(in_chans, _STEM, 3, 2)
        self.conv2, self.bn2, self.act2 = _conv_norm(_STEM, _STEM, 3, 2)
        first, *stages = cfg
        self.layer1 = _blocks(Bottleneck, _STEM, first.num_channels[0], first.num_blocks)
        widths = (first.num_channels[0] * Bottleneck.expansion,)
        for number, stage in enumerate(stages, start=2):
            self.add_sublayer(f"transition{number - 1}", _transition(widths, stage.num_channels))
            modules = (HighResolutionModule(stage.num_blocks, stage.num_channels) for _ in range(stage.num_modules))
            self.add_sublayer(f"stage{number}", nn.Sequential(*modules))
            widths = stage.num_channels
        self._create_join(widths, head, head_conv_bias)
        for layer in self.sublayers():
            if isinstance(layer, nn.Conv2D):
                fan_out = math.prod(layer.kernel_size) * layer.out_channels
                nn.initializer.Normal(0.0, math.sqrt(2.0 / fan_out))(layer.weight)
        self.create_head(num_classes if self.joins else 0, global_pool if self.joins else "")

    def _create_join(self, widths, head, bias):
        """Set the layers that widen the branches and join them."""
        wide = [planes * Bottleneck.expansion for planes in _HEAD] if head else list(widths)
        self.num_features, self.joins = 2048 if head else 256, head == "classification"
        self.incre_modules = nn.LayerList()
        if head:
            self.incre_modules.extend(_blocks(Bottleneck, *sizes, 1) for sizes in zip(widths, _HEAD))
        self.downsamp_modules, self.final_layer = nn.LayerList(), nn.Identity()
        if self.joins:
            self.downsamp_modules.extend(_conv_norm(*sizes, 3, 2, bias) for sizes in zip(wide, wide[1:]))
            self.final_layer = _conv_norm(wide[-1], self.num_features, 1, bias=bias)
        self.feature_info = [feature_map("act1", 0, _STEM, 2)]
        self.feature_info += [
            feature_map(f"stage{number}", number, width, 2 ** (number + 1))
            for number, width in enumerate(wide, start=1)
        ]

    def group_matcher(self, coarse=False):
        """Return the patterns for ``group_with_matcher`` by block, or by stage if ``coarse``."""
        blocks = [(r"^layer(\d+)\.(\d+)", None), (r"^stage(\d+)\.(\d+)", None), (r"^transition(\d+)", MATCH_PREV_GROUP)]
        return {
            "stem": r"^conv[12]|bn[12]",
            "block_types": r"^(?:layer|stage|transition)(\d+)" if coarse else blocks,
        }

    def set_grad_checkpointing(self, enable=True):
        """Refuse to compute activations again, which branches side by side do not support.

        Raises:
            ConfigError: if ``enable``.
        """
        if enable:
            raise ConfigError("HRNet cannot compute activations again in the backward pass")

    def stem(self, x):  # [N, in_chans, H, W]
        """Return the output of the first convolution."""
        return self.act1(self.bn1(self.conv1(x)))  # [N, 64, H / 2, W / 2]

    def stages(self, x):
        """Return the branches of the last stage for the output of the stem."""
        x = self.layer1(self.act2(self.bn2(self.conv2(x))))  # [N, 128 or 256, H / 4, W / 4]
        x = self.stage2([layer(x) for layer in self.transition1])
        x = self.stage3(_enter(self.transition2, x))
        return self.stage4(_enter(self.transition3, x))  # of branch i [N, num_channels[i], H / 2**(i+2), W / 2**(i+2)]

    def _widened(self, branches):
        """Return the branches after the blocks that widen them; branches without a block are left out."""
        return [widen(x) for widen, x in zip(self.incre_modules, branches)] if len(self.incre_modules) else branches

    def _joined(self, wide):
        """Return the feature maps that the widened branches give together, or the branches themselves."""
        if not self.joins:
            return wide
        x = wide[0]
        for shrink, branch in zip(self.downsamp_modules, wide[1:]):
            x = branch + shrink(x)
        return self.final_layer(x)  # [N, 2048, H / 32, W / 32]

    def forward_features(self, x):
        """Return the feature maps before pooling, [N, num_features, H / 32, W / 32], of images [N, in_chans, H, W].

        A net whose head is not for classification returns a list of its branches.
        """
        x = self.stem(x)
        if isinstance(self.layer1, nn.Identity):
            return x
        branches = self.stages(x)
        return self._joined(self._widened(branches)) if self.joins else branches

    def forward_head(self, x, pre_logits=False):
        """Return the logits of feature maps, or with ``pre_logits`` the input of the classifier; branches as they are.

        Args:
            x: what `forward_features` returns.
            pre_logits: whether to stop before the classifier.
        """
        return x if isinstance(x, list) else super().forward_head(x, pre_logits)

    def forward_intermediates(
        self, x, indices=None, norm=False, stop_early=False, output_fmt="NCHW", intermediates_only=False
    ):
        """Return the output of `forward_features` and a list of feature maps; arguments are those of `ImageModel`.

        All branches but the first feature map, that of the stem, need the whole net.
        """
        if output_fmt != "NCHW":
            raise ConfigError(f"output_fmt is {output_fmt!r:.80}; valid is NCHW, for this net")
        taken, last = feature_take_indices(len(self.feature_info), indices)
        x = self.stem(x)
        found = [x] if 0 in taken else []
        if last == 0 and (stop_early or isinstance(self.layer1, nn.Identity)):
            return found if intermediates_only else (x, found)
        branches = self.stages(x)
        wide = self._widened(branches)
        found += [branch for number, branch in enumerate(wide, start=1) if number in taken]
        if intermediates_only:
            return found
        return (self._joined(wide) if self.joins else branches), found

    def prune_intermediate_layers(self, indices=1, prune_norm=False, prune_head=True):
        """Take out the layers that feature maps do not need, and return the numbers of these feature maps.

        Without the head, or without a branch, the net returns a list of branches.

        Args:
            indices: which feature maps, as in `forward_intermediates`.
            prune_norm: of no effect; there is no last normalisation.
            prune_head: whether to take out the layers that join the branches, and the classifier.
        """
        taken, last = feature_take_indices(len(self.feature_info), indices)
        if last == 0:
            self.num_features = _STEM
            for name in _TRUNK:
                setattr(self, name, nn.Identity())
        self.incre_modules = nn.LayerList(list(self.incre_modules)[:last])
        if prune_head or last < len(self.feature_info) - 1:
            self.joins, self.downsamp_modules, self.final_layer = False, nn.LayerList(), nn.Identity()
            self.create_head(0, "")
        return taken


def _enter(transition, branches):
    """Return the inputs of a stage; a new branch is made of the smallest of the branches before."""
    return [
        branches[index] if isinstance(layer, nn.Identity) else layer(branches[-1])
        for index, layer in enumerate(transition)
    ]


def _stages(width, bottleneck, num_modules, num_blocks):
    """Return the four stages by the channels of the largest branch and the planes of the first stage's blocks.

    Args:
        width: channels of the largest branch.
        bottleneck: planes of the blocks of the first stage.
        num_modules: modules of the other three stages.
        num_blocks: blocks of the first stage, and of each branch of the others.
    """
    first, others = num_blocks
    widths = [width * 2**index for index in range(4)]
    return [
        Stage(1, first, (bottleneck,)),
        *(Stage(count, others, tuple(widths[: number + 2])) for number, count in enumerate(num_modules)),
    ]


def _large(width, **kwargs):
    return {"cfg": _stages(width, 64, (1, 4, 3), (4, 4)), **kwargs}


_VARIANTS = {
    "hrnet_w18_small": {"cfg": _stages(16, 32, (1, 1, 1), (1, 2))},
    "hrnet_w18_small_v2": {"cfg": _stages(18, 64, (1, 3, 2), (2, 2))},
    "hrnet_w18": _large(18),
    "hrnet_w30": _large(30),
    "hrnet_w32": _large(32),
    "hrnet_w40": _large(40),
    "hrnet_w44": _large(44),
    "hrnet_w48": _large(48),
    "hrnet_w64": _large(64),
    "hrnet_w18_ssld": _large(18, head_conv_bias=False),
    "hrnet_w48_ssld": _large(48, head_conv_bias=False),
}


register_variants(_VARIANTS, HighResolutionNet)
