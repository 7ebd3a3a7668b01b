"""Cross stage partial networks (https://arxiv.org/abs/1911.11929), and DarkNets (https://arxiv.org/abs/1804.02767)."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import partial

from paddle import nn

from pimm.errors import ConfigError
from pimm.layers import ClassifierHead, ConvNormAct, calculate_drop_path_rates, create_aa, get_attn
from pimm.models.cspnet_blocks import BLOCKS, STAGES
from pimm.models.cspnet_variants import VARIANTS
from pimm.models.features import row_features
from pimm.models.headed import HeadedModel
from pimm.models.initial_values import init_convolutions
from pimm.models.interface import RowMixin
from pimm.models.registry import register_variants
from pimm.optim.layer_groups import MATCH_PREV_GROUP

_CROSS_ONLY = ("expand_ratio", "cross_linear", "down_growth")  # settings that a DarkNet's stage has not


def create_csp_stem(in_chans, out_chs, kernel_size, stride, pool, padding, act_layer, norm_layer, aa_layer):
    """Create a stem.

    Args:
        in_chans: channels of the images.
        out_chs: channels of the convolutions, a number or several.
        kernel_size: of the convolutions.
        stride: of the whole stem: 1, 2 or 4.
        pool: whether pooling has a part of the stride 4, instead of the last convolution.
        padding: of the first convolution.
        act_layer: class or name of the activations.
        norm_layer: as in `pimm.layers.get_norm_act_layer`.
        aa_layer: as in `pimm.layers.get_aa_layer`, for the pooling.

    Returns:
        the layers, and (name, channels, reduction) of the feature maps: before each stride but the first, and at the
        end.
    """
    widths = out_chs if isinstance(out_chs, (tuple, list)) else (out_chs,)
    layers, taps, reduction, last = {}, [], 1, len(widths) - 1
    for index, width in enumerate(widths):
        own = 2 if (index == 0 and stride > 1) or (index == last and stride > 2 and not pool) else 1
        if own > 1 and index:
            taps.append((f"stem.conv{index}", in_chans, reduction))
        layers[f"conv{index + 1}"] = ConvNormAct(
            in_chans,
            width,
            kernel_size,
            own,
            padding="" if index else padding,
            act_layer=act_layer,
            norm_layer=norm_layer,
        )
        in_chans, reduction = width, reduction * own
    if pool:
        taps.append((f"stem.conv{last + 1}", in_chans, reduction))
        layers["pool"] = nn.MaxPool2D(3, 1 if aa_layer else 2, 1)
        if aa_layer:
            layers["aa"] = create_aa(aa_layer, in_chans, stride=2)
        reduction *= 2
    return nn.Sequential(*layers.items()), [*taps, (f"stem.{list(layers)[-1]}", in_chans, reduction)]


def create_csp_stages(cfg, drop_path_rate, output_stride, stem_tap):
    """Create the stages.

    Args:
        cfg: the settings of the net, a `pimm.models.cspnet_variants.CspModelCfg`.
        drop_path_rate: rate of stochastic depth of the last block.
        output_stride: the largest reduction; strides above it become dilation.
        stem_tap: (name, channels, reduction) of the stem.

    Returns:
        the stages, and (name, channels, reduction) of the feature maps: before each stride, and at the end.
    """
    rates = calculate_drop_path_rates(drop_path_rate, cfg.stages.depth, stagewise=True)
    tap, dilation = stem_tap, 1
    stages, taps = [], []
    for index, settings in enumerate(cfg.stages.of_stages()):
        _, channels, reduction = tap
        kind, stride, block = (settings.pop(name) for name in ("stage_type", "stride", "block_type"))
        attn, attn_kwargs = get_attn(settings.pop("attn_layer")), settings.pop("attn_kwargs") or {}
        settings = {name: value for name, value in settings.items() if kind != "dark" or name not in _CROSS_ONLY}
        if stride != 1:
            taps.append(tap)
        if reduction >= output_stride and stride > 1:
            dilation, stride = dilation * stride, 1
        stage = STAGES[kind](
            channels,
            **settings,
            block_fn=BLOCKS[block],
            stride=stride,
            first_dilation=1 if dilation in (1, 2) else 2,
            dilation=dilation,
            block_dpr=rates[index],
            aa_layer=cfg.aa_layer,
            attn_layer=partial(attn, **attn_kwargs) if attn else None,
            act_layer=cfg.act_layer,
            norm_layer=cfg.norm_layer,
        )
        stages.append(stage)
        tap = (f"stages.{index}", settings["out_chs"], reduction * stride)
    return nn.Sequential(*stages), [*taps, tap]


class CspNet(RowMixin, HeadedModel):
    """A stem of convolutions, stages and a head.

    Args:
        cfg: the settings, a `pimm.models.cspnet_variants.CspModelCfg`.
        in_chans: channels of the images.
        num_classes: classes.
        output_stride: 8, 16 or 32.
        global_pool: as in `pimm.layers.SelectAdaptivePool2d`.
        drop_rate: dropout before the classifier.
        drop_path_rate: rate of stochastic depth of the last block.
        zero_init_last: whether blocks begin as the identity.
        kwargs: fields of the settings that replace those of ``cfg``.

    Raises:
        ConfigError: for another ``output_stride``.
    """

    def __init__(
        self,
        cfg,
        in_chans=3,
        num_classes=1000,
        output_stride=32,
        global_pool="avg",
        drop_rate=0.0,
        drop_path_rate=0.0,
        zero_init_last=True,
        **kwargs,
    ):
        super().__init__()
        if output_stride not in (8, 16, 32):
            raise ConfigError(f"output_stride is {output_stride!r:.80}; valid are 8, 16 and 32")
        cfg = replace(cfg, **kwargs)
        self.num_classes, self.drop_rate, self.default_out_indices = num_classes, drop_rate, cfg.out_indices
        layers = {"act_layer": cfg.act_layer, "norm_layer": cfg.norm_layer, "aa_layer": cfg.aa_layer}
        self.stem, stem_taps = create_csp_stem(in_chans, **asdict(cfg.stem), **layers)
        self.stages, taps = create_csp_stages(cfg, drop_path_rate, output_stride, stem_taps[-1])
        self.stages_name = tuple(
            f"{name}.{layer}" for name in ("stem", "stages") for layer, _ in getattr(self, name).named_children()
        )
        self.feature_info = row_features(self.stages_name, [*stem_taps[:-1], *taps])
        self.num_features = taps[-1][1]
        self.head = ClassifierHead(self.num_features, num_classes, pool_type=global_pool, drop_rate=drop_rate)
        self.head_hidden_size = self.head.num_features
        init_convolutions(self, zero_biases=True, linear_std=0.01)
        if zero_init_last:
            for block in (block for stage in self.stages for block in stage.blocks):
                block.zero_init_last()

    def group_matcher(self, coarse=False):
        """Return the patterns of the parameters' names by depth, of stages or of blocks."""
        blocks = [
            (r"^stages\.(\d+)\.blocks\.(\d+)", None),
            (r"^stages\.(\d+)\..*transition", MATCH_PREV_GROUP),
            (r"^stages\.(\d+)", (0,)),
        ]
        return {"stem": r"^stem", "blocks": r"^stages\.(\d+)" if coarse else blocks}


register_variants(VARIANTS, CspNet)
