"""Small nets of stages: logits that timm 1.0.31 gave in float64, feature maps, recomputation, old names of weights."""

import golden
import numpy as np
import paddle
import pytest
from model_weights import draw

import pimm
from pimm.errors import ConfigError
from pimm.models import (
    convnext,
    davit,
    edgenext,
    focalnet,
    load_torch_arrays,
    mobilevit,
    pvt_v2,
    swin_transformer,
    torch_names,
)
from pimm.models.torch_names import to_torch_arrays

SWIN = {"depths": (1, 2), "num_heads": (1, 2), "embed_dim": 8, "num_classes": 3, "img_size": 32, "window_size": 4}
MAXVIT = {"embed_dim": (32, 32), "depths": (1, 1), "block_type": ("M", "T"), "num_classes": 3, "img_size": 32}
MAXVIT.update(stem_width=8, transformer_partition_ratio=8)
CONVNEXT = {"depths": (1, 1, 1, 1), "dims": (8, 8, 16, 16), "num_classes": 3}
DAVIT = {"depths": (1, 1), "embed_dims": (8, 16), "num_heads": (2, 4), "num_classes": 3, "window_size": 3}
GCVIT = {"embed_dim": 16, "num_classes": 3, "img_size": 64}
OTHER_SIZE = {"img_size": (24, 40), "window_size": 3, "always_partition": True}
CASES = [  # name, arguments, arguments of set_input_size, size of the image, logits
    (
        *("swin_tiny_patch4_window7_224", SWIN, {"img_size": (48, 40)}, (48, 40)),
        (-0.9820708, -0.7210588, -0.463314),
    ),
    (
        *("swin_tiny_patch4_window7_224", SWIN, {"img_size": 48, "window_size": 5}, (48, 48)),
        (-0.8182626, -0.3236072, 0.1665165),
    ),
    (
        *("swin_tiny_patch4_window7_224", SWIN, {"patch_size": 2}, (32, 32)),
        (-1.432077, -0.8247939, -0.5795063),
    ),
    (
        *("swinv2_tiny_window8_256", SWIN, {"img_size": 48, "window_ratio": 4}, (48, 48)),
        (0.03554467, -0.8105768, 0.3026493),
    ),
    (
        *("swinv2_tiny_window8_256", {**SWIN, "dynamic_img_size": True}, None, (40, 24)),
        (0.2000878, -0.717535, 1.237989),
    ),
    (*("swinv2_cr_tiny_224", SWIN, OTHER_SIZE, (24, 40)), (-0.319332, -0.1759841, -0.1858685)),
    (*("maxvit_tiny_rw_224", MAXVIT, {"img_size": 64}, (64, 64)), (-1.073642, 0.4386384, -0.5325461)),
    (
        *("maxvit_tiny_rw_224", {**MAXVIT, "transformer_rel_pos_type": "mlp"}, {"partition_ratio": 16}, (32, 32)),
        (-0.7390797, 0.7804909, -0.2036954),
    ),
    (
        *("maxvit_tiny_tf_224", MAXVIT, {"img_size": 64, "window_size": 4, "grid_size": 8}, (64, 64)),
        (-0.1549994, 1.276941, -0.7943108),
    ),
    (*("gcvit_xxtiny", GCVIT, None, (64, 64)), (0.07580861, -0.5346059, 0.3712889)),
    (*("convnext_atto", {**CONVNEXT, "output_stride": 8}, None, (40, 48)), (0.2194285, 0.1710538, -2.209602)),
    (*("inception_next_atto", {**CONVNEXT, "output_stride": 16}, None, (40, 48)), (0.7263411, 1.992113, 2.152252)),
    (*("davit_tiny", DAVIT, None, (37, 29)), (0.692213, 0.7649512, -1.767559)),
    (*("mobilevit_xxs", {"num_classes": 3, "output_stride": 16}, None, (40, 56)), (-0.133629, 0.07220542, 1.95282)),
    (*("mobilevitv2_050", {"num_classes": 3}, None, (40, 56)), (0.70541, 0.3963639, 0.609938)),
]


def drawn(name, **kwargs):
    """Return a net with drawn weights, in evaluation mode."""
    net = pimm.create_model(name, **kwargs)
    load_torch_arrays(net, {key: draw(key, tuple(shape), 1.3) for key, shape in torch_names(net)})
    net.eval()
    return net


def images_of(size, count=1):
    return paddle.to_tensor(golden.inputs((count, 3, *size)))


@pytest.mark.parametrize("name, kwargs, resized, size, expected", CASES)
def test_logits_are_timms(name, kwargs, resized, size, expected):
    net = drawn(name, **kwargs)
    if resized:
        net.set_input_size(**resized)
    with paddle.no_grad():
        np.testing.assert_allclose(net(images_of(size))[0].numpy(), expected, rtol=2e-5, atol=2e-5)


PVT = {"depths": (1, 1), "embed_dims": (8, 16), "num_heads": (1, 2), "mlp_ratios": (2, 2), "sr_ratios": (2, 1)}
FOCAL = {"depths": (1, 2), "embed_dim": 8, "focal_levels": (2, 2), "focal_windows": (3, 3), "layerscale_value": 1e-4}
TINY_VIT = {"embed_dims": (8, 16), "depths": (1, 1), "num_heads": (1, 2), "window_sizes": (4, 4)}
SMALL = {  # name: arguments of a small net
    "convnext_atto": CONVNEXT,
    "swin_tiny_patch4_window7_224": SWIN,
    "swinv2_cr_tiny_224": SWIN,
    "edgenext_xx_small": {"dims": (8, 16, 24, 32), "depths": (1, 1, 1, 1), "num_classes": 3},
    "maxvit_tiny_rw_224": MAXVIT,
    "focalnet_tiny_srf": {**FOCAL, "num_classes": 3},
    "davit_tiny": DAVIT,
    "pvt_v2_b0": {**PVT, "num_classes": 3},
    "twins_svt_small": {**PVT, "wss": (3, 3), "img_size": 32, "num_classes": 3},
    "gcvit_xxtiny": {**GCVIT, "depths": (2, 2), "num_heads": (1, 2), "img_size": 32, "window_ratio": (8, 16)},
    "inception_next_atto": CONVNEXT,
    "tiny_vit_5m_224": {**TINY_VIT, "num_classes": 3},
    "test_mambaout": {"depths": (1, 1), "dims": (8, 16), "num_classes": 3},
}
MOBILEVIT = {"blocks": mobilevit.VARIANTS["mobilevit_xxs"].blocks[2:3], "num_classes": 3, "num_features": 16}
EVERY_SMALL = pytest.mark.parametrize("name", SMALL)


def gradients(net, images):
    loss = paddle.nn.functional.cross_entropy(net(images), paddle.to_tensor([0, 1]))
    loss.backward()
    found = {name: value.grad.numpy() for name, value in net.named_parameters() if value.grad is not None}
    net.clear_gradients(set_to_zero=False)
    return found


@EVERY_SMALL
def test_recomputation_gives_the_same_gradients(name):
    net, images = drawn(name, **SMALL[name]), images_of((32, 32), 2)
    expected = gradients(net, images)
    net.set_grad_checkpointing()
    found = gradients(net, images)
    assert found.keys() == expected.keys() == {key for key, value in net.named_parameters() if not value.stop_gradient}
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-4, atol=1e-6 * np.abs(value).max())


@EVERY_SMALL
def test_feature_maps_are_those_of_a_net_that_is_cut_short(name):
    net, images = drawn(name, **SMALL[name]), images_of((32, 32))
    with paddle.no_grad():
        last, maps = net.forward_intermediates(images)
        np.testing.assert_array_equal(last.numpy(), net.forward_features(images).numpy())
        for found, info in zip(maps, net.feature_info):
            side = 32 // info["reduction"]
            assert found.shape == [1, info["num_chs"], side, side]
        second = len(maps) // 2 - 1
        assert net.prune_intermediate_layers([second]) == [second]
        assert net.num_features == net.feature_info[second]["num_chs"]
        (found,) = net.forward_intermediates(images, [second], intermediates_only=True)
        np.testing.assert_array_equal(found.numpy(), maps[second].numpy())


@EVERY_SMALL
def test_the_classifier_is_exchanged(name):
    net = drawn(name, **SMALL[name])
    net.reset_classifier(5)
    with paddle.no_grad():
        features = net.forward_features(images_of((32, 32)))
        assert net.forward_head(features).shape == [1, 5]
        pooled = net.forward_head(features, pre_logits=True)
        assert pooled.shape == [1, net.head_hidden_size]
        np.testing.assert_allclose(net.get_classifier()(pooled).numpy(), net.forward_head(features).numpy(), atol=1e-6)


@pytest.mark.parametrize(
    "name", ["swin_tiny_patch4_window7_224", "swinv2_cr_tiny_224", "twins_svt_small", "mobilevit_xxs"]
)
def test_an_exported_net_gives_the_same_logits_for_any_number_of_images(name, tmp_path):
    net, images = drawn(name, **SMALL.get(name, MOBILEVIT)), images_of((32, 32), 2)
    with paddle.no_grad():
        expected = net(images).numpy()
    images_spec = paddle.static.InputSpec([None, 3, 32, 32], "float32")
    paddle.jit.save(paddle.jit.to_static(net, [images_spec], full_graph=True), str(tmp_path / "net"))
    exported = paddle.jit.load(str(tmp_path / "net"))
    exported.eval()
    for found in (exported(images), paddle.concat([exported(images[:1]), exported(images[1:])])):
        np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "test_mambaout"])
def test_features_of_some_nets_have_the_channels_last_as_in_timm(name):
    net = pimm.create_model(name, features_only=True, **SMALL[name])
    assert [list(found.shape) for found in net(images_of((32, 32)))] == [[1, 8, 8, 8], [1, 4, 4, 16]]
    getter = pimm.create_model(name, features_only=True, feature_cls="getter", **SMALL[name])
    assert [list(found.shape) for found in getter(images_of((32, 32)))] == [[1, 8, 8, 8], [1, 16, 4, 4]]


def reversed_rules(names, rules):
    """Return ``{old: new}`` for the names that rules ``(old, new)`` of plain text made."""
    found = {}
    for name in names:
        old = name
        for before, after in rules:
            old = old.replace(after, before)
        found[old] = name
    return found


OLD_NAMES = [  # module, name, arguments, rules in the order in which they are undone
    (
        *(convnext, "convnext_atto", {**CONVNEXT, "use_grn": True, "ls_init_value": None}),
        [("norm.", "head.norm."), ("head.", "head.fc."), ("grn.beta", "mlp.grn.bias"), ("grn.gamma", "mlp.grn.weight")]
        + [(f"stages.{i}.", f"stages.{i}.blocks.") for i in range(4)]
        + [(f"downsample_layers.{i}.", f"stages.{i}.downsample.") for i in range(1, 4)]
        + [("downsample_layers.0.", "stem."), ("pwconv", "mlp.fc"), ("dwconv", "conv_dw")],
    ),
    (
        *(swin_transformer, "swin_tiny_patch4_window7_224", SWIN),
        [("layers.0.downsample", "layers.1.downsample"), ("head.", "head.fc.")],
    ),
    (
        *(pvt_v2, "pvt_v2_b0", PVT),
        [("patch_embed2", "stages.1.downsample"), ("patch_embed1", "patch_embed.")]
        + [(f"block{i + 1}.", f"stages.{i}.blocks.") for i in range(2)]
        + [(f"norm{i + 1}", f"stages.{i}.norm") for i in range(2)]
        + [("dwconv.dwconv", "dwconv"), ("patch_embed1.", "patch_embed1")],
    ),
    (
        *(focalnet, "focalnet_tiny_srf", FOCAL),
        [("gamma_1", "ls1.gamma"), ("gamma_2", "ls2.gamma"), ("patch_embed", "stem"), ("head", "head.fc")]
        + [("layers.0.downsample", "layers.1.downsample"), ("modulation.ln.", "modulation.norm.")],
    ),
    (
        *(davit, "davit_tiny", DAVIT),
        [("patch_embeds.1", "stages.1.downsample"), ("patch_embeds.0", "stem"), ("head.", "head.fc.")]
        + [("norms.", "head.norm."), ("cpe.0", "cpe1"), ("cpe.1", "cpe2")]
        + [(f"main_blocks.{i}", f"stages.{i}.blocks") for i in range(2)]
        + [(f"patch_embeds.{i}.proj", f"patch_embeds.{i}.conv") for i in range(2)],
    ),
    (
        *(edgenext, "edgenext_xx_small", SMALL["edgenext_xx_small"]),
        [("norm.", "head.norm."), ("head.", "head.fc.")]
        + [(f"stages.{i}.", f"stages.{i}.blocks.") for i in range(4)]
        + [(f"downsample_layers.{i}.", f"stages.{i}.downsample.") for i in range(1, 4)]
        + [("downsample_layers.0.", "stem.")],
    ),
]


@pytest.mark.parametrize("module, name, kwargs, rules", OLD_NAMES, ids=[case[1] for case in OLD_NAMES])
def test_the_papers_names_of_weights_are_known(module, name, kwargs, rules):
    net = pimm.create_model(name, **kwargs)
    arrays = to_torch_arrays(net, {key: value.numpy() for key, value in net.state_dict().items()})
    old = reversed_rules(arrays, rules)
    assert len(old) == len(arrays) and old.keys() != arrays.keys()
    found = module.checkpoint_filter_fn({before: arrays[after] for before, after in old.items()}, net)
    assert found.keys() == arrays.keys()
    assert all(found[key] is not None and np.array_equal(found[key], arrays[key]) for key in arrays)


@pytest.mark.parametrize("module, name, kwargs", [(convnext, "convnext_atto", CONVNEXT), (davit, "davit_tiny", DAVIT)])
def test_weights_without_the_last_normalisation_leave_it_as_it_begins(module, name, kwargs):
    net = pimm.create_model(name, **{**kwargs, "num_classes": 0})
    arrays = to_torch_arrays(net, {key: value.numpy() + 1 for key, value in net.state_dict().items()})
    prefix = "vision_tower." if module is davit else ""
    old = {prefix + key: value for key, value in arrays.items() if not key.startswith("head.norm")}
    if prefix:
        rules = [("convs.0.", "stem."), ("convs.1.", "stages.1.downsample."), ("convs.0.proj", "convs.0.conv")]
        rules += [("convs.1.proj", "convs.1.conv"), ("blocks.0", "stages.0.blocks"), ("blocks.1", "stages.1.blocks")]
        old = {before: old[after] for before, after in reversed_rules(old, rules).items()}
    load_torch_arrays(net, module.checkpoint_filter_fn(old, net))
    assert np.all(net.head.norm.weight.numpy() == 1) and np.all(net.head.norm.bias.numpy() == 0)
    kept = to_torch_arrays(net, {key: value.numpy() for key, value in net.state_dict().items()})
    assert all(np.array_equal(kept[key], arrays[key]) for key in arrays if not key.startswith("head.norm"))


def test_tables_of_biases_are_resampled_for_other_windows():
    source = pimm.create_model("swin_tiny_patch4_window7_224", **SWIN)
    target = pimm.create_model("swin_tiny_patch4_window7_224", **{**SWIN, "window_size": 7, "img_size": 56})
    arrays = to_torch_arrays(source, {key: value.numpy() for key, value in source.state_dict().items()})
    found = swin_transformer.checkpoint_filter_fn(arrays, target)
    load_torch_arrays(target, found)
    source.set_input_size(img_size=56, window_size=7)
    for key, value in source.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), target.state_dict()[key].numpy())


@pytest.mark.parametrize(
    "name, kwargs, words",
    [
        ("convnext_atto", {"stem_type": "round"}, "stem_type is 'round'; valid are patch"),
        ("convnext_tiny", {"norm_layer": "batchnorm2d"}, "needs conv_mlp=True"),
        ("swin_tiny_patch4_window7_224", {"window_size": (7, 7, 7)}, "window_size is (7, 7, 7)"),
        ("swin_tiny_patch4_window7_224", {"num_heads": (3, 6)}, "num_heads is (3, 6); must be one value"),
        ("maxvit_tiny_rw_224", {"transformer_rel_pos_dims": 3}, "did you mean transformer_rel_pos_dim"),
        ("maxvit_tiny_rw_224", {"block_type": ("X",) * 4}, "block_type is 'X'; valid are C, T, M, PM"),
        ("pvt_v2_b0", {"global_pool": "max"}, "global_pool is 'max'"),
        ("twins_svt_small", {"img_size": 100}, "must be a multiple of 32 pixels"),
        ("inception_next_atto", {"global_pool": ""}, "cannot do without pooling"),
        ("repvit_m1", {"global_pool": ""}, "without pooling"),
        ("levit_128s", {"global_pool": ""}, "without pooling"),
        ("pvt_v2_b0", {"global_pool": ""}, "without pooling"),
        ("poolformerv2_s12", {"global_pool": ""}, "without pooling"),
        ("crossvit_tiny_240", {"global_pool": ""}, "global_pool is ''"),
        ("test_convnext", {"drop_rate": 2}, "drop_rate is 2; must be a number of at least 0 and below 1"),
        ("test_vit", {"drop_path_rate": "a"}, "drop_path_rate is 'a'"),
        ("test_vit", {"img_size": "64"}, "img_size is '64'"),
        ("test_vit", {"img_size": -1}, "img_size is -1"),
        ("test_vit", {"img_size": (64,)}, "img_size is (64,)"),
        ("davit_tiny", {"attn_types": ("spatial", "time")}, "attn_types has 'time'"),
        ("gcvit_xxtiny", {"img_size": 100}, "cannot be cut into windows"),
        ("test_vit", {"embed_dim": "x", "depth": 2}, "test_vit cannot be made with embed_dim='x', depth=2: TypeError"),
        ("resnet10t", {"layers": 3}, "resnet10t cannot be made with layers=3: TypeError"),
        ("convnext_atto", {"dims": (1,)}, "convnext_atto cannot be made with dims=(1,): IndexError"),
        ("test_vit", {"num_heads": 0}, "test_vit cannot be made with num_heads=0: ZeroDivisionError"),
    ],
)
def test_wrong_arguments_are_named(name, kwargs, words):
    with pytest.raises(ConfigError) as error, paddle.LazyGuard():
        pimm.create_model(name, **kwargs)
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["levit_128s", "pit_ti_224", "efficientvit_m0"])
def test_a_new_classifier_is_in_the_mode_of_the_net(name):
    with paddle.LazyGuard():
        net = pimm.create_model(name)
    net.eval()
    net.reset_classifier(3)
    assert not [key for key, layer in net.named_sublayers() if layer.training]
    net.train()
    net.reset_classifier(0)
    assert all(layer.training for layer in net.sublayers())
