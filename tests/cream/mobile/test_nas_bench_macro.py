"""NAS-Bench-Macro's space: parameters and FLOPs of all nets are the published ones, and its blocks compute as defined.

``tests/data/nas_bench_macro_costs.npz`` holds parameters and FLOPs of the 6,561 codes in their order, from
https://github.com/xiusu/NAS-Bench-Macro (Apache-2.0, copyright 2021 Xiu Su).
"""

import numpy as np
import paddle
import pytest
import yaml
from paths import ROOT
from PIL import Image

from cream.counting import CONVENTIONS, count_macs, count_parameters
from cream.flops import cost_tables
from cream.mobile.blocks import Identity
from cream.mobile.nets import ChildNet, MobileSuperNet
from cream.mobile.space import describe, load_space, read_spec
from pimm.data import create_transform
from pimm.errors import ConfigError

FILE = ROOT / "configs" / "spaces" / "nas_bench_macro.yaml"
CODES = [np.base_repr(number, 3).zfill(8) for number in range(3**8)]


@pytest.fixture(scope="module")
def space():
    return load_space(FILE)


@pytest.fixture(scope="module")
def supernet(space):
    return MobileSuperNet(space, num_classes=10)


@pytest.fixture(scope="module")
def published():
    with np.load(ROOT / "tests" / "data" / "nas_bench_macro_costs.npz") as file:
        return {name: dict(zip(CODES, file[name].tolist())) for name in ("params", "flops")}


def arch_of(space, code):
    return space.decode([int(digit) for digit in code])


def test_parameters_and_flops_of_all_nets_are_the_published_ones(space, supernet, published):
    assert space.size == len(CODES) == len(set(published["flops"])) == 6561
    for table, name in zip(cost_tables(supernet, 32), ("flops", "params")):
        assert {code: round(1e6 * table(arch_of(space, code))) for code in CODES} == published[name]


@pytest.mark.parametrize("code", ["00000000", "02012100", "11111221", "22222222"])
def test_a_single_net_has_the_published_costs_and_computes_its_path(code, space, supernet, published):
    arch = arch_of(space, code)
    net = ChildNet(arch, num_classes=10, space=space)
    macs, logits = count_macs(net, paddle.zeros([1, 3, 32, 32]), net.cost_rules)
    assert (macs, count_parameters(net)) == (published["flops"][code], published["params"][code])
    assert logits.shape == [1, 10]
    net.inherit(supernet)
    supernet.eval()
    net.eval()
    x = paddle.to_tensor(np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32))
    np.testing.assert_allclose(net(x).numpy(), supernet(x, arch).numpy(), rtol=1e-5, atol=1e-5)


def test_the_identity_changes_the_shape_alone():
    x = paddle.to_tensor(np.random.default_rng(0).normal(size=(2, 3, 4, 4)).astype(np.float32))
    same = Identity(3, 3)
    assert not same.parameters() and (same(x) == x).all()
    changing = Identity(3, 5, stride=2, norm_kwargs={"eps": 1e-3})
    changing.eval()
    weight = changing.conv.weight.numpy()[:, :, 0, 0]  # [5, 3]
    expected = np.einsum("oi,nihw->nohw", weight, x.numpy()[:, :, ::2, ::2]) / np.sqrt(1 + 1e-3)
    np.testing.assert_allclose(changing(x).numpy(), expected, rtol=1e-5, atol=1e-6)
    assert changing.conv.bias is None and (expected < 0).any()  # neither a bias nor an activation


def test_the_head_pools_last(supernet):
    supernet.eval()
    x = paddle.to_tensor(np.random.default_rng(0).normal(size=(2, 256, 4, 4)).astype(np.float32))
    weight = supernet.conv_head.weight.numpy()[:, :, 0, 0]
    features = np.einsum("oi,nihw->nohw", weight, x.numpy()) / np.sqrt(1 + 1e-5)
    pooled = np.maximum(features, 0).mean((2, 3))
    expected = pooled @ supernet.classifier.weight.numpy() + supernet.classifier.bias.numpy()
    np.testing.assert_allclose(supernet.head(x).numpy(), expected, rtol=1e-4, atol=1e-4)
    assert supernet.conv_head.bias is None
    both = MobileSuperNet(supernet.space, num_classes=10, global_pool="catavgmax")
    assert both.classifier.weight.shape == [2560, 10]  # the pooling that doubles the channels stands behind the head
    assert both.head(x).shape == [2, 10]


def test_a_single_net_with_this_head_is_one_of_pimms_models(space):
    net = ChildNet(arch_of(space, "02012100"), num_classes=10, space=space, output_stride=8)
    net.eval()
    x = paddle.to_tensor(np.random.default_rng(0).normal(size=(1, 3, 32, 32)).astype(np.float32))
    features = net.forward_features(x)
    assert features.shape == [1, 1280, 4, 4] and net.num_features == net.head_hidden_size == 1280
    assert (features.numpy() >= 0).all()
    np.testing.assert_array_equal(net.forward_head(features).numpy(), net(x).numpy())
    np.testing.assert_allclose(net.head(net.blocks(net.stem(x))).numpy(), net(x).numpy(), rtol=1e-5, atol=1e-6)
    assert ChildNet(net.arch, 10, space, output_stride=8).forward_features(x[:, :, :16, :16]).shape[2:] == [2, 2]
    net.reset_classifier(3, "catavgmax")
    assert net.classifier.weight.shape == [2560, 3] and net(x).shape == [1, 3]


def test_the_convention_of_the_space_counts_supernet_and_single_net(space, supernet):
    assert supernet.cost_rules is CONVENTIONS["convolutions"].supernet
    text = {**yaml.safe_load(FILE.read_text()), "counting": "cream"}
    other = MobileSuperNet(type(space)(read_spec(text)), num_classes=10)
    assert other.cost_rules is CONVENTIONS["cream"].supernet
    mflops, _ = cost_tables(other, 32)
    stem = 32 * 32 * 32 * 3 * 9
    head = 1280 * 256 * 4 * 4 + 1280 * 4 * 4  # Cream's table has neither batch norm nor classifier here
    assert mflops.fixed * 1e6 == pytest.approx(stem + head)


def test_the_description_goes_there_and_back(space):
    plain = yaml.safe_load(yaml.safe_dump(yaml.safe_load(repr(describe(space.spec)))))
    assert read_spec(plain) == space.spec
    assert plain["operations"][0] == {"block": "id"}  # without a kernel, which it does not know
    with pytest.raises(ConfigError, match=r"operations\[0\].kernel is no field of a block id; it has block"):
        read_spec({**plain, "operations": [{"block": "id", "kernel": 3}]})
    with pytest.raises(ConfigError, match="counting is 'convolution'; must be one of cream, convolutions"):
        read_spec({**plain, "counting": "convolution"})
    with pytest.raises(ConfigError, match="head_type is 'pool'; must be one of pool_conv, conv_pool"):
        read_spec({**plain, "head_type": "pool"})


def test_padding_and_crop_shows_every_shift_of_an_image():
    pixels = np.arange(256).astype(np.uint8).reshape(16, 16)
    padded = np.pad(pixels, 2)
    shifts = {padded[y : y + 16, x : x + 16].tobytes(): (y, x) for y in range(5) for x in range(5)}
    crop = create_transform(16, is_training=True, train_crop_mode="pad", hflip=0, color_jitter=0, use_prefetcher=True)
    image = Image.fromarray(pixels)
    drawn = [shifts[crop(image).tobytes()] for _ in range(600)]  # a KeyError would be no shift by at most an eighth
    assert set(drawn) == set(shifts.values())
    wide = create_transform((3, 16, 16), is_training=True, train_crop_mode="pad", use_prefetcher=True)
    assert wide(Image.new("RGB", (64, 32))).shape == (3, 16, 16)
    resize, cut = wide.transforms[:2]
    assert resize(Image.new("RGB", (64, 32))).size == (32, 16) and cut.padding == 2
