"""RepViT (https://arxiv.org/abs/2307.09283), with the names, state names and numbers of timm.

`RepVit.fuse` replaces convolutions and batch norms that were trained apart by convolutions with a bias.
"""

from __future__ import annotations

from functools import partial

import paddle
from paddle import nn

from pimm.errors import ConfigError
from pimm.layers import BatchNorm1d, BatchNorm2d, Conv2d, ConvBn, Linear, SEModule
from pimm.layers.fuse import conv_with, fuse_norm, identity_kernel, linear_with, norm_scale, pad_kernel
from pimm.layers.weight_init import trunc_normal_, zeros_
from pimm.models.features import feature_map
from pimm.models.headed import HeadedModel
from pimm.models.registry import register_variants
from pimm.models.reparameterize import fuse_children

ConvNorm = partial(ConvBn, conv_name="c")


class NormLinear(nn.Sequential):
    """Apply a batch norm ``bn`` and a fully connected layer ``l``."""

    def __init__(self, in_dim, out_dim, std=0.02):
        super().__init__(("bn", BatchNorm1d(in_dim)), ("l", Linear(in_dim, out_dim)))
        trunc_normal_(self.l.weight, std=std)
        zeros_(self.l.bias)

    @paddle.no_grad()
    def fuse(self):
        """Return one fully connected layer that computes the same in evaluation mode."""
        scale, shift = norm_scale(self.bn)
        return linear_with(self.l.weight * scale.unsqueeze(1), paddle.matmul(shift, self.l.weight) + self.l.bias)


class RepVggDw(nn.Layer):
    """Apply the sum of two convolutions of single channels and the identity; legacy nets normalise each of the two."""

    def __init__(self, ed, kernel_size, legacy=False):
        super().__init__()
        self.conv = ConvNorm(ed, ed, kernel_size, 1, (kernel_size - 1) // 2, groups=ed)
        self.conv1 = ConvNorm(ed, ed, groups=ed) if legacy else Conv2d(ed, ed, 1, groups=ed)
        self.bn = nn.Identity() if legacy else BatchNorm2d(ed)
        self.dim, self.kernel_size, self.legacy = ed, kernel_size, legacy

    def forward(self, x):
        return self.bn(self.conv(x) + self.conv1(x) + x)

    @paddle.no_grad()
    def fuse(self):
        """Return one convolution that computes the same in evaluation mode."""
        conv, conv1 = self.conv.fuse(), self.conv1.fuse() if self.legacy else self.conv1
        kernel = conv.weight + pad_kernel(conv1.weight, self.kernel_size)
        kernel, bias = kernel + identity_kernel(self.dim, self.dim, self.kernel_size), conv.bias + conv1.bias
        if not self.legacy:
            kernel, bias = fuse_norm(kernel, self.bn, bias)
        return conv_with(kernel, bias, groups=self.dim)


class RepVitMlp(nn.Layer):
    """Apply two 1x1 convolutions with an activation between them."""

    def __init__(self, in_dim, hidden_dim, act_layer):
        super().__init__()
        self.conv1 = ConvNorm(in_dim, hidden_dim)
        self.act = act_layer()
        self.conv2 = ConvNorm(hidden_dim, in_dim, bn_weight_init=0.0)

    def forward(self, x):
        return self.conv2(self.act(self.conv1(x)))


class RepViTBlock(nn.Layer):
    """Mix pixels, gate channels if ``use_se``, and mix channels."""

    def __init__(self, in_dim, mlp_ratio, kernel_size, use_se, act_layer, legacy=False):
        super().__init__()
        self.token_mixer = RepVggDw(in_dim, kernel_size, legacy)
        self.se = SEModule(in_dim, 0.25) if use_se else nn.Identity()
        self.channel_mixer = RepVitMlp(in_dim, in_dim * mlp_ratio, act_layer)

    def forward(self, x):
        x = self.se(self.token_mixer(x))
        return x + self.channel_mixer(x)


class RepVitStem(nn.Layer):
    """Apply two convolutions of stride 2."""

    stride = 4

    def __init__(self, in_chs, out_chs, act_layer):
        super().__init__()
        self.conv1 = ConvNorm(in_chs, out_chs // 2, 3, 2, 1)
        self.act1 = act_layer()
        self.conv2 = ConvNorm(out_chs // 2, out_chs, 3, 2, 1)

    def forward(self, x):
        return self.conv2(self.act1(self.conv1(x)))


class RepVitDownsample(nn.Layer):
    """Halve feature maps between two stages, and change the number of channels."""

    def __init__(self, in_dim, mlp_ratio, out_dim, kernel_size, act_layer, legacy=False):
        super().__init__()
        self.pre_block = RepViTBlock(in_dim, mlp_ratio, kernel_size, False, act_layer, legacy)
        self.spatial_downsample = ConvNorm(in_dim, in_dim, kernel_size, 2, (kernel_size - 1) // 2, groups=in_dim)
        self.channel_downsample = ConvNorm(in_dim, out_dim)
        self.ffn = RepVitMlp(out_dim, out_dim * mlp_ratio, act_layer)

    def forward(self, x):
        x = self.channel_downsample(self.spatial_downsample(self.pre_block(x)))
        return x + self.ffn(x)


class RepVitClassifier(nn.Layer):
    """Classify by a layer, or with ``distillation`` by the mean of two, of which the second learns from a teacher.

    In training mode, while ``distilled_training`` is true, the logits of both are returned.
    """

    def __init__(self, dim, num_classes, distillation=False, drop=0.0):
        super().__init__()
        self.head_drop = nn.Dropout(drop)
        self.head = NormLinear(dim, num_classes) if num_classes else nn.Identity()
        if distillation:
            self.head_dist = NormLinear(dim, num_classes) if num_classes else nn.Identity()
        self.num_classes, self.distillation, self.distilled_training = num_classes, distillation, False

    def forward(self, x):
        x = self.head_drop(x)
        if not self.distillation:
            return self.head(x)
        found, distilled = self.head(x), self.head_dist(x)
        if self.training and self.distilled_training:
            return found, distilled
        return (found + distilled) / 2

    @paddle.no_grad()
    def fuse(self):
        """Return one fully connected layer that computes the same in evaluation mode."""
        if not self.num_classes:
            return nn.Identity()
        head = self.head.fuse()
        if not self.distillation:
            return head
        distilled = self.head_dist.fuse()
        return linear_with((head.weight + distilled.weight) / 2, (head.bias + distilled.bias) / 2)


class RepVitStage(nn.Layer):
    """Halve the feature maps, except in the first stage, and apply blocks, of which every second has a gate."""

    def __init__(self, in_dim, out_dim, depth, mlp_ratio, act_layer, kernel_size=3, downsample=True, legacy=False):
        super().__init__()
        self.downsample = nn.Identity()
        if downsample:
            self.downsample = RepVitDownsample(in_dim, mlp_ratio, out_dim, kernel_size, act_layer, legacy)
        self.blocks = nn.Sequential(
            *(RepViTBlock(out_dim, mlp_ratio, kernel_size, index % 2 == 0, act_layer, legacy) for index in range(depth))
        )

    def forward(self, x):
        return self.blocks(self.downsample(x))


class RepVit(HeadedModel):
    """Classify images with a RepViT.

    Args:
        in_chans: channels of the images.
        img_size: not used; the net takes images of any size.
        embed_dim: channels of each stage.
        depth: blocks of each stage.
        mlp_ratio: channels inside a block for each channel, one number or one for each stage.
        global_pool: ``avg``, or ``""`` for none.
        kernel_size: of the convolutions that mix pixels.
        num_classes: classes; 0 for a net that returns the pooled features.
        act_layer: class of the activations.
        distillation: whether there are two classifiers, of which one learns from a teacher.
        drop_rate: dropout before the classifier.
        legacy: whether blocks are those of the first weights (``repvit_m1`` to ``repvit_m3``).

    Raises:
        ConfigError: for another pooling.
    """

    def __init__(
        self,
        in_chans=3,
        img_size=224,
        embed_dim=(48,),
        depth=(2,),
        mlp_ratio=2,
        global_pool="avg",
        kernel_size=3,
        num_classes=1000,
        act_layer=nn.GELU,
        distillation=True,
        drop_rate=0.0,
        legacy=False,
    ):
        super().__init__()
        self.in_chans, self.num_classes, self.drop_rate = in_chans, num_classes, drop_rate
        self.embed_dim, self.pool_type = embed_dim, _checked(global_pool, num_classes)
        self.stem = RepVitStem(in_chans, embed_dim[0], act_layer)
        in_dim, stages, self.feature_info = embed_dim[0], [], []
        ratios = mlp_ratio if isinstance(mlp_ratio, (tuple, list)) else [mlp_ratio] * len(embed_dim)
        for index, (width, count, ratio) in enumerate(zip(embed_dim, depth, ratios)):
            stages.append(RepVitStage(in_dim, width, count, ratio, act_layer, kernel_size, index > 0, legacy))
            self.feature_info.append(feature_map(f"stages.{index}", index + 1, width, 4 * 2**index))
            in_dim = width
        self.stages = nn.Sequential(*stages)
        self.num_features = self.head_hidden_size = in_dim
        self.head_drop = nn.Dropout(drop_rate)
        self.head = RepVitClassifier(in_dim, num_classes, distillation)

    def group_matcher(self, coarse=False):
        """Return the patterns of the parameters' names by depth, of stages or of blocks."""
        blocks = [(r"^stages\.(\d+)\.downsample", (0,)), (r"^stages\.(\d+)\.blocks\.(\d+)", None)]
        return {"stem": "^stem", "blocks": r"^stages\.(\d+)" if coarse else blocks}

    def get_classifier(self):
        """Return the last layer."""
        return self.head

    def reset_classifier(self, num_classes, global_pool=None, distillation=False):
        """Replace pooling and classifier.

        Args:
            num_classes: classes; 0 for a net that returns the pooled features.
            global_pool: ``avg``, or ``""`` for none; None keeps it.
            distillation: whether there are two classifiers.

        Raises:
            ConfigError: for another pooling, and for classes without pooling.
        """
        self.pool_type = _checked(self.pool_type if global_pool is None else global_pool, num_classes)
        self.num_classes = num_classes
        self.head = RepVitClassifier(self.num_features, num_classes, distillation)
        self.head.train() if self.training else self.head.eval()
        self.head_hidden_size = self.num_features

    def set_distilled_training(self, enable=True):
        """Return the logits of both classifiers in training mode, or their mean."""
        self.head.distilled_training = enable

    def forward_head(self, x, pre_logits=False):
        """Return the logits of feature maps, or with ``pre_logits`` the input of the classifier."""
        x = self.head_drop(x.mean([2, 3]) if self.pool_type else x)
        return x if pre_logits else self.head(x)

    def fuse(self):
        """Replace layers by fewer that compute the same in evaluation mode, and return the net."""
        fuse_children(self)
        return self


def _checked(global_pool, num_classes):
    if global_pool not in ("", "avg"):
        raise ConfigError(f"global_pool is {global_pool!r:.80}; valid are 'avg', and '' for none")
    if num_classes and not global_pool:
        raise ConfigError("a net without pooling has no classifier: give global_pool, or num_classes=0")
    return global_pool


VARIANTS = {
    "repvit_m1": {"embed_dim": (48, 96, 192, 384), "depth": (2, 2, 14, 2), "legacy": True},
    "repvit_m2": {"embed_dim": (64, 128, 256, 512), "depth": (2, 2, 12, 2), "legacy": True},
    "repvit_m3": {"embed_dim": (64, 128, 256, 512), "depth": (4, 4, 18, 2), "legacy": True},
    "repvit_m0_9": {"embed_dim": (48, 96, 192, 384), "depth": (2, 2, 14, 2)},
    "repvit_m1_0": {"embed_dim": (56, 112, 224, 448), "depth": (2, 2, 14, 2)},
    "repvit_m1_1": {"embed_dim": (64, 128, 256, 512), "depth": (2, 2, 12, 2)},
    "repvit_m1_5": {"embed_dim": (64, 128, 256, 512), "depth": (4, 4, 24, 4)},
    "repvit_m2_3": {"embed_dim": (80, 160, 320, 640), "depth": (6, 6, 34, 2)},
}


register_variants(VARIANTS, RepVit)
