"""Paths scored together, by operators for images with the channels last, against each path alone by its layers."""

import json

import numpy as np
import paddle
import pytest
import tiny
from paths import ROOT

from cream import build, jobs
from cream.flops import cost_tables
from cream.mobile.nets import MobileSuperNet
from cream.mobile.space import MobileSpace, load_space
from cream.selection import channels_last
from cream.selection.candidates import score
from cream.selection.channels_last import fast_net
from cream.selection.shared_scoring import KeptBatches, score_many, shares_work
from cream.shuffle.nets import ShuffleSuperNet
from cream.space import SKIP
from pimm.errors import DataError, TrainingError
from pimm.layers import BatchNorm2d
from pimm.ops import cpu_backend

BLOCKS = """
stem: 8
head: 24
activation: {activation}
head_type: {head_type}
operations:
  - {{block: ir, kernel: 3, expansion: 2, se: 0.25}}
  - {{block: ds, kernel: 5, se: 0.5}}
  - {{block: er, kernel: 3, expansion: 2, se: 0.25}}
  - {{block: cn, kernel: 3, dilation: 2}}
  - {{block: ru, kernel: 3}}
  - {{block: id}}
stages:
  - {{channels: 12, stride: 2, depth: [1, 2]}}
  - {{channels: 16, stride: 1, depth: 2}}
"""
ENDS = [("swish", "pool_conv"), ("hard_swish", "conv_pool"), ("relu6", "conv_pool")]


class Batches(list):
    """Batches as a loader gives them."""

    def set_epoch(self, epoch):
        """Do nothing: the batches are always the same."""


def batches(seed, number, size=16, images=4, classes=7):
    rng = np.random.default_rng(seed)
    pairs = ((rng.normal(size=(images, 3, size, size)), rng.integers(classes, size=images)) for _ in range(number))
    return Batches((paddle.to_tensor(x.astype(np.float32)), paddle.to_tensor(y)) for x, y in pairs)


def drawn(net):
    """Draw what would hide faults: statistics and weights of batch norms that are 0 and 1, and small weights."""
    rng = np.random.default_rng(5)
    for layer in net.sublayers():
        if isinstance(layer, (paddle.nn.Conv2D, paddle.nn.Linear)):
            shape = layer.weight.shape
            layer.weight.set_value((rng.normal(size=shape) / np.prod(shape[1:]) ** 0.5).astype(np.float32))
        if isinstance(layer, BatchNorm2d):
            for tensor in (layer._mean, layer._variance, layer.weight, layer.bias):
                if tensor is not None:
                    tensor.set_value(rng.uniform(0.5, 1.5, tensor.shape).astype(np.float32))
    return net


def mobile(tmp_path, activation, head_type):
    path = tmp_path / "space.yaml"
    path.write_text(BLOCKS.format(activation=activation, head_type=head_type))
    return MobileSuperNet(load_space(path), num_classes=7)


NETS = {
    **{"-".join(ends): lambda tmp_path, ends=ends: mobile(tmp_path, *ends) for ends in ENDS},
    "creams": lambda tmp_path: MobileSuperNet(load_space(ROOT / "configs/spaces/small.yaml"), num_classes=7),
    "macro": lambda tmp_path: MobileSuperNet(
        load_space(ROOT / "configs/spaces/nas_bench_macro_quarter.yaml"), num_classes=7
    ),
    "shuffle": lambda tmp_path: ShuffleSuperNet(num_classes=7, depths=(2, 1), channels=(24, 32)),
    "slimmable": lambda tmp_path: ShuffleSuperNet(
        num_classes=7, ratios=(0.5, 1, 1.4), depths=(1, 2), channels=(18, 24)
    ),
}


@pytest.fixture(params=NETS)
def net(request, tmp_path):
    paddle.seed(0)
    return drawn(NETS[request.param](tmp_path))


def paths_of(net, number):
    rows = net.space.sample(np.random.default_rng(4), number)
    return list(dict.fromkeys(net.space.decode(row) for row in rows))


@pytest.mark.parametrize("recalibration", [0, 2], ids=["as it is", "recalibrated"])
def test_scores_are_those_of_each_path_alone(net, recalibration):
    archs, tables = paths_of(net, 5), cost_tables(net, 16)
    images = batches(0, 2), batches(1, 2)
    before = {name: value.numpy().copy() for name, value in net.state_dict().items()}
    alone = score(net, archs, tables, *images, recalibration, by="loss", engine="eager")
    assert cpu_backend() != "paddle" and fast_net(net, []) is not None
    together = score(net, archs, tables, *images, recalibration, by="loss", engine="auto")
    assert [one.arch for one in together] == [one.arch for one in alone]
    for one, other in zip(together, alone):
        assert one.loss == pytest.approx(other.loss, rel=1e-5)
        assert (one.prec1, one.prec5, one.mflops) == pytest.approx((other.prec1, other.prec5, other.mflops))
    assert len({one.loss for one in alone}) > 1
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[name], err_msg=name)


def test_every_operation_of_the_mobile_family_is_among_the_paths_above(tmp_path):
    net = mobile(tmp_path, *ENDS[0])
    chosen = {choice for arch in paths_of(net, 5) for stage in arch for choice in stage}
    assert chosen >= set(range(6))


class Doubled(MobileSuperNet):
    """A supernet with a head of its own, which the fast blocks know nothing of."""

    def head(self, x):
        """Compute twice the logits."""
        return 2 * super().head(x)


def test_another_net_is_run_by_its_own_layers(tmp_path):
    plain = mobile(tmp_path, *ENDS[0])
    net = Doubled(plain.space, num_classes=7)
    assert isinstance(plain.space, MobileSpace) and fast_net(net, []) is None
    archs, images = paths_of(net, 3), (batches(0, 2), batches(1, 1))
    alone = {one.arch: one.loss for one in score(net, archs, cost_tables(net, 16), *images, 2, engine="eager")}
    found = [one["loss"] for one in score_many(net, archs, *images, 2)]
    assert found == pytest.approx([alone[arch] for arch in archs], rel=1e-6)
    hook = plain.classifier.register_forward_post_hook(lambda layer, x, y: 2 * y)
    assert fast_net(plain, []) is None
    hook.remove()
    assert fast_net(plain, []) is not None


@pytest.mark.parametrize("place", ["head", "a block", "the class of a block"])
def test_functions_that_were_replaced_are_run(place, tmp_path, monkeypatch):
    net = mobile(tmp_path, *ENDS[0])
    assert fast_net(net, []) is not None
    block = net.blocks[0][0][0]
    owner, name = {"head": (net, "head"), "a block": (block, "forward")}.get(place, (type(block), "forward"))
    replaced = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *inputs: 2 * replaced(*inputs))
    assert fast_net(net, []) is None


def test_without_our_operators_the_nets_layers_run(tmp_path, monkeypatch):
    net, images = mobile(tmp_path, *ENDS[0]), (batches(0, 2), batches(1, 1))
    archs = paths_of(net, 3)
    fast = score_many(net, archs, *images, 2)
    monkeypatch.setattr(channels_last, "cpu_backend", lambda: "paddle")
    assert fast_net(net, []) is None
    for one, other in zip(score_many(net, archs, *images, 2), fast):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)


def test_a_single_value_a_channel_has_no_variance(tmp_path):
    net = ShuffleSuperNet(num_classes=7, depths=(1, 1, 1), channels=(24, 32, 48))
    single = batches(0, 1, images=1)
    for engine in ("eager", "auto"):
        with pytest.raises(TrainingError, match="batch norm needs more than one value a channel"):
            score(net, paths_of(net, 1), cost_tables(net, 16), single, single, 1, engine=engine)


def test_fast_beginnings_are_run_once(tmp_path, monkeypatch):
    net, images = mobile(tmp_path, *ENDS[1]), (batches(0, 1), batches(1, 1))
    runs, plain = [], channels_last.Unit.__call__
    counted = lambda self, *args, **options: runs.append(self) or plain(self, *args, **options)  # noqa: E731
    monkeypatch.setattr(channels_last.Unit, "__call__", counted)

    def number(*archs):
        runs.clear()
        score_many(net, archs, *images, 1)
        return len(runs)

    one, other, beginning = ((0, 1), (2, 3)), ((0, 1), (2, 4)), ((0, SKIP), (2, 3))
    # In each of two batches: stem 1, head 1, and 5, 4, 4, 1 and 3 convolutions of the operations 0, 1, 2, 3 and 4
    assert number(one) == 2 * (2 + 5 + 4 + 4 + 1) and number(other) == 2 * (2 + 5 + 4 + 4 + 3)
    assert number(one, other) == 2 * (1 + 5 + 4 + 4 + (1 + 1) + (3 + 1))
    assert number(one, beginning) == 2 * (1 + 5 + (4 + 4 + 1 + 1) + (4 + 1 + 1))


# Images


class Counted(Batches):
    """Batches that count the passes over them."""

    passes = 0

    def __iter__(self):
        self.passes += 1
        return super().__iter__()


def test_images_are_decoded_once_if_they_fit():
    loader = Counted(batches(0, 3))
    kept = KeptBatches(loader)
    for _ in range(2):
        assert all(a is b for (a, _), (b, _) in zip(kept, list(loader)[:]))
    assert loader.passes == 3  # one of the two passes, and those of the comparison
    few = KeptBatches(Counted(batches(0, 3)), first=2)
    assert len(list(few)) == len(list(few)) == 2 and few.loader.passes == 1
    large = KeptBatches(Counted(batches(0, 3)), most=3 * 4 * 3 * 16 * 16 * 4 - 1)
    assert len(list(large)) == len(list(large)) == 3 and large.loader.passes == 2
    broken = KeptBatches(Counted(batches(0, 3)))
    next(iter(broken))
    assert len(list(broken)) == 3  # a pass that was left is none


def test_no_images_are_told(tmp_path):
    net = mobile(tmp_path, *ENDS[0])
    for engine in ("eager", "auto"):
        with pytest.raises(DataError, match="no images"):
            score(net, paths_of(net, 1), cost_tables(net, 16), batches(0, 1), [], 1, engine=engine)


# The jobs


def test_the_setting_chooses_how_a_selection_scores(searched):
    found = {}
    for engine in ("eager", "auto"):
        recorded, cfg = build.settings_of_search(searched, [f"ENGINE={engine}"])
        trained, _ = build.trained_search(searched, recorded)
        selection = build.selection_of(cfg, trained)
        assert shares_work(trained.net, selection.engine) == (engine == "auto")
        archs = selection.paths_to_score(None)
        found[engine] = [selection.score(archs), selection.score(archs[1:])]
    for eager, auto in zip(*found.values()):
        assert [one.arch for one in eager] == [one.arch for one in auto]
        assert [one.loss for one in auto] == pytest.approx([one.loss for one in eager], rel=1e-5)


def test_an_evolution_is_the_same_with_either_engine_and_resumes_with_the_other(searched, tmp_path):
    numbers = [f"EVOLUTION.{name}" for name in ("POPULATION=4", "TOP=2", "CROSSOVER=1", "MUTATION=2")]
    states = {}
    with tiny.without_report():
        for output, generations, engine in (("auto", 2, "auto"), ("mixed", 1, "eager"), ("mixed", 2, "auto")):
            jobs.evolve(
                searched, [*numbers, f"EVOLUTION.GENERATIONS={generations}", f"ENGINE={engine}"], tmp_path / output
            )
            states[output, generations] = json.loads((tmp_path / output / "evolution.json").read_text())["state"]
    whole, begun, resumed = states.values()
    assert begun["generations"] == whole["generations"][:1] and len(whole["generations"]) == 2
    assert resumed["generations"] == whole["generations"] and list(resumed["scores"]) == list(whole["scores"])
    for arch, metrics in whole["scores"].items():
        assert resumed["scores"][arch] == pytest.approx(metrics, rel=1e-5)
        assert begun["scores"].get(arch, resumed["scores"][arch]) == resumed["scores"][arch]
