"""The vision transformers that have names: tables of the arguments in which they differ."""

from __future__ import annotations

import functools
import re

from pimm.layers import LayerNorm, RmsNorm, SwiGLU, SwiGLUPacked
from pimm.models.vision_transformer_blocks import (
    DiffParallelScalingBlock,
    ParallelScalingBlock,
    ParallelThingsBlock,
    ResPostBlock,
)


def _size(embed_dim, depth, num_heads, mlp_ratio=None):
    size = {"embed_dim": embed_dim, "depth": depth, "num_heads": num_heads}
    return size if mlp_ratio is None else {**size, "mlp_ratio": mlp_ratio}


_SIZES = {
    "xsmall": _size(256, 10, 4),
    "tiny": _size(192, 12, 3),
    "wee": _size(256, 14, 4, 5),
    "dwee": _size(256, 14, 4, 5),
    "pwee": _size(256, 16, 4, 5),
    "dpwee": _size(256, 16, 4, 5),
    "little": _size(320, 14, 5, 5.6),
    "dlittle": _size(320, 14, 5, 5.6),
    "small": _size(384, 12, 6),
    "medium": _size(512, 12, 8),
    "mediumd": _size(512, 20, 8),
    "betwixt": _size(640, 12, 10),
    "base": _size(768, 12, 12),
    "so150m": _size(896, 18, 14, 2.572),
    "so150m2": _size(832, 21, 13, 34 / 13),
    "large": _size(1024, 24, 16),
    "intern300m": _size(1024, 24, 16),
    "so400m": _size(1152, 27, 16, 3.7362),
    "huge": _size(1280, 32, 16),
    "giant": _size(1408, 40, 16, 48 / 11),
    "giantopt": _size(1536, 40, 16),
    "gigantic": _size(1664, 48, 16, 64 / 13),
}
_PLUS = _size(896, 12, 14)
_GIANT2 = {**_size(1536, 40, 24), "mlp_ratio": 5.33334, "mlp_layer": SwiGLUPacked, "act_layer": "silu"}
_SO400M = {"mlp_ratio": 269 / 72}

_CLIP = {"pre_norm": True, "norm_layer": functools.partial(LayerNorm, eps=1e-5)}
_QUICK = {**_CLIP, "act_layer": "quick_gelu"}
_DINO = {"init_values": 1e-5}
_DINO_REG4 = {**_DINO, "reg_tokens": 4, "no_embed_class": True}
_TIPS = {"init_values": 1.0, "reg_tokens": 1, "no_embed_class": True}
_RADIO = {"img_size": 512, "no_embed_class": True, "final_norm": False}
_GAP = {"class_token": False, "global_pool": "avg", "fc_norm": False}
_NO_BIAS_GAP = {**_GAP, "qkv_bias": False, "init_values": 1e-6}
_MAP = {"class_token": False, "global_pool": "map"}
_TANH = {"act_layer": "gelu_tanh"}
_POOLED = {"class_token": False, "global_pool": "avg"}
_REG1 = {**_POOLED, "init_values": 1e-5, "no_embed_class": True, "reg_tokens": 1}
_REG4 = {**_REG1, "reg_tokens": 4}
_SO150M2 = {**_POOLED, "init_values": 1e-5, "qkv_bias": False, "reg_tokens": 1}
_XP = {
    **{"pre_norm": True, "no_embed_class": True, "norm_layer": RmsNorm},
    **{"block_fn": ParallelScalingBlock, "qkv_bias": False, "qk_norm": True},
}
_BEIT3 = {
    **{"scale_attn_norm": True, "scale_mlp_norm": True, "global_pool": "avg"},
    "norm_layer": functools.partial(LayerNorm, eps=1e-5),
}
_RMS5 = functools.partial(RmsNorm, eps=1e-5)
_AIM = {
    **_GAP,
    **{"qkv_bias": False, "proj_bias": False, "act_layer": "silu", "mlp_layer": SwiGLU},
    **{"norm_layer": _RMS5, "embed_norm_layer": _RMS5},
}
_TEST = {**_POOLED, "reg_tokens": 1, "init_values": 1e-5}


def named(names, **arguments):
    """Return ``{name: arguments}`` of nets whose names tell their size and, after ``patch``, the size of patches.

    Args:
        names: the names in one string, with spaces between them.
        arguments: the other arguments of these nets; they go before what the name says.
    """
    table = {}
    for name in names.split():
        patch = re.search(r"patch(\d+)", name)
        size = next((_SIZES[word] for word in name.split("_") if word in _SIZES), {})
        table[name] = {"patch_size": int(patch[1]) if patch else 16, **size, **arguments}
    return table


VARIANTS = {
    # "An image is worth 16x16 words", and of what "How to train your ViT?" trained (https://arxiv.org/abs/2106.10270)
    **named("vit_tiny_patch16_224 vit_tiny_patch16_384"),
    **named("vit_small_patch8_224 vit_small_patch16_224 vit_small_patch16_384 vit_small_patch32_224"),
    **named("vit_small_patch32_384 vit_base_patch8_224 vit_base_patch16_224 vit_base_patch16_384"),
    **named("vit_base_patch32_224 vit_base_patch32_384 vit_large_patch14_224 vit_large_patch16_224"),
    **named("vit_large_patch16_384 vit_large_patch32_224 vit_large_patch32_384 vit_huge_patch14_224"),
    **named("vit_giant_patch14_224 vit_gigantic_patch14_224"),
    **named("vit_base_patch16_224_miil", qkv_bias=False),
    # FlexiViT (https://arxiv.org/abs/2212.08013)
    **named("flexivit_small flexivit_base flexivit_large", no_embed_class=True),
    # Means of patches in place of a class token, and I-JEPA (https://arxiv.org/abs/2301.08243)
    **named("vit_medium_patch16_gap_240 vit_medium_patch16_gap_256 vit_medium_patch16_gap_384", **_NO_BIAS_GAP),
    **named("vit_betwixt_patch16_gap_256", **_NO_BIAS_GAP),
    **named("vit_base_patch16_gap_224", **_GAP, num_heads=16),
    **named("vit_huge_patch14_gap_224 vit_huge_patch16_gap_448 vit_giant_patch16_gap_224", **_GAP),
    **named("eva_large_patch14_196 eva_large_patch14_336", global_pool="avg"),
    # CLIP (https://arxiv.org/abs/2103.00020), OpenCLIP, MetaCLIP, DFN, TinyCLIP
    **named("vit_xsmall_patch16_clip_224 vit_medium_patch16_clip_224 vit_medium_patch32_clip_224", **_CLIP),
    **named("vit_betwixt_patch32_clip_224 vit_base_patch32_clip_224 vit_base_patch32_clip_256", **_CLIP),
    **named("vit_base_patch32_clip_384 vit_base_patch32_clip_448 vit_base_patch16_clip_224", **_CLIP),
    **named("vit_base_patch16_clip_384 vit_large_patch14_clip_224 vit_large_patch14_clip_336", **_CLIP),
    **named("vit_huge_patch14_clip_224 vit_huge_patch14_clip_336 vit_huge_patch14_clip_378", **_CLIP),
    **named("vit_giant_patch14_clip_224 vit_gigantic_patch14_clip_224 vit_gigantic_patch14_clip_378", **_CLIP),
    **named("vit_base_patch16_plus_clip_240", **_CLIP, **_PLUS),
    **named("vit_base_patch32_clip_quickgelu_224 vit_base_patch16_clip_quickgelu_224", **_QUICK),
    **named("vit_large_patch14_clip_quickgelu_224 vit_large_patch14_clip_quickgelu_336", **_QUICK),
    **named("vit_huge_patch14_clip_quickgelu_224 vit_huge_patch14_clip_quickgelu_378", **_QUICK),
    **named("vit_gigantic_patch14_clip_quickgelu_224", **_QUICK),
    # SigLIP (https://arxiv.org/abs/2303.15343, https://arxiv.org/abs/2502.14786), with its pooling and with the mean
    **named("vit_base_patch16_siglip_224 vit_base_patch16_siglip_256 vit_base_patch16_siglip_384", **_MAP),
    **named("vit_base_patch16_siglip_512 vit_large_patch16_siglip_256 vit_large_patch16_siglip_384", **_MAP),
    **named("vit_so400m_patch14_siglip_224 vit_so400m_patch14_siglip_378 vit_so400m_patch14_siglip_384", **_MAP),
    **named("vit_base_patch32_siglip_256 vit_large_patch16_siglip_512 vit_so400m_patch16_siglip_256", **_MAP, **_TANH),
    **named("vit_so400m_patch16_siglip_384 vit_so400m_patch16_siglip_512", **_MAP, **_TANH),
    **named("vit_giantopt_patch16_siglip_256 vit_giantopt_patch16_siglip_384", **_MAP, **_TANH),
    **named("vit_base_patch16_siglip_gap_224 vit_base_patch16_siglip_gap_256 vit_base_patch16_siglip_gap_384", **_GAP),
    **named(
        "vit_base_patch16_siglip_gap_512 vit_large_patch16_siglip_gap_256 vit_large_patch16_siglip_gap_384", **_GAP
    ),
    **named("vit_so400m_patch14_siglip_gap_224 vit_so400m_patch14_siglip_gap_378", **_GAP),
    **named("vit_so400m_patch14_siglip_gap_384 vit_so400m_patch14_siglip_gap_448", **_GAP),
    **named("vit_so400m_patch14_siglip_gap_896", **_GAP),
    **named("vit_base_patch32_siglip_gap_256 vit_large_patch16_siglip_gap_512", **_GAP, **_TANH),
    **named("vit_so400m_patch16_siglip_gap_256 vit_so400m_patch16_siglip_gap_384", **_GAP, **_TANH),
    **named("vit_so400m_patch16_siglip_gap_512", **_GAP, **_TANH),
    **named("vit_giantopt_patch16_siglip_gap_256 vit_giantopt_patch16_siglip_gap_384", **_GAP, **_TANH),
    # DINOv2 (https://arxiv.org/abs/2304.07193), its registers, TIPSv2 and RADIO
    **named("vit_small_patch14_dinov2 vit_base_patch14_dinov2 vit_large_patch14_dinov2", **_DINO),
    **named("vit_giant_patch14_dinov2", **_DINO, **_GIANT2),
    **named("vit_small_patch14_reg4_dinov2 vit_base_patch14_reg4_dinov2 vit_large_patch14_reg4_dinov2", **_DINO_REG4),
    **named("vit_giant_patch14_reg4_dinov2", **_DINO_REG4, **_GIANT2),
    **named("vit_base_patch14_reg1_tipsv2 vit_large_patch14_reg1_tipsv2", **_TIPS),
    **named("vit_so400m_patch14_reg1_tipsv2", **_TIPS, **_SO400M),
    **named("vit_giant_patch14_reg1_tipsv2", **_TIPS, **_GIANT2),
    **named("vit_base_patch16_radio_v3 vit_large_patch16_radio_v3", **_RADIO, **_DINO, reg_tokens=7),
    **named("vit_huge_patch16_radio_v3", **_RADIO, reg_tokens=7),
    **named("vit_giant_patch16_radio_v3", **_RADIO, **_size(1536, 40, 24, 4.0), reg_tokens=7),
    **named("vit_so400m_patch16_radio_v4", **_RADIO, **_SO400M, reg_tokens=9),
    **named("vit_huge_patch16_radio_v4", **_RADIO, reg_tokens=9),
    **named("vit_intern300m_patch14_448", init_values=0.1, final_norm=False, dynamic_img_size=True),
    # Other blocks, and other numbers of them
    **named("vit_base_patch32_plus_256 vit_base_patch16_plus_240", **_PLUS, init_values=1e-5),
    **named("vit_base_patch16_rpn_224", **_POOLED, qkv_bias=False, init_values=1e-5, block_fn=ResPostBlock),
    **named("vit_small_patch16_36x1_224", depth=36, init_values=1e-5),
    **named("vit_small_patch16_18x2_224", depth=18, init_values=1e-5, block_fn=ParallelThingsBlock),
    **named("vit_base_patch16_18x2_224", depth=18, init_values=1e-5, block_fn=ParallelThingsBlock),
    **named("vit_base_patch16_xp_224 vit_large_patch14_xp_224 vit_huge_patch14_xp_224", **_XP),
    # Registers and means of patches; shapes between and below the usual ones (https://arxiv.org/abs/2305.13035)
    **named("vit_wee_patch16_reg1_gap_256 vit_little_patch16_reg1_gap_256 vit_medium_patch16_reg1_gap_256", **_REG1),
    **named("vit_betwixt_patch16_reg1_gap_256", **_REG1),
    **named("vit_pwee_patch16_reg1_gap_256", **_REG1, block_fn=ParallelScalingBlock),
    **named("vit_dwee_patch16_reg1_gap_256 vit_dlittle_patch16_reg1_gap_256", **_REG1, attn_layer="diff"),
    **named("vit_dpwee_patch16_reg1_gap_256", **_REG1, block_fn=DiffParallelScalingBlock),
    **named(
        "vit_little_patch16_reg4_gap_256 vit_medium_patch16_reg4_gap_256 vit_mediumd_patch16_reg4_gap_256", **_REG4
    ),
    **named("vit_mediumd_patch16_reg4_gap_384 vit_betwixt_patch16_reg4_gap_256", **_REG4),
    **named("vit_betwixt_patch16_reg4_gap_384", **_REG4),
    **named("vit_base_patch16_reg4_gap_256", **_POOLED, no_embed_class=True, reg_tokens=4),
    **named("vit_so150m_patch16_reg4_map_256", **_MAP, reg_tokens=4),
    **named("vit_so150m_patch16_reg4_gap_256 vit_so150m_patch16_reg4_gap_384", **_GAP, reg_tokens=4),
    **named("vit_so150m2_patch16_reg1_gap_256 vit_so150m2_patch16_reg1_gap_384", **_SO150M2),
    **named("vit_so150m2_patch16_reg1_gap_448", **_SO150M2),
    # BEiT-3 (https://arxiv.org/abs/2208.10442) and AIMv2 (https://arxiv.org/abs/2411.14402)
    **named("beit3_base_patch16_224 beit3_large_patch16_224", **_BEIT3),
    **named("beit3_giant_patch14_224", **_BEIT3, mlp_ratio=4.3637),
    **named("beit3_giant_patch14_336", **_BEIT3, mlp_ratio=4.3637, img_size=336),
    **named("aimv2_large_patch14_224 aimv2_large_patch14_336", **_AIM, **_size(1024, 24, 8, 2.75)),
    **named("aimv2_large_patch14_448", **_AIM, **_size(1024, 24, 8, 2.75)),
    **named("aimv2_huge_patch14_224 aimv2_huge_patch14_336", **_AIM, **_size(1536, 24, 12, 2.6667)),
    **named("aimv2_huge_patch14_448", **_AIM, **_size(1536, 24, 12, 2.6667)),
    **named("aimv2_1b_patch14_224 aimv2_1b_patch14_336", **_AIM, **_size(2048, 24, 16, 2.75)),
    **named("aimv2_1b_patch14_448", **_AIM, **_size(2048, 24, 16, 2.75)),
    **named("aimv2_3b_patch14_224 aimv2_3b_patch14_336", **_AIM, **_size(3072, 24, 24, 2.6667)),
    **named("aimv2_3b_patch14_448", **_AIM, **_size(3072, 24, 24, 2.6667)),
    # Small nets for tests
    **named("test_vit", **_size(64, 6, 2, 3), dynamic_img_size=True),
    **named("test_vit2", **_TEST, **_size(64, 8, 2, 3), dynamic_img_size=True),
    **named("test_vit3", **{**_TEST, "global_pool": "map"}, **_size(96, 9, 3, 2), pool_include_prefix=True),
    **named("test_vit4", **_TEST, **_size(96, 9, 3, 3), dynamic_img_size=True, norm_layer="rmsnorm"),
}
