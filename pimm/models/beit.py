"""BEiT and BEiT v2 (https://arxiv.org/abs/2106.08254, https://arxiv.org/abs/2208.06366): relative position biases."""

import math

import paddle
import paddle.nn.functional as F
from paddle import nn

from pimm.layers import (
    DropPath,
    LayerNorm,
    Linear,
    Mlp,
    PatchEmbed,
    RelPosBias,
    SwiGLU,
    attend,
    calculate_drop_path_rates,
    gen_relative_position_index,
    num_relative_distances,
    resample_abs_pos_embed,
    resample_patch_embed,
    resize_rel_pos_bias_table,
    trunc_normal_,
    zeros_,
)
from pimm.layers.pos_embed_rel import bias_of_pairs
from pimm.models.registry import register_variants
from pimm.models.token_model import TokenModel, block_features


class Attention(nn.Layer):
    """Attention whose keys have no bias, with a learnt bias for each distance.

    Args:
        dim: channels.
        num_heads: heads.
        qkv_bias: whether queries and values have biases.
        attn_drop: dropout of attention.
        proj_drop: dropout of the output.
        window_size: rows and columns of patches; None for no bias of distances.
    """

    def __init__(self, dim, num_heads, qkv_bias=False, attn_drop=0.0, proj_drop=0.0, window_size=None):
        super().__init__()
        self.num_heads, self.attn_drop, self.window_size = num_heads, attn_drop, window_size
        self.qkv = Linear(dim, 3 * dim, bias=False)
        self.q_bias = self.create_parameter([dim], is_bias=True) if qkv_bias else None
        self.v_bias = self.create_parameter([dim], is_bias=True) if qkv_bias else None
        self.relative_position_bias_table = None
        if window_size:
            self.relative_position_bias_table = self.create_parameter(
                [num_relative_distances(window_size, True), num_heads], is_bias=True
            )
            index = paddle.to_tensor(gen_relative_position_index(window_size, True))
            self.register_buffer("relative_position_index", index, persistable=False)
        self.proj = Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def _bias(self, shared):
        """Return the bias of each pair of tokens, [1, num_heads, tokens, tokens], or None."""
        if self.relative_position_bias_table is None:
            return shared
        index = self.relative_position_index
        bias = bias_of_pairs(self.relative_position_bias_table, index.flatten(), index.shape[0])
        return bias if shared is None else bias + shared

    def forward(self, x, shared_bias=None):
        """Return the attended tokens, [N, tokens, dim].

        Args:
            x: tokens, [N, tokens, dim].
            shared_bias: a bias that all blocks share, [1, num_heads, tokens, tokens]; None for none.
        """
        bias = None
        if self.q_bias is not None:
            bias = paddle.concat([self.q_bias, paddle.zeros_like(self.q_bias), self.v_bias])
        qkv = F.linear(x, self.qkv.weight, bias).reshape([0, 0, 3, self.num_heads, -1])
        q, k, v = qkv.transpose([2, 0, 3, 1, 4]).unbind(0)  # [N, num_heads, tokens, dim / num_heads]
        drop = self.attn_drop if self.training else 0.0
        x = attend(q, k, v, bias=self._bias(shared_bias), dropout=drop)
        return self.proj_drop(self.proj(x.transpose([0, 2, 1, 3]).flatten(2)))


class Block(nn.Layer):
    """Attention and two layers, each with normalisation before it and beside a shortcut.

    Args:
        dim: channels.
        num_heads: heads.
        qkv_bias: whether queries and values have biases.
        mlp_ratio: width of the layers relative to ``dim``.
        scale_mlp: whether there is a normalisation before the last layer.
        swiglu_mlp: whether the layers have a gate.
        proj_drop: dropout of outputs.
        attn_drop: dropout of attention.
        drop_path: probability of leaving out a branch.
        init_values: initial scale of the branches; None for branches without scales.
        norm_layer: class of the normalisations.
        window_size: as in `Attention`.
    """

    def __init__(
        self,
        dim,
        num_heads,
        qkv_bias=False,
        mlp_ratio=4.0,
        scale_mlp=False,
        swiglu_mlp=False,
        proj_drop=0.0,
        attn_drop=0.0,
        drop_path=0.0,
        init_values=None,
        norm_layer=LayerNorm,
        window_size=None,
    ):
        super().__init__()
        self.norm1 = norm_layer(dim)
        self.attn = Attention(dim, num_heads, qkv_bias, attn_drop, proj_drop, window_size)
        self.drop_path1 = DropPath(drop_path)
        self.norm2 = norm_layer(dim)
        inner_norm = norm_layer if scale_mlp else None
        self.mlp = (SwiGLU if swiglu_mlp else Mlp)(dim, int(dim * mlp_ratio), norm_layer=inner_norm, drop=proj_drop)
        self.drop_path2 = DropPath(drop_path)
        self.gamma_1 = self.gamma_2 = None
        if init_values:
            scale = nn.initializer.Constant(init_values)
            self.gamma_1 = self.create_parameter([dim], default_initializer=scale)
            self.gamma_2 = self.create_parameter([dim], default_initializer=scale)

    def forward(self, x, shared_bias=None):
        branch = self.attn(self.norm1(x), shared_bias)
        x = x + self.drop_path1(branch if self.gamma_1 is None else self.gamma_1 * branch)
        branch = self.mlp(self.norm2(x))
        return x + self.drop_path2(branch if self.gamma_2 is None else self.gamma_2 * branch)


class Beit(TokenModel):
    """BEiT.

    Args:
        img_size: size of the images.
        patch_size: size of the patches.
        in_chans: channels of the images.
        num_classes: classes; 0 for a net without a classifier.
        global_pool: ``avg``, ``token``, or ``""`` for none.
        embed_dim: channels.
        depth: number of blocks.
        num_heads: heads.
        qkv_bias: whether queries and values have biases.
        mlp_ratio: width of the layers relative to the channels.
        swiglu_mlp: whether the layers have a gate.
        scale_mlp: whether there is a normalisation before the last layer of a block.
        drop_rate: dropout before the classifier.
        pos_drop_rate: dropout of the first tokens.
        proj_drop_rate: dropout of outputs.
        attn_drop_rate: dropout of attention.
        drop_path_rate: probability of leaving out a branch in the last block, and less in those before it.
        norm_layer: class of the normalisations.
        init_values: initial scale of the branches.
        use_abs_pos_emb: whether there is a learnt embedding of positions.
        use_rel_pos_bias: whether each block has a bias of distances.
        use_shared_rel_pos_bias: whether all blocks share one.
        head_init_scale: factor of the initial values of the classifier.
        use_fc_norm: whether tokens are normalised after pooling, and not before; None for after average pooling.
    """

    pools = ("", "avg", "token")
    num_prefix_tokens = 1
    has_class_token = True

    def __init__(
        self,
        img_size=224,
        patch_size=16,
        in_chans=3,
        num_classes=1000,
        global_pool="avg",
        embed_dim=768,
        depth=12,
        num_heads=12,
        qkv_bias=True,
        mlp_ratio=4.0,
        swiglu_mlp=False,
        scale_mlp=False,
        drop_rate=0.0,
        pos_drop_rate=0.0,
        proj_drop_rate=0.0,
        attn_drop_rate=0.0,
        drop_path_rate=0.0,
        norm_layer=LayerNorm,
        init_values=None,
        use_abs_pos_emb=True,
        use_rel_pos_bias=False,
        use_shared_rel_pos_bias=False,
        head_init_scale=0.001,
        use_fc_norm=None,
    ):
        super().__init__()
        self.embed_dim = self.num_features = self.head_hidden_size = embed_dim
        self.patch_embed = PatchEmbed(img_size, patch_size, in_chans, embed_dim)
        grid = self.patch_embed.grid_size
        self.cls_token = self.create_parameter([1, 1, embed_dim])
        self.pos_embed = None
        if use_abs_pos_emb:
            self.pos_embed = self.create_parameter([1, self.patch_embed.num_patches + 1, embed_dim])
        self.pos_drop = nn.Dropout(pos_drop_rate)
        self.rel_pos_bias = None
        if use_shared_rel_pos_bias:
            self.rel_pos_bias = RelPosBias(grid, num_heads, 1)
            zeros_(self.rel_pos_bias.relative_position_bias_table)
        block = {
            "qkv_bias": qkv_bias,
            "mlp_ratio": mlp_ratio,
            "swiglu_mlp": swiglu_mlp,
            "scale_mlp": scale_mlp,
            "proj_drop": proj_drop_rate,
            "attn_drop": attn_drop_rate,
            "norm_layer": norm_layer,
            "init_values": init_values,
            "window_size": grid if use_rel_pos_bias else None,
        }
        rates = calculate_drop_path_rates(drop_path_rate, depth)
        self.blocks = nn.LayerList([Block(embed_dim, num_heads, drop_path=rate, **block) for rate in rates])
        self.feature_info = block_features(depth, embed_dim, patch_size)
        use_fc_norm = global_pool == "avg" if use_fc_norm is None else use_fc_norm
        self.norm = nn.Identity() if use_fc_norm else norm_layer(embed_dim)
        self.fc_norm = norm_layer(embed_dim) if use_fc_norm else nn.Identity()
        self.head_drop = nn.Dropout(drop_rate)
        self.reset_classifier(num_classes, global_pool)
        init_beit_weights(self, head_init_scale)

    def embed(self, x):
        """Return the class token and the patches of images, and the bias that all blocks share."""
        x = self.patch_embed(x)
        x = paddle.concat([self.cls_token.expand([x.shape[0], -1, -1]), x], axis=1)
        x = x if self.pos_embed is None else x + self.pos_embed
        return self.pos_drop(x), (None if self.rel_pos_bias is None else self.rel_pos_bias.get_bias(),)

    def no_weight_decay(self):
        """Return the names of embeddings of positions, of the class token, and of the tables of biases."""
        tables = {name for name, _ in self.named_parameters() if "relative_position_bias_table" in name}
        return {"pos_embed", "cls_token", *tables}

    def group_matcher(self, coarse=False):
        """Return the patterns for ``group_with_matcher`` by block."""
        return {
            "stem": r"^cls_token|pos_embed|patch_embed|rel_pos_bias",
            "blocks": [(r"^blocks\.(\d+)", None), (r"^norm", (99999,))],
        }


def init_beit_weights(model, head_init_scale):
    """Draw the values of a net of BEiT's kind, which are smaller in later blocks, and in the classifier.

    Args:
        model: the net.
        head_init_scale: factor of the values of the classifier; 0 for no factor.
    """
    for layer in model.sublayers():
        if isinstance(layer, nn.Linear):
            trunc_normal_(layer.weight, std=0.02)
            if layer.bias is not None:
                zeros_(layer.bias)
    for parameter in (model.pos_embed, model.cls_token, getattr(model, "reg_token", None)):
        if parameter is not None:
            trunc_normal_(parameter, std=0.02)
    for number, block in enumerate(model.blocks, start=1):
        for layer in (block.attn.proj, block.mlp.fc2):
            trunc_normal_(layer.weight, std=0.02 / math.sqrt(2.0 * number))
    if isinstance(model.head, nn.Linear) and head_init_scale:
        trunc_normal_(model.head.weight, std=0.02 * head_init_scale)


def checkpoint_filter_fn(state_dict, model):
    """Return weights that fit the size of images and patches of the net."""
    tables = dict(model.named_parameters())
    found = {}
    for name, value in state_dict.items():
        if "relative_position_index" in name:
            continue
        if name == "patch_embed.proj.weight":
            value = resample_patch_embed(value, model.patch_embed.patch_size)
        elif name == "pos_embed" and value.shape[1] != model.pos_embed.shape[1]:
            value = resample_abs_pos_embed(paddle.to_tensor(value), model.patch_embed.grid_size).numpy()
        elif name.endswith("relative_position_bias_table"):
            value = resize_rel_pos_bias_table(value, model.patch_embed.grid_size, tables[name].shape)
        found[name] = value
    return found


_BASE = {"use_abs_pos_emb": False, "use_rel_pos_bias": True}
_LARGE = {**_BASE, "embed_dim": 1024, "depth": 24, "num_heads": 16, "init_values": 1e-5}
_VARIANTS = {
    "beit_base_patch16_224": {**_BASE, "init_values": 0.1},
    "beit_base_patch16_384": {**_BASE, "img_size": 384, "init_values": 0.1},
    "beit_large_patch16_224": _LARGE,
    "beit_large_patch16_384": {**_LARGE, "img_size": 384},
    "beit_large_patch16_512": {**_LARGE, "img_size": 512},
    "beitv2_base_patch16_224": {**_BASE, "init_values": 1e-5},
    "beitv2_large_patch16_224": _LARGE,
}


register_variants(_VARIANTS, Beit)
