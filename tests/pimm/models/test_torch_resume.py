"""Going on from PyTorch's files as they are: weights, averages, epoch and optimizer state."""

import golden
import numpy as np
import paddle
import pytest
from paddle import nn
from paths import ROOT
from torch_bytes import save_legacy, save_zip

from cream import cli
from cream.mobile.nets import ChildNet
from cream.mobile.published import CHILD_NETS
from pimm.errors import CheckpointError
from pimm.models import load_checkpoint, resume_checkpoint
from pimm.models.torch_names import load_torch_arrays, torch_names
from pimm.optim import create_optimizer_v2, load_optimizer_state, optimizer_state
from pimm.utils import save_arrays


def net_state(model, seed=0):
    return golden.state(torch_names(model), seed)


# Resuming


def trained(opt, steps, net=None, optimizer=None):
    """A small net and its optimizer after some steps; always the same ones."""
    paddle.seed(1)
    if net is None:
        net = nn.Sequential(
            nn.Conv2D(3, 4, 3, bias_attr=False), nn.BatchNorm2D(4), nn.Flatten(), nn.Linear(36, 36), nn.Linear(36, 2)
        )
        optimizer = create_optimizer_v2(net, opt, lr=0.01, weight_decay=1e-3)
    for step in range(steps):
        x = paddle.to_tensor(golden.inputs((4, 3, 5, 5), stream=step))
        (net(x) ** 2).mean().backward()
        optimizer.step()
        optimizer.clear_grad()
    return net, optimizer


# ours -> PyTorch's, and the settings by which one knows it
TORCH_SLOTS = {
    "sgd": ({"velocity": "momentum_buffer"}, {"nesterov": True, "dampening": 0, "momentum": 0.9}),
    "rmsproptf": (
        {"mean_square": "square_avg", "momentum": "momentum_buffer"},
        {"alpha": 0.9, "centered": False, "momentum": 0.9, "lr_in_momentum": True, "decoupled_decay": False},
    ),
    "rmsprop": (
        {"square_avg": "square_avg", "momentum_buffer": "momentum_buffer"},
        {"alpha": 0.9, "centered": False, "momentum": 0.9},
    ),
    "adam": ({"moment1": "exp_avg", "moment2": "exp_avg_sq"}, {"betas": (0.9, 0.999), "eps": 1e-8, "amsgrad": False}),
    "adamw": ({"moment1": "exp_avg", "moment2": "exp_avg_sq"}, {"betas": (0.9, 0.999), "eps": 1e-8, "amsgrad": False}),
}
LINEAR = ("3.weight", "4.weight")
GROUPS = (["1.weight", "1.bias", "3.bias", "4.bias"], ["0.weight", "3.weight", "4.weight"])


def torch_optimizer(opt, net, optimizer, steps):
    """The optimizer's state as PyTorch's would be for the same net."""
    slots, settings = TORCH_SLOTS[opt]
    ours = optimizer_state(optimizer, net)
    order = [name for group in GROUPS for name in group]
    entries = {}
    for index, name in enumerate(order):
        values = {theirs: ours[f"{name}/{own}"] for own, theirs in slots.items()}
        entries[index] = {"step": steps, **{k: v.T.copy() if name in LINEAR else v for k, v in values.items()}}
    numbers = iter(range(len(order)))
    groups = [{"lr": 0.01, **settings, "params": [next(numbers) for _ in group]} for group in GROUPS]
    return {"state": entries, "param_groups": groups}


def torch_state(net):
    state = {}
    for name, tensor in net.state_dict().items():
        name = name.replace("_mean", "running_mean").replace("_variance", "running_var")
        state[name] = tensor.numpy().T.copy() if name in LINEAR else tensor.numpy()
    return state


@pytest.mark.parametrize("opt", TORCH_SLOTS)
def test_training_goes_on_from_a_file_of_pytorch(opt, tmp_path):
    net, optimizer = trained(opt, 3)
    content = {
        "epoch": 2,
        "state_dict": torch_state(net),
        "optimizer": torch_optimizer(opt, net, optimizer, 3),
        "version": 2,
    }
    save_zip(tmp_path / "a.pth.tar", content)
    unbroken, _ = trained(opt, 2, net, optimizer)
    other, other_optimizer = trained(opt, 0)
    with paddle.no_grad():
        other[0].weight.zero_()
    state, epoch = resume_checkpoint(other, tmp_path / "a.pth.tar", other_optimizer)
    assert epoch == 3
    load_optimizer_state(other_optimizer, other, state["optimizer"])
    trained(opt, 2, other, other_optimizer)
    for (name, expected), found in zip(unbroken.state_dict().items(), other.state_dict().values()):
        np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-6, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda o: o["param_groups"][0].pop("nesterov"), "the state is not that of a SGD"),
        (lambda o: o["param_groups"][0]["params"].pop(), "groups of [3, 3] parameters; the optimizer has [4, 3]"),
        (lambda o: o["state"][4].update(momentum_buffer=np.zeros(3)), "averages of shape [3] for a parameter"),
        (lambda o: o["state"][4].update(momentum_buffer="x"), "no state of an optimizer"),
        (lambda o: o.pop("state"), "no state of an optimizer"),
    ],
)
def test_an_optimizer_that_does_not_fit_starts_afresh_and_says_so(change, says, tmp_path, caplog):
    net, optimizer = trained("sgd", 1)
    state = torch_optimizer("sgd", net, optimizer, 1)
    change(state)
    save_zip(tmp_path / "a.pth.tar", {"epoch": 2, "state_dict": torch_state(net), "optimizer": state})
    other, other_optimizer = trained("sgd", 0)
    assert resume_checkpoint(other, tmp_path / "a.pth.tar", other_optimizer) == ({}, 2)
    assert "the optimizer starts afresh" in caplog.text and says in caplog.text
    assert not [key for key in optimizer_state(other_optimizer, other) if "/" in key]
    np.testing.assert_array_equal(other[0].weight.numpy(), net[0].weight.numpy())


def test_parts_of_a_file_fit_on_request(tmp_path, caplog):
    net = ChildNet(CHILD_NETS[14].arch, num_classes=3)
    own = net.classifier.weight.numpy()
    state = net_state(ChildNet(CHILD_NETS[14].arch, num_classes=4))
    save_zip(tmp_path / "a.pth", state)
    with pytest.raises(CheckpointError, match=r"shape differs: classifier\.weight"):
        load_checkpoint(net, tmp_path / "a.pth")
    load_checkpoint(net, tmp_path / "a.pth", strict=False)
    np.testing.assert_array_equal(net.classifier.weight.numpy(), own)
    np.testing.assert_array_equal(net.conv_stem.weight.numpy(), state["conv_stem.weight"])
    assert "keeps its own ['classifier.bias', 'classifier.weight']" in caplog.text


# The jobs


def job_settings(folder, *more):
    """Arguments of a small retraining of a net of seven blocks on the embedded images."""
    return [
        *("--cfg", str(ROOT / "configs" / "demo" / "retrain.yaml"), f"DATA_DIR={ROOT / 'data' / 'fashion_mnist'}"),
        *("NET.INPUT_ARCH=[[0],[0],[0],[0],[0],[0],[0]]", "NET.SELECTION=-1", "WORKERS=0", "DATASET.NUM_CLASSES=10"),
        *("DATASET.IMAGE_SIZE=32", "DATASET.BATCH_SIZE=500", "OPT=sgd", f"SAVE_PATH={folder}", "MODEL=again", *more),
    ]


@pytest.fixture
def small_checkpoint(tmp_path):
    """A training checkpoint of PyTorch's after its second epoch, and its two states."""
    net = ChildNet(((0,),) * 7, num_classes=10)
    plain, averaged = (net_state(net, seed) for seed in range(2))
    names = [(name, param) for name, param in net.named_parameters() if not param.stop_gradient]
    groups = [[name for name, param in names if (param.ndim == 1) == is_1d] for is_1d in (True, False)]
    momentum = {name: 0.01 * golden.param(name, plain[name].shape, seed=2) for group in groups for name in group}
    entries = [{"momentum_buffer": momentum[name]} for group in groups for name in group]
    settings = {"lr": 0.1, "nesterov": True, "dampening": 0, "momentum": 0.9}
    first = len(groups[0])
    optimizer = {
        "state": dict(enumerate(entries)),
        "param_groups": [
            {**settings, "params": list(range(first))},
            {**settings, "params": list(range(first, len(entries)))},
        ],
    }
    content = {
        "epoch": 1,
        "version": 2,
        "state_dict": plain,
        "state_dict_ema": averaged,
        "optimizer": optimizer,
    }
    save_legacy(tmp_path / "a.pth.tar", content)
    return tmp_path / "a.pth.tar", plain, averaged, momentum


def test_retraining_goes_on_from_a_file_of_pytorch(small_checkpoint, tmp_path, monkeypatch):
    path, plain, averaged, momentum = small_checkpoint
    begun = {}

    def fit(trainer):
        begun["epoch"] = trainer.epoch
        begun["net"] = {name: tensor.numpy() for name, tensor in trainer.step.net.state_dict().items()}
        begun["ema"] = {name: tensor.numpy() for name, tensor in trainer.step.ema.ema.state_dict().items()}
        begun["optimizer"] = optimizer_state(trainer.step.update.optimizer, trainer.step.net)
        return {}

    monkeypatch.setattr("pimm.engine.loop.Trainer.fit", fit)
    options = ("AUTO_RESUME=True", f"RESUME_PATH={path}", "NET.EMA.USE=True", "WEIGHT_DECAY=1e-5", "EPOCHS=3")
    assert cli.retrain(job_settings(tmp_path, *options)) == 0
    assert begun["epoch"] == 2
    np.testing.assert_array_equal(begun["net"]["classifier.weight"], plain["classifier.weight"].T)
    np.testing.assert_array_equal(begun["ema"]["classifier.weight"], averaged["classifier.weight"].T)
    np.testing.assert_array_equal(begun["optimizer"]["conv_stem.weight/velocity"], momentum["conv_stem.weight"])
    np.testing.assert_array_equal(begun["optimizer"]["classifier.weight/velocity"], momentum["classifier.weight"].T)
    assert len([key for key in begun["optimizer"] if key.endswith("/velocity")]) == len(momentum)


def test_a_finished_training_has_no_epoch_left(small_checkpoint, tmp_path, capsys):
    options = ("AUTO_RESUME=True", f"RESUME_PATH={small_checkpoint[0]}", "EPOCHS=2")
    assert cli.retrain(job_settings(tmp_path, *options)) == 2
    assert "is trained for 2 epochs already: EPOCHS=2 must be more" in capsys.readouterr().err


@pytest.mark.parametrize("average", [True, False])
def test_a_file_of_pytorch_is_tested_as_it_is(average, small_checkpoint, tmp_path, capsys):
    path, plain, averaged, _ = small_checkpoint
    assert cli.test(job_settings(tmp_path, f"RESUME_PATH={path}", f"NET.EMA.USE={average}")) == 0
    told = capsys.readouterr().out
    net = ChildNet(((0,),) * 7, num_classes=10)
    load_torch_arrays(net, averaged if average else plain)
    save_arrays(tmp_path / "a.pdparams", net.state_dict())
    assert cli.test(job_settings(tmp_path, f"RESUME_PATH={tmp_path / 'a.pdparams'}", "NET.EMA.USE=False")) == 0
    assert told.startswith("loss ") and capsys.readouterr().out == told
