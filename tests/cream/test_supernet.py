"""Cream's space and supernet against the official PyTorch code."""

import functools
import hashlib
import json

import golden
import numpy as np
import paddle
import pytest

from cream.counting import count_parameters
from cream.flops import cost_tables
from cream.mobile.depths import OPERATION_MFLOPS, SHARED_MFLOPS, fit_to_flops
from cream.mobile.nets import ChildNet, MobileSuperNet
from cream.mobile.published import CHILD_NETS
from cream.mobile.space import mobile_space
from cream.space import SKIP, format_arch, parse_arch
from pimm.errors import ConfigError
from pimm.models.torch_names import load_torch_arrays, torch_names

FACTS = golden.facts("supernet")
ARCHS = [parse_arch(arch) for arch in FACTS["archs"]]
# If the stage of 80 channels has four blocks, the official code builds a fifth one that no path runs.
DEAD = "blocks.3.4."
TEN_CLASSES = {"classifier.weight": [10, 1280], "classifier.bias": [10], "meta_layer.weight": [1, 40]}


def names_hash(names):
    return hashlib.sha256(json.dumps(names, separators=(",", ":")).encode()).hexdigest()


def alive(names):
    return [[name, list(shape)] for name, shape in names if not name.startswith(DEAD)]


@pytest.fixture(scope="module")
def supernet():
    return MobileSuperNet(mobile_space(fit_to_flops(0, 600)[0]), num_classes=10)


@functools.cache
def reference_state(gain):
    """Draw the weights and buffers of the supernet of 600 MFLOPs, which takes seconds."""
    net = FACTS["names_shapes_0_600_nc1000"]
    shapes = dict(alive(net)) | TEN_CLASSES
    return golden.state(shapes.items(), gain=gain)


def set_state(net, gain=1.0):
    load_torch_arrays(net, reference_state(gain))
    return net


def test_the_supernet_of_the_reference_logits_has_the_official_names():
    shapes = dict(FACTS["names_shapes_0_600_nc1000"]) | TEN_CLASSES
    assert names_hash([[name, shape] for name, shape in shapes.items()]) == FACTS["names_shapes_nc10_sha256"]


@pytest.mark.parametrize(
    "wanted", [row for row in FACTS["flops_ranges"] if "error" not in row], ids=lambda row: f"{row['min']}-{row['max']}"
)
def test_a_flops_range_gives_the_official_space(wanted):
    check_fitted(wanted["min"], wanted["max"], wanted["sta_num"], wanted["resolution"])
    depths = wanted["sta_num"]
    net = MobileSuperNet(mobile_space(depths))
    ours = [[name, list(shape)] for name, shape in torch_names(net)]
    if depths[2] < 4:
        assert names_hash(ours) == wanted["names_shapes_sha256"]
        assert count_parameters(net) == wanted["num_params"]
    else:
        assert len(ours) == wanted["num_state"] - dead_values()[0]
        assert count_parameters(net) == wanted["num_params"] - dead_values()[1]


def dead_values():
    """Count the entries and the trainable values of the official fifth block, with all its operations."""
    dead = [(name, shape) for name, shape in FACTS["names_shapes_0_600_nc1000"] if name.startswith(DEAD)]
    trainable = [int(np.prod(shape)) for name, shape in dead if not name.endswith(("_mean", "_var", "_tracked"))]
    return len(dead), sum(trainable)


def test_the_largest_space_differs_from_the_official_one_by_the_dead_block_alone():
    net = MobileSuperNet(mobile_space((4, 4, 4, 4, 4)))
    official = FACTS["names_shapes_0_600_nc1000"]
    assert [[name, list(shape)] for name, shape in torch_names(net)] == alive(official)
    assert names_hash(official) == FACTS["flops_ranges"][0]["names_shapes_sha256"]


@pytest.mark.parametrize("low, high, depths, resolution", [r for r in FACTS["search_for_layer"] if r[2] is not None])
def test_depths_and_resolution(low, high, depths, resolution):
    check_fitted(low, high, depths, resolution)


@pytest.mark.parametrize(
    "low, high",
    [(row["min"], row["max"]) for row in FACTS["flops_ranges"] if "error" in row and row["min"] > 0]
    + [row[:2] for row in FACTS["search_for_layer"] if row[2] is None and row[0] > 0],
)
def test_ranges_that_the_official_code_refuses_get_deeper_stages(low, high):
    depths, resolution = fit_to_flops(low, high)
    assert resolution == 224 and max(depths) > 4
    assert SHARED_MFLOPS + sum(
        sum(first) / 6 + (depth - 1) * sum(further) / 6 for depth, (first, further) in zip(depths, OPERATION_MFLOPS)
    ) >= min(low, 2000)


@functools.lru_cache
def cheapest(depths, resolution):
    """Least cost of a path, by its supernet, in MFLOPs."""
    return cost_tables(MobileSuperNet(mobile_space(depths)), resolution)[0].least


def check_fitted(low, high, depths, resolution):
    """Compare with the official depths and image size, where these leave a path to search."""
    found = fit_to_flops(low, high)
    if sum(depths) < 8 and cheapest(tuple(depths), resolution) > high >= cheapest((1,) * 5, 64):
        assert found[0] == (1,) * 5
        assert cheapest(*found) <= high < cheapest((1,) * 5, found[1] + 32)
    else:
        assert found == (tuple(depths), resolution)


@pytest.mark.parametrize("high, resolution", [(8, 64), (15, 64), (16, 96), (25, 96), (70, 192), (81, 224)])
def test_images_shrink_until_a_path_fits(high, resolution):
    assert fit_to_flops(0, high) == ((1,) * 5, resolution)


@pytest.mark.parametrize("low, high", [(640, 700), (700, 900)])
def test_stages_grow_until_the_average_path_reaches_the_range(low, high):
    depths, _ = fit_to_flops(low, high)
    table, _ = cost_tables(MobileSuperNet(mobile_space(depths)), 224)
    mean = table.fixed + sum(sum(costs) / len(costs) for stage in table.choices for costs in stage)
    assert low <= mean + 1 and mean < low + 45  # one block more costs up to 25


def test_the_operation_table_is_the_official_one():
    official = golden.facts("official_facts")["flops_op_table"]
    for stage, (first, further) in enumerate(OPERATION_MFLOPS):
        expected = [official[str(stage)][str(operation)] for operation in range(6)]
        assert [list(pair) for pair in zip(first, further)] == expected


@pytest.mark.parametrize("low, high", [(0, 600), (560, 650), (40, 300), (0, 40)])
def test_depths_for_a_given_resolution_are_those_of_the_same_range_at_224_pixels(low, high):
    depths, resolution = fit_to_flops(low / 4, high / 4, 112)
    assert resolution == 112
    assert depths == fit_to_flops(low, high, 224)[0]
    if high > 40:  # these ranges lead to images of 224 pixels in any case
        assert depths == fit_to_flops(low, high)[0]


def test_unreachable_ranges_say_so():
    with pytest.raises(ConfigError, match="FLOPS_MAXIMUM=1 "):
        fit_to_flops(0, 1)
    with pytest.raises(ConfigError, match=r"FLOPS_MINIMUM=3000 .*ends at 28\d\d"):
        fit_to_flops(3000, 4000)
    with pytest.raises(ConfigError, match=r"FLOPS_MINIMUM=800 .*ends at 7\d\d"):
        fit_to_flops(800, 900, 112)


@pytest.mark.parametrize("selection", CHILD_NETS)
def test_every_published_net_lies_in_a_space(selection):
    arch = CHILD_NETS[selection].arch
    space = mobile_space([len(stage) for stage in arch[1:-1]])
    assert space.check(arch) == arch
    assert space.decode(space.encode(arch)) == arch


def test_the_range_around_604_mflops_gives_the_depths_of_the_published_net():
    assert fit_to_flops(560, 650)[0] == tuple(len(stage) for stage in CHILD_NETS[604].arch[1:-1])


@pytest.mark.parametrize("resolution", [64, 96])
@pytest.mark.parametrize("index", range(len(ARCHS)))
def test_logits_in_evaluation(supernet, resolution, index):
    arrays = golden.arrays("supernet")
    images = paddle.to_tensor(golden.inputs((2, 3, resolution, resolution)))
    for prefix, gain in (("eval", 1.0), ("eval_gain", FACTS["gain"])):
        net = set_state(supernet, gain)
        net.eval()
        with paddle.no_grad():
            logits = net(images, ARCHS[index]).numpy()
        assert golden.relative_error(logits, arrays[f"{prefix}/{resolution}/{index}"]) < 1e-4


@pytest.fixture
def double(supernet):
    """Lend the supernet in float64, with the gain by which its logits depend on every layer."""
    supernet.to(dtype="float64")
    yield set_state(supernet, FACTS["gain"])
    supernet.to(dtype="float32")


@pytest.mark.parametrize("resolution", [64, 96])
def test_logits_in_evaluation_and_double_precision(double, resolution):
    arrays = golden.arrays("supernet")
    double.eval()
    images = paddle.to_tensor(golden.inputs((2, 3, resolution, resolution)).astype("float64"))
    for index, arch in enumerate(ARCHS):
        with paddle.no_grad():
            logits = double(images, arch).numpy()
        expected = arrays[f"eval_gain_f64/{resolution}/{index}"]
        np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def test_scores_of_the_matching_network(supernet):
    difference = paddle.to_tensor(golden.inputs((1, 4, 10), stream=12346))
    score = set_state(supernet).meta_layer(difference)
    assert score.item() == pytest.approx(golden.arrays("supernet")["forward_meta"].item(), rel=1e-5)


@pytest.mark.parametrize("index", FACTS["train_archs"])
def test_logits_and_statistics_in_training(supernet, index):
    arrays = golden.arrays("supernet")
    net = set_state(supernet)
    net.train()
    before = {name: value.numpy() for name, value in net.state_dict().items() if name.endswith(("_mean", "_variance"))}
    with paddle.no_grad():
        logits = net(paddle.to_tensor(golden.inputs((4, 3, 64, 64))), ARCHS[index]).numpy()
    assert golden.relative_error(logits, arrays[f"train/64/{index}"]) < 1e-4
    for layer, name in ((net.bn1, "bn1"), (net.blocks[6][0][0].bn1, "blocks.6.0.0.bn1")):
        for ours, theirs in (("_mean", "running_mean"), ("_variance", "running_var")):
            expected = arrays[f"train/64/{index}/{name}.{theirs}"]
            assert golden.relative_error(getattr(layer, ours).numpy(), expected) < 1e-4
    moved = {name.rpartition(".")[0] for name, value in before.items() if (net.state_dict()[name] != value).any()}
    assert moved == set(FACTS["bn_updated"][str(index)])


def test_active_parameters_are_those_of_the_path(supernet):
    facts = FACTS["rand_parameters"]
    names = {parameter.name: name for name, parameter in supernet.named_parameters()}
    active = [names[parameter.name] for parameter in supernet.active_parameters(ARCHS[facts["arch_index"]])]
    assert sorted(active) == sorted(facts["names"])


def test_costs_of_all_choices(supernet):
    facts = golden.facts("flops")["modules_only"]
    mflops, mparams = cost_tables(MobileSuperNet(mobile_space((4, 4, 4, 4, 4))), 224)
    for table, kind in ((mflops, "flops"), (mparams, "params")):
        official = facts[f"{kind}_dict"]
        official[3] = official[3][:4]  # the dead block
        for ours, theirs in zip(table.choices, official):
            np.testing.assert_allclose(ours, theirs, rtol=1e-9)
        np.testing.assert_allclose(table.fixed, facts[f"{kind}_fixed"], rtol=1e-9)
        np.testing.assert_allclose([table(arch) for arch in ARCHS], facts[f"get_{kind}"], rtol=1e-9)
        rows = np.stack([supernet.space.encode(arch) for arch in ARCHS])
        costs = [table(supernet.space.decode(row)) for row in rows]
        np.testing.assert_allclose(costs, facts[f"get_{kind}"], rtol=1e-9)


def test_a_path_and_its_child_net_compute_the_same(supernet):
    arch = ARCHS[0]
    child = ChildNet(arch, num_classes=10)
    state = supernet.state_dict()
    renamed = {}
    for name in child.state_dict():
        parts = name.split(".")
        if parts[0] == "blocks":
            stage, position = int(parts[1]), int(parts[2])
            parts.insert(3, str(arch[stage][position]))
        renamed[name] = state[".".join(parts)]
    child.set_state_dict(renamed)
    images = paddle.to_tensor(golden.inputs((2, 3, 64, 64)))
    supernet.eval()
    child.eval()
    np.testing.assert_array_equal(supernet(images, arch).numpy(), child(images).numpy())


@pytest.mark.parametrize(
    "text, message",
    [
        ("[[0], [3", "not a list of lists"),
        ("[[0], 3, [0]]", "must be a list of stages"),
        ("[[0], [], [0]]", "must be a list of stages"),
        ("[[0], [1.5], [0]]", "must be a list of stages"),
        ("[[0], [-2], [0]]", "must be a list of stages"),
        ("[[0], [3], [0]]", "3 stages, not 7"),
        ("[[0], [9], [0], [0], [0], [0], [0]]", "choices 0 to 5, not 9"),
        (f"[[0], [{SKIP}], [0], [0], [0], [0], [0]]", "cannot be skipped"),
        ("[[0], [1, 2], [0], [0], [0], [0], [0]]", "stage 1 has 2 blocks, not 1"),
    ],
)
def test_malformed_architectures_are_refused_with_the_reason(text, message):
    with pytest.raises(ConfigError, match=message.replace("[", r"\[")):
        mobile_space((1, 1, 1, 1, 1)).check(parse_arch(text))


def test_text_and_architecture_are_two_forms_of_one():
    assert parse_arch(format_arch(ARCHS[3])) == ARCHS[3]
