"""Twins (https://arxiv.org/abs/2104.13840), with the names, arguments and numbers of timm.

``pcpvt`` variants attend to a smaller feature map, ``svt`` variants in turns inside of windows and to such a map.
"""

from __future__ import annotations

from functools import partial

from paddle import nn

from pimm.errors import ConfigError
from pimm.layers import Conv2d, DropPath, LayerNorm, Linear, Mlp, attend, calculate_drop_path_rates, to_pair
from pimm.layers.windows import join_windows, split_windows
from pimm.models.features import feature_map
from pimm.models.headed import LinearHeadModel
from pimm.models.initial_values import init_convolutions, init_truncated
from pimm.models.pvt_v2 import Attention
from pimm.models.recompute import checkpoint
from pimm.models.registry import register_variants

_NORM = partial(LayerNorm, eps=1e-6)


class LocallyGroupedAttn(nn.Layer):
    """Attention inside of windows of feature maps [N, H, W, C].

    Args:
        dim: channels.
        num_heads: heads.
        attn_drop: dropout of the attention.
        proj_drop: dropout of the output.
        ws: side of the windows.

    Raises:
        ConfigError: if the channels are no multiple of the heads.
    """

    def __init__(self, dim, num_heads=8, attn_drop=0.0, proj_drop=0.0, ws=7):
        super().__init__()
        if dim % num_heads:
            raise ConfigError(f"num_heads is {num_heads}; must divide the {dim} channels of a stage")
        self.num_heads, self.head_dim, self.ws = num_heads, dim // num_heads, ws
        self.qkv = Linear(dim, dim * 3)
        self.attn_drop = attn_drop
        self.proj = Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x):
        height, width, dim = x.shape[1:]
        windows, grid = split_windows(x, self.ws)
        windows = windows.flatten(1, 2)  # [N * windows, area, dim]
        qkv = self.qkv(windows).reshape([-1, windows.shape[1], 3, self.num_heads, self.head_dim])
        q, k, v = qkv.transpose([2, 0, 3, 1, 4]).unbind(0)
        windows = attend(q, k, v, dropout=self.attn_drop if self.training else 0.0).transpose([0, 2, 1, 3])
        x = join_windows(windows.reshape([-1, self.ws, self.ws, dim]), grid)[:, :height, :width]
        return self.proj_drop(self.proj(x))


class Block(nn.Layer):
    """Attention and linear layers of feature maps [N, H, W, C], each after a normalisation and beside a shortcut.

    Args:
        dim: channels.
        num_heads: heads.
        mlp_ratio: hidden channels for each channel.
        proj_drop: dropout after linear layers.
        attn_drop: dropout of the attention.
        drop_path: stochastic depth.
        norm_layer: class of the normalisation.
        sr_ratio: as in `Attention`.
        ws: side of the windows; 1 for attention to a smaller feature map.
    """

    def __init__(
        self,
        dim,
        num_heads,
        mlp_ratio=4.0,
        proj_drop=0.0,
        attn_drop=0.0,
        drop_path=0.0,
        norm_layer=_NORM,
        sr_ratio=1,
        ws=1,
    ):
        super().__init__()
        drops = {"attn_drop": attn_drop, "proj_drop": proj_drop}
        self.norm1 = norm_layer(dim)
        if ws == 1:
            self.attn = Attention(dim, num_heads, sr_ratio, **drops)
        else:
            self.attn = LocallyGroupedAttn(dim, num_heads, ws=ws, **drops)
        self.drop_path1 = DropPath(drop_path) if drop_path > 0.0 else nn.Identity()
        self.norm2 = norm_layer(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), drop=proj_drop)
        self.drop_path2 = DropPath(drop_path) if drop_path > 0.0 else nn.Identity()

    def forward(self, x):
        x = x + self.drop_path1(self.attn(self.norm1(x)))
        return x + self.drop_path2(self.mlp(self.norm2(x)))


class PosConv(nn.Layer):
    """Add a depthwise convolution to feature maps [N, H, W, C], which tells positions apart."""

    def __init__(self, dim):
        super().__init__()
        self.proj = nn.Sequential(Conv2d(dim, dim, 3, padding=1, groups=dim))

    def forward(self, x):
        return x + self.proj(x.transpose([0, 3, 1, 2])).transpose([0, 2, 3, 1])


class PatchEmbed(nn.Layer):
    """A convolution of patches and a normalisation; [N, C, H, W] becomes [N, H, W, C].

    Args:
        patch_size: size of the patches.
        in_chans: channels of the input.
        embed_dim: channels of the output.
    """

    def __init__(self, patch_size, in_chans, embed_dim):
        super().__init__()
        self.proj = Conv2d(in_chans, embed_dim, patch_size, stride=patch_size)
        self.norm = nn.LayerNorm(embed_dim)

    def forward(self, x):
        return self.norm(self.proj(x).transpose([0, 2, 3, 1]))


class Twins(LinearHeadModel):
    """Classify images with stages of attention inside of windows and to smaller feature maps.

    Args:
        img_size: size of the images, which must be a multiple of the patches; images may be of other sizes.
        patch_size: size of the patches of the first stage.
        in_chans: channels of the images.
        num_classes: classes; 0 for a net without a classifier.
        global_pool: ``avg``, or "" for none.
        embed_dims, num_heads, mlp_ratios, depths: channels, heads, hidden channels for each channel, and number of
            blocks of each stage.
        sr_ratios: ``sr_ratio`` of each stage's `Attention`.
        wss: side of each stage's windows, for every second block; None for no windows.
        drop_rate: dropout before the classifier.
        pos_drop_rate: dropout of the patches.
        proj_drop_rate: dropout after linear layers.
        attn_drop_rate: dropout of the attention.
        drop_path_rate: stochastic depth of the last block; it grows linearly over the blocks.
        norm_layer: class of the normalisation.

    Raises:
        ConfigError: for an ``img_size`` that is no multiple of the patches.
    """

    stages_name = "blocks"
    axes = "NHWC"
    pooled_axes = 1
    grad_checkpointing = False

    def __init__(
        self,
        img_size=224,
        patch_size=4,
        in_chans=3,
        num_classes=1000,
        global_pool="avg",
        embed_dims=(64, 128, 256, 512),
        num_heads=(1, 2, 4, 8),
        mlp_ratios=(4, 4, 4, 4),
        depths=(3, 4, 6, 3),
        sr_ratios=(8, 4, 2, 1),
        wss=None,
        drop_rate=0.0,
        pos_drop_rate=0.0,
        proj_drop_rate=0.0,
        attn_drop_rate=0.0,
        drop_path_rate=0.0,
        norm_layer=_NORM,
    ):
        super().__init__()
        whole = to_pair(patch_size)[0] << (len(depths) - 1)
        if any(side % whole for side in to_pair(img_size)):
            raise ConfigError(f"img_size is {img_size}; must be a multiple of {whole} pixels")
        self.in_chans, self.num_features, self.embed_dims = in_chans, embed_dims[-1], embed_dims
        count, ends = len(depths), (in_chans, *embed_dims)
        self.patch_embeds = nn.LayerList(PatchEmbed(2 if i else patch_size, ends[i], ends[i + 1]) for i in range(count))
        self.pos_drops = nn.LayerList(nn.Dropout(pos_drop_rate) for _ in range(count))
        rates = calculate_drop_path_rates(drop_path_rate, depths, stagewise=True)
        drops = {"proj_drop": proj_drop_rate, "attn_drop": attn_drop_rate, "norm_layer": norm_layer}
        self.blocks, self.feature_info = nn.LayerList(), []
        for i, dim in enumerate(embed_dims):
            common = {"num_heads": num_heads[i], "mlp_ratio": mlp_ratios[i], "sr_ratio": sr_ratios[i], **drops}
            windows = [1 if wss is None or index % 2 else wss[i] for index in range(depths[i])]
            blocks = [Block(dim, drop_path=rate, ws=ws, **common) for rate, ws in zip(rates[i], windows)]
            self.blocks.append(nn.LayerList(blocks))
            self.feature_info.append(feature_map(f"block.{i}", i + 1, dim, 4 << i))
        self.pos_block = nn.LayerList(PosConv(dim) for dim in embed_dims)
        self.norm = norm_layer(self.num_features)
        self._create_head(num_classes, global_pool, drop_rate)
        init_truncated(self)
        init_convolutions(self, "group_fan_out", zero_biases=True)

    def set_grad_checkpointing(self, enable=True):
        """Compute the activations of blocks again in the backward pass, or keep them; the gradients are the same."""
        self.grad_checkpointing = enable

    def embed(self, x):
        """Return patches of images, [N, H, W, channels]."""
        return self.patch_embeds[0](x)

    def stage_list(self):
        """Return the numbers of the stages."""
        return list(range(len(self.blocks)))

    def _run(self, index, x):
        x = self.patch_embeds[index](x.transpose([0, 3, 1, 2])) if index else x
        x = self.pos_drops[index](x)
        for number, block in enumerate(self.blocks[index]):
            x = checkpoint(block, x) if self.grad_checkpointing else block(x)
            x = x if number else self.pos_block[index](x)
        return x

    def keep_stages(self, count):
        """Take out all stages but the first ``count``."""
        for name in ("patch_embeds", "pos_drops", "blocks", "pos_block"):
            setattr(self, name, nn.LayerList(list(getattr(self, name))[:count]))

    def forward_features(self, x):
        """Return the features of patches, [N, L, num_features], of images [N, in_chans, H, W]."""
        return LinearHeadModel.forward_features(self, x).flatten(1, 2)  # an export cannot resolve super()

    def forward_intermediates(self, x, indices=None, norm=False, intermediates_only=False, **kwargs):
        """Return the features of patches [N, L, channels] and feature maps; see `ImageModel.forward_intermediates`."""
        found = super().forward_intermediates(x, indices, norm, intermediates_only=intermediates_only, **kwargs)
        return found if intermediates_only else (found[0].flatten(1, 2), found[1])

    def no_weight_decay(self):
        """Return the names of parameters that weight decay leaves alone, beside biases and those of normalisation."""
        return {f"pos_block.{name}" for name, _ in self.pos_block.named_parameters()}

    def group_matcher(self, coarse=False):
        """Return the patterns for ``group_with_matcher`` by block, or by stage if ``coarse``."""
        norm = (r"^norm", (99999,))
        stages = [(r"^(?:blocks|patch_embeds|pos_block)\.(\d+)", None), norm]
        blocks = [(r"^blocks\.(\d+)\.(\d+)", None), (r"^(?:patch_embeds|pos_block)\.(\d+)", (0,)), norm]
        return {"stem": r"^patch_embeds.0", "blocks": stages if coarse else blocks}


_PCPVT = {"embed_dims": (64, 128, 320, 512), "num_heads": (1, 2, 5, 8), "mlp_ratios": (8, 8, 4, 4)}


def _svt(width, heads, depths):
    dims, num_heads = (tuple(first << i for i in range(4)) for first in (width, heads))
    return {"embed_dims": dims, "num_heads": num_heads, "depths": depths, "wss": (7, 7, 7, 7)}


VARIANTS = {
    "twins_pcpvt_small": {**_PCPVT, "depths": (3, 4, 6, 3)},
    "twins_pcpvt_base": {**_PCPVT, "depths": (3, 4, 18, 3)},
    "twins_pcpvt_large": {**_PCPVT, "depths": (3, 8, 27, 3)},
    "twins_svt_small": _svt(64, 2, (2, 2, 10, 4)),
    "twins_svt_base": _svt(96, 3, (2, 2, 18, 2)),
    "twins_svt_large": _svt(128, 4, (2, 2, 18, 2)),
}


register_variants(VARIANTS, Twins)
