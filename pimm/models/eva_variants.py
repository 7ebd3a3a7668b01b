"""Variants of EVA, EVA-02, and of vision transformers with rotary embeddings: names and the arguments of `Eva`."""

import functools

from pimm.layers import LayerNorm, RmsNorm

_NORM = functools.partial(LayerNorm, eps=1e-5)
_SIZES = {  # name: channels, blocks, heads
    "tiny": (192, 12, 3),
    "small": (384, 12, 6),
    "small_plus": (384, 12, 6),
    "medium": (512, 12, 8),
    "mediumd": (512, 20, 8),
    "betwixt": (640, 12, 10),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
    "huge_plus": (1280, 32, 20),
    "huge": (1280, 32, 16),
    "giant": (1536, 40, 24),
    "gigantic": (1536, 50, 16),
    "enormous": (1792, 64, 16),
    "5b": (2432, 56, 32),
    "7b": (4096, 40, 32),
}


def _variant(size, *parts, **arguments):
    """Return the arguments of a size, of parts that variants share, and of one variant."""
    embed_dim, depth, num_heads = _SIZES[size]
    variant = {"embed_dim": embed_dim, "depth": depth, "num_heads": num_heads}
    for part in (*parts, arguments):
        variant.update(part)
    return variant


def _eva():
    """EVA (https://arxiv.org/abs/2211.07636)."""
    giant = {"patch_size": 14, "embed_dim": 1408, "depth": 40, "num_heads": 16, "mlp_ratio": 6144 / 1408}
    variants = {f"eva_giant_patch14_{size}": giant for size in (224, 336, 560)}
    return {**variants, "eva_giant_patch14_clip_224": {**giant, "global_pool": "token"}}


def _eva02():
    """EVA-02 (https://arxiv.org/abs/2303.11331)."""
    common = {
        "patch_size": 14,
        "mlp_ratio": 4 * 2 / 3,
        "swiglu_mlp": True,
        "use_rot_pos_emb": True,
        "ref_feat_shape": (16, 16),
    }
    larger = {"qkv_fused": False, "scale_mlp": True}
    clip = {"scale_attn_inner": True, "global_pool": "token"}
    variants = {}
    for size, img_size in (("tiny", 224), ("small", 224), ("tiny", 336), ("small", 336)):
        variants[f"eva02_{size}_patch14_{img_size}"] = _variant(size, common, img_size=img_size)
    for size, img_size in (("base", 224), ("large", 224), ("base", 448), ("large", 448)):
        variants[f"eva02_{size}_patch14_{img_size}"] = _variant(size, common, larger, img_size=img_size)
    for size, patch, img_size in (("base", 16, 224), ("large", 14, 224), ("large", 14, 336)):
        variants[f"eva02_{size}_patch{patch}_clip_{img_size}"] = _variant(
            size, common, larger, clip, img_size=img_size, patch_size=patch
        )
    variants["eva02_enormous_patch14_clip_224"] = _variant(
        "enormous", patch_size=14, img_size=224, mlp_ratio=15360 / 1792, use_post_norm=True, global_pool="token"
    )
    return variants


def _gap():
    """Vision transformers with registers and averaged patches, without a class token."""
    common = {
        "img_size": 256,
        "init_values": 1e-5,
        "class_token": False,
        "num_reg_tokens": 1,
        "use_rot_pos_emb": True,
        "use_abs_pos_emb": False,
        "ref_feat_shape": (16, 16),
    }
    variants = {f"vit_{size}_patch16_rope_reg1_gap_256": _variant(size, common) for size in ("medium", "base")}
    variants["vit_mediumd_patch16_rope_reg1_gap_256"] = _variant("mediumd", common, qkv_bias=False)
    variants["vit_betwixt_patch16_rope_reg4_gap_256"] = _variant("betwixt", common, num_reg_tokens=4)
    return variants


def _perception_encoder():
    """Perception Encoder (https://arxiv.org/abs/2504.13181)."""
    common = {
        "attn_type": "rope",
        "use_pre_transformer_norm": True,
        "use_rot_pos_emb": True,
        "rope_grid_offset": 1.0,
        "rope_grid_indexing": "xy",
        "norm_layer": _NORM,
    }
    pooled = {"global_pool": "map", "attn_pool_num_heads": 8, "attn_pool_mlp_ratio": 4.0}
    plain = {"use_post_transformer_norm": False, "use_fc_norm": False}
    gigantic = {"mlp_ratio": 8960 / 1536, "class_token": False, "rope_grid_offset": 0.0}
    variants = {}
    sizes = [("tiny", 16, 384), ("small", 16, 384), ("base", 16, 224), ("large", 14, 336), ("gigantic", 14, 448)]
    kinds = [("core", pooled, *size) for size in sizes]
    kinds += [("lang", {**plain, "init_values": 0.1}, size, 14, 448) for size in ("large", "gigantic")]
    sizes = [("tiny", 16, 512), ("small", 16, 512), ("base", 16, 512), ("large", 14, 448), ("gigantic", 14, 448)]
    kinds += [("spatial", plain, *size) for size in sizes]
    for kind, part, size, patch, img_size in kinds:
        shape = {"patch_size": patch, "ref_feat_shape": (img_size // patch, img_size // patch)}
        special = gigantic if size == "gigantic" else {}
        variants[f"vit_pe_{kind}_{size}_patch{patch}_{img_size}"] = _variant(size, common, part, shape, special)
    variants["vit_pe_lang_large_patch14_448"]["depth"] = 23
    variants["vit_pe_lang_gigantic_patch14_448"]["depth"] = 47
    variants["vit_pe_spatial_gigantic_patch14_448"]["init_values"] = 0.1
    return variants


def _rope_vit():
    """RoPE-ViT (https://arxiv.org/abs/2403.13298)."""
    common = {
        "attn_type": "rope",
        "init_values": 1e-5,
        "global_pool": "token",
        "use_abs_pos_emb": False,
        "use_rot_pos_emb": True,
        "rope_grid_indexing": "xy",
        "rope_temperature": 100.0,
    }
    mixed = {"rope_temperature": 10.0, "rope_type": "mixed"}
    absolute = {"no_embed_class": True, "use_abs_pos_emb": True}
    kinds = {"rope": {}, "rope_mixed": mixed, "rope_ape": absolute, "rope_mixed_ape": {**mixed, **absolute}}
    return {
        f"vit_{size}_patch16_{kind}_224": _variant(size, common, part)
        for kind, part in kinds.items()
        for size in ("small", "base", "large")
    }


_DINOV3 = {
    "dynamic_img_size": True,
    "init_values": 1e-5,
    "rope_type": "dinov3",
    "rope_temperature": 100,
    "rope_rotate_half": True,
    "use_rot_pos_emb": True,
    "use_abs_pos_emb": False,
    "num_reg_tokens": 4,
    "use_fc_norm": False,
    "norm_layer": _NORM,
}


def _dinov3():
    """DINOv3 (https://arxiv.org/abs/2508.10104), and LingBot-Vision (https://arxiv.org/abs/2607.05247)."""
    swiglu = {"swiglu_mlp": True, "swiglu_align_to": 8}
    variants = {"vit_tiny_patch16_dinov3_qkvb": _variant("tiny", _DINOV3)}
    for size in ("small", "small_plus", "base", "large", "huge_plus"):
        part = swiglu if size.endswith("plus") else {}
        variants[f"vit_{size}_patch16_dinov3"] = _variant(size, _DINOV3, part, qkv_bias=False)
        variants[f"vit_{size}_patch16_dinov3_qkvb"] = _variant(size, _DINOV3, part)
    variants["vit_7b_patch16_dinov3"] = _variant(
        "7b", _DINOV3, qkv_bias=False, mlp_ratio=2, swiglu_mlp=True, swiglu_align_to=64
    )
    for size in ("small", "base", "large"):
        variants[f"vit_{size}_patch16_lingbot"] = _variant(size, _DINOV3, global_pool="token")
    variants["vit_giant_patch16_lingbot"] = _variant(
        "giant", _DINOV3, swiglu, qkv_bias=False, global_pool="token", mlp_ratio=4 * 2 / 3
    )
    return variants


def _sapiens2():
    """Sapiens2 (https://arxiv.org/abs/2604.21681): the first and last eight blocks have a key for each query's head."""
    common = {
        "img_size": (1024, 768),
        "attn_type": "rope",
        "qkv_fused": False,
        "qk_norm": True,
        "global_pool": "token",
        "swiglu_mlp": True,
        "init_values": 1.0,
        "attn_only_layer_scale": True,
        "rope_rescale_coords": 2.0,
        "num_reg_tokens": 8,
        "norm_layer": functools.partial(RmsNorm, eps=1e-6),
    }
    variants = {}
    for size in ("base", "large", "huge", "giant", "5b"):
        _, depth, heads = _SIZES[size]
        kv_heads = [heads if block < 8 or block >= depth - 8 else heads // 2 for block in range(depth)]
        variants[f"vit_{size}_patch16_sapiens2"] = _variant(size, _DINOV3, common, num_kv_heads=kv_heads)
    return variants


VARIANTS = {
    **_eva(),
    **_eva02(),
    **_gap(),
    **_perception_encoder(),
    **_rope_vit(),
    **_dinov3(),
    **_sapiens2(),
}
