"""Parameter groups: which weights decay, how fast layers learn, and what a group may say for itself."""

import types

import numpy as np
import paddle
import pytest
from optim_problem import Problem, parameter

from pimm.errors import ConfigError
from pimm.models import create_model, model_parameters
from pimm.optim import (
    OPTIMIZERS,
    OptimInfo,
    auto_group_layers,
    create_optimizer,
    create_optimizer_v2,
    get_optimizer_class,
    get_optimizer_info,
    group_lrs,
    group_parameters,
    group_with_matcher,
    list_optimizers,
    optimizer_kwargs,
    param_groups_layer_decay,
    param_groups_weight_decay,
)
from pimm.optim.optim_factory import add_weight_decay


def named(net, groups):
    """The groups with names for parameters."""
    names = {param.name: name for name, param in net.named_parameters()}
    return [{**group, "params": {names[param.name] for param in group["params"]}} for group in groups]


ONE_D = {"fc1.bias", "norm.weight", "fc2.bias"}
MATRICES = {"fc1.weight", "fc2.weight", "conv.weight", "big.weight"}


@pytest.mark.parametrize(
    "options, exempt",
    [
        ({}, ONE_D),
        ({"no_weight_decay_list": ("big.weight",)}, {*ONE_D, "big.weight"}),
        ({"no_weight_decay_list": {"fc?.weight"}}, {*ONE_D, "fc1.weight", "fc2.weight"}),
        (
            {"no_weight_decay_list": ["conv*", "norm.*"], "weight_decay_exclude_1d": False},
            {"conv.weight", "norm.weight"},
        ),
        ({"weight_decay": 0.0}, ONE_D | MATRICES),
        ({"weight_decay_exclude_1d": False}, set()),
    ],
)
def test_which_weights_decay(options, exempt):
    net = Problem()
    found = named(net, param_groups_weight_decay(net, **{"weight_decay": 0.1, **options}))
    expected = [
        {"params": exempt, "weight_decay": 0.0},
        {"params": (ONE_D | MATRICES) - exempt, "weight_decay": 0.1},
    ]
    assert found == [group for group in expected if group["params"]]


def test_the_old_name_of_the_groups():
    net = Problem()
    groups = named(net, add_weight_decay(net, 0.1, skip_list=("big.weight",)))
    assert [group["params"] for group in groups] == [{*ONE_D, "big.weight"}, MATRICES - {"big.weight"}]
    assert groups[0]["weight_decay"] == 0.0 and groups[1]["weight_decay"] == 0.1


def test_frozen_weights_are_in_no_group():
    net = Problem()
    net.fc2.weight.stop_gradient = True
    groups = named(net, param_groups_weight_decay(net, 0.1))
    assert groups == [
        {"params": ONE_D, "weight_decay": 0.0},
        {"params": MATRICES - {"fc2.weight"}, "weight_decay": 0.1},
    ]


def test_the_fallback_of_hybrid_optimizers_has_groups_of_its_own():
    net = Problem()
    options = {"no_weight_decay_list": ("fc2.*",), "fallback_no_weight_decay": True, "fallback_list": ("b*",)}
    assert named(net, param_groups_weight_decay(net, 0.1, **options)) == [
        {"params": {"fc1.bias", "norm.weight"}, "weight_decay": 0.0},
        {"params": {"fc1.weight", "conv.weight"}, "weight_decay": 0.1},
        {"params": {"fc2.weight", "fc2.bias"}, "weight_decay": 0.0, "use_fallback": True},
        {"params": {"big.weight"}, "weight_decay": 0.1, "use_fallback": True},
    ]
    muon = create_optimizer_v2(net, "muon", weight_decay=0.1, fallback_list=("b*",))
    assert [group["use_fallback"] for group in muon.param_groups] == [False, False, True]
    with pytest.raises(ConfigError, match="no 'use_fallback'"):
        create_optimizer_v2(net, "adamw", weight_decay=0.1, fallback_list=("b*",))


def test_a_net_names_what_does_not_decay_and_a_function_may_group_it():
    net = Problem()
    net.no_weight_decay = lambda: {"conv.*"}
    optimizer = create_optimizer_v2(net, "lion", weight_decay=0.1)
    assert [len(group["params"]) for group in optimizer.param_groups] == [4, 3]
    optimizer = create_optimizer_v2(
        net, "lion", weight_decay=0.1, param_group_fn=lambda net: [{"params": [net.big.weight], "lr": 0.5}]
    )
    (group,) = optimizer.param_groups
    assert (group["lr"], group["weight_decay"]) == (0.5, 0.1)


LAYERS = {  # of the net's layers, and of those with stages in one: depth of stem, last block, head and classifier
    "efficientnet_b0": ((0, 16, 16, 17), (0, 7, 7, 8)),
    "mobilenetv3_small_075": ((0, 12, 13, 13), (0, 6, 7, 7)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_of_the_mobile_nets(name):
    net = create_model(name)
    names = [name for name, _ in net.named_parameters()]
    last_block = [name for name in names if name.startswith("blocks.")][-1]
    for coarse, expected in zip((False, True), LAYERS[name]):
        layers = group_parameters(net, net.group_matcher(coarse=coarse), reverse=True)
        ends = ("conv_stem.weight", last_block, "conv_head.weight", "classifier.weight")
        assert tuple(layers[name] for name in ends) == expected
        assert layers["bn1.bias"] == 0 and layers["blocks.1.0.conv_pw.weight"] == 2
        assert set(layers) == set(names)


def test_matchers():
    names = ["stem.a", "layers.2.x", "layers.0.x", "layers.10.x", "norm.w", "head.w", "pos"]
    matcher = {"stem": r"^stem|^pos", "layers": [(r"^layers\.(\d+)", None), (r"^norm", (99999,))]}
    objects = [(name, name.upper()) for name in names]
    assert group_with_matcher(objects, matcher) == {
        0: ["stem.a", "pos"],
        1: ["layers.0.x"],
        2: ["layers.2.x"],
        3: ["layers.10.x", "norm.w"],
        4: ["head.w"],
    }
    by_function = group_with_matcher(objects, lambda name: None if name == "pos" else len(name), return_values=True)
    assert by_function == {
        0: ["STEM.A", "NORM.W", "HEAD.W"],
        1: ["LAYERS.2.X", "LAYERS.0.X"],
        2: ["LAYERS.10.X"],
    }


def layered():
    """A net of three layers: fc1 and norm; fc2 and conv; big."""
    net = Problem()
    net.group_matcher = lambda coarse: {"stem": "fc1|norm", "body": [(r"fc(\d)", None), ("conv", (99999,))]}
    return net


def test_layer_decay():
    net = layered()
    groups = param_groups_layer_decay(
        net, 0.1, no_weight_decay_list=("big*",), layer_decay=0.5, min_scale=0.3, fallback_list=("fc2.w*",)
    )
    assert named(net, groups) == [
        {"params": {"fc1.weight"}, "weight_decay": 0.1, "lr_scale": 0.3},
        {"params": {"fc1.bias", "norm.weight"}, "weight_decay": 0.0, "lr_scale": 0.3},
        {"params": {"fc2.weight"}, "weight_decay": 0.1, "lr_scale": 0.5, "use_fallback": True},
        {"params": {"fc2.bias"}, "weight_decay": 0.0, "lr_scale": 0.5},
        {"params": {"conv.weight"}, "weight_decay": 0.1, "lr_scale": 0.5},
        {"params": {"big.weight"}, "weight_decay": 0.0, "lr_scale": 1.0},
    ]


def test_layers_too_slow_to_learn_are_frozen():
    net = layered()
    optimizer = create_optimizer_v2(
        net, "lookahead_adamw", lr=0.1, weight_decay=0.1, layer_decay=0.5, layer_decay_no_opt_scale=0.3
    )
    assert {name for name, param in net.named.items() if param.stop_gradient} == {
        "fc1.weight",
        "fc1.bias",
        "norm.weight",
    }
    assert group_lrs(optimizer) == [0.05, 0.05, 0.1]
    optimizer.set_lr(0.02)
    assert group_lrs(optimizer) == [0.01, 0.01, 0.02]


def test_a_net_without_a_matcher_is_cut_into_slices(caplog):
    net = Problem()
    assert set(auto_group_layers(net).values()) == {0}
    param_groups_layer_decay(net)
    assert "layer decay has no effect" in caplog.text
    net.default_cfg = {"classifier": "big"}
    assert list(auto_group_layers(net, layers_per_group=2).values()) == [0, 0, 1, 1, 2, 2, 3]
    assert list(auto_group_layers(net, num_groups=2).values()) == [0, 0, 0, 1, 1, 1, 2]
    net.default_cfg = {"classifier": ("big", "conv")}
    assert list(auto_group_layers(net, 4).values()) == [0, 0, 0, 0, 1, 2, 2]
    assert [group["lr_scale"] for group in param_groups_layer_decay(net, layer_decay=0.5)] == [0.5, 0.5, 1.0]


@pytest.mark.parametrize("opt", ["momentum", "rmsprop", "radamw"])
def test_groups_have_their_own_rate_and_decay(opt):
    """A decayed weight without a gradient of its own, at two rates and two decays."""

    def moved(group):
        param = parameter(np.array([2.0]))
        optimizer = create_optimizer_v2([{"params": [param], **group}], opt, lr=0.1, weight_decay=0.5, momentum=0.0)
        (param * 3.0).sum().backward()
        optimizer.step()
        assert optimizer.param_groups[0]["lr"] == pytest.approx(group_lrs(optimizer)[0])
        return 2.0 - param.item()

    change = {
        "momentum": lambda lr, decay: lr * (3.0 + 2.0 * decay),
        "rmsprop": lambda lr, decay: lr / np.sqrt(0.1),
        "radamw": lambda lr, decay: lr * (2.0 * decay + 3.0),
    }[opt]
    assert moved({}) == pytest.approx(change(0.1, 0.5), rel=1e-6)
    assert moved({"lr": 0.02}) == pytest.approx(change(0.02, 0.5), rel=1e-6)
    assert moved({"lr_scale": 0.5, "weight_decay": 0.0}) == pytest.approx(change(0.05, 0.0), rel=1e-6)
    assert moved({"learning_rate": 0.5, "lr": 0.2}) == pytest.approx(change(0.1, 0.5), rel=1e-6)


OWN = {  # hyperparameters of kernels and of rules
    "momentum": {"momentum": 0.5, "nesterov": True},
    "adam": {"betas": (0.5, 0.6), "eps": 0.1},
    "adamw": {"betas": (0.5, 0.6), "eps": 0.1},
    "nadam": {"betas": (0.5, 0.6), "schedule_decay": 0.1},
    "radamw": {"decoupled_weight_decay": False},
    "rmsproptf": {"alpha": 0.5, "momentum": 0.3, "decoupled_decay": True},
    "adagrad": {"eps": 0.1},
    "adadelta": {"rho": 0.5},
    "lars": {"trust_coeff": 0.1, "trust_clip": True, "always_adapt": True},
    "sgdw": {"momentum": 0.0, "nesterov": False},
    "adabelief": {"amsgrad": True, "rectify": True},
    "adafactor": {"betas": (0.5, 0.9), "min_dim_size_to_factor": 2},
}


@pytest.mark.parametrize("opt", OWN)
def test_groups_have_their_own_hyperparameters(opt):
    """Two weights in two groups learn as each does alone, with the hyperparameters for the whole optimizer."""
    rng = np.random.default_rng(0)
    values, flow = rng.standard_normal((2, 4, 4)), rng.standard_normal((5, 4, 4))

    def learn(groups, **options):
        optimizer = create_optimizer_v2(groups, opt, lr=0.1, weight_decay=0.2, **options)
        params = [group["params"][0] for group in groups]
        for grad in flow:
            for param in params:
                param.grad = paddle.to_tensor(grad)
            optimizer.step()
        return [param.numpy() for param in params]

    together = learn([{"params": [parameter(values[0])]}, {"params": [parameter(values[1])], **OWN[opt]}])
    alone = [*learn([{"params": [parameter(values[0])]}]), *learn([{"params": [parameter(values[1])]}], **OWN[opt])]
    np.testing.assert_array_equal(together, alone)
    assert not np.allclose(together[1], learn([{"params": [parameter(values[1])]}])[0], atol=1e-4)


@pytest.mark.parametrize(
    "group, message",
    [
        ({"weight_dacay": 0.1}, r"no 'weight_dacay'; did you mean weight_decay? It has params, lr"),
        ({"momentum": 0.9}, "no 'momentum'"),
        ({"betas": (0.9, 1.0)}, r"betas must be at least 0 and below 1, got \(0.9, 1.0\)"),
        ({"lr": -0.1}, "lr must be at least 0, got -0.1"),
        ({"lr": float("nan")}, "lr must be at least 0, got nan"),
    ],
)
def test_a_group_with_a_mistake_is_refused(group, message):
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        create_optimizer_v2([{"params": [parameter(np.zeros(2))], **group}], "lion", lr=0.1)


@pytest.mark.parametrize(
    "opt, options, message",
    [
        ("adamw", {"lr": -1.0}, "lr must be at least 0"),
        ("adamw", {"weight_decay": -1.0}, "weight_decay must be at least 0"),
        ("lion", {"betas": (1.0, 0.9)}, "betas must be"),
        ("sgdw", {"momentum": 1.0}, "momentum must be at least 0 and below 1"),
        ("nlars", {"momentum": 0.0}, "Nesterov's needs a momentum"),
        ("sgdw", {"dampening": 0.5}, "Nesterov's needs a momentum and no dampening"),
        ("adamc", {"lr": 0.0}, "relative to the peak rate"),
        ("mars", {"mars_type": "sgd"}, "mars_type is one of adamw, lion"),
        ("adafactor", {"lr": 0.1, "warmup_init": True}, "belongs to the relative rate"),
        ("fusedadam", {}, "'adam' may be what you want"),
        ("bnblion", {}, "'lion' may be what you want"),
        ("lars", {"trust": 1.0}, "'lars' takes no 'trust'; it takes lr, momentum"),
        ("adamw", {"betas": (0.9,)}, "'adamw' takes 2 betas, got "),
        ("adan", {"betas": 0.9}, "'adan' takes 3 betas, got 0.9"),
    ],
)
def test_mistakes(opt, options, message):
    with pytest.raises(ConfigError, match=message):
        create_optimizer_v2([parameter(np.zeros(2))], opt, **{"lr": 0.1, **options})


def test_the_table():
    assert list_optimizers() == sorted(OPTIMIZERS) and len(OPTIMIZERS) > 80
    assert list_optimizers("lam*", exclude_filters=["*w", "*cd"]) == ["lamb", "lambc"]
    assert list_optimizers(["lio*", "clion"], with_description=True)[0] == ("clion", "Cautious Lion")
    assert all(info.name == name and info.description for name, info in OPTIMIZERS.items())
    adan = get_optimizer_info("ADAN")
    assert (adan.has_betas, adan.num_betas, adan.has_momentum, adan.has_eps) == (True, 3, False, True)
    sgd = get_optimizer_info("sgd")
    assert (sgd.has_betas, sgd.num_betas, sgd.has_momentum, sgd.has_eps) == (False, 2, True, False)
    assert get_optimizer_class("sgd", bind_defaults=False) is sgd.opt_class
    params = [parameter(np.zeros(2))]
    assert get_optimizer_class("sgd")(params, lr=0.1, momentum=0.9).param_groups[0]["nesterov"] is True
    assert get_optimizer_class("lion")(params).param_groups[0]["lr"] == 1e-4
    own = OptimInfo("own", sgd.opt_class, defaults={"momentum": 0.3})
    assert create_optimizer_v2(params, own, lr=0.1, foreach=True).param_groups[0]["momentum"] == 0.9


SCRIPT = {
    "opt": "adamp",
    "lr": 0.1,
    "weight_decay": 0.2,
    "momentum": 0.9,
    "opt_eps": 1e-3,
    "opt_betas": [0.8, 0.9],
    "layer_decay": 0.5,
    "opt_args": {"delta": 0.2},
    "opt_foreach": False,
}


def test_arguments_of_a_script():
    args = types.SimpleNamespace(**SCRIPT)
    kwargs = optimizer_kwargs(args)
    assert kwargs == {
        "opt": "adamp",
        "lr": 0.1,
        "weight_decay": 0.2,
        "momentum": 0.9,
        "eps": 1e-3,
        "betas": [0.8, 0.9],
        "layer_decay": 0.5,
        "delta": 0.2,
        "foreach": False,
    }
    for optimizer in (create_optimizer_v2(layered(), **kwargs), create_optimizer(args, layered())):
        group = optimizer.param_groups[0]
        assert (group["lr"], group["eps"], group["delta"], group["wd_ratio"]) == (0.025, 1e-3, 0.2, 0.01)
    args = types.SimpleNamespace(**{**SCRIPT, "opt": "lookahead_sgd", "opt_args": {}})
    assert "eps" not in optimizer_kwargs(args) and "betas" not in optimizer_kwargs(args)
    assert create_optimizer_v2(layered(), **optimizer_kwargs(args)).param_groups[0]["momentum"] == 0.9


@pytest.mark.parametrize("opt, decay", [("adamw", 2.0), ("radam", 2.0), ("nadamw", 0.2), ("radamw", 0.2)])
def test_the_old_call_divides_the_decay_of_two_by_the_rate(opt, decay):
    args = types.SimpleNamespace(opt=opt, lr=0.1, weight_decay=0.2, momentum=0.9)
    assert create_optimizer(args, Problem()).param_groups[1]["weight_decay"] == pytest.approx(decay)
    given = [{"params": [parameter(np.zeros(2))], "weight_decay": 0.2}]
    assert create_optimizer(args, given).param_groups[0]["weight_decay"] == pytest.approx(decay)


def test_parameters_of_a_net_without_its_head():
    net = create_model("mobilenetv3_small_075", num_classes=10)
    trunk, everything = model_parameters(net, exclude_head=True), model_parameters(net)
    assert {param.name for param in everything} - {param.name for param in trunk} == {
        net.classifier.weight.name,
        net.classifier.bias.name,
    }
    assert len(everything) - len(trunk) == 2 and not any(param.stop_gradient for param in everything)
    assert net.classifier.weight.output_axis == 1
    plain = paddle.nn.Sequential(paddle.nn.Linear(3, 4), paddle.nn.Linear(4, 2))
    assert [param.name for param in model_parameters(plain, exclude_head=True)] == [
        plain[0].weight.name,
        plain[0].bias.name,
    ]


@pytest.mark.parametrize(("exclude_1d", "decaying"), [(True, ["matrix"]), (False, ["scale", "matrix", "net.bias"])])
def test_a_bias_of_any_shape_does_not_decay(exclude_1d, decaying):
    """timm's rule: one dimension, or the name."""
    net = paddle.nn.Layer()
    net.scale, net.matrix = (paddle.create_parameter(shape, "float32") for shape in ([3], [2, 3]))
    net.net = paddle.nn.Layer()
    net.net.bias = paddle.create_parameter([2, 3], "float32")
    groups = param_groups_weight_decay(net, 0.1, weight_decay_exclude_1d=exclude_1d)
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    found = {group["weight_decay"]: [names[id(parameter)] for parameter in group["params"]] for group in groups}
    assert found.pop(0.1) == decaying
    assert found == ({0.0: ["scale", "net.bias"]} if exclude_1d else {})
