"""Weights of EVA and its kin under timm's names: those of other projects' files, and for other sizes of images."""

import re

import numpy as np
import paddle

from pimm.layers import resample_abs_pos_embed, resample_patch_embed

# Each project's names, and timm's; a name without timm's is left out
_ALL = {"mlp.ffn_ln": "mlp.norm", "attn.inner_attn_ln": "attn.norm", "mlp.w12": "mlp.fc1", "mlp.w1": "mlp.fc1_g"}
_ALL.update({"mlp.w2": "mlp.fc1_x", "mlp.w3": "mlp.fc2"})
_DINOV3 = {"ls1.gamma": "gamma_1", "ls2.gamma": "gamma_2", "storage_tokens": "reg_token"}
_SAPIENS2 = {
    "storage_tokens": "reg_token",
    "patch_embed.projection.": "patch_embed.proj.",
    "attn.wq.": "attn.q_proj.",
    "attn.wk.": "attn.k_proj.",
    "attn.wv.": "attn.v_proj.",
    "attn.gamma.weight": "gamma_1",
    ".ffn.": ".mlp.",
    ".ln1.": ".norm1.",
    ".ln2.": ".norm2.",
}
_PERCEPTION = {
    "conv1": "patch_embed.proj",
    "positional_embedding": "pos_embed",
    "transformer.resblocks.": "blocks.",
    "ln_pre": "norm_pre",
    "ln_post": "norm",
    "ln_": "norm",
    "ls_1.gamma": "gamma_1",
    "ls_2.gamma": "gamma_2",
    "in_proj_": "qkv.",
    "out_proj": "proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn_pool.attn": "attn_pool",
    "attn_pool.layernorm": "attn_pool.norm",
    "attn_pool.probe": "attn_pool.latent",
}
_DROPPED_OF_DINOV3 = re.compile(r"\.periods$|\.bias_mask$|mask_token$|^projectors\.|^local_cls_norm")
_DROPPED_OF_PRETRAINING = ("mask_token", "lm_head.weight", "lm_head.bias")


def _renamed(name, table):
    for old, new in table.items():
        name = name.replace(old, new)
    return name


def checkpoint_filter_fn(state_dict, model):
    """Return weights under timm's names that fit the sizes of the net.

    Args:
        state_dict: arrays by the names of EVA, OpenCLIP, DINOv3, Sapiens2, Perception Encoder or timm.
        model: the net.
    """
    for prefix in ("visual.", ""):
        if f"{prefix}conv1.weight" in state_dict:
            return dict(_of_perception_encoder(state_dict, prefix))
    prefixes = [prefix for prefix in ("visual.trunk.", "visual.") if f"{prefix}pos_embed" in state_dict]
    prefix = prefixes[0] if prefixes else ""
    state = {name[len(prefix) :]: value for name, value in state_dict.items() if name.startswith(prefix)}
    state = {name: value for name, value in state.items() if "rope" not in name or name == "rope.freqs"}
    if "blocks.0.attn.wq.weight" in state and "blocks.0.ffn.w12.weight" in state:
        state = _of_sapiens2(state)
    elif "storage_tokens" in state:
        state = dict(_of_dinov3(state, model))
    elif "mask_token" in state:
        state = _of_pretraining(state)
    separate = "blocks.0.attn.q_proj.weight" in state
    found = {}
    for name, value in state.items():
        name = _renamed(name, _ALL)
        if separate:
            name = name.replace("q_bias", "q_proj.bias").replace("v_bias", "v_proj.bias")
        found[name] = _fitted(name, value, model)
    return found


def _fitted(name, value, model):
    """Return kernels of the patches, or embeddings of positions, for the size of patches and images of the net."""
    if name == "patch_embed.proj.weight":
        return resample_patch_embed(value, model.patch_embed.patch_size)
    if name != "pos_embed" or model.pos_embed is None or value.shape[1] == model.pos_embed.shape[1]:
        return value
    count = 0 if model.no_embed_class else model.num_prefix_tokens
    grid = model.patch_embed.grid_size
    return resample_abs_pos_embed(paddle.to_tensor(value), grid, num_prefix_tokens=count).numpy()


def _of_sapiens2(state):
    found = {_renamed(name, _SAPIENS2): value for name, value in state.items() if name != "mask_token"}
    return {re.sub(r"^ln1\.", "norm.", name): value for name, value in found.items()}


def _of_dinov3(state, model):
    """Yield names and values; biases of keys are left out, and those of queries and values if the net has none."""
    for name, value in state.items():
        if _DROPPED_OF_DINOV3.search(name):
            continue
        if not name.endswith("qkv.bias"):
            yield _renamed(name, _DINOV3), value
        elif model.blocks[0].attn.q_bias is not None:
            query, _, values = np.split(value, 3)
            yield name.replace("qkv.bias", "q_bias"), query
            yield name.replace("qkv.bias", "v_bias"), values


def _of_pretraining(state):
    """Return the weights of masked pretraining; its last normalisation becomes that after pooling."""
    return {
        f"fc_{name}" if name in ("norm.weight", "norm.bias") else name: value
        for name, value in state.items()
        if name not in _DROPPED_OF_PRETRAINING
    }


def _of_perception_encoder(state, prefix):
    """Yield names and values of a Perception Encoder, whose last layer is a matrix without biases."""
    for name, value in state.items():
        name = name.replace("module.", "")
        if not name.startswith(prefix):
            continue
        name = _renamed(name[len(prefix) :], _PERCEPTION)
        if name.startswith("attn_pool.qkv"):
            kind, width = name.rpartition(".")[2], value.shape[0] // 3
            yield f"attn_pool.q.{kind}", value[:width]
            yield f"attn_pool.kv.{kind}", value[width:]
        elif name == "proj":
            yield "head.weight", value.T
            yield "head.bias", np.zeros(value.shape[1], value.dtype)
        else:
            yield {"class_embedding": "cls_token"}.get(name, name), _with_axes(name, value)


def _with_axes(name, value):
    return value.reshape(1, 1, -1) if name == "class_embedding" else value[None] if name == "pos_embed" else value
