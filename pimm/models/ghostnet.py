"""GhostNet (https://arxiv.org/abs/1911.11907), V2 (https://arxiv.org/abs/2211.12905), V3 (https://arxiv.org/abs/2404.11202).

Names, state names and numbers are those of timm. V3 is trained with parallel branches; `convert_to_deploy` makes one
convolution of them.
"""

import math

import paddle
import paddle.nn.functional as F
from paddle import nn

from pimm.errors import ConfigError
from pimm.layers import BatchNorm2d, Conv2d, SelectAdaptivePool2d, SqueezeExcite, hard_sigmoid, make_divisible, norm_act
from pimm.layers.fuse import conv_with, fuse_norm, identity_kernel, pad_kernel
from pimm.models.efficientnet_blocks import ConvBnAct
from pimm.models.features import Stage, feature_take_indices, stage_features
from pimm.models.interface import ImageModel
from pimm.models.registry import register_variants
from pimm.models.reparameterize import reparameterize_model
from pimm.optim.layer_groups import MATCH_PREV_GROUP

_BRANCHES = 3  # parallel convolutions in training, of V3


def conv_norm(in_chs, out_chs, kernel_size, stride=1, groups=1):
    """Return a convolution that keeps the size at stride 1, and its batch norm."""
    padding = tuple(size // 2 for size in kernel_size) if isinstance(kernel_size, tuple) else kernel_size // 2
    return Conv2d(in_chs, out_chs, kernel_size, stride, padding, groups=groups, bias=False), BatchNorm2d(out_chs)


def _long_range_gate(in_chs, out_chs):
    """Return the layers of the gate that sees rows and columns of five pixels (DFC attention)."""
    return nn.Sequential(
        *conv_norm(in_chs, out_chs, 1),
        *conv_norm(out_chs, out_chs, (1, 5), groups=out_chs),
        *conv_norm(out_chs, out_chs, (5, 1), groups=out_chs),
    )


def _gated(x, gate):
    """Return ``x`` scaled by the sigmoid of a gate of half the size."""
    return x * F.interpolate(F.sigmoid(gate), size=x.shape[2:], mode="nearest")


class GhostModule(nn.Layer):
    """Compute half of the channels by a pointwise convolution, and the other half from them by a depthwise one.

    Args:
        in_chs: channels of the input.
        out_chs: channels of the output.
        act_layer: class of the activations.
    """

    def __init__(self, in_chs, out_chs, act_layer=nn.ReLU):
        super().__init__()
        half = math.ceil(out_chs / 2)
        self.out_chs = out_chs
        self.primary_conv = nn.Sequential(*conv_norm(in_chs, half, 1), act_layer())
        self.cheap_operation = nn.Sequential(*conv_norm(half, half, 3, groups=half), act_layer())

    def forward(self, x):
        first = self.primary_conv(x)
        return paddle.concat([first, self.cheap_operation(first)], axis=1)[:, : self.out_chs]  # [N, out, H, W]


class GhostModuleV2(GhostModule):
    """Scale the output of a `GhostModule` by a gate that sees distant pixels; arguments are those of `GhostModule`."""

    def __init__(self, in_chs, out_chs, act_layer=nn.ReLU):
        super().__init__(in_chs, out_chs, act_layer)
        self.short_conv = _long_range_gate(in_chs, out_chs)

    def forward(self, x):
        return _gated(super().forward(x), self.short_conv(F.avg_pool2d(x, 2, 2)))


def _branches(in_chs, out_chs, kernel_size, stride=1, group_size=0):
    return nn.LayerList(
        ConvBnAct(
            in_chs, out_chs, kernel_size, stride, pad_type=kernel_size // 2, act_layer=None, group_size=group_size
        )
        for _ in range(_BRANCHES)
    )


def _fused(branches, identity=None):
    """Return the convolution that computes the sum of branches, the first of which has the largest kernel.

    Args:
        branches: blocks of a convolution and a batch norm.
        identity: the batch norm of a branch without a convolution, or None.
    """
    conv = branches[0].conv
    fused = [fuse_norm(pad_kernel(branch.conv.weight, conv.kernel_size), branch.bn1) for branch in branches]
    if identity is not None:
        fused.append(fuse_norm(identity_kernel(conv.in_channels, conv.groups, conv.kernel_size), identity))
    kernels, biases = zip(*fused)
    return conv_with(sum(kernels), sum(biases), conv.stride, conv.dilation, conv.groups)


class GhostModuleV3(nn.Layer):
    """Compute a `GhostModule` of parallel branches, which become one convolution each for inference.

    Args:
        in_chs: channels of the input.
        out_chs: channels of the output.
        act_layer: class of the activations.
        gated: whether the output is scaled as in `GhostModuleV2`.
    """

    def __init__(self, in_chs, out_chs, act_layer=nn.ReLU, gated=False):
        super().__init__()
        half = math.ceil(out_chs / 2)
        self.out_chs, self.deployed = out_chs, False
        self.primary_conv = self.cheap_operation = nn.Identity()
        self.primary_rpr_conv = _branches(in_chs, half, 1)
        self.primary_activation = act_layer()
        self.cheap_rpr_skip = BatchNorm2d(half)
        self.cheap_rpr_conv = _branches(half, half, 3, group_size=1)
        self.cheap_rpr_scale = ConvBnAct(half, half, 1, pad_type=0, act_layer=None, group_size=1)
        self.cheap_activation = act_layer()
        self.short_conv = _long_range_gate(in_chs, out_chs) if gated else None

    def forward(self, x):
        first = self.primary_activation(self._primary(x))
        out = paddle.concat([first, self.cheap_activation(self._cheap(first))], axis=1)[:, : self.out_chs]
        return out if self.short_conv is None else _gated(out, self.short_conv(F.avg_pool2d(x, 2, 2)))

    def _primary(self, x):
        return self.primary_conv(x) if self.deployed else sum(branch(x) for branch in self.primary_rpr_conv)

    def _cheap(self, x):
        if self.deployed:
            return self.cheap_operation(x)
        return self.cheap_rpr_scale(x) + self.cheap_rpr_skip(x) + sum(branch(x) for branch in self.cheap_rpr_conv)

    def reparameterize(self):
        """Make one convolution of all branches of each half."""
        if self.deployed:
            return
        self.primary_conv = nn.Sequential(_fused(self.primary_rpr_conv))
        self.cheap_operation = nn.Sequential(_fused([*self.cheap_rpr_conv, self.cheap_rpr_scale], self.cheap_rpr_skip))
        del self.primary_rpr_conv, self.cheap_rpr_conv, self.cheap_rpr_scale, self.cheap_rpr_skip
        self.deployed = True


class GhostBottleneck(nn.Layer):
    """Expand and project channels by two ghost modules, with a depthwise convolution and a gate between them.

    Args:
        in_chs: channels of the input.
        mid_chs: channels between the modules.
        out_chs: channels of the output.
        dw_kernel_size: kernel of the depthwise convolutions.
        stride: by how much the images shrink.
        se_ratio: hidden channels of the gate for each of ``mid_chs``; 0 for no gate.
        gated: whether the first module is scaled by a gate that sees distant pixels.
    """

    def __init__(self, in_chs, mid_chs, out_chs, dw_kernel_size=3, stride=1, se_ratio=0.0, gated=False):
        super().__init__()
        self.stride = stride
        self._create_modules(in_chs, mid_chs, out_chs, gated)
        self._create_depthwise(mid_chs, dw_kernel_size, stride)
        self.se = None
        if se_ratio:
            self.se = SqueezeExcite(mid_chs, se_ratio, gate_fn=hard_sigmoid, divisor=4)
        self.shortcut = nn.Identity()
        if in_chs != out_chs or stride > 1:
            self.shortcut = nn.Sequential(
                *conv_norm(in_chs, in_chs, dw_kernel_size, stride, groups=in_chs), *conv_norm(in_chs, out_chs, 1)
            )

    def _create_modules(self, in_chs, mid_chs, out_chs, gated):
        self.ghost1 = (GhostModuleV2 if gated else GhostModule)(in_chs, mid_chs)
        self.ghost2 = GhostModule(mid_chs, out_chs, act_layer=nn.Identity)

    def _create_depthwise(self, channels, kernel_size, stride):
        self.conv_dw = self.bn_dw = nn.Identity()
        if stride > 1:
            self.conv_dw, self.bn_dw = conv_norm(channels, channels, kernel_size, stride, groups=channels)

    def _depthwise(self, x):
        return self.bn_dw(self.conv_dw(x))

    def forward(self, x):
        shortcut = x
        x = self._depthwise(self.ghost1(x))  # [N, mid, H / stride, W / stride]
        if self.se is not None:
            x = self.se(x)
        return self.ghost2(x) + self.shortcut(shortcut)  # [N, out, H / stride, W / stride]


class GhostBottleneckV3(GhostBottleneck):
    """Compute a `GhostBottleneck` of parallel branches; arguments are those of `GhostBottleneck`."""

    def _create_modules(self, in_chs, mid_chs, out_chs, gated):
        self.ghost1 = GhostModuleV3(in_chs, mid_chs, gated=gated)
        self.ghost2 = GhostModuleV3(mid_chs, out_chs, act_layer=nn.Identity)

    def _create_depthwise(self, channels, kernel_size, stride):
        self.conv_dw = self.bn_dw = nn.Identity()
        self.dw_rpr_conv, self.dw_rpr_scale = nn.LayerList(), None
        if stride > 1:
            self.dw_rpr_conv = _branches(channels, channels, kernel_size, stride, group_size=1)
            self.dw_rpr_scale = ConvBnAct(channels, channels, 1, stride, pad_type=0, act_layer=None, group_size=1)

    def _depthwise(self, x):
        if self.dw_rpr_scale is None:
            return self.conv_dw(x)
        return self.dw_rpr_scale(x) + sum(branch(x) for branch in self.dw_rpr_conv)

    def reparameterize(self):
        """Make one depthwise convolution of all branches."""
        if self.dw_rpr_scale is not None:
            self.conv_dw = _fused([*self.dw_rpr_conv, self.dw_rpr_scale])
            self.dw_rpr_conv, self.dw_rpr_scale = nn.LayerList(), None


class GhostNet(ImageModel):
    """Classify images with a stem, stages of ghost bottlenecks and the head of MobileNet V3.

    Args:
        cfgs: the blocks by stage, each a list of kernel, expanded channels, channels, gate ratio and stride.
        num_classes: classes; 0 for a net that returns the features of the head.
        width: width multiplier.
        in_chans: channels of the images.
        output_stride: 32.
        global_pool: ``avg``, ``max``, ``avgmax``, ``catavgmax``, or without pooling ``""``.
        drop_rate: dropout before the classifier.
        version: ``v1``, ``v2`` or ``v3``.

    Raises:
        ConfigError: for another ``output_stride``.
    """

    head_layers = ("conv_head", "act2")
    last_factor = 1  # channels of the last convolution for each expanded channel of the last block

    def __init__(
        self,
        cfgs,
        num_classes=1000,
        width=1.0,
        in_chans=3,
        output_stride=32,
        global_pool="avg",
        drop_rate=0.2,
        version="v1",
    ):
        super().__init__()
        if output_stride != 32:
            raise ConfigError(f"output_stride is {output_stride!r:.80}; GhostNet cannot be dilated, valid is 32")
        self.in_chans, self.drop_rate = in_chans, drop_rate
        channels = make_divisible(16 * width, 4)
        self.conv_stem = Conv2d(in_chans, channels, 3, 2, 1, bias=False)
        self.bn1, self.act1 = BatchNorm2d(channels), nn.ReLU()
        self.version = version
        stages, outputs, reduction, count = [], [Stage(True, channels, 2)], 2, 0
        for stage in cfgs:
            blocks = []
            for kernel, expanded, out, se_ratio, stride in stage:
                in_chs, mid_chs = channels, make_divisible(expanded * width, 4)
                channels, reduction = make_divisible(out * width, 4), reduction * stride
                blocks.append(self.create_block(count, in_chs, mid_chs, channels, kernel, stride, se_ratio))
                count += 1
            stages.append(nn.Sequential(*blocks))
            outputs.append(Stage(stage[0][-1] > 1, channels, reduction))
        self.num_features = make_divisible(self.last_factor * expanded * width, 4)
        self.blocks = nn.Sequential(*stages, nn.Sequential(ConvBnAct(channels, self.num_features, 1)))
        self.feature_info = _of_shrinking_stages(outputs)

        pooled = self.num_features * SelectAdaptivePool2d(pool_type=global_pool).feat_mult()
        self.conv_head = Conv2d(pooled, 1280, 1)
        self.act2 = nn.ReLU()
        self.create_head(num_classes, global_pool, 1280)

    def create_block(self, index, *sizes):
        """Return a block by its number in the net, and by the first arguments of `GhostBottleneck`."""
        block = GhostBottleneckV3 if self.version == "v3" else GhostBottleneck
        return block(*sizes, gated=self.version != "v1" and index > 1)

    def group_matcher(self, coarse=False):
        """Return the patterns for ``group_with_matcher`` by block, or by stage if ``coarse``."""
        blocks = r"^blocks\.(\d+)" if coarse else r"^blocks\.(\d+)\.(\d+)"
        return {"stem": r"^conv_stem|bn1", "blocks": [(blocks, None), (r"conv_head", MATCH_PREV_GROUP)]}

    def stem(self, x):  # [N, in_chans, H, W]
        """Return the first feature map, which is not yet normalised."""
        return self.conv_stem(x)  # [N, stem, H / 2, W / 2]

    def _run(self, stage, x):
        if stage is self.blocks[0]:
            x = norm_act(x, self.bn1, self.act1)
        return super()._run(stage, x)

    def pre_logits(self, x):
        """Return the output of the head convolution for pooled feature maps."""
        return self.act2(self.conv_head(x))  # [N, head_hidden_size, 1, 1]

    def prune_intermediate_layers(self, indices=1, prune_norm=False, prune_head=True):
        """Take out layers as `ImageModel` does; a kept head keeps the last convolution before it, too."""
        taken, last = feature_take_indices(len(self.feature_info), indices)
        if last == len(self.feature_info) - 1 and not (prune_norm or prune_head):
            return taken
        return super().prune_intermediate_layers(indices, prune_norm, prune_head)

    def convert_to_deploy(self):
        """Make one convolution of each group of parallel branches, in place."""
        reparameterize_model(self, inplace=True)


def _of_shrinking_stages(outputs):
    """List the output of the stem and of each stage that shrinks its input, in place of the last before each."""
    described = stage_features(outputs[0], [output._replace(shrinks=True) for output in outputs[1:]], "conv_stem")
    return [info for info, output in zip(described, outputs) if output.shrinks]


def checkpoint_filter_fn(state_dict, model):
    """Return the weights of timm's hub, or of the authors, under the names of a model here."""
    renamed = {}
    for name, value in state_dict.items():
        if ".ghost" in name or ".dw_rpr_" in name:
            name = name.replace("bn.", "bn1.")
        if "total" not in name:  # counters of operations
            renamed[name] = value
    return renamed


_STAGES = [  # kernel, expanded channels, channels, gate ratio, stride
    [[3, 16, 16, 0, 1]],
    [[3, 48, 24, 0, 2]],
    [[3, 72, 24, 0, 1]],
    [[5, 72, 40, 0.25, 2]],
    [[5, 120, 40, 0.25, 1]],
    [[3, 240, 80, 0, 2]],
    [
        [3, 200, 80, 0, 1],
        [3, 184, 80, 0, 1],
        [3, 184, 80, 0, 1],
        [3, 480, 112, 0.25, 1],
        [3, 672, 112, 0.25, 1],
    ],
    [[5, 672, 160, 0.25, 2]],
    [[5, 960, 160, 0, 1], [5, 960, 160, 0.25, 1], [5, 960, 160, 0, 1], [5, 960, 160, 0.25, 1]],
]
_VARIANTS = {
    "ghostnet_050": {"width": 0.5},
    "ghostnet_100": {"width": 1.0},
    "ghostnet_130": {"width": 1.3},
    "ghostnetv2_100": {"width": 1.0, "version": "v2"},
    "ghostnetv2_130": {"width": 1.3, "version": "v2"},
    "ghostnetv2_160": {"width": 1.6, "version": "v2"},
    "ghostnetv3_050": {"width": 0.5, "version": "v3"},
    "ghostnetv3_100": {"width": 1.0, "version": "v3"},
    "ghostnetv3_130": {"width": 1.3, "version": "v3"},
    "ghostnetv3_160": {"width": 1.6, "version": "v3"},
}


def _create(variant, **kwargs):
    return GhostNet(_STAGES, **{**variant, **kwargs})


register_variants(_VARIANTS, _create)
