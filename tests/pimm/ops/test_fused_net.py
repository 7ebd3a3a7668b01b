"""Small nets as one operator: the same logits as the nets, for every instruction set; other nets are refused."""

import re

import numpy as np
import paddle
import pytest
from exports import awakened
from paddle import nn
from paddle.nn import functional as F

import pimm
from pimm.engine import fused_net, inference, open_engine, program_cache
from pimm.engine.fold import fold_batch_norms
from pimm.engine.fused_net import FusedNet, Unsupported
from pimm.engine.program import PaddleNet, save_program
from pimm.layers import BatchNorm2d, Conv2d, hard_sigmoid
from pimm.ops import cpu_backend
from pimm.ops.backend import run_operator
from pimm.ops.channels_last import ACTS, PANEL, pack, pack_depthwise

NETS = ("cream_14", "mobilenetv3_small_050", "mobilenetv2_100", "efficientnet_lite0", "mnasnet_050")


class Odd(nn.Layer):
    """Has what the nets of pimm rarely have: uneven sizes, and gates, sums and means in unusual places."""

    def __init__(self, classes=7):
        super().__init__()
        self.stem, self.norm = Conv2d(3, 21, (3, 5), (2, 1), (1, 0, 3, 2)), BatchNorm2d(21)
        self.depthwise = Conv2d(21, 21, 3, 1, 2, dilation=2, groups=21)
        self.gate = Conv2d(21, 21, 1)
        self.wide = Conv2d(21, 40, 3, 2, 1)
        self.first, self.second = Conv2d(40, 40, 1), Conv2d(40, 40, 5, 1, 2, bias=False)
        self.head, self.classifier = nn.Linear(40, 19), nn.Linear(19, classes)

    def forward(self, x):
        x = F.hardswish(self.norm(self.stem(x)))
        y = F.relu6(self.depthwise(x))
        y = y * hard_sigmoid(self.gate(y.mean([2, 3], keepdim=True)))  # before a convolution of more than one pixel
        x = F.silu(self.wide(y))
        y = F.relu(self.first(x) + x)
        x = self.second(y) + self.first(x)
        x = F.adaptive_avg_pool2d(x * hard_sigmoid(self.first(F.adaptive_avg_pool2d(x, 1))), 1)
        return self.classifier(F.swish(self.head(x.flatten(1))))


class Plain(nn.Layer):
    """Ends a convolution of 24 channels, whose shift is the classifier's, by what a test asks for."""

    def __init__(self, end):
        super().__init__()
        self.conv, self.classifier, self.end = Conv2d(3, 24, 3, 2, 1), nn.Linear(24, 5), end

    def forward(self, x):
        return self.classifier(self.end(self.conv(x)).mean([2, 3]))


class Twice(Plain):
    """Uses the output of a convolution as it is, and again in another shape."""

    def forward(self, x):
        x = self.conv(x.mean([2, 3], keepdim=True))
        return self.classifier(F.relu(x.flatten(1)) + x.flatten(1))


class Shifted(Plain):
    """Has a term of its own, 24 numbers, for its end."""

    def __init__(self, end):
        super().__init__(end)
        self.term = self.create_parameter([24], default_initializer=nn.initializer.Normal())

    def forward(self, x):
        return self.classifier(self.end(self.conv(x), self.term).mean([2, 3]))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache of programs."""
    monkeypatch.setattr(program_cache, "cache_folder", lambda: tmp_path)
    with paddle.no_grad():
        yield


def images_of(count, *size):
    return paddle.to_tensor(np.random.default_rng(count).standard_normal((count, 3, *size)).astype("float32"))


def saved(net, size, folder):
    save_program(fold_batch_norms(net, images_of(1, *size)), [None, 3, *size], folder, convert=False)
    return folder


def assert_same(found, expected):
    expected = expected.numpy()
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", NETS)
def test_logits_are_those_of_the_net(name, tmp_path):
    """For one image, and for more than one thread takes at a time."""
    paddle.seed(0)
    net = awakened(pimm.create_model(name, num_classes=11))
    program = FusedNet(saved(net, (40, 48), tmp_path))
    for count in (1, 3, 70):
        images = images_of(count, 40, 48)
        assert_same(program.logits(images), net(images))


@pytest.mark.usefixtures("instruction_set")
def test_an_odd_net(tmp_path):
    paddle.seed(0)
    net = awakened(Odd())
    program = FusedNet(saved(net, (13, 18), tmp_path))
    for count in (1, 19):
        images = images_of(count, 13, 18)
        assert_same(program.logits(images), net(images))
        assert_same(program.logits(images.transpose([0, 1, 3, 2]).contiguous().transpose([0, 1, 3, 2])), net(images))


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (lambda x: F.max_pool2d(x, 2), "pool"),
        (F.sigmoid, "sigmoid"),
        (lambda x: F.hardsigmoid(x, slope=0.2), "hard sigmoid"),
        (lambda x: F.relu(x) * 2, "pd_op.scale$"),
        (lambda x: F.relu(F.relu(x)), "activation"),
        (lambda x: F.relu(x + x.mean([2, 3], keepdim=True)), "a sum"),
        (lambda x: x.transpose([0, 1, 3, 2]), "transpose"),
        (lambda x: F.relu(x).flatten(2).reshape([-1, 24, 2, 8]), "shape"),
        (lambda x: F.relu(x).mean([2, 3]).reshape([-1, 6, 2, 2]).reshape([-1, 24, 1, 1]), "shape"),
        (lambda x: F.relu(x).mean(3, keepdim=True), "a pooling"),
        (lambda x: F.dropout(x, 0.5, training=False, mode="downscale_in_infer"), "a dropout"),
    ],
)
def test_what_the_operator_lacks_is_run_by_paddle(end, reason, tmp_path):
    paddle.seed(0)
    net = awakened(Plain(end))
    with pytest.raises(Unsupported, match=reason):
        FusedNet(saved(net, (8, 8), tmp_path))
    engine = open_engine(net, (3, 8, 8), "inference")
    assert isinstance(engine.program, PaddleNet)
    images = images_of(3, 8, 8)
    assert_same(engine(images), net(images))


@pytest.mark.parametrize(
    "end",
    [
        lambda x, term: F.relu(x + term.reshape([1, 24, 1, 1])),
        lambda x, term: F.relu(term.reshape([1, 24, 1, 1]) + x),
        lambda x, term: F.relu(x + term.reshape([0, 1, 1])),
        lambda x, _: F.relu(x).mean([-1, -2], keepdim=True),
        lambda x, _: F.dropout(F.relu(x), 0.5, training=False),
        lambda x, _: F.adaptive_avg_pool2d(F.relu(F.dropout2d(x, 0.5, training=False)), 1),
    ],
)
def test_what_the_operator_has_in_another_form(end, tmp_path):
    paddle.seed(0)
    net = awakened(Shifted(end))
    program = FusedNet(saved(net, (8, 8), tmp_path))
    assert_same(program.logits(images_of(3, 8, 8)), net(images_of(3, 8, 8)))


@pytest.mark.parametrize("shape", [[24], [1, 24], [24, 1], [1, 24, 1]])
def test_a_constant_for_places_is_none_for_channels(shape, tmp_path):
    """A convolution of 24 channels of 24 x 24 pixels."""
    paddle.seed(0)
    net = awakened(Shifted(lambda x, term: F.relu(x + term.reshape(shape))))
    with pytest.raises(Unsupported, match="a sum with a constant"):
        FusedNet(saved(net, (48, 48), tmp_path))
    assert_same(open_engine(net, (3, 48, 48), "inference")(images_of(3, 48, 48)), net(images_of(3, 48, 48)))


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (lambda x: x, "the last layer"),
        (lambda x: F.adaptive_avg_pool2d(x, 1, data_format="NHWC"), "a pooling"),
        (lambda x: paddle.matmul(x.flatten(1), x.flatten(1), transpose_y=True), "in place of a constant"),
    ],
)
def test_programs_of_which_paddle_has_none_are_refused(end, reason, tmp_path):
    net = Plain(end)
    net.forward = lambda x: end(x).flatten(1)
    with pytest.raises(Unsupported, match=reason):
        FusedNet(saved(net, (1, 1), tmp_path))


def test_dropout_leaves_a_small_net_to_the_operator():
    paddle.seed(0)
    net = awakened(pimm.create_model("cream_14", num_classes=11, drop_rate=0.2, drop_path_rate=0.1))
    engine = open_engine(net, (3, 40, 48), "inference")
    assert isinstance(engine.program, FusedNet)
    assert_same(engine(images_of(3, 40, 48)), net(images_of(3, 40, 48)))


def other_logits(self, images):
    return paddle.full([len(images), 5], 0.5)


def failing(*args):
    raise ValueError("pimm_net: fails")


@pytest.mark.parametrize(("name", "change"), [("logits", other_logits), ("logits", failing), ("__init__", failing)])
def test_where_the_operator_fails_paddle_runs_the_program(name, change, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(FusedNet, name, change)
    paddle.seed(0)
    net = awakened(Plain(F.relu))
    for _ in "made", "kept":
        engine = open_engine(net, (3, 8, 8))
        assert isinstance(engine.program, PaddleNet) and "Paddle Inference" in caplog.messages[-1]
        assert_same(engine(images_of(3, 8, 8)), net(images_of(3, 8, 8)))
    monkeypatch.setattr(PaddleNet, "logits", other_logits)
    assert open_engine(net, (3, 8, 8)) is net and "a logit differs" in caplog.messages[-1]


def test_a_net_that_is_open_keeps_its_instruction_set(monkeypatch):
    net = awakened(Plain(F.relu))
    engine = open_engine(net, (3, 8, 8), "inference")
    monkeypatch.setenv("PIMM_CPU_OPS", "paddle")
    assert_same(engine(images_of(3, 8, 8)), net(images_of(3, 8, 8)))


def test_a_value_of_two_shapes_is_not_changed_in_its_place():
    net = awakened(Twice(None))
    engine = open_engine(net, (3, 8, 8), "inference")
    assert_same(engine(images_of(3, 8, 8)), net(images_of(3, 8, 8)))


def test_only_small_nets_are_run_by_the_operator(monkeypatch, caplog):
    """The limit counts multiply-adds of convolutions and of the classifier: 24 filters of 27 weights, 16 pixels."""
    net = awakened(Plain(F.relu))
    caplog.set_level("INFO")
    for limit, kind, runner in (
        (24 * 27 * 16 + 120, FusedNet, "small nets"),
        (24 * 27 * 16 + 119, PaddleNet, "Paddle Inference"),
    ):
        caplog.clear()
        monkeypatch.setattr(fused_net, "MOST_WORK", limit)
        assert isinstance(open_engine(net, (3, 8, 8), "inference").program, kind)
        assert re.fullmatch(f"the net is evaluated by .*{runner}.* in fp32", caplog.messages[-1])


@pytest.mark.parametrize(
    "act, spare, threads, instruction_set, kind",
    [
        (F.swish, 0, 16, "avx2", FusedNet),
        (F.swish, -1, 16, "avx2", PaddleNet),
        (F.swish, 0, 17, "avx2", PaddleNet),
        (F.swish, 0, 16, "portable", PaddleNet),
        (F.relu, 0, 16, "avx2", PaddleNet),
    ],
    indirect=["instruction_set"],
)
@pytest.mark.usefixtures("instruction_set")
def test_larger_nets_with_swish_are_run_by_the_operator_where_it_pays(act, spare, threads, kind, monkeypatch):
    monkeypatch.setattr(fused_net, "MOST_WORK", 1)
    monkeypatch.setattr(fused_net, "MOST_WORK_SWISH", 24 * 27 * 16 + 120 + spare)  # as above
    monkeypatch.setattr(fused_net, "thread_count", lambda: threads)
    assert isinstance(open_engine(awakened(Plain(act)), (3, 8, 8), "inference").program, kind)


def test_without_operators_paddle_runs_all(monkeypatch):
    monkeypatch.setenv("PIMM_CPU_OPS", "paddle")
    assert isinstance(open_engine(awakened(Plain(F.relu)), (3, 8, 8), "inference").program, PaddleNet)


def test_a_net_without_the_fold_of_its_batch_norms_is_run_by_paddle(monkeypatch):
    net = awakened(nn.Sequential(Conv2d(3, 8, 3), BatchNorm2d(8), nn.AdaptiveAvgPool2D(1), nn.Flatten()))
    monkeypatch.setattr(inference, "fold_batch_norms", lambda net, images: net)
    engine = open_engine(net, (3, 8, 8), "inference")
    assert isinstance(engine.program, PaddleNet)
    assert_same(engine(images_of(2, 8, 8)), net(images_of(2, 8, 8)))


@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(1, 2, 1), (2, 1, 2), (3, (1, 2), 1), (5, 3, 1)])
def test_same_padding_is_that_of_paddle(kernel, stride, dilation, tmp_path):
    paddle.seed(0)
    net = awakened(Plain(lambda x: F.relu(x)))
    net.conv = nn.Sequential(
        nn.Conv2D(3, 24, kernel, stride, "SAME", dilation), nn.Conv2D(24, 24, kernel, stride, "SAME", groups=24)
    )
    program = FusedNet(saved(net, (23, 30), tmp_path))
    assert_same(program.logits(images_of(3, 23, 30)), net(images_of(3, 23, 30)))


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("channels", [2, 3, 7, 9, 15, 17, 28, 33, 65])
def test_depthwise_channels_that_fill_no_vector(channels):
    """The operator's sums are those of Paddle, for a shortcut and an activation too."""
    draw = np.random.default_rng(channels)
    x = paddle.to_tensor(draw.standard_normal((2, channels, 6, 7)).astype("float32"))
    weight = paddle.to_tensor(draw.standard_normal((channels, 1, 3, 5)).astype("float32"))
    shift = paddle.to_tensor(np.pad(draw.standard_normal(channels), (0, -channels % PANEL)).astype("float32"))
    identity = pack(paddle.eye(channels).reshape([channels, channels, 1, 1]))
    weights = [identity, paddle.zeros_like(shift), pack_depthwise(weight), shift]
    point = [channels, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1]
    steps = [0, 0, -1, -1, 0, 1, 0, *point]  # another value than the images, for the shortcut
    steps += [1, 1, -1, 0, 2, 3, ACTS.index("relu"), channels, 3, 5, 1, 1, 1, 1, 2, 2, 1, 1]
    steps += [2, 2, -1, -1, -1, -1, 0, *point]
    found = run_operator("pimm_net", (x, weights), steps, cpu_backend())[0]
    sums = F.conv2d(x, weight, shift[:channels], 1, [1, 2], groups=channels)
    assert_same(found, F.relu(sums + x).mean([2, 3]))


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("count", [1, 2, 7, 70])
def test_values_last_for_steps_of_more_images(count):
    """The first two steps take one image at a time, the third three, the last all, with the value of the first."""
    draw = np.random.default_rng(count)
    x, wide, last, shift = (
        paddle.to_tensor(draw.standard_normal(shape).astype("float32"))
        for shape in ((count, 16, 48, 48), (16, 16, 3, 3), (16, 16, 1, 1), (16,))
    )
    mean = [16, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1]
    steps = [2, 0, -1, -1, -1, -1, 0, *mean]
    steps += [0, 0, -1, -1, 0, 1, ACTS.index("relu"), 16, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1]
    steps += [2, 2, -1, -1, -1, -1, 0, *mean]
    steps += [0, 3, -1, 1, 2, 1, 0, *mean]
    found = run_operator("pimm_net", (x, [pack(wide), shift, pack(last)]), steps, cpu_backend())[0]
    maps = F.relu(F.conv2d(x, wide, shift, padding=1)).mean([2, 3], keepdim=True)
    assert_same(found, F.conv2d(maps, last, shift).flatten(1) + x.mean([2, 3]))


STEP = [0, 0, -1, -1, 0, 1, 0, 5, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1]  # a convolution to 5 channels that keeps the size
MEAN = [2, 1, -1, -1, -1, -1, 0, 5, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1]


def changed(step, **places):
    """Return a step with other numbers."""
    order = ("kind", "source", "gate", "shortcut", "weight", "shift", "act", "outs", "height", "width", "stride")
    step = list(step)
    for name, value in places.items():
        step[order.index(name)] = value
    return step


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        ([], "whole"),
        (STEP[:-1], "whole"),
        (changed(STEP, kind=4) + MEAN, "kind of step 4"),
        (changed(STEP, source=1) + MEAN, "no value 1"),
        (changed(STEP, source=-1) + MEAN, "no value -1"),
        (changed(STEP, weight=2) + MEAN, "no weight 2"),
        (changed(STEP, weight=1) + MEAN, "shape"),
        (changed(STEP, shift=-1) + MEAN, "no weight -1"),
        (changed(STEP, shift=0) + MEAN, "shape"),
        (changed(STEP, act=6) + MEAN, "activation 6"),
        (changed(STEP, outs=17) + MEAN, "shape"),
        (changed(STEP, stride=0) + MEAN, "stride"),
        (changed(STEP, shortcut=0) + MEAN, "shape"),
        (changed(STEP, gate=0) + MEAN, "shape"),
        (STEP[:12] + [1 << 20] * 4 + [1, 1] + MEAN, "too large"),
        (STEP, "logits"),
        (STEP + changed(MEAN, outs=4), "channels"),
        (STEP + MEAN + changed(MEAN, kind=3, source=2), "gate"),
        (STEP + MEAN + changed(STEP, source=1, gate=2), "one pixel"),
    ],
)
def test_the_operator_refuses_wrong_steps(steps, reason):
    weights = [paddle.zeros([1, 9, 3, 16]), paddle.zeros([16])]
    with pytest.raises(ValueError, match=reason):
        run_operator("pimm_net", (images_of(2, 6, 6), weights), list(steps), cpu_backend())


def test_the_operator_refuses_other_types():
    weights = [paddle.zeros([1, 9, 3, 16]), paddle.zeros([16])]
    with pytest.raises(ValueError, match="float32"):
        run_operator("pimm_net", (images_of(2, 6, 6).astype("float64"), weights), STEP + MEAN, cpu_backend())
    out = run_operator("pimm_net", (images_of(2, 6, 6), weights), STEP + MEAN, cpu_backend())[0]
    assert out.shape == [2, 5] and not out.numpy().any()
