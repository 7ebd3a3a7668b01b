"""VoVNet: the first version (https://arxiv.org/abs/1904.09730) and the second (https://arxiv.org/abs/1911.06667)."""

from __future__ import annotations

import paddle
from paddle import nn

from pimm.errors import ConfigError
from pimm.layers import (
    BatchNormAct2d,
    ClassifierHead,
    ConvNormAct,
    DropPath,
    EvoNorm2dS0,
    SeparableConvNormAct,
    calculate_drop_path_rates,
    create_attn,
)
from pimm.models.features import row_features
from pimm.models.headed import HeadedModel
from pimm.models.initial_values import init_convolutions, zero_linear_biases
from pimm.models.interface import RowMixin
from pimm.models.registry import register_variants


class OsaBlock(nn.Layer):
    """Convolutions one after another, all of whose outputs the last convolution takes (one-shot aggregation).

    Args:
        in_chs: channels of the input.
        mid_chs: channels of the convolutions.
        out_chs: channels of the output.
        layer_per_block: number of convolutions.
        residual: whether the input is added.
        depthwise: whether convolutions are separable, after one that changes the number of channels.
        attn: name of the attention; ``""`` for none.
        norm_layer: as in `pimm.layers.get_norm_act_layer`.
        act_layer: class or name of the activations.
        drop_path: rate of stochastic depth.
    """

    def __init__(
        self,
        in_chs,
        mid_chs,
        out_chs,
        layer_per_block,
        residual=False,
        depthwise=False,
        attn="",
        norm_layer=BatchNormAct2d,
        act_layer=nn.ReLU,
        drop_path=0.0,
    ):
        super().__init__()
        self.residual, layers = residual, {"norm_layer": norm_layer, "act_layer": act_layer}
        conv = SeparableConvNormAct if depthwise else ConvNormAct
        reduced = depthwise and in_chs != mid_chs
        self.conv_reduction = ConvNormAct(in_chs, mid_chs, 1, **layers) if reduced else None
        ins = [mid_chs if depthwise else in_chs, *[mid_chs] * (layer_per_block - 1)]
        self.conv_mid = nn.Sequential(*(conv(chs, mid_chs, 3, **layers) for chs in ins))
        self.conv_concat = ConvNormAct(in_chs + layer_per_block * mid_chs, out_chs, **layers)
        self.attn = create_attn(attn, out_chs)
        self.drop_path = DropPath(drop_path) if drop_path else None

    def forward(self, x):
        outputs, out = [x], x if self.conv_reduction is None else self.conv_reduction(x)
        for conv in self.conv_mid:
            out = conv(out)
            outputs.append(out)
        out = self.conv_concat(paddle.concat(outputs, axis=1))
        out = out if self.attn is None else self.attn(out)
        out = out if self.drop_path is None else self.drop_path(out)
        return out + x if self.residual else out


class OsaStage(nn.Layer):
    """Pooling, if ``downsample``, and blocks, of which the last has the attention; arguments as in `OsaBlock`."""

    def __init__(
        self, in_chs, mid_chs, out_chs, layer_per_block, downsample, residual, attn, drop_path_rates, **kwargs
    ):
        super().__init__()
        self.pool = nn.MaxPool2D(3, 2, ceil_mode=True) if downsample else None
        last = len(drop_path_rates) - 1
        self.blocks = nn.Sequential(
            *(
                OsaBlock(
                    out_chs if index else in_chs,
                    mid_chs,
                    out_chs,
                    layer_per_block,
                    residual=residual and index > 0,
                    attn=attn if index == last else "",
                    drop_path=rate,
                    **kwargs,
                )
                for index, rate in enumerate(drop_path_rates)
            )
        )

    def forward(self, x):
        return self.blocks(x if self.pool is None else self.pool(x))


class VovNet(RowMixin, HeadedModel):
    """A stem of three convolutions, four stages and a head.

    Args:
        cfg: ``stem_chs``, ``stage_conv_chs`` and ``stage_out_chs``, channels of the stem's convolutions, inside
            a stage's blocks, and of stages; ``block_per_stage``; ``layer_per_block``; ``residual``,
            ``depthwise`` and ``attn`` as in `OsaBlock`; ``stem_stride``, 4 or 2.
        in_chans: channels of the images.
        num_classes: classes.
        global_pool: as in `pimm.layers.SelectAdaptivePool2d`.
        output_stride: only 32.
        norm_layer: as in `pimm.layers.get_norm_act_layer`.
        act_layer: class or name of the activations.
        drop_rate: dropout before the classifier.
        drop_path_rate: rate of stochastic depth of the last block.
        kwargs: values that replace those of ``cfg``.

    Raises:
        ConfigError: for another ``output_stride``, and for unknown settings.
    """

    def __init__(
        self,
        cfg,
        in_chans=3,
        num_classes=1000,
        global_pool="avg",
        output_stride=32,
        norm_layer=BatchNormAct2d,
        act_layer=nn.ReLU,
        drop_rate=0.0,
        drop_path_rate=0.0,
        **kwargs,
    ):
        super().__init__()
        unknown = sorted(set(kwargs) - set(cfg) - {"stem_stride"})
        if unknown or output_stride != 32:
            raise ConfigError(f"VovNet: unknown {unknown}" if unknown else "a VovNet has an output_stride of 32 alone")
        cfg = {"stem_stride": 4, **cfg, **kwargs}
        self.num_classes, self.drop_rate = num_classes, drop_rate
        layers = {"norm_layer": norm_layer, "act_layer": act_layer}
        stem_chs, stem_stride = cfg["stem_chs"], cfg["stem_stride"]
        conv = SeparableConvNormAct if cfg["depthwise"] else ConvNormAct
        self.stem = nn.Sequential(
            ConvNormAct(in_chans, stem_chs[0], 3, stride=2, **layers),
            conv(stem_chs[0], stem_chs[1], 3, stride=1, **layers),
            conv(stem_chs[1], stem_chs[2], 3, stride=stem_stride // 2, **layers),
        )
        stages, taps = self._create_stages(cfg, drop_path_rate, layers)
        self.stages = nn.Sequential(*stages)
        self.stages_name = (*(f"stem.{index}" for index in range(3)), *(f"stages.{index}" for index in range(4)))
        first = (f"stem.{1 if stem_stride == 4 else 2}", stem_chs[1], 2)
        self.feature_info = row_features(self.stages_name, [first, *taps])
        self.num_features = taps[-1][1]
        self.head = ClassifierHead(self.num_features, num_classes, pool_type=global_pool, drop_rate=drop_rate)
        self.head_hidden_size = self.head.num_features
        init_convolutions(self)
        zero_linear_biases(self)

    def _create_stages(self, cfg, drop_path_rate, layers):
        """Return the stages, and (name, channels, reduction) of their feature maps."""
        rates = calculate_drop_path_rates(drop_path_rate, cfg["block_per_stage"], stagewise=True)
        settings = {name: cfg[name] for name in ("layer_per_block", "residual", "depthwise", "attn")}
        in_chs, reduction, stages, taps = cfg["stem_chs"][-1], cfg["stem_stride"], [], []
        for index, (mid_chs, out_chs) in enumerate(zip(cfg["stage_conv_chs"], cfg["stage_out_chs"])):
            downsample = index > 0 or cfg["stem_stride"] == 2
            reduction *= 2 if downsample else 1
            stage = OsaStage(
                in_chs,
                mid_chs,
                out_chs,
                downsample=downsample,
                drop_path_rates=rates[index],
                **settings,
                **layers,
            )
            stages.append(stage)
            taps.append((f"stages.{index}", out_chs, reduction))
            in_chs = out_chs
        return stages, taps

    def group_matcher(self, coarse=False):
        """Return the patterns of the parameters' names by depth, of stages or of blocks."""
        return {"stem": r"^stem", "blocks": r"^stages\.(\d+)" if coarse else r"^stages\.(\d+).blocks\.(\d+)"}


def _settings(block_per_stage, layer_per_block=5, attn="ese", depthwise=False, slim=False, last_stem=128):
    return {
        "stem_chs": [64, 64, last_stem],
        "stage_conv_chs": [64, 80, 96, 112] if slim else [128, 160, 192, 224],
        "stage_out_chs": [112, 256, 384, 512] if slim else [256, 512, 768, 1024],
        "layer_per_block": layer_per_block,
        "block_per_stage": block_per_stage,
        "residual": bool(attn),
        "depthwise": depthwise,
        "attn": attn,
    }


_39, _57, _19 = [1, 1, 2, 2], [1, 1, 4, 3], [1, 1, 1, 1]


register_variants(
    {
        "vovnet39a": {"cfg": _settings(_39, attn="")},
        "vovnet57a": {"cfg": _settings(_57, attn="")},
        "ese_vovnet19b_slim_dw": {"cfg": _settings(_19, 3, depthwise=True, slim=True, last_stem=64)},
        "ese_vovnet19b_dw": {"cfg": _settings(_19, 3, depthwise=True, last_stem=64)},
        "ese_vovnet19b_slim": {"cfg": _settings(_19, 3, slim=True)},
        "ese_vovnet39b": {"cfg": _settings(_39)},
        "ese_vovnet57b": {"cfg": _settings(_57)},
        "ese_vovnet99b": {"cfg": _settings([1, 3, 9, 3])},
        "eca_vovnet39b": {"cfg": _settings(_39, attn="eca")},
        "ese_vovnet39b_evos": {"cfg": _settings(_39), "norm_layer": EvoNorm2dS0},
    },
    VovNet,
)
