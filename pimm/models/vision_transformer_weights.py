"""Make checkpoints of vision transformers fit: names of other projects, other sizes of images and of patches."""

from __future__ import annotations

import re

import numpy as np
import paddle

from pimm.layers import resample_abs_pos_embed, resample_patch_embed

_CLIP_NAMES = (  # in this order
    ("conv1", "patch_embed.proj"),
    ("positional_embedding", "pos_embed"),
    ("transformer.resblocks.", "blocks."),
    ("ln_pre", "norm_pre"),
    ("ln_post", "norm"),
    ("ln_", "norm"),
    ("in_proj_", "qkv."),
    ("out_proj", "proj"),
    ("mlp.c_fc", "mlp.fc1"),
    ("mlp.c_proj", "mlp.fc2"),
)
_DINO_NAMES = ((r"\.mlp\.w12\.", ".mlp.fc1."), (r"\.mlp\.w3\.", ".mlp.fc2."))
_TRUNK = "visual.trunk."  # of OpenCLIP's models
_BILINEAR = ("flexivit", "radio")  # models whose tables were trained to be resized so


def _with_prefix(state_dict, prefix):
    return {name[len(prefix) :]: value for name, value in state_dict.items() if name.startswith(prefix)}


def _from_openai_clip(state_dict):
    """Return the arrays of OpenAI's CLIP under a net's names; its projection becomes the classifier."""
    found = {}
    for name, value in _with_prefix(state_dict, "visual.").items():
        for theirs, ours in _CLIP_NAMES:
            name = name.replace(theirs, ours)
        if name == "proj":
            found["head.weight"], found["head.bias"] = value.T, np.zeros(value.shape[1], value.dtype)
        elif name == "class_embedding":
            found["cls_token"] = value[None, None]
        else:
            found[name] = value[None] if name == "pos_embed" else value
    return found


def _from_open_clip(state_dict):
    """Return the arrays of an OpenCLIP model's net of images."""
    found = _with_prefix(state_dict, _TRUNK)
    head = state_dict.get("visual.head.proj.weight")
    if head is not None:
        found.update({"head.weight": head, "head.bias": np.zeros(head.shape[0], head.dtype)})
    return found


def _from_dinov2(state_dict):
    """Return the arrays of DINOv2 under a net's names; registers leave no position embedding to the class token."""
    found = {name: value for name, value in state_dict.items() if name != "mask_token"}
    if "register_tokens" in found:
        found["reg_token"] = found.pop("register_tokens")
        positions = found["pos_embed"]
        found["cls_token"], found["pos_embed"] = found["cls_token"] + positions[:, :1], positions[:, 1:]
    for theirs, ours in _DINO_NAMES:
        found = {re.sub(theirs, ours, name): value for name, value in found.items()}
    return found


_SOURCES = {  # a name that tells of a project: how its names become a net's
    "visual.class_embedding": _from_openai_clip,
    f"{_TRUNK}blocks.0.norm1.weight": _from_open_clip,
    "mask_token": _from_dinov2,
}


def checkpoint_filter_fn(state_dict, model):
    """Return the arrays of a checkpoint under the names, and of the shapes, of a vision transformer.

    Position embeddings and kernels of patches are resized; checkpoints of OpenAI's CLIP, OpenCLIP, DINOv2 and DeiT are
    known; layers that are no longer in the net are dropped.

    Args:
        state_dict: arrays by PyTorch's names.
        model: the net that takes them.
    """
    for name, convert in _SOURCES.items():
        if name in state_dict:
            state_dict = convert(state_dict)
            break
    architecture = getattr(model, "pretrained_cfg", {}).get("architecture") or ""
    how = ("bilinear", False) if any(word in architecture for word in _BILINEAR) else ("bicubic", True)
    dropped = ("pre_logits.",) if getattr(model, "attn_pool", None) is not None else ("pre_logits.", "attn_pool.")
    found = {}
    for name, value in state_dict.items():
        if name.endswith("patch_embed.proj.weight"):
            value = _fit_patches(value, model.patch_embed.proj.weight.shape, how)
        elif name == "pos_embed" and model.pos_embed is not None:
            value = _fit_positions(value, model, how)
        if not name.startswith(dropped):
            found[re.sub(r"\.gamma_(\d)$", r".ls\1.gamma", name)] = value
    return found


def _fit_patches(value, shape, how):
    """Return kernels of patches [O, C, height, width] of the size that ``shape`` has; old ones are [O, numbers]."""
    value = value.reshape([value.shape[0], -1, *shape[2:]]) if value.ndim < 4 else value
    return resample_patch_embed(value, tuple(shape[2:]), *how)


def _fit_positions(value, model, how):
    """Return position embeddings [1, tokens, C] for the model's grid of patches."""
    prefix = 0 if model.no_embed_class else model.num_prefix_tokens
    if value.shape[1] == model.pos_embed.shape[1]:
        return value
    grid = resample_abs_pos_embed(
        paddle.to_tensor(np.asarray(value, np.float32)), model.patch_embed.grid_size, None, prefix, *how
    )
    return grid.numpy()
