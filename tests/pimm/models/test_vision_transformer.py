"""Vision transformers: their feature maps, sizes, pooling, initial weights and checkpoints, on small nets."""

import numpy as np
import paddle
import pytest

import pimm
from pimm.errors import ConfigError
from pimm.layers import resample_abs_pos_embed
from pimm.models.deit import VisionTransformerDistilled
from pimm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from pimm.models.vision_transformer_blocks import ParallelScalingBlock, ParallelThingsBlock, ResPostBlock
from pimm.models.vision_transformer_relpos import VisionTransformerRelPos
from pimm.models.vision_transformer_sam import VisionTransformerSAM, relative_positions

SMALL = {"img_size": 16, "patch_size": 4, "num_classes": 5, "embed_dim": 8, "depth": 3, "num_heads": 2}


def small(net=VisionTransformer, **kwargs):
    paddle.seed(0)
    model = net(**{**SMALL, **kwargs})
    for value in model.parameters():
        value.set_value(0.3 * paddle.randn(value.shape))
    model.eval()
    return model


@pytest.fixture
def images():
    paddle.seed(1)
    return paddle.randn([2, 3, 16, 16])


def assert_close(found, expected, tolerance=1e-5):
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=tolerance, atol=tolerance)


def test_intermediates_are_outputs_of_blocks(images):
    net = small(reg_tokens=2)
    tokens = [net.embed(images)[0]]
    for block in net.blocks:
        tokens.append(block(tokens[-1]))
    last, maps = net.forward_intermediates(images)
    assert_close(last, net.norm(tokens[-1]))
    assert_close(last, net.forward_features(images))
    for found, each in zip(maps, tokens[1:]):
        assert_close(found, each[:, 3:].transpose([0, 2, 1]).reshape([2, 8, 4, 4]))
    pairs = net.forward_intermediates(images, [0, 2], True, True, output_fmt="NLC", intermediates_only=True)
    for (patches, prefix), each in zip(pairs, (tokens[1], tokens[3])):
        assert_close(paddle.concat([prefix, patches], axis=1), net.norm(each))
    early, (one,) = net.forward_intermediates(images, [0], stop_early=True)
    assert_close(early, net.norm(tokens[1]))
    assert_close(one, maps[0])
    found = net.forward_intermediates(images, 1, return_prefix_tokens=True, output_dict=True)
    assert_close(found["image_features"], last)
    assert_close(found["image_intermediates"][0], maps[2])
    assert_close(found["image_intermediates_prefix"][0], tokens[3][:, :3])
    assert_close(net.get_intermediate_layers(images, 1, norm=True)[0], last[:, 3:])
    with pytest.raises(ConfigError, match="NCHW and NLC"):
        net.forward_intermediates(images, output_fmt="NHWC")
    with pytest.raises(ConfigError, match="no feature map 3"):
        net.forward_intermediates(images, [3])


def test_a_shortened_net_gives_the_same_feature_maps(images):
    net = small()
    expected = net.forward_intermediates(images, [1], intermediates_only=True)[0]
    assert net.prune_intermediate_layers([1], prune_norm=True) == [1]
    assert len(net.blocks) == 2 and isinstance(net.norm, paddle.nn.Identity) and net.num_classes == 0
    assert_close(net.forward_intermediates(images, [1], intermediates_only=True)[0], expected)


def test_features_only_gives_the_last_three_blocks():
    net = pimm.create_model("test_vit", features_only=True, img_size=64)
    assert net.feature_info.module_name() == ["blocks.3", "blocks.4", "blocks.5"]
    assert [found.shape for found in net(paddle.randn([1, 3, 64, 64]))] == [[1, 64, 4, 4]] * 3


def test_pooling(images):
    net = small(global_pool="avg", reg_tokens=1)
    tokens = net.forward_features(images)
    assert_close(net.forward_head(tokens, pre_logits=True), net.fc_norm(tokens[:, 2:].mean(1)))
    assert_close(net.pool(tokens, "max"), tokens[:, 2:].max(1))
    assert_close(net.pool(tokens, "avgmax"), (tokens[:, 2:].max(1) + tokens[:, 2:].mean(1)) / 2)
    assert_close(net.pool(tokens, "token"), tokens[:, 0])
    net.reset_classifier(7, "token")
    assert net(images).shape == [2, 7] and net.global_pool == "token"
    net.reset_classifier(0, "")
    assert net(images).shape == [2, 18, 8]
    with pytest.raises(ConfigError, match="map pooling"):
        net.reset_classifier(5, "map")
    with pytest.raises(ConfigError, match=r"global_pool is 'mean'; valid are \"\", avg"):
        net.reset_classifier(5, "mean")
    with pytest.raises(ConfigError, match="class_token=True"):
        small(class_token=False)
    attention = small(global_pool="map")
    assert_close(attention.pool(tokens), attention.attn_pool(tokens[:, 1:]))
    attention.reset_classifier(3, "token")
    assert attention.attn_pool is None and attention(images).shape == [2, 3]


def test_images_of_another_size(images):
    fixed, dynamic = small(), small(dynamic_img_size=True)
    larger = paddle.nn.functional.interpolate(images, [24, 20])
    with pytest.raises(ConfigError, match="images of 16x16 pixels, not of 24x20"):
        fixed(larger)
    before = fixed.pos_embed.clone()
    fixed.set_input_size((24, 20))
    assert_close(fixed.pos_embed, resample_abs_pos_embed(before, (6, 5), (4, 4), 1))
    assert fixed.model_args["img_size"] == (24, 20)
    assert_close(fixed(larger), dynamic(larger))
    assert fixed.forward_intermediates(larger, 1, intermediates_only=True)[0].shape == [2, 8, 6, 5]
    padded = small(dynamic_img_size=True, dynamic_img_pad=True)
    filled = paddle.nn.functional.pad(images[:, :, :, :14], [0, 2, 0, 0])
    assert_close(padded(images[:, :, :, :14]), small()(filled))


def test_other_patches_see_resized_images_alike(images):
    net, kernels = small(), small().patch_embed.proj.weight
    net.set_input_size(32, 8)
    assert net.patch_embed.proj.weight.shape == [8, 3, 8, 8] and kernels.shape == [8, 3, 4, 4]
    assert net.pos_embed.shape == [1, 17, 8]
    larger = paddle.nn.functional.interpolate(images, [32, 32], mode="nearest")
    assert net(larger).shape == [2, 5]


def test_masks(images):
    net = small()
    changed = images.clone()
    changed[:, :, 12:] = 0.0  # the last row of patches
    assert not np.allclose(net(images).numpy(), net(changed).numpy(), atol=1e-3)
    assert_close(net(images, is_causal=True), net(changed, is_causal=True))
    allowed = paddle.ones([17, 17], dtype="bool")
    allowed[:, 13:] = False
    assert_close(net(images, attn_mask=allowed), net(changed, attn_mask=allowed))


@pytest.mark.parametrize(
    "block", [ResPostBlock, ParallelScalingBlock, ParallelThingsBlock], ids=lambda block: block.__name__
)
def test_blocks_start_near_the_identity_with_small_scales(images, block):
    paddle.seed(0)
    net = VisionTransformer(**SMALL, block_fn=block, init_values=1e-6)
    tokens = net.embed(images)[0]
    assert_close(net.run_blocks(tokens, ())[0], tokens, 1e-4)


def test_recomputed_activations_give_the_same_gradients(images):
    for net in (small(), small(VisionTransformerRelPos, shared_rel_pos=True)):
        gradients = []
        for enable in (False, True):
            net.train()
            net.set_grad_checkpointing(enable)
            for layer in net.sublayers():
                if isinstance(layer, paddle.nn.Dropout):
                    layer.p = 0.0
            paddle.seed(0)
            net(images).sum().backward()
            gradients.append([value.grad.numpy() for value in net.parameters()])
            net.clear_gradients()
        for kept, again in zip(*gradients):
            np.testing.assert_allclose(again, kept, rtol=1e-4, atol=1e-5)


def test_distilled_nets_have_two_heads(images):
    net = small(VisionTransformerDistilled)
    tokens = net.forward_features(images)
    both = net.head(tokens[:, 0]), net.head_dist(tokens[:, 1])
    assert_close(net(images), (both[0] + both[1]) / 2)
    net.train()
    net.set_distilled_training()
    for found, expected in zip(net(images), both):
        assert_close(found, expected)
    net.reset_classifier(3)
    assert [layer.weight.shape for layer in net.get_classifier()] == [[8, 3], [8, 3]]


def test_relative_positions_of_rows_and_columns(images):
    table = paddle.arange(7.0).unsqueeze(1)
    assert relative_positions(4, table)[:, :, 0].tolist() == [[3, 2, 1, 0], [4, 3, 2, 1], [5, 4, 3, 2], [6, 5, 4, 3]]
    assert relative_positions(2, table)[:, :, 0].numpy() == pytest.approx(np.array([[3, 2 / 3], [16 / 3, 3]]), abs=1e-5)
    net = small(VisionTransformerSAM, use_rel_pos=True, window_size=3, global_attn_indexes=[2], neck_chans=6)
    assert [block.attn.rel_pos_h.shape[0] for block in net.blocks] == [5, 5, 7]
    attention, x = net.blocks[2].attn, paddle.randn([1, 4, 4, 8])
    q = paddle.randn([1, 2, 16, 4])
    bias = attention.bias(q, 4, 4).numpy()
    tables = [relative_positions(4, each).numpy() for each in (attention.rel_pos_h, attention.rel_pos_w)]
    for query, key in ((0, 0), (3, 9), (14, 7)):
        vectors = tables[0][query // 4, key // 4] + tables[1][query % 4, key % 4]
        np.testing.assert_allclose(bias[0, :, query, key], q.numpy()[0, :, query] @ vectors, rtol=1e-4, atol=1e-5)
    assert attention(x).shape == [1, 4, 4, 8]
    last, maps = net.forward_intermediates(images, 1)
    assert_close(last, net.neck(maps[0]))
    assert net(images).shape == [2, 5]


def test_initial_weights():
    paddle.seed(0)
    wide = {**SMALL, "embed_dim": 64}
    net = VisionTransformer(**wide)
    assert float(net.blocks[2].mlp.fc2.weight.std()) == pytest.approx(0.02, rel=0.05)
    assert float(net.pos_embed.std()) == pytest.approx(0.02, rel=0.1) and float(net.cls_token.abs().max()) < 1e-5
    assert float(net.blocks[0].attn.qkv.bias.abs().max() if net.blocks[0].attn.qkv.bias is not None else 0) == 0
    fixed = VisionTransformer(**wide, fix_init=True)
    assert float(fixed.blocks[2].mlp.fc2.weight.std()) == pytest.approx(0.02 / np.sqrt(6), rel=0.05)
    assert float(fixed.blocks[2].mlp.fc1.weight.std()) == pytest.approx(0.02, rel=0.05)
    jax = VisionTransformer(**wide, weight_init="jax_nlhb")
    assert float(jax.head.weight.abs().max()) == 0 and jax.head.bias.numpy() == pytest.approx(-np.log(5), rel=1e-6)
    assert float(jax.blocks[0].attn.proj.weight.abs().max()) == pytest.approx(np.sqrt(6 / 128), rel=0.01)
    with pytest.raises(ConfigError, match="weight_init is 'he'; valid are jax"):
        VisionTransformer(**SMALL, weight_init="he")


def test_checkpoints_of_other_projects_and_sizes():
    net = small(dynamic_img_size=True, no_embed_class=True, reg_tokens=2)
    draw = np.random.default_rng(0).standard_normal
    dino = {
        "mask_token": draw((1, 8)),
        "cls_token": draw((1, 1, 8)),
        "register_tokens": draw((1, 2, 8)),
        "pos_embed": draw((1, 26, 8)).astype("float32"),
        "blocks.0.mlp.w12.weight": draw((4, 8)),
        "blocks.0.ls1.gamma": draw(8),
        "pre_logits.fc.weight": draw((8, 8)),
    }
    found = checkpoint_filter_fn(dino, net)
    assert set(found) == {"cls_token", "reg_token", "pos_embed", "blocks.0.mlp.fc1.weight", "blocks.0.ls1.gamma"}
    np.testing.assert_allclose(found["cls_token"], dino["cls_token"] + dino["pos_embed"][:, :1])
    grid = paddle.to_tensor(dino["pos_embed"][:, 1:])
    np.testing.assert_allclose(found["pos_embed"], resample_abs_pos_embed(grid, (4, 4), (5, 5), 0).numpy(), rtol=1e-6)
    clip = {
        "visual.class_embedding": draw(8),
        "visual.positional_embedding": draw((17, 8)),
        "visual.transformer.resblocks.1.attn.in_proj_weight": draw((24, 8)),
        "visual.transformer.resblocks.1.mlp.c_proj.bias": draw(8),
        "visual.ln_post.weight": draw(8),
        "visual.proj": draw((8, 5)),
        "token_embedding.weight": draw((9, 8)),
    }
    found = checkpoint_filter_fn(clip, small())
    shapes = {name: value.shape for name, value in found.items()}
    assert shapes == {
        "cls_token": (1, 1, 8),
        "pos_embed": (1, 17, 8),
        "blocks.1.attn.qkv.weight": (24, 8),
        "blocks.1.mlp.fc2.bias": (8,),
        "norm.weight": (8,),
        "head.weight": (5, 8),
        "head.bias": (5,),
    }
    trunk = {"visual.trunk.blocks.0.norm1.weight": draw(8), "visual.head.proj.weight": draw((5, 8)), "logit_scale": 1}
    assert set(checkpoint_filter_fn(trunk, net)) == {"blocks.0.norm1.weight", "head.weight", "head.bias"}
    deit = checkpoint_filter_fn({"blocks.0.gamma_2": draw(8), "attn_pool.latent": draw((1, 1, 8))}, net)
    assert set(deit) == {"blocks.0.ls2.gamma"}


def test_exported_nets_give_the_same_logits(images):
    net = small(reg_tokens=1, init_values=1e-1)
    spec = [paddle.static.InputSpec([None, 3, 16, 16])]
    static = paddle.jit.to_static(net, input_spec=spec, full_graph=True)
    with paddle.no_grad():
        assert_close(static(images), small(reg_tokens=1, init_values=1e-1)(images), 1e-4)
