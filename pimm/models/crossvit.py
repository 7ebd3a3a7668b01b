"""CrossViT (https://arxiv.org/abs/2103.14899): two branches of small and of large patches, whose class tokens meet."""

import paddle
import paddle.nn.functional as F
from paddle import nn

from pimm.errors import ConfigError
from pimm.layers import Conv2d, DropPath, LayerNorm, Linear, attend, calculate_drop_path_rates, trunc_normal_
from pimm.layers.helpers import to_pair
from pimm.models.features import feature_map, feature_take_indices
from pimm.models.initial_values import init_truncated
from pimm.models.registry import register_variants
from pimm.models.token_model import TokenModel, global_pool_nlc
from pimm.models.vision_transformer_blocks import Block

_STEMS = {  # size of patches: strides, kernels and padding of the second and third convolution
    12: ((3, 3, 0), (1, 3, 1)),
    16: ((2, 3, 1), (2, 3, 1)),
}


class PatchEmbed(nn.Layer):
    """Turn each patch of an image into a vector.

    Args:
        img_size: height and width of the images.
        patch_size: size of the patches.
        in_chans: channels of the images.
        embed_dim: size of the vectors.
        multi_conv: whether three convolutions do so, in place of one; for patches of 12 and 16 pixels.

    Raises:
        ConfigError: for patches of another size with ``multi_conv``, and for images of another size.
    """

    def __init__(self, img_size, patch_size, in_chans, embed_dim, multi_conv):
        super().__init__()
        self.img_size, self.patch_size = img_size, to_pair(patch_size)
        self.grid_size = tuple(side // patch_size for side in img_size)
        if not multi_conv:
            self.proj = Conv2d(in_chans, embed_dim, patch_size, patch_size)
            return
        if patch_size not in _STEMS:
            raise ConfigError(f"patch_size is {patch_size!r:.80}; with multi_conv, valid are 12 and 16")
        layers, width = [Conv2d(in_chans, embed_dim // 4, 7, 4, 3)], embed_dim // 4
        for stride, kernel, padding in _STEMS[patch_size]:
            layers += [nn.ReLU(), Conv2d(width, 2 * width, kernel, stride, padding)]
            width *= 2
        self.proj = nn.Sequential(*layers)

    def forward(self, x):
        if paddle.in_dynamic_mode() and tuple(x.shape[2:]) != self.img_size:
            raise ConfigError(f"the net takes images of {self.img_size} pixels, not of {tuple(x.shape[2:])}")
        return self.proj(x).flatten(2).transpose([0, 2, 1])


class CrossAttention(nn.Layer):
    """Attention of the first token to all.

    Args:
        dim: channels.
        num_heads: heads.
        qkv_bias: whether queries, keys and values have biases.
        attn_drop: dropout of attention.
        proj_drop: dropout of the output.
    """

    def __init__(self, dim, num_heads, qkv_bias, attn_drop, proj_drop):
        super().__init__()
        self.num_heads, self.attn_drop = num_heads, attn_drop
        self.wq = Linear(dim, dim, bias=qkv_bias)
        self.wk = Linear(dim, dim, bias=qkv_bias)
        self.wv = Linear(dim, dim, bias=qkv_bias)
        self.proj = Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x):
        pairs = ((self.wq, x[:, :1]), (self.wk, x), (self.wv, x))
        q, k, v = (layer(of).reshape([0, 0, self.num_heads, -1]).transpose([0, 2, 1, 3]) for layer, of in pairs)
        x = attend(q, k, v, dropout=self.attn_drop if self.training else 0.0)
        return self.proj_drop(self.proj(x.transpose([0, 2, 1, 3]).flatten(2)))


class CrossAttentionBlock(nn.Layer):
    """`CrossAttention` with normalisation before it, beside a shortcut of the first token."""

    def __init__(self, dim, num_heads, qkv_bias, proj_drop, attn_drop, drop_path, norm_layer):
        super().__init__()
        self.norm1 = norm_layer(dim)
        self.attn = CrossAttention(dim, num_heads, qkv_bias, attn_drop, proj_drop)
        self.drop_path = DropPath(drop_path)

    def forward(self, x):
        return x[:, :1] + self.drop_path(self.attn(self.norm1(x)))


class MultiScaleBlock(nn.Layer):
    """Blocks of each branch; then the class token of each goes through attention to the patches of the next.

    Args:
        dim: channels of each branch.
        depth: blocks of each branch, and of `CrossAttentionBlock`, of which there is one at least.
        num_heads: heads of each branch.
        mlp_ratio: width of layers relative to the channels of each branch.
        qkv_bias: whether queries, keys and values have biases.
        proj_drop: dropout of outputs.
        attn_drop: dropout of attention.
        drop_path: for each block, the probability of leaving out a branch.
        norm_layer: class of the normalisations.
    """

    def __init__(self, dim, depth, num_heads, mlp_ratio, qkv_bias, proj_drop, attn_drop, drop_path, norm_layer):
        super().__init__()
        block = {"qkv_bias": qkv_bias, "proj_drop": proj_drop, "attn_drop": attn_drop, "norm_layer": norm_layer}
        branches = list(zip(dim, depth, num_heads, mlp_ratio))
        self.blocks = nn.LayerList(
            [
                nn.Sequential(*(Block(width, heads, ratio, drop_path=drop_path[i], **block) for i in range(count)))
                for width, count, heads, ratio in branches
                if count
            ]
        )
        following = [*dim[1:], dim[0]]
        self.projs = nn.LayerList([_project(*pair, norm_layer) for pair in zip(dim, following)])
        block["drop_path"] = drop_path[-1]
        heads = [*num_heads[1:], num_heads[0]]
        fusion = [
            [CrossAttentionBlock(width, count, **block) for _ in range(max(depth[-1], 1))]
            for width, count in zip(following, heads)
        ]
        self.fusion = nn.LayerList([nn.Sequential(*each) if depth[-1] else each[0] for each in fusion])
        self.revert_projs = nn.LayerList([_project(*pair, norm_layer) for pair in zip(following, dim)])

    def forward(self, x):
        """Return a list of the tokens of each branch, [N, tokens, channels], for such a list."""
        x = [block(of) for block, of in zip(self.blocks, x)]
        found = []
        for number, (proj, fusion, revert) in enumerate(zip(self.projs, self.fusion, self.revert_projs)):
            others = x[(number + 1) % len(x)][:, 1:]
            token = fusion(paddle.concat([proj(x[number][:, :1]), others], axis=1))
            found.append(paddle.concat([revert(token[:, :1]), x[number][:, 1:]], axis=1))
        return found


def _project(dim, out_dim, norm_layer):
    return nn.Sequential(norm_layer(dim), nn.GELU(), Linear(dim, out_dim))


class CrossVit(TokenModel):
    """CrossViT; what a branch has is given for each.

    Args:
        img_size: size of the images.
        img_scale: size of the images that a branch sees relative to ``img_size``.
        patch_size: size of the patches.
        in_chans: channels of the images.
        num_classes: classes; 0 for a net without classifiers.
        embed_dim: channels.
        depth: for each `MultiScaleBlock`, the blocks of each branch and of attention between them.
        num_heads: heads.
        mlp_ratio: width of layers relative to the channels.
        multi_conv: whether three convolutions make patches.
        crop_scale: whether smaller images are cut out, in place of interpolated.
        qkv_bias: whether queries, keys and values have biases.
        drop_rate: dropout before the classifiers.
        pos_drop_rate: dropout of the first tokens.
        proj_drop_rate: dropout of outputs.
        attn_drop_rate: dropout of attention.
        drop_path_rate: probability of leaving out a branch in the last block, and less in those before it.
        norm_layer: class of the normalisations.
        global_pool: ``token`` or ``avg``.
    """

    pools = ("token", "avg")
    has_class_token = True

    def __init__(
        self,
        img_size=224,
        img_scale=(1.0, 1.0),
        patch_size=(8, 16),
        in_chans=3,
        num_classes=1000,
        embed_dim=(192, 384),
        depth=((1, 3, 1), (1, 3, 1), (1, 3, 1)),
        num_heads=(6, 12),
        mlp_ratio=(2.0, 2.0, 4.0),
        multi_conv=False,
        crop_scale=False,
        qkv_bias=True,
        drop_rate=0.0,
        pos_drop_rate=0.0,
        proj_drop_rate=0.0,
        attn_drop_rate=0.0,
        drop_path_rate=0.0,
        norm_layer=LayerNorm,
        global_pool="token",
    ):
        super().__init__()
        self.embed_dim, self.crop_scale = embed_dim, crop_scale
        self.num_features = self.head_hidden_size = sum(embed_dim)
        sizes = [tuple(int(side * scale) for side in to_pair(img_size)) for scale in to_pair(img_scale)]
        self.patch_embed = nn.LayerList(
            [PatchEmbed(*each, multi_conv) for each in zip(sizes, patch_size, [in_chans] * len(sizes), embed_dim)]
        )
        for number, (branch, dim) in enumerate(zip(self.patch_embed, embed_dim)):
            # As timm counts patches, which it does from the left
            (height, width), side = branch.img_size, branch.patch_size[0]
            count = 1 + height // side * width // side
            setattr(self, f"pos_embed_{number}", self.create_parameter([1, count, dim]))
            setattr(self, f"cls_token_{number}", self.create_parameter([1, 1, dim]))
        self.pos_drop = nn.Dropout(pos_drop_rate)
        rates = calculate_drop_path_rates(drop_path_rate, sum(sum(each[-2:]) for each in depth))
        blocks, begin = [], 0
        for each in depth:
            end = begin + max(each[:-1]) + each[-1]
            block = (qkv_bias, proj_drop_rate, attn_drop_rate, rates[begin:end], norm_layer)
            blocks.append(MultiScaleBlock(embed_dim, each, num_heads, mlp_ratio, *block))
            begin = end
        self.blocks = nn.LayerList(blocks)
        self.feature_info = [
            feature_map(f"blocks.{number}", number + 1, dim, round(patch / scale))
            for dim, patch, scale in zip(embed_dim, patch_size, to_pair(img_scale))
            for number in range(len(depth))
        ]
        self.default_out_indices = (len(depth) - 1, 2 * len(depth) - 1)
        self.norm = nn.LayerList([norm_layer(dim) for dim in embed_dim])
        self.head_drop = nn.Dropout(drop_rate)
        self.check_pool(global_pool)
        self.reset_classifier(num_classes, global_pool)
        self._init_weights()

    def _init_weights(self):
        init_truncated(self)
        for name in sorted(self.no_weight_decay()):  # in the same order in every process
            trunc_normal_(getattr(self, name), std=0.02)

    def no_weight_decay(self):
        """Return the names of embeddings of positions and of class tokens."""
        return {f"{kind}_{number}" for kind in ("pos_embed", "cls_token") for number in range(len(self.patch_embed))}

    def group_matcher(self, coarse=False):
        """Return the patterns for ``group_with_matcher`` by block."""
        return {
            "stem": r"^cls_token|pos_embed|patch_embed",
            "blocks": [(r"^blocks\.(\d+)", None), (r"^norm", (99999,))],
        }

    def set_grad_checkpointing(self, enable=True):
        """Raise `ConfigError` if asked to compute activations again, which this net does not."""
        if enable:
            raise ConfigError("CrossViT does not compute activations again in the backward pass: grad_checkpointing")

    def reset_classifier(self, num_classes, global_pool=None):
        """Replace the classifiers, and the pooling.

        Args:
            num_classes: classes; 0 for a net that returns the pooled tokens of both branches.
            global_pool: ``token`` or ``avg``; None, or ``""``, keeps it.

        Raises:
            ConfigError: for another pooling.
        """
        if global_pool:
            self.check_pool(global_pool)
            self.global_pool = global_pool
        self.num_classes = num_classes
        heads = [Linear(dim, num_classes) if num_classes else nn.Identity() for dim in self.embed_dim]
        self.head = nn.LayerList(heads)
        self.head.train() if self.training else self.head.eval()

    def _scaled(self, x, size):
        """Return images of the size that a branch sees."""
        height, width = x.shape[2:]
        if (height, width) == size:
            return x
        if self.crop_scale and size[0] <= height and size[1] <= width:
            top, left = round((height - size[0]) / 2), round((width - size[1]) / 2)
            return x[:, :, top : top + size[0], left : left + size[1]]
        return F.interpolate(x, size=list(size), mode="bicubic", align_corners=False)

    def embed(self, x):
        """Return a list of the tokens of each branch, and no further arguments of blocks."""
        found = []
        for number, patches in enumerate(self.patch_embed):
            tokens = patches(self._scaled(x, patches.img_size))
            token = getattr(self, f"cls_token_{number}").expand([x.shape[0], -1, -1])
            tokens = paddle.concat([token, tokens], axis=1) + getattr(self, f"pos_embed_{number}")
            found.append(self.pos_drop(tokens))
        return found, ()

    def finish(self, x):
        """Return a list of the normalised tokens of each branch."""
        return [norm(of) for norm, of in zip(self.norm, x)]

    def forward_head(self, x, pre_logits=False):
        """Return the mean of the logits of both branches, or with ``pre_logits`` the pooled tokens of both."""
        x = [self.head_drop(global_pool_nlc(of, self.global_pool)) for of in x]
        if pre_logits or not self.num_classes:
            return paddle.concat(x, axis=1)
        return sum(head(of) for head, of in zip(self.head, x)) / len(x)

    def forward_intermediates(
        self, x, indices=None, norm=False, stop_early=False, output_fmt="NCHW", intermediates_only=False
    ):
        """Return the output of `forward_features`, and the patches after blocks: first those of the first branch.

        Args:
            x: images, [N, in_chans, H, W].
            indices: which feature maps of ``feature_info``, as in `TokenModel`.
            norm: whether the last normalisation is applied to each.
            stop_early: whether to stop after the last of the blocks.
            output_fmt: order of the axes: ``NCHW`` or ``NLC``.
            intermediates_only: whether to return the list alone.

        Raises:
            ConfigError: if there is no such feature map, and for another ``output_fmt``.
        """
        if output_fmt not in ("NCHW", "NLC"):
            raise ConfigError(f"output_fmt is {output_fmt!r:.80}; valid are NCHW and NLC, for this net")
        taken = sorted(feature_take_indices(len(self.feature_info), indices)[0])
        numbers = {index: self.feature_info[index]["stage"] - 1 for index in taken}
        per_branch = len(self.feature_info) // len(self.patch_embed)
        count = max(numbers.values()) + 1 if stop_early else None
        x, outputs = self.run_blocks(*self.embed(x), count, range(len(self.blocks)))
        found = []
        for index in taken:
            branch = index // per_branch
            each = outputs[numbers[index]][branch]
            each = (self.norm[branch](each) if norm else each)[:, 1:]
            if output_fmt == "NCHW":
                each = each.transpose([0, 2, 1]).unflatten(2, self.patch_embed[branch].grid_size)
            found.append(each)
        return found if intermediates_only else (self.finish(x), found)

    def prune_intermediate_layers(self, indices=1, prune_norm=False, prune_head=True):
        """Take out the blocks after those whose outputs are wanted, and return the numbers of these.

        Args:
            indices: which feature maps of ``feature_info``, as in `TokenModel`.
            prune_norm: whether to take out the last normalisations.
            prune_head: whether to take out the classifiers.

        Raises:
            ConfigError: if there is no such feature map.
        """
        taken = feature_take_indices(len(self.feature_info), indices)[0]
        self.blocks = nn.LayerList(list(self.blocks)[: max(self.feature_info[index]["stage"] for index in taken)])
        if prune_norm:
            self.norm = nn.LayerList([nn.Identity() for _ in self.patch_embed])
        if prune_head:
            self.reset_classifier(0)
        return taken


def checkpoint_filter_fn(state_dict, model):
    """Return weights under timm's names; the authors' files number embeddings and tokens as in a list."""
    return {
        name.replace(".", "_") if "pos_embed" in name or "cls_token" in name else name: value
        for name, value in state_dict.items()
    }


def _size(dims, blocks, heads, ratio):
    return {
        "patch_size": (12, 16),
        "embed_dim": dims,
        "depth": ((1, blocks, 0),) * 3,
        "num_heads": (heads, heads),
        "mlp_ratio": (ratio, ratio, 1),
    }


_SIZES = {
    "tiny": _size((96, 192), 4, 3, 4),
    "small": _size((192, 384), 4, 6, 4),
    "base": _size((384, 768), 4, 12, 4),
    "9": _size((128, 256), 3, 4, 3),
    "15": _size((192, 384), 5, 6, 3),
    "18": _size((224, 448), 6, 7, 3),
}
_NAMES = ("tiny_240", "small_240", "base_240", "9_240", "15_240", "18_240")
_NAMES += ("9_dagger_240", "15_dagger_240", "15_dagger_408", "18_dagger_240", "18_dagger_408")
_SCALES = {"240": (1.0, 224 / 240), "408": (1.0, 384 / 408)}
_VARIANTS = {
    f"crossvit_{name}": {
        **_SIZES[name.partition("_")[0]],
        "img_scale": _SCALES[name[-3:]],
        "multi_conv": "dagger" in name,
    }
    for name in _NAMES
}


register_variants(_VARIANTS, CrossVit)
