"""XCiT (https://arxiv.org/abs/2106.09681): attention among channels, and blocks of the class token after the others."""

import math

import paddle
import paddle.nn.functional as F
from paddle import nn

from pimm.errors import ConfigError
from pimm.layers import BatchNorm2d, Conv2d, DropPath, LayerNorm, Linear, Mlp
from pimm.layers.helpers import to_pair
from pimm.models.cait import LateTokenModel, init_late_token_weights
from pimm.models.cait_blocks import ClassAttn
from pimm.models.recompute import checkpoint
from pimm.models.registry import register_variants
from pimm.models.token_model import block_features


class PositionalEncodingFourier(nn.Layer):
    """Embed positions by a convolution of sines and cosines of rows and columns.

    Args:
        dim: channels of the embedding.
        hidden_dim: numbers for rows, and for columns.
        temperature: ratio of the frequencies.
    """

    def __init__(self, dim, hidden_dim=32, temperature=10000.0):
        super().__init__()
        self.token_projection = Conv2d(2 * hidden_dim, dim, 1)
        self.hidden_dim, self.temperature = hidden_dim, temperature

    def _waves(self, size):
        """Return sines and cosines, [size, hidden_dim], of places from above 0 to a whole turn."""
        places = paddle.arange(1, size + 1, dtype="float32")
        places = places / (size + 1e-6) * (2 * math.pi)
        powers = 2 * (paddle.arange(self.hidden_dim) // 2).astype("float32") / self.hidden_dim
        angles = places.unsqueeze(1) / self.temperature**powers
        return paddle.stack([angles[:, 0::2].sin(), angles[:, 1::2].cos()], axis=2).flatten(1)

    def forward(self, rows, columns):
        """Return the embedding, [1, rows * columns, dim], for numbers of rows and columns."""
        vertical = self._waves(rows).unsqueeze(1).expand([rows, columns, -1])
        horizontal = self._waves(columns).unsqueeze(0).expand([rows, columns, -1])
        waves = paddle.concat([vertical, horizontal], axis=2).transpose([2, 0, 1]).unsqueeze(0)
        waves = self.token_projection(waves.astype(self.token_projection.weight.dtype))
        return waves.flatten(2).transpose([0, 2, 1])


class ConvPatchEmbed(nn.Layer):
    """Make patches by convolutions of stride two, each with batch norm.

    Args:
        img_size: size of the images.
        patch_size: 16 or 8.
        in_chans: channels of the images.
        embed_dim: channels of the patches.

    Raises:
        ConfigError: for another size of patches.
    """

    def __init__(self, img_size, patch_size, in_chans, embed_dim):
        super().__init__()
        if patch_size not in (8, 16):
            raise ConfigError(f"patch_size is {patch_size!r:.80}; valid for XCiT are 8 and 16")
        self.img_size, self.patch_size = to_pair(img_size), patch_size
        count, layers = patch_size.bit_length() - 1, []
        for number in range(1, count + 1):
            width = embed_dim // 2 ** (count - number)
            layers.append(nn.Sequential(Conv2d(in_chans, width, 3, 2, 1, bias=False), BatchNorm2d(width)))
            if number < count:
                layers.append(nn.GELU())
            in_chans = width
        self.proj = nn.Sequential(*layers)

    def dynamic_feat_size(self, img_size):
        """Return how many rows and columns of patches an image of this height and width has."""
        return tuple(-(-side // self.patch_size) for side in img_size)

    def forward(self, x):
        return self.proj(x)


class LPI(nn.Layer):
    """Two convolutions of each channel of the patches' grid, with GELU and batch norm between them."""

    def __init__(self, dim, kernel_size=3):
        super().__init__()
        shape = {"padding": kernel_size // 2, "groups": dim}
        self.conv1 = Conv2d(dim, dim, kernel_size, **shape)
        self.act = nn.GELU()
        self.bn = BatchNorm2d(dim)
        self.conv2 = Conv2d(dim, dim, kernel_size, **shape)

    def forward(self, x, rows, columns):
        x = x.transpose([0, 2, 1]).unflatten(2, [rows, columns])
        return self.conv2(self.bn(self.act(self.conv1(x)))).flatten(2).transpose([0, 2, 1])


class XCA(nn.Layer):
    """Attention of channels to each other, with queries and keys of length one.

    Args:
        dim: channels.
        num_heads: heads.
        qkv_bias: whether queries, keys and values have biases.
        attn_drop: dropout of attention.
        proj_drop: dropout of the output.
    """

    def __init__(self, dim, num_heads, qkv_bias=False, attn_drop=0.0, proj_drop=0.0):
        super().__init__()
        self.num_heads = num_heads
        self.temperature = self.create_parameter([num_heads, 1, 1], default_initializer=nn.initializer.Constant(1.0))
        self.qkv = Linear(dim, 3 * dim, bias=qkv_bias)
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj = Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x):
        q, k, v = self.qkv(x).reshape([0, 0, 3, self.num_heads, -1]).transpose([2, 0, 3, 4, 1]).unbind(0)
        q, k = F.normalize(q, axis=-1), F.normalize(k, axis=-1)  # [N, num_heads, dim / num_heads, tokens]
        attention = F.softmax(q.matmul(k, transpose_y=True) * self.temperature, axis=-1)
        x = self.attn_drop(attention).matmul(v).transpose([0, 3, 1, 2]).flatten(2)
        return self.proj_drop(self.proj(x))


def _scale(layer, dim, value):
    return layer.create_parameter([dim], default_initializer=nn.initializer.Constant(value))


class XCABlock(nn.Layer):
    """Attention among channels, convolutions and two layers, each normalised, scaled and beside a shortcut.

    Args:
        dim: channels.
        num_heads: heads.
        mlp_ratio: width of the layers relative to ``dim``.
        qkv_bias: whether queries, keys and values have biases.
        proj_drop: dropout of outputs.
        attn_drop: dropout of attention.
        drop_path: probability of leaving out a branch.
        norm_layer: class of the normalisations.
        eta: initial scale of the branches.
    """

    def __init__(self, dim, num_heads, mlp_ratio, qkv_bias, proj_drop, attn_drop, drop_path, norm_layer, eta):
        super().__init__()
        self.norm1 = norm_layer(dim)
        self.attn = XCA(dim, num_heads, qkv_bias, attn_drop, proj_drop)
        self.norm3 = norm_layer(dim)
        self.local_mp = LPI(dim)
        self.norm2 = norm_layer(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), drop=proj_drop)
        self.drop_path = DropPath(drop_path)
        self.gamma1, self.gamma3, self.gamma2 = (_scale(self, dim, eta) for _ in range(3))

    def forward(self, x, rows, columns):
        x = x + self.drop_path(self.gamma1 * self.attn(self.norm1(x)))
        x = x + self.drop_path(self.gamma3 * self.local_mp(self.norm3(x), rows, columns))
        return x + self.drop_path(self.gamma2 * self.mlp(self.norm2(x)))


class ClassAttentionBlock(nn.Layer):
    """Attention of the class token, which is the first of the tokens, and two layers.

    Args:
        dim: channels.
        num_heads: heads.
        mlp_ratio: width of the layers relative to ``dim``.
        qkv_bias: whether queries, keys and values have biases.
        proj_drop: dropout of outputs.
        attn_drop: dropout of attention.
        norm_layer: class of the normalisations.
        eta: initial scale of the branches.
        tokens_norm: whether the patches are normalised too.
    """

    def __init__(self, dim, num_heads, mlp_ratio, qkv_bias, proj_drop, attn_drop, norm_layer, eta, tokens_norm):
        super().__init__()
        self.norm1 = norm_layer(dim)
        self.attn = ClassAttn(dim, num_heads, qkv_bias, attn_drop, proj_drop)
        self.norm2 = norm_layer(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), drop=proj_drop)
        self.gamma1, self.gamma2 = _scale(self, dim, eta), _scale(self, dim, eta)
        self.tokens_norm = tokens_norm

    def forward(self, x):
        normed = self.norm1(x)
        x = x + self.gamma1 * paddle.concat([self.attn(normed), normed[:, 1:]], axis=1)
        x = self.norm2(x) if self.tokens_norm else paddle.concat([self.norm2(x[:, :1]), x[:, 1:]], axis=1)
        token = self.gamma2 * self.mlp(x[:, :1])
        return x + paddle.concat([token, x[:, 1:]], axis=1)


class Xcit(LateTokenModel):
    """XCiT.

    Args:
        img_size: size of the images.
        patch_size: 16 or 8.
        in_chans: channels of the images.
        num_classes: classes; 0 for a net without a classifier.
        global_pool: ``token``, ``avg``, or ``""`` for none.
        embed_dim: channels.
        depth: number of blocks of patches.
        num_heads: heads.
        mlp_ratio: width of the layers relative to the channels.
        qkv_bias: whether queries, keys and values have biases.
        drop_rate: dropout before the classifier.
        pos_drop_rate: dropout of the first tokens.
        proj_drop_rate: dropout of outputs.
        attn_drop_rate: dropout of attention.
        drop_path_rate: probability of leaving out a branch.
        norm_layer: class of the normalisations.
        cls_attn_layers: number of blocks of the class token.
        use_pos_embed: whether positions are embedded.
        eta: initial scale of the branches.
        tokens_norm: whether blocks of the class token normalise patches too.

    Raises:
        ConfigError: for images that are not whole patches.
    """

    token_blocks_name = "cls_attn_blocks"

    def __init__(
        self,
        img_size=224,
        patch_size=16,
        in_chans=3,
        num_classes=1000,
        global_pool="token",
        embed_dim=768,
        depth=12,
        num_heads=12,
        mlp_ratio=4.0,
        qkv_bias=True,
        drop_rate=0.0,
        pos_drop_rate=0.0,
        proj_drop_rate=0.0,
        attn_drop_rate=0.0,
        drop_path_rate=0.0,
        norm_layer=LayerNorm,
        cls_attn_layers=2,
        use_pos_embed=True,
        eta=1.0,
        tokens_norm=False,
    ):
        super().__init__()
        if any(side % patch_size for side in to_pair(img_size)):
            raise ConfigError(f"img_size is {img_size!r:.80}; must be a multiple of the patches, {patch_size} pixels")
        self.embed_dim = self.num_features = self.head_hidden_size = embed_dim
        self.patch_embed = ConvPatchEmbed(img_size, patch_size, in_chans, embed_dim)
        self.cls_token = self.create_parameter([1, 1, embed_dim])
        self.pos_embed = PositionalEncodingFourier(embed_dim) if use_pos_embed else None
        self.pos_drop = nn.Dropout(pos_drop_rate)
        block = (embed_dim, num_heads, mlp_ratio, qkv_bias, proj_drop_rate, attn_drop_rate)
        self.blocks = nn.LayerList([XCABlock(*block, drop_path_rate, norm_layer, eta) for _ in range(depth)])
        self.feature_info = block_features(depth, embed_dim, patch_size)
        self.cls_attn_blocks = nn.LayerList(
            [ClassAttentionBlock(*block, norm_layer, eta, tokens_norm) for _ in range(cls_attn_layers)]
        )
        self.norm = norm_layer(embed_dim)
        self.fc_norm = nn.Identity()
        self.head_drop = nn.Dropout(drop_rate)
        self.reset_classifier(num_classes, global_pool)
        init_late_token_weights(self)

    def embed(self, x):
        """Return the patches of images, and their rows and columns."""
        x = self.patch_embed(x)
        rows, columns = x.shape[2:]
        x = x.flatten(2).transpose([0, 2, 1])
        x = x if self.pos_embed is None else x + self.pos_embed(rows, columns)
        return self.pos_drop(x), (rows, columns)

    def classify(self, x):
        """Return the class token and the patches, [N, 1 + L, C], of patches [N, L, C]."""
        x = paddle.concat([self.cls_token.expand([x.shape[0], -1, -1]), x], axis=1)
        for block in self.cls_attn_blocks:
            x = checkpoint(block, x) if self.grad_checkpointing else block(x)
        return x

    def no_weight_decay(self):
        """Return the names, one with a wildcard, of the embedding of positions and of the class token."""
        return {"pos_embed.*", "cls_token"}

    def group_matcher(self, coarse=False):
        """Return the patterns for ``group_with_matcher`` by block."""
        return {
            "stem": r"^cls_token|pos_embed|patch_embed",
            "blocks": r"^blocks\.(\d+)",
            "cls_attn_blocks": [(r"^cls_attn_blocks\.(\d+)", None), (r"^norm", (99999,))],
        }


def checkpoint_filter_fn(state_dict, model):
    """Return weights under timm's names; the authors' files call the embedding otherwise, and join queries and keys."""
    found = {}
    for name, value in state_dict.items():
        if name.startswith("pos_embed"):
            if model.pos_embed is not None:
                found[name.replace("pos_embeder.", "pos_embed.")] = value
        elif name.startswith("cls_attn_blocks.") and ".attn.qkv." in name:
            width = value.shape[0] // 3
            for number, part in enumerate("qkv"):
                found[name.replace(".qkv.", f".{part}.")] = value[number * width : (number + 1) * width]
        else:
            found[name] = value
    return found


_SIZES = {  # name: channels, blocks, heads, initial scale, whether patches are normalised with the class token
    "nano_12": (128, 12, 4, 1.0, False),
    "tiny_12": (192, 12, 4, 1.0, True),
    "small_12": (384, 12, 8, 1.0, True),
    "tiny_24": (192, 24, 4, 1e-5, True),
    "small_24": (384, 24, 8, 1e-5, True),
    "medium_24": (512, 24, 8, 1e-5, True),
    "large_24": (768, 24, 16, 1e-5, True),
}
_ARGUMENTS = ("embed_dim", "depth", "num_heads", "eta", "tokens_norm")
_VARIANTS = {
    f"xcit_{name}_p{patch}_{size}": {"patch_size": patch, "img_size": size, **dict(zip(_ARGUMENTS, sizes))}
    for name, sizes in _SIZES.items()
    for patch in (16, 8)
    for size in (224, 384)
}


register_variants(_VARIANTS, Xcit)
