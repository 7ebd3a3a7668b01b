"""Spaces beyond Cream's own: the paper's further operations, a user's description, and draws inside a FLOPs range."""

import hashlib
import itertools
import json
import re
from pathlib import Path

import golden
import numpy as np
import paddle
import pytest
import yaml
from paths import ROOT
from PIL import Image
from space_files import ALL, SMALL

from cream import cli
from cream.build.families import child_net, search_space
from cream.config.dump import dump
from cream.config.keys import resume_settings
from cream.config.load import load_config
from cream.config.schema import Config
from cream.convert import main
from cream.convert.names import find_net
from cream.counting import SEARCH_RULES, count_macs
from cream.flops import CostTable, cost_tables
from cream.mobile.blocks import BLOCKS
from cream.mobile.nets import SE_KWARGS, ChildNet, MobileSuperNet, make_block
from cream.mobile.space import MobileSpace, Operation, Position, describe, load_space, mobile_space, read_spec
from cream.space import SKIP, SearchSpace
from cream.train.board import Entry, PrioritizedBoard
from cream.train.sampler import BoundedDraws, Sampler
from pimm.errors import ConfigError
from pimm.layers import Swish
from pimm.models.torch_names import load_torch_arrays, torch_names
from pimm.utils import load_arrays, save_arrays

GUIDE = ROOT / "docs" / "search_spaces.md"


def spec_of(text):
    return read_spec(yaml.safe_load(text))


# The paper's further operations


@pytest.fixture(scope="module")
def with_residual_units():
    facts = golden.facts("supernet")["options"]["resunit"]
    return facts, MobileSuperNet(mobile_space(facts["sta_num"], residual_unit=True), num_classes=10)


def test_residual_units_are_the_official_ones(with_residual_units):
    facts, net = with_residual_units
    names = [[name, list(shape)] for name, shape in torch_names(net)]
    assert hashlib.sha256(json.dumps(names, separators=(",", ":")).encode()).hexdigest() == facts["names_shapes_sha256"]
    assert [[len(position) for position in stage] for stage in net.blocks] == facts["choice_num_per_position"]
    load_torch_arrays(net, golden.state(torch_names(net)))
    arch, arrays = tuple(map(tuple, facts["arch"])), golden.arrays("supernet")
    with paddle.no_grad():
        for mode, batch in (("eval", 2), ("train", 4)):
            getattr(net, mode)()
            logits = net(paddle.to_tensor(golden.inputs((batch, 3, 64, 64))), arch).numpy()
            expected = arrays[f"options/resunit/{mode}_64"]
            assert np.abs(logits - expected).max() < 1e-4 * np.abs(expected).max()
            load_torch_arrays(net, golden.state(torch_names(net)))


def test_dilated_convolutions_and_residual_units_come_after_the_six():
    operations = mobile_space((1, 1, 1, 1, 1), residual_unit=True, dilated=True).positions[1][0].operations
    assert [(o.block, o.kernel, o.dilation) for o in operations[6:]] == [("ds", 3, 2), ("ds", 5, 2), ("ru", 3, 1)]
    assert [o.dilation for o in operations[:6]] == [1] * 6


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_dilated_convolution_reaches_as_far_as_a_larger_kernel_with_holes(kernel, stride):
    """The official code differs: it builds the block without dilation, and with 8 channels whatever the input has."""
    options = {"act_layer": Swish, "norm_kwargs": {}, "se_kwargs": SE_KWARGS, "drop_path_rate": 0.0}
    place = Position((), 16, 24, stride)
    dilated = make_block(Operation("ds", kernel, se=0.25, dilation=2), place, **options)
    large = make_block(Operation("ds", 2 * kernel - 1, se=0.25), place, **options)
    state = dilated.state_dict()
    weights = np.zeros(large.conv_dw.weight.shape, np.float32)
    weights[:, :, ::2, ::2] = state["conv_dw.weight"].numpy()
    large.set_state_dict({**state, "conv_dw.weight": paddle.to_tensor(weights)})
    assert dilated.conv_dw.weight.shape == [16, 1, kernel, kernel]
    images = paddle.to_tensor(golden.inputs((2, 16, 9, 9)))
    np.testing.assert_allclose(dilated(images).numpy(), large(images).numpy(), atol=1e-5)


def test_settings_add_operations_and_skips_to_creams_space():
    fixed = ["SUPERNET.STAGE_DEPTHS=(1,2,1,1,1)", "SUPERNET.RESOLUTION=32", "SUPERNET.HOW_TO_PROB=even"]
    keys = ["SUPERNET.RESUNIT=True", "SUPERNET.DIL_CONV=True", "SUPERNET.SKIP=True"]
    space, _ = search_space(load_config(None, [*fixed, *keys]))
    assert space.choices == ((1,), (9,), (9, 9), (9,), (9,), (9,), (1,))
    assert space.num_choices == 10 and space.size == 9**5 * 10
    rows = space.sample(np.random.default_rng(0), 200)
    assert set(rows[:, 3]) == {*range(9), SKIP} and np.delete(rows, 3, axis=1).min() == 0
    with pytest.raises(ConfigError, match=r"PRE_PROB has 6 values; must have 10.*HOW_TO_PROB: even needs none"):
        load_config(None, [*fixed[:2], *keys])


def test_a_weight_for_skips_comes_last():
    space = mobile_space((1, 3, 1, 1, 1), skip=True)
    first, skippable = (space.distribution((1, 1, 1, 1, 1, 1, 6))[i] for i in (2, 3))
    np.testing.assert_allclose(first, np.full(6, 1 / 6))
    np.testing.assert_allclose(skippable, [1 / 12] * 6 + [1 / 2])
    rows = space.sample(np.random.default_rng(0), 4000, (1, 1, 1, 1, 1, 1, 6))
    assert abs((rows[:, 3] == SKIP).mean() - 0.5) < 0.03 and (rows[:, 2] != SKIP).all()
    with pytest.raises(ConfigError, match="leave nothing to draw"):
        space.distribution((0, 0, 0, 0, 0, 0, 1))


# A user's description


def child_of(net, arch):
    """Return the child net of a path, with the weights of the supernet by their names."""
    child = ChildNet(arch, net.num_classes, space=net.space)
    state, renamed = net.state_dict(), {}
    for name in child.state_dict():
        parts = name.split(".")
        if parts[0] == "blocks":
            stage = int(parts[1])
            kept = [i for i, choice in enumerate(arch[stage]) if choice != SKIP]
            position = kept[int(parts[2])]
            parts[2:3] = [str(position), str(arch[stage][position])]
        renamed[name] = state[".".join(parts)]
    child.set_state_dict(renamed)
    return child


PATHS = [
    ((0, 1), (2, 3, 4), (0,)),
    ((SKIP, SKIP), (4, SKIP, 0), (0,)),
    ((4, SKIP), (1, 2, SKIP), (0,)),
    ((5, 1), (5, 5, 2), (0,)),
]


@pytest.fixture(scope="module")
def all_blocks():
    paddle.seed(0)
    net = MobileSuperNet(MobileSpace(spec_of(ALL)), num_classes=5)
    for value in net.state_dict().values():
        if value.ndim == 1:
            value.set_value(paddle.rand(value.shape) + 0.5)
    return net


@pytest.mark.parametrize("arch", PATHS)
def test_a_path_and_its_child_net_compute_and_cost_the_same(all_blocks, arch):
    net = all_blocks
    child = child_of(net, net.space.check(arch))
    images = paddle.to_tensor(golden.inputs((2, 3, 16, 16)))
    net.eval(), child.eval()
    np.testing.assert_array_equal(net(images, arch).numpy(), child(images).numpy())
    mflops, mparams = cost_tables(net, 16)
    layers = (child.conv_stem, *(block for stage in child.blocks for block in stage), child.conv_head)
    assert mparams(arch) == pytest.approx(sum(p.size for layer in layers for p in trainable(layer)) / 1e6)
    macs, _ = count_macs(child, images[:1], SEARCH_RULES)
    stem_norm = count_macs(child.bn1, child.conv_stem(images[:1]), SEARCH_RULES)[0]
    assert mflops(arch) == pytest.approx((macs - stem_norm) / 1e6)


def trainable(layer):
    return [parameter for parameter in layer.parameters() if not parameter.stop_gradient]


def test_the_description_is_what_is_built(all_blocks):
    net = all_blocks
    assert net.space.choices == ((6, 6), (6, 6, 6), (1,))
    assert net.space.keeps_shape == ((True, True), (False, True, True), (False,))
    assert net.space.num_choices == 7 and net.space.size == 7**2 * 6 * 7**2
    with paddle.no_grad():
        features = net.stem(paddle.zeros([1, 3, 16, 16]))
        assert features.shape == [1, 8, 16, 16]
        for stage, shape in zip(net.blocks, ([8, 16, 16], [12, 8, 8], [16, 8, 8])):
            for position in stage:
                shapes = {tuple(position(features, choice).shape) for choice in range(len(position))}
                assert len(shapes) == 1
                features = position(features, 0)
            assert features.shape == [1, *shape]
    assert net.conv_head.weight.shape == [24, 16, 1, 1] and net.classifier.weight.shape == [24, 5]
    gate = net.blocks[0][0][1].se.conv_reduce.weight.shape
    assert gate == [8, 8, 1, 1] and net.blocks[0][0][0].se is None


def test_every_block_type_of_a_path_learns(all_blocks):
    net = all_blocks
    net.train()
    for arch in PATHS:
        net(paddle.to_tensor(golden.inputs((4, 3, 16, 16))), arch).square().sum().backward()
        with_gradient = {p.name for p in net.parameters() if p.grad is not None}
        assert with_gradient == {p.name for p in net.active_parameters(arch)}
        net.clear_gradients(set_to_zero=False)


def test_a_path_outside_the_depths_is_refused(all_blocks):
    for arch in (((0, 1), (SKIP, 0, 0), (0,)), ((0, 1), (0, 0, 0), (SKIP,))):
        with pytest.raises(ConfigError, match="cannot be skipped: it changes the shape, or belongs to the least depth"):
            all_blocks.space.check(arch)


@pytest.mark.parametrize("text", [ALL, SMALL.read_text()], ids=["all blocks", "small"])
def test_a_description_goes_there_and_back(text, tmp_path):
    spec = spec_of(text)
    assert read_spec(describe(spec)) == spec
    file, settings = tmp_path / "space.yaml", tmp_path / "settings.yaml"
    file.write_text(text)
    assert load_space(file) == MobileSpace(spec) != MobileSpace(read_spec({**yaml.safe_load(text), "head": 9}))
    cfg = load_config(None, [f"SUPERNET.SPACE={file}", "SUPERNET.HOW_TO_PROB=even"])
    settings.write_text(dump(cfg))
    assert "\n    - {kernel: 3, expansion: " in settings.read_text()
    file.unlink()  # the settings of a run hold the description, and do not need the file
    assert load_config(settings) == cfg and read_spec(cfg.SUPERNET.SPACE) == spec
    assert resume_settings(cfg)["SUPERNET.SPACE"] == json.loads(json.dumps(describe(spec)))


def test_the_guide_describes_a_space():
    settings, space = re.findall(r"```yaml\n(.*?)```", GUIDE.read_text(), flags=re.DOTALL)
    assert yaml.safe_load(settings)["SUPERNET"]["SPACE"] == str(SMALL.relative_to(GUIDE.parents[1]))
    assert MobileSpace(spec_of(space)).choices == ((3, 3, 3, 3), (3, 3, 3))


def test_the_small_space():
    space = load_space(SMALL)
    mflops, mparams = cost_tables(MobileSuperNet(space, num_classes=10), 32)
    assert space.size == 5**3 * 6**7
    rows = space.sample(np.random.default_rng(0), 4000)
    costs = np.quantile([mflops(space.decode(row)) for row in rows], [0.05, 0.95])
    assert mflops.least < 0.6 and mflops.most > 4 and costs[1] > 1.8 * costs[0]
    assert mparams.most < 0.3


def test_all_block_types_are_in_the_description_of_these_tests():
    assert {operation.block for operation in spec_of(ALL).operations} == set(BLOCKS)


# From the search to the test


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for split, n in (("train", 8), ("val", 4)):
        for name in ("a", "b"):
            (folder / split / name).mkdir(parents=True)
            for i in range(n):
                pixels = rng.integers(0, 256, (16, 16, 3), np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{i}.png")
    return folder


def test_a_net_found_in_a_space_of_ones_own_is_retrained_and_tested(images, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("space.yaml").write_text(ALL)
    Path("recipe.yaml").write_text(
        "EPOCHS: 1\nLR: 0.01\nWORKERS: 0\nCOOLDOWN_EPOCHS: 0\nDATASET: {BATCH_SIZE: 8}\nAUGMENTATION: {AA: None}\n"
    )
    Path("search.yaml").write_text("")
    settings = [
        *("--cfg", "search.yaml", f"DATA_DIR={images}", "SAVE_PATH=runs", "MODEL=mine", "RETRAIN_CFG=recipe.yaml"),
        *("EPOCHS=2", "WORKERS=0", "DATASET.BATCH_SIZE=8", "DATASET.NUM_CLASSES=2"),
        *("SUPERNET.SPACE=space.yaml", "SUPERNET.RESOLUTION=16", "SUPERNET.FLOPS_MAXIMUM=0.25"),
        *("SUPERNET.PRE_PROB=(1,1,1,1,1,1,3)", "SUPERNET.META_STA_EPOCH=0", "SUPERNET.UPDATE_ITER=1"),
        *("SUPERNET.POOL_SIZE=2", "SUPERNET.PROBES=1", "SUPERNET.SELECT_BATCHES=1"),
    ]
    assert cli.search(settings) == 0, capsys.readouterr().err
    found = json.loads(Path("runs/mine/architecture.json").read_text())
    assert found["mflops"] <= 0.25 and MobileSpace(spec_of(ALL)).check(tuple(map(tuple, found["arch"])))
    Path("space.yaml").unlink()
    retrain_cfg = "runs/mine/retrain.yaml"
    _, net = child_net(load_config(retrain_cfg))
    assert net.conv_head.weight.shape == [24, 16, 1, 1]
    assert cli.retrain(["--cfg", retrain_cfg]) == 0, capsys.readouterr().err
    assert cli.test(["--cfg", retrain_cfg, "RESUME_PATH=runs/mine_retrain"]) == 0
    assert "prec1" in capsys.readouterr().out
    Path("space.yaml").write_text(ALL.replace("head: 24", "head: 32"))
    assert cli.search(settings) == 2
    assert "belongs to a training with other settings" in capsys.readouterr().err


def test_weights_of_a_net_of_ones_own_convert_by_its_settings(tmp_path, capsys):
    settings, path = tmp_path / "retrain.yaml", [[4, -1], [1, 2, -1], [0]]
    lines = [f"NET: {{INPUT_ARCH: {path}}}", "DATASET: {NUM_CLASSES: 5}", f"SUPERNET: {{SPACE: {tmp_path}/s.yaml}}"]
    settings.write_text("\n".join(lines))
    (tmp_path / "s.yaml").write_text(ALL)
    net = ChildNet(((4, -1), (1, 2, -1), (0,)), 5, space=load_space(tmp_path / "s.yaml"))
    save_arrays(tmp_path / "a.pdparams", {name: value.numpy() for name, value in net.state_dict().items()})
    there, back = tmp_path / "a.pth.tar", tmp_path / "b.pdparams"
    assert main([str(tmp_path / "a.pdparams"), str(there), "--to-torch"]) == 2
    assert "of no net that is known here; name the net with --model, a net of a space of" in capsys.readouterr().err
    assert main([str(tmp_path / "a.pdparams"), str(there), "--to-torch", "--model", str(settings)]) == 0
    assert main([str(there), str(back), "--model", str(settings)]) == 0
    for name, value in load_arrays(back).items():
        np.testing.assert_array_equal(value, net.state_dict()[name].numpy())


def test_weights_of_other_widths_are_not_taken_for_creams():
    text = "operations: [{kernel: 3, expansion: 4}]\nstages: [" + ", ".join(["{channels: 8}"] * 6) + "]\n"
    for net in (ChildNet(((0,),) * 6, space=MobileSpace(spec_of(text))), MobileSuperNet(MobileSpace(spec_of(text)), 3)):
        with pytest.raises(ConfigError, match="of no net that is known here"):
            find_net("auto", {name: tuple(value.shape) for name, value in net.state_dict().items()})


def test_a_published_net_is_creams_whatever_the_space():
    cfg = load_config(None, [f"SUPERNET.SPACE={SMALL}", "SUPERNET.HOW_TO_PROB=even", "NET.SELECTION=14"])
    assert child_net(cfg)[1].classifier.weight.shape == [1280, 1000]
    assert Config().SUPERNET.SPACE is None


# Draws inside a range


SPACE = SearchSpace(((3, 3), (3, 1, 3)), ((False, True), (False, False, True)), draws_skip=True)
COSTS = CostTable(
    [[[1.0, 2.5, 4.0], [0.7, 1.9, 3.3]], [[2.2, 2.9, 5.1], [1.0], [0.4, 1.3, 2.6]]], fixed=10.0, space=SPACE
)
WEIGHTS = (1, 2, 3, 2)
DRAWS = 40_000


def expected(weights, low, high):
    """Return the share of every path inside the range, by enumeration of all paths."""
    shares = {}
    for path in itertools.product(*(zip(*pair) for pair in zip(SPACE.options, SPACE.distribution(weights)))):
        arch = SPACE.decode([option for option, _ in path])
        if low <= COSTS(arch) <= high:
            shares[arch] = np.prod([share for _, share in path])
    total = sum(shares.values())
    return {arch: share / total for arch, share in shares.items()}


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["even", "weighed"])
@pytest.mark.parametrize(("low", "high"), [(0, 100), (15.5, 16.25), (0, 14.85), (23.5, 30), (18.2, 18.25)])
def test_paths_inside_a_range_are_drawn_as_often_as_their_weights_say(weights, low, high):
    sampler = Sampler(SPACE, COSTS, low, high, "pre_prob" if weights else "even", weights)
    draws = sampler._bounded(sampler.probabilities(None), low, high)
    rng, rows = np.random.default_rng(1), []
    while sum(map(len, rows)) < DRAWS:
        rows.append(draws(rng, DRAWS))
    paths, counts = np.unique(np.concatenate(rows)[:DRAWS], axis=0, return_counts=True)
    wanted = expected(weights, low, high)
    found = {
        SPACE.decode([options[i] for options, i in zip(SPACE.options, path)]): n / DRAWS
        for path, n in zip(paths, counts)
    }
    assert found.keys() <= wanted.keys() and len(wanted) > 1
    for arch, share in wanted.items():  # within five standard deviations
        assert abs(found.get(arch, 0) - share) < 5 * np.sqrt(share / DRAWS) + 1e-12


def test_a_range_that_one_path_in_a_hundred_million_costs_is_drawn_from_at_once():
    space = SearchSpace(((3,) * 20,), ((False,) * 20,))
    rng = np.random.default_rng(0)
    costs = CostTable([rng.uniform(1, 2, (20, 3)).tolist()], fixed=0.0, space=space)
    high = costs.least + 0.01 * (costs.most - costs.least)
    sampler = Sampler(space, costs, 0, high)
    assert sampler._bounded(None, 0, high).chances[0][0] < 1e-8
    drawn = [sampler(rng) for _ in range(20)]
    assert max(map(costs, drawn)) <= high and len(set(drawn)) > 1


def test_the_grid_lets_no_path_of_the_range_go():
    """Each range holds the cost of a single path, whose draw must then be possible."""
    rng, weights = np.random.default_rng(0), SPACE.distribution()
    costs = Sampler(SPACE, COSTS, 0, 100).costs
    for path in itertools.islice(itertools.product(*map(range, map(len, SPACE.options))), 0, None, 7):
        cost = sum(column[i] for column, i in zip(costs, path))
        draws = BoundedDraws(costs, weights, cost - 1e-9, cost + 1e-9)
        assert draws.possible
        found = np.concatenate([draws(rng, 500) for _ in range(4)])
        assert list(path) in found.tolist()


def test_the_ends_of_a_range_belong_to_it():
    arch = ((0, 0), (0, 0, 1))
    sampler = Sampler(SPACE, COSTS, COSTS(arch), COSTS(arch))
    drawn = {sampler(np.random.default_rng(seed)) for seed in range(20)}
    assert arch in drawn and {COSTS(path) for path in drawn} == {COSTS(arch)}


def test_ranges_without_a_path():
    with pytest.raises(
        ConfigError, match=r"no path costs between .*=26.1 .*reaches from 14\.2 to 26\.0; move or widen"
    ):
        Sampler(SPACE, COSTS, 26.1, 30)
    with pytest.raises(ConfigError, match="no path costs between"):  # only operations of weight 0 are cheap enough
        Sampler(SPACE, COSTS, 0, 15, "pre_prob", (0, 0, 1, 0))


def test_a_depth_that_is_skipped_counts_among_the_teachers_frequencies():
    board = PrioritizedBoard(1)
    assert board.choice_frequency(SPACE) is None
    board.add(Entry(((0, SKIP), (2, 0, 2)), 50.0, 1.0, paddle.zeros([1]), paddle.zeros([1])))
    np.testing.assert_allclose(board.choice_frequency(SPACE), [1 / 4, 0, 2 / 4, 1 / 4])
