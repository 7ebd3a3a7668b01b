"""Single Path One-Shot's nets against the authors' and NNI's definitions: names, shapes, counts, logits, gradients.

``data/spos_names.json`` was made by those definitions in PyTorch, from weights and images by the recipe of ``golden``.
"""

import json
import pickle

import golden
import numpy as np
import paddle
import pytest
from paddle import nn
from paths import DATA
from PIL import Image

from cream.convert.command import convert, main, parse_args
from cream.convert.names import find_net
from cream.convert.verify import read_image
from cream.counting import count_macs, count_parameters
from cream.flops import cost_tables
from cream.shuffle import nets as shuffle
from cream.shuffle.nets import CHANNEL_RATIOS, CONVOLUTION_RULES, SPOS_ARCH, ShuffleNet, ShuffleSuperNet, shuffle_space
from cream.shuffle.op_flops import op_flops_table, read_op_flops
from cream.train.sampler import Sampler
from pimm.errors import CheckpointError, ConfigError
from pimm.layers import BatchNorm2d
from pimm.models.torch_names import load_torch_arrays, to_torch_arrays, torch_names
from pimm.models.torch_weights import find_weights, rename_arrays
from pimm.torch_file import load_torch, save_torch
from pimm.utils import load_arrays

FACTS = json.loads((DATA / "spos_names.json").read_text())
GOLDEN = FACTS["golden"]
SPACE = shuffle_space()
ARCHS = [SPOS_ARCH, SPACE.decode([0] * 20), SPACE.decode([3] * 20), SPACE.decode([i % 4 for i in range(20)])]
# The authors' costs of the four operations, in multiply-adds at 224 pixels: a stage's first block, its further ones.
STAGE_COSTS = (
    ([13396992, 15805440, 19418112, 13146112], [7325696, 8931328, 11339776, 12343296]),
    ([26304768, 28111104, 30820608, 20296192], [10599680, 11603200, 13108480, 16746240]),
    ([30670080, 31673600, 33178880, 21199360], [10317440, 10819200, 11571840, 15899520]),
    ([30387840, 30889600, 31642240, 20634880], [10176320, 10427200, 10803520, 15476160]),
)
COSTS = [
    costs for (first, further), depth in zip(STAGE_COSTS, shuffle.DEPTHS) for costs in [first] + [further] * (depth - 1)
]
FIRST_CONV, REST = 5419008, 33136640
SMALL = {"depths": (1, 2, 1, 1), "channels": (40, 60, 80, 100)}


def filled(net, names_shapes, seed):
    """Set the weights that the recipe of ``golden`` draws for these names, turn dropout off and return the net."""
    load_torch_arrays(net, golden.state(names_shapes.items(), seed))
    net.drop_rate = 0.0
    return net


def summary(logits):
    values = logits.numpy()
    return [*values[:, :8].ravel(), values.sum(dtype=np.float64), np.abs(values).sum(dtype=np.float64)]


@pytest.fixture(scope="module")
def supernet():
    return filled(ShuffleSuperNet(), FACTS["supernet"], 1)


@pytest.fixture(scope="module")
def tables(supernet):
    return cost_tables(supernet, 224)


@pytest.fixture
def channel_net():
    """Build a supernet of few and narrow blocks that searches channels too."""
    paddle.seed(0)
    return ShuffleSuperNet(5, CHANNEL_RATIOS, drop_rate=0.0, **SMALL)


def images(shape=(2, 3, 64, 64)):
    return paddle.to_tensor(golden.inputs(shape, 1))


@pytest.mark.parametrize("name, build", [("supernet", ShuffleSuperNet), ("net", ShuffleNet)])
def test_names_shapes_and_counts_are_the_authors(name, build):
    with paddle.LazyGuard():
        net = build()
    own = {key: list(shape) for key, shape in torch_names(net) if not key.endswith("num_batches_tracked")}
    assert own == FACTS[name]
    assert count_parameters(net) == FACTS["parameters"][name]


@pytest.mark.parametrize("name", ["supernet", "net"])
def test_nni_has_projections_that_nothing_runs(name):
    unused = FACTS["nni_unused"][name]
    trained = sum(np.prod(shape) for key, shape in unused.items() if "running" not in key)
    assert FACTS["parameters"][name] + trained == FACTS["parameters"][f"nni_{name}"]


@pytest.mark.parametrize("index, arch", list(enumerate(ARCHS)))
def test_supernet_logits(supernet, index, arch):
    supernet.eval()
    np.testing.assert_allclose(
        summary(supernet(images(), arch)), GOLDEN[f"supernet_eval_{index}"], rtol=1e-4, atol=2e-5
    )


def test_net_logits():
    net = filled(ShuffleNet(), FACTS["net"], 1)
    net.eval()
    np.testing.assert_allclose(summary(net(images())), GOLDEN["net_eval_0"], rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("name, build, arch", [("supernet", ShuffleSuperNet, ARCHS[3]), ("net", ShuffleNet, None)])
def test_training_pass_gradients_and_running_statistics(name, build, arch):
    net = filled(build(), FACTS[name], 1)
    net.to(dtype="float64")  # the order of float32's sums changes gradients by more than the bound below
    net.train()
    inputs = images().astype("float64")
    logits = net(inputs, arch) if arch else net(inputs)
    *values, total, absolute = summary(logits)
    *expected, expected_total, expected_absolute = GOLDEN[f"{name}_train"]
    np.testing.assert_allclose(values, expected, rtol=1e-3, atol=5e-4)
    assert total == pytest.approx(expected_total, abs=1e-4 * absolute)
    assert absolute == pytest.approx(expected_absolute, rel=1e-4)
    (logits * paddle.to_tensor(golden.inputs(logits.shape, 1, 12360)).astype("float64")).sum().backward()
    gradients = {key: p.grad for key, p in net.named_parameters() if p.grad is not None}
    sums = {key: gradients[key].abs().sum(dtype="float64").item() for key in GOLDEN[f"{name}_train_grads"]}
    assert sums == pytest.approx(GOLDEN[f"{name}_train_grads"], rel=5e-3)
    state = to_torch_arrays(net, {key: value.numpy() for key, value in net.state_dict().items()})
    for key, expected in GOLDEN[f"{name}_train_running"].items():
        values = state[key].astype(np.float64)
        assert [values.sum(), np.abs(values).sum()] == pytest.approx(expected, rel=1e-3, abs=1e-3)


def op_flops():
    """Return the known part of the authors' table."""
    table = {"conv1": {(3, 16, 224, 224, 2): FIRST_CONV}, "rest_operation": {(640, 1000, 7, 7, 1): REST}}
    size = 112
    for (in_chs, out_chs, stride), costs in zip(shuffle.positions(), COSTS):
        for name, cost in zip(("shufflenet_3x3", "shufflenet_5x5", "shufflenet_7x7", "xception_3x3"), costs):
            key = (in_chs, out_chs, out_chs // 2, size, size, stride)
            table.setdefault(f"{name}_stride_{stride}", {})[key] = float(cost)
        size //= stride
    return table


def test_costs_are_the_authors(tables):
    mflops, mparams = tables
    assert [np.round(np.array(costs) * 1e6).tolist() for stage in mflops.choices for costs in stage] == COSTS
    assert mflops.fixed == pytest.approx((FIRST_CONV + REST) / 1e6)
    assert mflops(SPOS_ARCH) == pytest.approx(322.91872)
    net = ShuffleNet()
    assert count_macs(net.eval(), paddle.zeros([1, 3, 224, 224]), CONVOLUTION_RULES)[0] == 322918720
    norms = sum(2 * layer.num_features for layer in net.sublayers() if isinstance(layer, BatchNorm2d))
    assert mparams(SPOS_ARCH) * 1e6 == pytest.approx(count_parameters(net) - norms)


def test_counting_leaves_the_net_and_the_random_numbers_alone(supernet):
    supernet.train()
    supernet.drop_rate = 0.5
    paddle.seed(3)
    mean = supernet.conv_last[1]._mean.numpy()
    at_32, _ = cost_tables(supernet, 32)
    drawn = paddle.rand([3]).numpy()
    supernet.drop_rate = 0.0
    assert supernet.training and (supernet.conv_last[1]._mean.numpy() == mean).all()
    paddle.seed(3)
    np.testing.assert_array_equal(drawn, paddle.rand([3]).numpy())
    assert at_32.choices[3][1] == [cost / 49e6 for cost in COSTS[17]]  # one pixel of 49


def test_the_authors_table_gives_the_same_costs(tmp_path, tables):
    path = tmp_path / "op_flops_dict.pkl"
    path.write_bytes(pickle.dumps(op_flops(), protocol=2))
    table = op_flops_table(read_op_flops(path))
    assert table(SPOS_ARCH) == pytest.approx(322.91872)
    archs = [SPACE.decode(row) for row in SPACE.sample(np.random.default_rng(0), 20)]
    np.testing.assert_allclose([table(arch) for arch in archs], [tables[0](arch) for arch in archs])


@pytest.mark.parametrize(
    "content, message",
    [
        ({"conv1": 3}, "is no table of operation costs: it does not hold a dict of dicts"),
        ({"conv1": {(3, 16): "many"}}, "is no table of operation costs: could not convert"),
        ({"conv1": {7: 1.0}}, "is no table of operation costs"),
        ({"conv1": {(3, 16): print}}, "it asks for builtins.print"),
    ],
)
def test_files_that_are_no_table_are_refused(tmp_path, content, message):
    path = tmp_path / "op_flops_dict.pkl"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(CheckpointError, match=message):
        read_op_flops(path)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"last_channels": 1024}, r"no rest_operation for \(640, 1024, 7, 7, 1\); it has \(640, 1000, 7, 7, 1\)"),
        ({"resolution": 192}, r"no shufflenet_3x3_stride_2 for \(16, 64, 32, 96, 96, 2\)"),
    ],
)
def test_what_the_table_does_not_hold(options, message):
    with pytest.raises(ConfigError, match=message):
        op_flops_table(op_flops(), **options)


def test_paths_are_drawn_from_bins_of_flops_that_are_equally_likely():
    table = op_flops_table(op_flops())
    shares = {}
    for bins in (1, 7):
        sampler, rng = Sampler(SPACE, table, 290, 360, bins=bins), np.random.default_rng(0)
        costs = [table(sampler(rng)) for _ in range(300)]
        assert min(costs) >= 290 and max(costs) <= 360
        shares[bins] = np.histogram(costs, bins=7, range=(290, 360))[0] / len(costs)
    assert np.abs(shares[7] - 1 / 7).max() < 0.06
    assert np.abs(shares[1] - 1 / 7).max() > 0.1


def test_a_bin_that_no_path_falls_into():
    costs = op_flops()
    costs["rest_operation"] = {(640, 1000, 7, 7, 1): REST - 300e6}
    with pytest.raises(
        ConfigError, match=r"FLOPS_MAXIMUM=-57 MFLOPs, one of SUPERNET.FLOPS_BINS=40 parts of the range"
    ):
        Sampler(SPACE, op_flops_table(costs), -60, 60, bins=40)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("channels", [None, 3])
def test_batch_norm_of_the_first_channels(affine, channels):
    norm = BatchNorm2d(5, affine=affine)
    width = channels or 5
    x = golden.inputs((4, width, 2, 2), 0)
    scale, shift = np.ones(5), np.zeros(5)
    if affine:
        scale, shift = np.arange(1, 6, dtype="float32"), -np.arange(5, dtype="float32")
        norm.weight.set_value(scale)
        norm.bias.set_value(shift)
    scale, shift = (values[:width, None, None] for values in (scale, shift))
    mean, variance = x.mean(axis=(0, 2, 3)), x.var(axis=(0, 2, 3))
    by_hand = (x - mean[:, None, None]) / np.sqrt(variance + 1e-5)[:, None, None] * scale + shift
    np.testing.assert_allclose(norm(paddle.to_tensor(x), channels).numpy(), by_hand, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(norm._mean.numpy(), [*(0.1 * mean), 0, 0][:5], rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(norm._variance.numpy(), [*(0.9 + 0.1 * variance * 16 / 15), 1, 1][:5], rtol=1e-5)
    norm.eval()
    mean, variance = norm._mean.numpy()[:width], norm._variance.numpy()[:width]
    by_hand = (x - mean[:, None, None]) / np.sqrt(variance + 1e-5)[:, None, None] * scale + shift
    np.testing.assert_allclose(norm(paddle.to_tensor(x), channels).numpy(), by_hand, rtol=1e-4, atol=1e-5)
    assert len(list(norm.state_dict())) == (4 if affine else 2)


def test_a_net_of_narrow_blocks_is_the_supernets_path(channel_net):
    arch = ((3,), (17, 29), (31,), (0,))
    net = ShuffleNet(arch, 5, CHANNEL_RATIOS, drop_rate=0.0, **SMALL)
    net.inherit(channel_net)
    x = images()
    for training in (True, False):  # the first pass moves the running statistics that the second one takes
        for model in (channel_net, net):
            model.train() if training else model.eval()
        np.testing.assert_allclose(channel_net(x, arch).numpy(), net(x).numpy(), rtol=1e-4)
    again = ShuffleNet(arch, 5, CHANNEL_RATIOS, **SMALL)
    again.inherit(channel_net)
    state = again.state_dict()
    for name, value in net.state_dict().items():
        np.testing.assert_allclose(state[name].numpy(), value.numpy(), rtol=1e-5, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("operation, ratio", [(0, 0), (1, 4), (2, 9), (3, 2)])
def test_only_the_first_channels_inside_a_block_learn(channel_net, operation, ratio):
    arch = channel_net.space.decode([operation * 10 + ratio] * 5)
    channel_net.train()
    channel_net(images(), arch).square().sum().backward()
    width = int(30 * CHANNEL_RATIOS[ratio])
    main = channel_net.blocks[1][1].operation(arch[1][1]).branch_main
    inside = main[5 if operation == 3 else 3].weight.grad.numpy()  # a depthwise convolution
    assert inside.shape[0] == 60
    assert inside[:width].any(axis=(1, 2, 3)).all() and not inside[width:].any()
    moved = {name for name, p in channel_net.named_parameters() if p.grad is not None}
    active = {id(p) for p in channel_net.active_parameters(arch)}
    assert moved == {name for name, p in channel_net.named_parameters() if id(p) in active}


def test_costs_of_channels():
    ratios = (0.2, 1.0, 2.0)
    net = ShuffleSuperNet(5, ratios, **SMALL)
    mflops, mparams = cost_tables(net, 64)
    pixels, half = 8 * 8, 30  # pixels, and transformed channels, of the further block of the second stage
    own = [round(cost * 1e6) for cost in mflops.choices[1][1]]
    shuffled = [pixels * mid * (half + kernel + half) for kernel in (9, 25, 49) for mid in (6, 30, 60)]
    xception = [pixels * (half * 9 + half * mid + mid * 9 + mid * mid + mid * 9 + mid * half) for mid in (6, 30, 60)]
    assert own == shuffled + xception
    arch = ((3,), (7, 11), (10,), (0,))
    child = ShuffleNet(arch, 5, ratios, **SMALL).eval()
    macs, _ = count_macs(child, paddle.zeros([1, 3, 64, 64]), CONVOLUTION_RULES)
    norms = sum(2 * layer.num_features for layer in child.sublayers() if isinstance(layer, BatchNorm2d))
    assert mflops(arch) * 1e6 == pytest.approx(macs)
    assert mparams(arch) * 1e6 == pytest.approx(count_parameters(child) - norms)


def test_ratios_are_the_authors():
    ids, operations = GOLDEN["ratios"]["ids"], [choice for stage in SPOS_ARCH for choice in stage]
    arch = SPACE.decode([operation * 10 + ratio for operation, ratio in zip(operations, ids)])
    net = ShuffleNet(arch, 10, CHANNEL_RATIOS)
    shapes = {key: list(shape) for key, shape in torch_names(net) if len(shape) == 4 and key.startswith("features")}
    assert shapes == FACTS["ratios"]
    assert count_parameters(net) == GOLDEN["ratios"]["parameters"]
    load_torch_arrays(net, golden.state(torch_names(net), 2))
    net.eval()
    np.testing.assert_allclose(net(images()).numpy().ravel(), GOLDEN["ratios"]["eval"], rtol=1e-4, atol=2e-5)


def outline(names_shapes):
    """Return arrays of these names and shapes that take no memory."""
    return {name: np.broadcast_to(np.float32(0), shape) for name, shape in names_shapes.items()}


def unchanged(state):
    return state


def nni_names(state):
    """Return a state as NNI saves it after training on several GPUs: prefixed, and with projections that never run."""
    kind = "supernet" if "features.0.0.branch_main.0.weight" in state else "net"
    unused = outline(FACTS["nni_unused"][kind])
    return {f"module.{key}": value for key, value in {**state, **unused}.items()}


def first_nni_names(state):
    """Return a state under the names that NNI's first versions gave to choices."""
    renamed = {}
    for key, value in state.items():
        parts = key.split(".")
        renamed[".".join([*parts[:2], "choices", *parts[2:]] if parts[0] == "features" else parts)] = value
    return renamed


@pytest.mark.parametrize(
    "facts, name, change",
    [
        ("supernet", "spos-supernet", unchanged),
        ("supernet", "spos-supernet", nni_names),
        ("supernet", "spos-supernet", first_nni_names),
        ("net", "spos", unchanged),
        ("net", "spos", nni_names),
    ],
)
def test_released_names_are_ours(facts, name, change):
    state = outline(FACTS[facts])
    arrays = find_weights({"state_dict": change(state)}).arrays
    net = find_net("auto", {key: value.shape for key, value in arrays.items()})
    assert net.name == name
    with paddle.LazyGuard():
        renamed, dropped = rename_arrays(net.build(), arrays)
    assert renamed.keys() == state.keys()
    assert all(renamed[key] is value for key, value in state.items())
    assert dropped == (list(FACTS["nni_unused"][facts]) if change is nni_names else [])


def test_released_weights_convert_and_come_back(tmp_path, capsys):
    state = golden.state(FACTS["net"].items(), 1)
    source, target, back = (str(tmp_path / name) for name in ("checkpoint.pth.tar", "net.pdparams", "back.pth.tar"))
    save_torch(source, {"state_dict": nni_names(state)})
    assert main([source, target]) == 0
    assert "net        spos\n" in capsys.readouterr().out
    arrays = load_arrays(target)
    np.testing.assert_array_equal(arrays["classifier.0.weight"], state["classifier.0.weight"].T)
    np.testing.assert_array_equal(arrays["conv_last.1._variance"], state["conv_last.1.running_var"])
    assert main([target, back, "--to-torch", "--model", "spos"]) == 0
    returned = load_torch(back)["state_dict"]
    assert all(np.array_equal(returned[key], value) for key, value in state.items())


def test_the_authors_preprocessing(tmp_path):
    Image.new("RGB", (300, 256), (250, 100, 0)).save(tmp_path / "image.png")
    net = find_net("spos", {})
    x = read_image(net, nn.Identity(), tmp_path / "image.png", spos_preprocessing=True)
    np.testing.assert_allclose(x.numpy().mean(axis=(0, 2, 3)), [0, 100, 250], rtol=1e-5)
    with pytest.raises(ConfigError, match="there is none"):
        convert(parse_args(["net.pth", "--spos-preprocessing"]))


@pytest.mark.parametrize(
    "name",
    [
        "spos",
        "spos-supernet",
        "spos-channels-supernet",
        "spos-[[0, 0, 0, 0], [1, 1, 1, 1], [2, 2, 2, 2, 3, 3, 3, 3], [0, 1, 2, 3]]",
        "spos-channels-[[0, 19, 29, 39], [4, 4, 4, 4], [14, 34, 24, 4, 4, 4, 4, 4], [33, 4, 4, 4]]",
    ],
)
def test_every_net_is_found_by_its_name_and_by_its_weights(name):
    with paddle.LazyGuard():
        net = find_net(name, {"classifier.0.weight": (7, 1024)}).build()
    shapes = dict(torch_names(net))
    assert shapes["classifier.0.weight"] == (7, 1024)
    assert find_net("auto", shapes).name == name


def test_unknown_names_and_architectures():
    with pytest.raises(ConfigError, match=r"did you mean .*spos-supernet"):
        find_net("spos-supernets", {})
    with pytest.raises(ConfigError, match="has 1 stages, not 4"):
        find_net("spos-[[0]]", {}).build()
