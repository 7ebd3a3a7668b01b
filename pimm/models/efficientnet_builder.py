"""Decode block strings and build stages of blocks from them, by the conventions of timm 0.1.20.

A block string such as ``ir_r2_k3_s2_e4_c24_se0.25_nsw_noskip`` is a block type and options in any order:

====== ==================================================================================================
type   ``ir`` inverted residual, ``ds`` depthwise separable, ``dsa`` the same with a last activation and no
       shortcut, ``er`` edge residual, ``cn`` convolution, batch norm and activation
``r``  number of such blocks in a row; only the first has the stride
``k``  kernel size, mixed kernels with dots (``k3.5.7``); ``a`` and ``p``: those of expansion and projection
``s``  stride
``e``  expansion ratio
``c``  output channels, before the width multiplier
``se`` squeeze-and-excitation ratio
``cc`` number of experts of conditional convolutions
``fc`` input channels from which the expansion is computed (``er``)
``n``  activation: ``re`` ReLU, ``r6`` ReLU6, ``hs`` hard swish, ``sw`` swish; by default the network's
====== ==================================================================================================

``noskip`` removes the shortcut.
"""

import itertools
import math
import re

from paddle import nn

from pimm.errors import ConfigError
from pimm.layers import BatchNorm2d, CondConv2d, HardSwish, Swish
from pimm.messages import did_you_mean
from pimm.models.efficientnet_blocks import (
    CondConvResidual,
    ConvBnAct,
    DepthwiseSeparableConv,
    EdgeResidual,
    InvertedResidual,
    round_channels,
)
from pimm.models.features import Stage, limit_strides, stage_features


def _kernel(text):
    return int(text) if text.isdigit() else [int(size) for size in text.split(".")]


_OPTIONS = {
    "r": int,
    "k": _kernel,
    "a": _kernel,
    "p": _kernel,
    "s": int,
    "e": float,
    "c": int,
    "se": float,
    "cc": int,
    "fc": int,
}
_ACTIVATIONS = {"re": nn.ReLU, "r6": nn.ReLU6, "hs": HardSwish, "sw": Swish}

_COMMON = {"s": "stride", "c": "out_chs"}
_RESIDUAL = {**_COMMON, "p": "pw_kernel_size", "se": "se_ratio"}
_DEPTHWISE = {**_RESIDUAL, "k": "dw_kernel_size"}
_ARGUMENTS = {  # block type: {option: constructor argument}
    "ir": {**_DEPTHWISE, "a": "exp_kernel_size", "e": "exp_ratio", "cc": "num_experts"},
    "ds": _DEPTHWISE,
    "dsa": _DEPTHWISE,
    "er": {**_RESIDUAL, "k": "exp_kernel_size", "e": "exp_ratio", "fc": "fake_in_chs"},
    "cn": {**_COMMON, "k": "kernel_size"},
}
_DEFAULTS = {"a": 1, "p": 1, "se": None, "fc": 0}
_REQUIRED = ("r", "k", "s", "c", "e")
_BLOCKS = {
    "ir": InvertedResidual,
    "ds": DepthwiseSeparableConv,
    "dsa": DepthwiseSeparableConv,
    "er": EdgeResidual,
    "cn": ConvBnAct,
}


def _choose(table, key, what, block_str):
    if key not in table:
        valid = f"valid are {', '.join(table)}{did_you_mean(key, table)}"
        raise ConfigError(f"block string {block_str!r:.80}: unknown {what} {key!r:.80}; {valid}")
    return table[key]


def _decode_block_str(block_str):
    """Return the constructor arguments, with ``block_type``, and the number of repeats of a block string."""
    block_type, *words = block_str.split("_")
    names = _choose(_ARGUMENTS, block_type, "block type", block_str)
    options, noskip, act_layer = dict(_DEFAULTS), False, None
    for word in words:
        number = re.fullmatch(r"([a-z]+)(\d+(?:\.\d+)*)", word)
        if word == "noskip":
            noskip = True
        elif word.startswith("n"):
            act_layer = _choose(_ACTIVATIONS, word[1:], "activation", block_str)
        elif number:
            options[number[1]] = _choose(_OPTIONS, number[1], "option", block_str)(number[2])
        else:
            raise ConfigError(
                f"block string {block_str!r:.80}: {word!r:.80} is neither an option with a number nor 'noskip'"
            )
    missing = [option for option in _REQUIRED if option not in options and (option in names or option == "r")]
    if missing:
        raise ConfigError(f"block string {block_str!r:.80} lacks {', '.join(missing)}")

    arguments = {name: options[option] for option, name in names.items() if option in options}
    arguments.update(block_type=block_type, act_layer=act_layer)
    if block_type != "cn":
        arguments["noskip"] = noskip or block_type == "dsa"
    if block_type in ("ds", "dsa"):
        arguments["pw_act"] = block_type == "dsa"
    return arguments, options["r"]


def _scale_stage_depth(stack_args, repeats, depth_multiplier=1.0, depth_trunc="ceil"):
    """Return the blocks of one stage, with each definition repeated according to the depth multiplier.

    The scaled total is distributed in proportion, from the last definition to the first, so that the first definition,
    which usually has one block, is the least likely to grow.
    """
    total = sum(repeats)
    if depth_trunc == "round":
        scaled_total = max(1, round(total * depth_multiplier))
    else:
        scaled_total = math.ceil(total * depth_multiplier)
    scaled = []
    for repeat in reversed(repeats):
        share = max(1, round(repeat / total * scaled_total))
        scaled.insert(0, share)
        total -= repeat
        scaled_total -= share
    return [dict(arguments) for arguments, count in zip(stack_args, scaled) for _ in range(count)]


def decode_arch_def(arch_def, depth_multiplier=1.0, depth_trunc="ceil", experts_multiplier=1, fix_first_last=False):
    """Return the constructor arguments of every block of a network, as one list for each stage.

    Args:
        arch_def: stages, each a list of block strings.
        depth_multiplier: factor of the number of blocks in a stage.
        depth_trunc: how a scaled number is rounded, ``ceil`` or ``round``.
        experts_multiplier: factor of the number of experts.
        fix_first_last: whether the first and the last stage keep their numbers of blocks.

    Raises:
        ConfigError: for a block string that is not valid.
    """
    stages = []
    for index, block_strings in enumerate(arch_def):
        decoded = [_decode_block_str(block_str) for block_str in block_strings]
        for arguments, _ in decoded:
            if arguments.get("num_experts"):
                arguments["num_experts"] *= experts_multiplier
        fixed = fix_first_last and index in (0, len(arch_def) - 1)
        stack_args, repeats = [arguments for arguments, _ in decoded], [repeat for _, repeat in decoded]
        stages.append(_scale_stage_depth(stack_args, repeats, 1.0 if fixed else depth_multiplier, depth_trunc))
    return stages


class EfficientNetBuilder:
    """Build the stages between stem and head: ``EfficientNetBuilder(...)(in_chs, decode_arch_def(...))``.

    Beyond ``output_stride`` strides become dilations. Stochastic depth grows linearly from 0 to ``drop_path_rate``
    over the blocks. After a call ``in_chs`` is the number of channels of the last block, and ``features`` describes the
    feature maps (`stage_features`). The arguments are those of `EfficientNet`.
    """

    def __init__(
        self,
        channel_multiplier=1.0,
        channel_divisor=8,
        channel_min=None,
        output_stride=32,
        pad_type="",
        act_layer=None,
        se_kwargs=None,
        norm_layer=BatchNorm2d,
        norm_kwargs=None,
        drop_path_rate=0.0,
    ):
        self.channel_multiplier = channel_multiplier
        self.channel_divisor = channel_divisor
        self.channel_min = channel_min
        self.output_stride = output_stride
        self.pad_type = pad_type
        self.act_layer = act_layer
        self.se_kwargs = se_kwargs
        self.norm_layer = norm_layer
        self.norm_kwargs = norm_kwargs
        self.drop_path_rate = drop_path_rate
        self.in_chs = None
        self.features = None

    def __call__(self, in_chs, model_block_args):
        """Return the list of stages, each a `paddle.nn.Sequential` of blocks."""
        self.in_chs = in_chs
        strides = [[stage[0]["stride"], *[1] * (len(stage) - 1)] for stage in model_block_args]
        placed = limit_strides(itertools.chain.from_iterable(strides), self.output_stride)
        block_count, block_index = sum(map(len, model_block_args)), 0
        stages, outputs = [], [Stage(True, in_chs, 2)]  # the stem halves the image
        for stage_args in model_block_args:
            blocks = []
            for arguments in stage_args:
                stride, dilation, reduction = next(placed)
                drop_path_rate = self.drop_path_rate * block_index / block_count
                blocks.append(self._make_block({**arguments, "stride": stride, "dilation": dilation}, drop_path_rate))
                block_index += 1
            stages.append(nn.Sequential(*blocks))
            outputs.append(Stage(stage_args[0]["stride"] > 1, self.in_chs, reduction))
        self.features = stage_features(outputs[0], outputs[1:])
        return stages

    def _round_channels(self, channels):
        return round_channels(channels, self.channel_multiplier, self.channel_divisor, self.channel_min)

    def _make_block(self, arguments, drop_path_rate):
        block_type = arguments.pop("block_type")
        block = _BLOCKS[block_type]
        arguments.update(
            in_chs=self.in_chs,
            out_chs=self._round_channels(arguments["out_chs"]),
            act_layer=arguments["act_layer"] or self.act_layer,
            pad_type=self.pad_type,
            norm_layer=self.norm_layer,
            norm_kwargs=self.norm_kwargs,
        )
        if block_type != "cn":
            arguments.update(se_kwargs=self.se_kwargs, drop_path_rate=drop_path_rate)
        if arguments.get("fake_in_chs"):
            arguments["fake_in_chs"] = self._round_channels(arguments["fake_in_chs"])
        if arguments.get("num_experts"):
            block = CondConvResidual
        self.in_chs = arguments["out_chs"]
        return block(**arguments)


def _init_weight_goog(m, n="", fix_group_fanout=True):
    """Initialise one layer ``m`` called ``n`` as Google's TensorFlow networks do.

    Convolutions: N(0, sqrt(2 / fan_out)), with fan_out of one group. Linear layers: U(-r, r), r = 1 / sqrt(fan_out), or
    1 / sqrt(fan_in + fan_out) for the router of conditional convolutions. Biases: 0. Batch norm: the identity.
    """
    if isinstance(m, (nn.Conv2D, CondConv2d)):
        fan_out = math.prod(m.kernel_size) * m.out_channels
        if fix_group_fanout:
            fan_out //= m.groups
        nn.initializer.Normal(0.0, math.sqrt(2.0 / fan_out))(m.weight)
    elif isinstance(m, nn.BatchNorm2D):
        if m.weight is not None:
            nn.initializer.Constant(1.0)(m.weight)
    elif isinstance(m, nn.Linear):
        fan_in, fan_out = m.weight.shape
        bound = 1.0 / math.sqrt(fan_out + (fan_in if "routing_fn" in n else 0))
        nn.initializer.Uniform(-bound, bound)(m.weight)
    else:
        return
    if m.bias is not None:
        nn.initializer.Constant(0.0)(m.bias)


def efficientnet_init_weights(model, init_fn=None):
    """Initialise every layer by ``init_fn(layer, name)``, by default as Google does."""
    init_fn = init_fn or _init_weight_goog
    for name, layer in model.named_sublayers(include_self=True):
        init_fn(layer, name)
