"""Decode block strings and build stages of blocks from them, by the conventions of timm.

A block string such as ``ir_r2_k3_s2_e4_c24_se0.25_nsw_noskip`` is a block type and options in any order:

====== ==================================================================================================
type   ``ir`` inverted residual, ``ds`` depthwise separable, ``dsa`` the same with a last activation and no
       shortcut, ``er`` edge residual, ``cn`` convolution, batch norm and activation, ``uir`` universal inverted
       residual, ``mha`` attention of several heads, ``mqa`` the same with one key and value
``r``  number of such blocks in a row; only the first has the stride
``k``  kernel size, mixed kernels with dots (``k3.5.7``); ``a`` and ``p``: those of expansion and projection, and in
       ``uir`` those of the depthwise convolutions before and after them, of which 0 stands for none
``s``  stride
``e``  expansion ratio
``c``  output channels, before the width multiplier
``se`` squeeze-and-excitation ratio
``cc`` number of experts of conditional convolutions
``fc`` input channels from which the expansion is computed (``er``)
``gs`` channels that a group of the spatial convolution mixes
``d``  1: the block begins with space to depth (``ds``); channels of a head (``mha``, ``mqa``)
``h``  heads (``mha``, ``mqa``)
``v``  stride of the images that key and value are made of (``mqa``)
``n``  activation: ``re`` ReLU, ``r6`` ReLU6, ``hs`` hard swish, ``sw`` swish; by default the network's
====== ==================================================================================================

``noskip`` removes the shortcut; ``skip`` adds one to ``cn``.
"""

import functools
import itertools
import math
import re

from paddle import nn

from pimm.errors import ConfigError
from pimm.layers import BatchNorm2d, CondConv2d, HardSwish, Swish, get_attn
from pimm.messages import did_you_mean
from pimm.models.efficientnet_blocks import (
    CondConvResidual,
    ConvBnAct,
    DepthwiseSeparableConv,
    EdgeResidual,
    InvertedResidual,
    round_channels,
)
from pimm.models.efficientnet_universal import MobileAttention, UniversalInvertedResidual
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
    "gs": int,
    "d": int,
    "h": int,
    "v": int,
}
_ACTIVATIONS = {"re": nn.ReLU, "r6": nn.ReLU6, "hs": HardSwish, "sw": Swish}

_COMMON = {"s": "stride", "c": "out_chs", "gs": "group_size"}
_RESIDUAL = {**_COMMON, "p": "pw_kernel_size", "se": "se_ratio"}
_DEPTHWISE = {**_RESIDUAL, "k": "dw_kernel_size"}
_SEPARABLE = {**_DEPTHWISE, "d": "s2d"}
_ATTENTION = {**_COMMON, "k": "dw_kernel_size", "h": "num_heads", "d": "key_dim", "v": "kv_stride"}
_ARGUMENTS = {  # block type: {option: constructor argument}
    "ir": {**_DEPTHWISE, "a": "exp_kernel_size", "e": "exp_ratio", "cc": "num_experts"},
    "ds": _SEPARABLE,
    "dsa": _SEPARABLE,
    "er": {**_RESIDUAL, "k": "exp_kernel_size", "e": "exp_ratio", "fc": "fake_in_chs"},
    "cn": {**_COMMON, "k": "kernel_size"},
    "uir": {
        **_COMMON,
        "a": "dw_kernel_size_start",
        "k": "dw_kernel_size_mid",
        "p": "dw_kernel_size_end",
        "e": "exp_ratio",
        "se": "se_ratio",
    },
    "mha": _ATTENTION,
    "mqa": _ATTENTION,
}
_DEFAULTS = {"a": 1, "p": 1, "se": None, "fc": 0}
_DEFAULTS_OF = {"uir": {**_DEFAULTS, "a": 0, "p": 0}}
_REQUIRED = ("r", "k", "s", "c", "e", "h")
_BLOCKS = {
    "ir": InvertedResidual,
    "ds": DepthwiseSeparableConv,
    "dsa": DepthwiseSeparableConv,
    "er": EdgeResidual,
    "cn": ConvBnAct,
    "uir": UniversalInvertedResidual,
    "mha": MobileAttention,
    "mqa": MobileAttention,
}
_GATED = ("ir", "ds", "dsa", "er", "uir")
_SCALED = ("uir", "mha", "mqa")
_WIDENING = 4  # of the channels, by space to depth


def _choose(table, key, what, block_str):
    if key not in table:
        valid = f"valid are {', '.join(table)}{did_you_mean(key, table)}"
        raise ConfigError(f"block string {block_str!r:.80}: unknown {what} {key!r:.80}; {valid}")
    return table[key]


def _decode_block_str(block_str):
    """Return the constructor arguments, with ``block_type``, and the number of repeats of a block string."""
    block_type, *words = block_str.split("_")
    names = _choose(_ARGUMENTS, block_type, "block type", block_str)
    options, noskip, skip, act_layer = dict(_DEFAULTS_OF.get(block_type, _DEFAULTS)), False, False, None
    for word in words:
        number = re.fullmatch(r"([a-z]+)(\d+(?:\.\d+)*)", word)
        if word == "noskip":
            noskip = True
        elif word == "skip" and block_type == "cn":
            skip = True
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
    elif skip:
        arguments["skip"] = True
    if block_type in ("mha", "mqa") and "key_dim" in arguments:
        arguments["value_dim"] = arguments["key_dim"]
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


def decode_arch_def(
    arch_def,
    depth_multiplier=1.0,
    depth_trunc="ceil",
    experts_multiplier=1,
    fix_first_last=False,
    group_size=None,
):
    """Return the constructor arguments of every block of a network, as one list for each stage.

    Args:
        arch_def: stages, each a list of block strings.
        depth_multiplier: factor of the number of blocks in a stage, or a tuple of the factors of all stages.
        depth_trunc: how a scaled number is rounded, ``ceil`` or ``round``.
        experts_multiplier: factor of the number of experts.
        fix_first_last: whether the first and the last stage keep their numbers of blocks.
        group_size: channels of a group of the spatial convolutions, where a block string does not say; None for the
            blocks' own.

    Raises:
        ConfigError: for a block string that is not valid.
    """
    stages = []
    factors = depth_multiplier if isinstance(depth_multiplier, tuple) else (depth_multiplier,) * len(arch_def)
    for index, (block_strings, factor) in enumerate(zip(arch_def, factors)):
        decoded = [_decode_block_str(block_str) for block_str in block_strings]
        for arguments, _ in decoded:
            if arguments.get("num_experts"):
                arguments["num_experts"] *= experts_multiplier
            if group_size is not None:
                arguments.setdefault("group_size", group_size)
        fixed = fix_first_last and index in (0, len(arch_def) - 1)
        stack_args, repeats = [arguments for arguments, _ in decoded], [repeat for _, repeat in decoded]
        stages.append(_scale_stage_depth(stack_args, repeats, 1.0 if fixed else factor, depth_trunc))
    return stages


def _spread_space_to_depth(stages):
    """Return copies of the blocks' arguments, in which blocks after space to depth are wider, up to the next stride.

    The block that ends the wide region loses its stride, and expands its wide input by as much less.
    """
    wide, spread = False, []
    for stage in stages:
        blocks = []
        for index, arguments in enumerate(stage):
            arguments = {**arguments, "stride": arguments["stride"] if index == 0 else 1}
            begins = arguments.pop("s2d", 0) and not wide
            if begins:
                wide = arguments["s2d"] = True
            elif wide and arguments["stride"] > 1:
                wide = False
                arguments.update(stride=1, exp_ratio=arguments["exp_ratio"] / _WIDENING)
            blocks.append({**arguments, "widening": _WIDENING if wide else 1})
        spread.append(blocks)
    return spread


def _shrinks(arguments):
    return 2 if arguments.get("s2d") else arguments["stride"]


class EfficientNetBuilder:
    """Build the stages between stem and head: ``EfficientNetBuilder(...)(in_chs, decode_arch_def(...))``.

    Beyond ``output_stride`` strides become dilations. Stochastic depth grows linearly from 0 to ``drop_path_rate``
    over the blocks. After a call ``in_chs`` is the number of channels of the last block, and ``features`` describes the
    feature maps (`stage_features`). The arguments are those of `EfficientNet`; ``se_from_exp`` tells a gate of
    ``se_layer`` to derive its hidden channels from the expanded ones, and ``layer_scale_init_value`` is that of
    MobileNet V4's blocks.
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
        round_limit=0.9,
        aa_layer=None,
        se_layer=None,
        se_from_exp=False,
        layer_scale_init_value=None,
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
        self.round_limit = round_limit
        self.aa_layer = aa_layer
        self.se_layer = None if se_layer is None else get_attn(se_layer)
        self.se_from_exp = se_from_exp
        self.layer_scale_init_value = layer_scale_init_value
        self.in_chs = None
        self.features = None

    def __call__(self, in_chs, model_block_args):
        """Return the list of stages, each a `paddle.nn.Sequential` of blocks."""
        self.in_chs = in_chs
        model_block_args = _spread_space_to_depth(model_block_args)
        strides = map(_shrinks, itertools.chain.from_iterable(model_block_args))
        placed = limit_strides(strides, self.output_stride)
        block_count, block_index = sum(map(len, model_block_args)), 0
        stages, outputs = [], [Stage(True, in_chs, 2)]  # the stem halves the image
        for stage_args in model_block_args:
            shrinks, blocks = _shrinks(stage_args[0]) > 1, []
            for arguments in stage_args:
                stride, dilation, reduction = next(placed)
                arguments.update(stride=1 if arguments.get("s2d") else stride, dilation=dilation)
                blocks.append(self._make_block(arguments, self.drop_path_rate * block_index / block_count))
                block_index += 1
            stages.append(nn.Sequential(*blocks))
            outputs.append(Stage(shrinks, self.in_chs, reduction))
        self.features = stage_features(outputs[0], outputs[1:])
        return stages

    def _round_channels(self, channels):
        return round_channels(
            channels, self.channel_multiplier, self.channel_divisor, self.channel_min, self.round_limit
        )

    def _make_block(self, arguments, drop_path_rate):
        block_type = arguments.pop("block_type")
        block = _BLOCKS[block_type]
        arguments.update(
            in_chs=self.in_chs,
            out_chs=self._round_channels(arguments["out_chs"]) * arguments.pop("widening"),
            act_layer=arguments["act_layer"] or self.act_layer,
            pad_type=self.pad_type,
            norm_layer=self.norm_layer,
            norm_kwargs=self.norm_kwargs,
            drop_path_rate=drop_path_rate,
            aa_layer=self.aa_layer,
        )
        if block_type in _GATED:
            arguments.update(se_kwargs=self.se_kwargs, se_layer=self._gate_of(arguments))
        if block_type in _SCALED:
            arguments["layer_scale_init_value"] = self.layer_scale_init_value
        if block_type == "mqa":
            arguments["use_multi_query"] = True
        if arguments.get("fake_in_chs"):
            arguments["fake_in_chs"] = self._round_channels(arguments["fake_in_chs"])
        if arguments.get("num_experts"):
            block = CondConvResidual
        self.in_chs = arguments["out_chs"]
        return block(**arguments)

    def _gate_of(self, arguments):
        """Return the class of a block's gate; None for `SqueezeExcite`, and for no gate."""
        if self.se_layer is None or not arguments.get("se_ratio"):
            return None
        ratio = arguments["se_ratio"] / (1.0 if self.se_from_exp else arguments.get("exp_ratio", 1.0))
        return functools.partial(self.se_layer, rd_ratio=ratio)


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
    """Initialise every layer by ``init_fn(layer, name)``, by default as Google does, then by its ``init_weights``."""
    init_fn = init_fn or _init_weight_goog
    layers = list(model.named_sublayers(include_self=True))
    for name, layer in layers:
        init_fn(layer, name)
    for _, layer in layers:
        if hasattr(layer, "init_weights"):
            layer.init_weights()
