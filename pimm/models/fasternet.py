"""FasterNet (https://arxiv.org/abs/2303.03667), with the names, state names and numbers of timm."""

from __future__ import annotations

import paddle
from paddle import nn

from pimm.errors import ConfigError
from pimm.layers import BatchNorm2d, Conv2d, DropPath, SelectAdaptivePool2d, calculate_drop_path_rates
from pimm.models.features import feature_map
from pimm.models.initial_values import init_truncated
from pimm.models.interface import ImageModel
from pimm.models.recompute import checkpoint_seq
from pimm.models.registry import register_variants


class PartialConv3(nn.Layer):
    """Apply a 3x3 convolution to the first of ``n_div`` parts of the channels, and keep the others."""

    def __init__(self, dim, n_div):
        super().__init__()
        self.width = dim // n_div
        self.partial_conv3 = Conv2d(self.width, self.width, 3, 1, 1, bias=False)

    def forward(self, x):
        return paddle.concat([self.partial_conv3(x[:, : self.width]), x[:, self.width :]], axis=1)


class MLPBlock(nn.Layer):
    """Mix pixels of some channels, then channels, and add the shortcut."""

    def __init__(self, dim, n_div, mlp_ratio, drop_path, layer_scale_init_value, act_layer, norm_layer):
        super().__init__()
        hidden = int(dim * mlp_ratio)
        self.mlp = nn.Sequential(
            Conv2d(dim, hidden, 1, bias=False), norm_layer(hidden), act_layer(), Conv2d(hidden, dim, 1, bias=False)
        )
        self.spatial_mixing = PartialConv3(dim, n_div)
        self.layer_scale = None
        if layer_scale_init_value > 0:
            init = nn.initializer.Constant(layer_scale_init_value)
            self.layer_scale = self.create_parameter([dim], default_initializer=init)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x):
        out = self.mlp(self.spatial_mixing(x))
        if self.layer_scale is not None:
            out = out * self.layer_scale.unsqueeze([1, 2])
        return x + self.drop_path(out)


def _norm_conv(name, ins, outs, patch_size, norm):
    """Return a convolution of this name over patches, without a bias, and a normalisation ``norm``."""
    return nn.Sequential((name, Conv2d(ins, outs, patch_size, patch_size, bias=False)), ("norm", norm))


class Block(nn.Layer):
    """Merge patches, except in the first stage, and apply blocks."""

    grad_checkpointing = False

    def __init__(self, blocks, downsample):
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.downsample = downsample or nn.Identity()

    def forward(self, x):
        x = self.downsample(x)
        return checkpoint_seq(self.blocks, x) if self.grad_checkpointing else self.blocks(x)


class FasterNet(ImageModel):
    """Classify images with a FasterNet.

    Args:
        in_chans: channels of the images.
        num_classes: classes; 0 for a net that returns the features of the head.
        global_pool: pooling, one that keeps the number of channels.
        embed_dim: channels of the first stage; they double with each stage.
        depths: blocks of each stage.
        mlp_ratio: channels inside a block for each channel.
        n_div: one of so many parts of the channels is convolved.
        patch_size: pixels that become one of the first feature map, in each direction.
        merge_size: pixels that become one between two stages.
        patch_norm: whether the stem normalises.
        feature_dim: channels of the head convolution.
        drop_rate: dropout before the classifier.
        drop_path_rate: stochastic depth of the last block; it grows linearly over the blocks.
        layer_scale_init_value: initial factor of each branch; 0 for no factors.
        act_layer: class of the activations.
        norm_layer: class of the normalisation.

    Raises:
        ConfigError: for a pooling that changes the number of channels.
    """

    stages_name = "stages"
    head_layers = ("conv_head", "act")

    def __init__(
        self,
        in_chans=3,
        num_classes=1000,
        global_pool="avg",
        embed_dim=96,
        depths=(1, 2, 8, 2),
        mlp_ratio=2.0,
        n_div=4,
        patch_size=4,
        merge_size=2,
        patch_norm=True,
        feature_dim=1280,
        drop_rate=0.0,
        drop_path_rate=0.1,
        layer_scale_init_value=0.0,
        act_layer=nn.ReLU,
        norm_layer=BatchNorm2d,
    ):
        super().__init__()
        if SelectAdaptivePool2d(pool_type=global_pool).feat_mult() != 1:
            raise ConfigError(
                f"global_pool {global_pool!r:.80} changes the number of channels; avg, max, avgmax do not"
            )
        self.in_chans, self.drop_rate = in_chans, drop_rate
        stem_norm = norm_layer(embed_dim) if patch_norm else nn.Identity()
        self.patch_embed = _norm_conv("proj", in_chans, embed_dim, patch_size, stem_norm)
        rates, stages, self.feature_info = calculate_drop_path_rates(drop_path_rate, depths, stagewise=True), [], []
        for number in range(len(depths)):
            dim = embed_dim * 2**number
            shared = (layer_scale_init_value, act_layer, norm_layer)
            blocks = [MLPBlock(dim, n_div, mlp_ratio, rate, *shared) for rate in rates[number]]
            merge = _norm_conv("reduction", dim // 2, dim, merge_size, norm_layer(dim)) if number else None
            stages.append(Block(blocks, merge))
            self.feature_info.append(feature_map(f"stages.{number}", number + 1, dim, 4 * 2**number))
        self.stages = nn.Sequential(*stages)
        self.num_features = dim
        self.conv_head = Conv2d(dim, feature_dim, 1, bias=False)
        self.act = act_layer()
        self.create_head(num_classes, global_pool, feature_dim)
        init_truncated(self, (nn.Conv2D, nn.Linear))

    def stem(self, x):
        """Return the input of the first stage."""
        return self.patch_embed(x)

    def pre_logits(self, x):
        """Return the output of the head convolution for pooled feature maps."""
        return self.act(self.conv_head(x))

    def group_matcher(self, coarse=False):
        """Return the patterns of the parameters' names by depth, of stages or of blocks."""
        blocks = [
            (r"^stages\.(\d+).downsample", (0,)),
            (r"^stages\.(\d+)\.blocks\.(\d+)", None),
            (r"^conv_head", (99999,)),
        ]
        return {"stem": r"^patch_embed", "blocks": r"^stages\.(\d+)" if coarse else blocks}


VARIANTS = {
    "fasternet_t0": {"embed_dim": 40, "drop_path_rate": 0.0, "act_layer": nn.GELU},
    "fasternet_t1": {"embed_dim": 64, "drop_path_rate": 0.02, "act_layer": nn.GELU},
    "fasternet_t2": {"embed_dim": 96, "drop_path_rate": 0.05},
    "fasternet_s": {"embed_dim": 128, "depths": (1, 2, 13, 2), "drop_path_rate": 0.1},
    "fasternet_m": {"embed_dim": 144, "depths": (3, 4, 18, 3), "drop_path_rate": 0.2},
    "fasternet_l": {"embed_dim": 192, "depths": (3, 4, 18, 3), "drop_path_rate": 0.3},
}


register_variants(VARIANTS, FasterNet)
