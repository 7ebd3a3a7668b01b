"""Xception of DeepLab (https://arxiv.org/abs/1802.02611): deeper, and with strides in place of pooling."""

from __future__ import annotations

from functools import partial

from paddle import nn

from pimm.errors import ConfigError
from pimm.layers import (
    BatchNorm2d,
    ClassifierHead,
    ConvNormAct,
    DropPath,
    create_act_layer,
    create_conv2d,
    get_norm_act_layer,
)
from pimm.models.features import feature_map, feature_take_indices, limit_strides
from pimm.models.headed import HeadedModel
from pimm.models.registry import register_variants


class SeparableConv2d(nn.Layer):
    """A convolution of each channel and one of one pixel, each with normalisation, and activation if there is one."""

    def __init__(
        self,
        in_chs,
        out_chs,
        kernel_size=3,
        stride=1,
        dilation=1,
        padding="",
        act_layer=nn.ReLU,
        norm_layer=BatchNorm2d,
    ):
        super().__init__()
        conv = {"stride": stride, "padding": padding, "dilation": dilation}
        self.conv_dw = create_conv2d(in_chs, in_chs, kernel_size, depthwise=True, **conv)
        self.bn_dw = norm_layer(in_chs)
        self.act_dw = create_act_layer(act_layer) or nn.Identity()
        self.conv_pw = create_conv2d(in_chs, out_chs, 1)
        self.bn_pw = norm_layer(out_chs)
        self.act_pw = create_act_layer(act_layer) or nn.Identity()

    def forward(self, x):
        x = self.act_dw(self.bn_dw(self.conv_dw(x)))
        return self.act_pw(self.bn_pw(self.conv_pw(x)))


class PreSeparableConv2d(nn.Layer):
    """Normalisation with activation, if ``first_act``, a convolution of each channel and one of one pixel."""

    def __init__(
        self,
        in_chs,
        out_chs,
        kernel_size=3,
        stride=1,
        dilation=1,
        padding="",
        act_layer=nn.ReLU,
        norm_layer=BatchNorm2d,
        first_act=True,
    ):
        super().__init__()
        conv = {"stride": stride, "padding": padding, "dilation": dilation}
        self.norm = get_norm_act_layer(norm_layer, act_layer)(in_chs) if first_act else nn.Identity()
        self.conv_dw = create_conv2d(in_chs, in_chs, kernel_size, depthwise=True, **conv)
        self.conv_pw = create_conv2d(in_chs, out_chs, 1)

    def forward(self, x):
        return self.conv_pw(self.conv_dw(self.norm(x)))


class _Module(nn.Layer):
    """Three separable convolutions ``stack`` beside a shortcut.

    The layers before the last convolution make a feature map, at which `cut` ends the module.
    """

    def __init__(self, no_skip, shortcut, drop_path):
        super().__init__()
        self.no_skip = no_skip
        self.shortcut = None if no_skip else shortcut
        self.drop_path = DropPath(drop_path) if drop_path else None

    def begin(self, x):
        """Return the input of convolutions and shortcut."""
        return x

    def with_inner(self, x):
        """Return the output, and the input of the last convolution."""
        *layers, last = self.stack
        inner = x = self.begin(x)
        for layer in layers:
            inner = layer(inner)
        return self.add(last(inner), x), inner

    def cut(self):
        """Take out the last convolution and the shortcut."""
        self.stack = nn.Sequential(*list(self.stack.named_children())[:-1], ("end", nn.Identity()))
        self.no_skip, self.shortcut = True, None

    def add(self, out, x):
        """Return the sum of the output of the convolutions and the shortcut."""
        if self.no_skip:
            return out
        out = out if self.drop_path is None else self.drop_path(out)
        return out + (x if self.shortcut is None else self.shortcut(x))

    def forward(self, x):
        x = self.begin(x)
        return self.add(self.stack(x), x)


class XceptionModule(_Module):
    """Module whose activations are before the convolutions, or in them without ``start_with_relu``."""

    def __init__(
        self,
        in_chs,
        out_chs,
        stride=1,
        dilation=1,
        start_with_relu=True,
        no_skip=False,
        act_layer=nn.ReLU,
        norm_layer=BatchNorm2d,
        drop_path=0.0,
        projects=False,
    ):
        shortcut = {"stride": stride, "norm_layer": norm_layer, "apply_act": False}
        super().__init__(no_skip, ConvNormAct(in_chs, out_chs[-1], 1, **shortcut) if projects else None, drop_path)
        self.stack = nn.Sequential()
        for number, width in enumerate(out_chs, start=1):
            if start_with_relu:
                self.stack.add_sublayer(f"act{number}", create_act_layer(act_layer))
            conv = SeparableConv2d(
                in_chs,
                width,
                stride=stride if number == 3 else 1,
                dilation=dilation,
                act_layer=None if start_with_relu else act_layer,
                norm_layer=norm_layer,
            )
            self.stack.add_sublayer(f"conv{number}", conv)
            in_chs = width


class PreXceptionModule(_Module):
    """Module with normalisation and activation before each convolution."""

    def __init__(
        self,
        in_chs,
        out_chs,
        stride=1,
        dilation=1,
        no_skip=False,
        act_layer=nn.ReLU,
        norm_layer=BatchNorm2d,
        drop_path=0.0,
        projects=False,
    ):
        super().__init__(no_skip, create_conv2d(in_chs, out_chs[-1], 1, stride=stride) if projects else None, drop_path)
        layers = {"act_layer": act_layer, "norm_layer": norm_layer}
        self.norm = get_norm_act_layer(norm_layer, act_layer)(in_chs)
        self.stack = nn.Sequential()
        for number, width in enumerate(out_chs, start=1):
            conv = PreSeparableConv2d(
                in_chs,
                width,
                stride=stride if number == 3 else 1,
                dilation=dilation,
                first_act=number > 1,
                **layers,
            )
            self.stack.add_sublayer(f"conv{number}", conv)
            in_chs = width

    def begin(self, x):
        """Return the input of convolutions and shortcut."""
        return self.norm(x)


class XceptionAligned(HeadedModel):
    """Two convolutions, blocks, and a head.

    The feature maps inside the net are those before the last convolution of a block with a stride.

    Args:
        block_cfg: arguments of each block.
        num_classes: classes.
        in_chans: channels of the images.
        output_stride: the largest reduction, 8, 16 or 32; strides above it become dilation.
        preact: whether normalisation and activation are before convolutions.
        act_layer: class or name of the activations.
        norm_layer: class of the normalisations.
        drop_rate: dropout before the classifier.
        drop_path_rate: rate of stochastic depth of the last block.
        global_pool: as in `pimm.layers.SelectAdaptivePool2d`.

    Raises:
        ConfigError: for another ``output_stride``.
    """

    stages_name = "blocks"
    final_layers = ("act",)

    def __init__(
        self,
        block_cfg,
        num_classes=1000,
        in_chans=3,
        output_stride=32,
        preact=False,
        act_layer=nn.ReLU,
        norm_layer=BatchNorm2d,
        drop_rate=0.0,
        drop_path_rate=0.0,
        global_pool="avg",
    ):
        super().__init__()
        self.num_classes, self.drop_rate = num_classes, drop_rate
        layers = {"act_layer": act_layer, "norm_layer": norm_layer}
        second = create_conv2d(32, 64, 3) if preact else ConvNormAct(32, 64, 3, **layers)
        self.stem = nn.Sequential(ConvNormAct(in_chans, 32, 3, stride=2, **layers), second)
        module, self.feature_info, blocks, reduction = PreXceptionModule if preact else XceptionModule, [], [], 2
        strides = limit_strides([cfg["stride"] for cfg in block_cfg], output_stride)
        for index, (cfg, (stride, dilation, after)) in enumerate(zip(block_cfg, strides)):
            if cfg["stride"] > 1:
                name = f"blocks.{index}.stack.{'conv2' if preact else 'act3'}"
                self._add_feature_map(name, cfg["out_chs"][-2], reduction, index + 1)
            rate = drop_path_rate * index / (len(block_cfg) - 1)
            changed = {"stride": stride, "dilation": dilation, "drop_path": rate}
            projects = cfg["in_chs"] != cfg["out_chs"][-1] or stride != 1
            blocks.append(module(**{**cfg, **changed}, projects=projects, **layers))
            reduction = after
        self.num_features = block_cfg[-1]["out_chs"][-1]
        self._add_feature_map(f"blocks.{len(blocks) - 1}", self.num_features, reduction, len(blocks))
        self.blocks = nn.Sequential(*blocks)
        self.act = create_act_layer(act_layer) if preact else nn.Identity()
        self.head = ClassifierHead(self.num_features, num_classes, pool_type=global_pool, drop_rate=drop_rate)
        self.head_hidden_size = self.head.num_features

    def _add_feature_map(self, module, channels, reduction, stage):
        self.feature_info.append(feature_map(module, stage, channels, reduction))

    def final(self, x):
        """Return the output of the last activation."""
        return self.act(x)

    def keep_stages(self, count):
        """Take out the blocks after the first ``count``, and end the last of these at its feature map."""
        super().keep_stages(count)
        self.blocks[-1].cut()

    def forward_intermediates(
        self, x, indices=None, norm=False, stop_early=False, output_fmt="NCHW", intermediates_only=False
    ):
        """Return the output of `forward_features` and feature maps; arguments as in `ImageModel`."""
        if output_fmt != "NCHW":
            raise ConfigError(f"output_fmt is {output_fmt!r:.80}; valid is NCHW, for this net")
        taken, last = feature_take_indices(len(self.feature_info), indices)
        taken = {self.feature_info[index]["stage"] for index in taken}
        run = list(self.blocks)[: self.feature_info[last]["stage"]] if stop_early else list(self.blocks)
        x, found, end = self.stem(x), [], self.feature_info[-1]["stage"]
        for number, block in enumerate(run, start=1):
            if number in taken and number < end:
                x, inner = block.with_inner(x)
                found.append(inner)
                continue
            x = self._run(block, x)
            if number in taken:
                found.append(x)
        if intermediates_only:
            return found
        return (self.final(x) if len(run) == len(self.blocks) else x), found

    def group_matcher(self, coarse=False):
        """Return the patterns of the parameters' names by depth."""
        return {"stem": r"^stem", "blocks": r"^blocks\.(\d+)"}


def _blocks(middle, out=((728, 1024, 1024), (1536, 1536, 2048)), entry=None, **last):
    """Return the arguments of the blocks, of which ``middle`` are equal."""
    entry = entry or ((64, 128, 2), (128, 256, 2), (256, 728, 2))
    rows = [*entry, *[(728, 728, 1)] * middle, (728, out[0], 2), (1024, out[1], 1)]
    blocks = [
        {"in_chs": ins, "out_chs": outs if isinstance(outs, tuple) else (outs,) * 3, "stride": stride}
        for ins, outs, stride in rows
    ]
    blocks[-1].update(no_skip=True, **last)
    return blocks


_ENTRY_71 = ((64, 128, 2), (128, 256, 1), (256, 256, 2), (256, 728, 1), (728, 728, 2))
_NORM = {"norm_layer": partial(BatchNorm2d, eps=1e-3, momentum=0.1)}


register_variants(
    {
        "xception41": {"block_cfg": _blocks(8, start_with_relu=False), **_NORM},
        "xception65": {"block_cfg": _blocks(16, start_with_relu=False), **_NORM},
        "xception71": {"block_cfg": _blocks(16, entry=_ENTRY_71, start_with_relu=False), **_NORM},
        "xception41p": {"block_cfg": _blocks(8), "preact": True, "norm_layer": BatchNorm2d},
        "xception65p": {"block_cfg": _blocks(16), "preact": True, **_NORM},
    },
    XceptionAligned,
)
