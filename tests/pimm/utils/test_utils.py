"""Meters, averages of weights, logs and summaries."""

import argparse
import logging
import random

import golden
import numpy as np
import paddle
import pytest
from paddle import nn
from tables import rows_of

from pimm.engine.steps import averaged_net
from pimm.errors import CheckpointError, ConfigError
from pimm.utils import (
    AverageMeter,
    ModelEma,
    ModelEmaV2,
    ModelEmaV3,
    ParseKwargs,
    accuracy,
    add_bool_arg,
    check_batch_size_retry,
    decay_batch_step,
    get_outdir,
    get_state_dict,
    natural_key,
    random_seed,
    save_arrays,
    setup_default_logging,
    trim_summary,
    unwrap_model,
    update_summary,
    write_checkpoint,
)

FACTS = golden.facts("loss_metric")
NAMES = {
    "conv.weight": (4, 3, 3, 3),
    "conv.bias": (4,),
    "bn.weight": (4,),
    "bn.bias": (4,),
    "bn.running_mean": (4,),
    "bn.running_var": (4,),
}


def test_average_meter():
    meter = AverageMeter()
    meter.update(2.0, n=3)
    meter.update(paddle.to_tensor(6.0))
    assert (meter.val.item(), meter.sum.item(), meter.count, meter.avg.item()) == (6.0, 12.0, 4, 3.0)
    meter.reset()
    assert (meter.val, meter.sum, meter.count, meter.avg) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    "case, n, classes, topk",
    [("a", 12, 10, (1, 5)), ("b", 12, 10, (1, 3, 5)), ("c", 7, 4, (1, 2)), ("d", 6, 3, (1, 5))],
)
def test_accuracy(case, n, classes, topk):
    logits = paddle.to_tensor(golden.inputs((n, classes), stream=12348))
    result = accuracy(logits, paddle.to_tensor(golden.targets(n, classes, stream=778)), topk)
    assert [value.shape for value in result] == [[]] * len(topk)
    expected = golden.arrays("loss_metric")[f"1.0.31/accuracy/{case}"]
    np.testing.assert_allclose([value.item() for value in result], expected, rtol=1e-6)


class Net(nn.Layer):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2D(3, 4, 3)
        self.bn = nn.BatchNorm2D(4)

    def forward(self, x):
        return self.bn(self.conv(x))


def paddle_name(name):
    return name.replace("running_mean", "_mean").replace("running_var", "_variance")


def set_state(net, k):
    values = golden.state(NAMES.items(), seed=1000 * k)
    net.set_state_dict({paddle_name(name): value for name, value in values.items()})


def assert_average_is(net, key):
    for name in NAMES:
        expected = golden.arrays("loss_metric")[f"{key}/{name}"]
        np.testing.assert_allclose(net.state_dict()[paddle_name(name)].numpy(), expected, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("decay", [0.99, 0.9])
def test_model_ema(decay):
    net = Net()
    set_state(net, 0)
    average = ModelEma(net, decay=decay)
    for k in range(1, 6):
        set_state(net, k)
        average.update(net)
        assert_average_is(average.ema, f"0.1.20/ema_{decay}/update{k}")
    assert not average.ema.training
    assert all(param.stop_gradient for param in average.ema.parameters())
    assert not net.conv.weight.stop_gradient


@pytest.mark.parametrize("kind", [ModelEma, ModelEmaV2, ModelEmaV3])
def test_an_average_stays_between_itself_and_the_net(kind):
    net = paddle.nn.Linear(2, 2)
    for decay in (-0.1, 1.5, float("nan")):
        with pytest.raises(ConfigError, match="the decay of an average must be from 0 to 1"):
            kind(net, decay=decay)
    average = kind(net)
    net.weight.set_value(net.weight + 1)
    average.set(net)
    np.testing.assert_array_equal(averaged_net(average).weight.numpy(), net.weight.numpy())


@pytest.mark.parametrize("case", [case for case in FACTS["1.0.31"] if case.startswith("emav3")])
def test_model_ema_v3(case):
    facts = FACTS["1.0.31"][case]
    net = Net()
    set_state(net, 0)
    average = ModelEmaV3(net, **facts["config"])
    for k, (step, decay) in enumerate(zip(facts["steps"], facts["decay_used"]), 1):
        set_state(net, k)
        average.update(net, step)
        assert average.get_decay(step) == pytest.approx(decay)
        if k in facts["recorded_updates"]:
            assert_average_is(average.module, f"1.0.31/{case}/update{k}")


def test_model_ema_v2_is_a_layer_and_can_be_set():
    net = Net()
    average = ModelEmaV2(net, decay=0.5)
    set_state(net, 1)
    average.set(net)
    net.eval()
    x = paddle.to_tensor(golden.inputs((2, 3, 5, 5)))
    np.testing.assert_array_equal(average(x).numpy(), net(x).numpy())
    assert unwrap_model(average) is average.module


def test_model_ema_counts_whole_numbers_as_they_are():
    net = Net()
    net.register_buffer("seen", paddle.to_tensor([3]))
    average = ModelEma(net, decay=0.9)
    net.seen.set_value(np.array([8]))
    average.update(net)
    assert average.ema.seen.tolist() == [8]


@pytest.mark.parametrize("kind", [ModelEma, ModelEmaV2, ModelEmaV3])
def test_an_average_of_tied_weights_moves_once(kind):
    net = paddle.nn.Sequential(paddle.nn.Linear(300, 300), paddle.nn.Linear(300, 300))
    net[1].weight = net[0].weight
    before = net[0].weight.numpy()
    average = kind(net, decay=0.75)
    net[0].weight.set_value(before + 1.0)
    average.update(net)
    np.testing.assert_allclose(averaged_net(average)[1].weight.numpy(), before + 0.25, rtol=1e-6, atol=1e-6)


def test_model_ema_on_a_device_of_its_own():
    net = Net()
    average = ModelEma(net, decay=0.75, device="cpu")
    before, target = average.ema.conv.bias.numpy(), np.full(4, 2.0, np.float32)
    net.conv.bias.set_value(target)
    average.update(net)
    np.testing.assert_allclose(average.ema.conv.bias.numpy(), 0.75 * before + 0.25 * target, rtol=1e-6)


def test_an_average_in_half_precision_is_refused_and_kept_in_float32():
    net = Net()
    net.to(dtype="bfloat16")  # Layer.bfloat16 does nothing on processors without such instructions
    net.register_buffer("seen", paddle.to_tensor([3]))
    with pytest.raises(ConfigError, match="give dtype='float32'"):
        ModelEmaV3(net)
    with pytest.raises(ConfigError, match="not float64"):
        ModelEmaV3(net, dtype="float64")
    average = ModelEmaV3(net, decay=0.999, dtype="float32")
    average.module.conv.bias.set_value(np.zeros(4, np.float32))
    net.conv.bias.set_value(paddle.full([4], 0.25, "bfloat16"))
    for _ in range(3):
        average.update(net)
    np.testing.assert_allclose(average.module.conv.bias.numpy(), np.full(4, 0.25 * (1 - 0.999**3)), rtol=1e-4)
    assert average.module.seen.dtype == paddle.int64


def test_model_ema_resumes(tmp_path):
    net, other = Net(), Net()
    set_state(other, 3)
    save_arrays(tmp_path / "a.pdema", other.state_dict())
    write_checkpoint(tmp_path / "checkpoint-0", {"ema.pdema": other.state_dict()}, {})
    write_checkpoint(tmp_path / "checkpoint-1", {"model.pdparams": other.state_dict()}, {})
    for path in ("a.pdema", "checkpoint-0"):
        resumed = ModelEma(net, resume=str(tmp_path / path)).ema
        np.testing.assert_array_equal(resumed.conv.weight.numpy(), other.conv.weight.numpy())
    with pytest.raises(CheckpointError, match="holds no average"):
        ModelEma(net, resume=tmp_path / "checkpoint-1")
    with pytest.raises(CheckpointError, match="averaged weights in"):
        ModelEma(nn.Linear(2, 2), resume=tmp_path / "checkpoint-0")


def test_the_net_inside_its_wrappers():
    net = Net()
    assert unwrap_model(net) is net
    average = ModelEma(net)
    assert unwrap_model(average) is average.ema
    assert list(get_state_dict(average)) == [paddle_name(name) for name in NAMES]


def test_summary(tmp_path):
    path = tmp_path / "summary.csv"
    update_summary(0, {"loss": 1.5}, {"loss": 1.25, "prec1": 10.0}, path, write_header=True)
    update_summary(1, {"loss": 1.0}, {"loss": 0.75, "prec1": 20.0}, path)
    rows = rows_of(path)
    assert rows[1] == {"epoch": "1", "train_loss": "1.0", "eval_loss": "0.75", "eval_prec1": "20.0"}
    assert rows[0]["train_loss"] == "1.5"


def test_summary_of_today(tmp_path):
    path = tmp_path / "summary.csv"
    for epoch in range(3):
        update_summary(epoch, {"loss": 1.5}, None, path, lr=0.5 - 0.1 * epoch)
    assert path.read_text().splitlines()[:2] == ["epoch,train_loss,lr", "0,1.5,0.5"]
    trim_summary(path, 1)
    update_summary(1, {"loss": 9.0}, {}, path, lr=0.25)
    assert path.read_text() == "epoch,train_loss,lr\n0,1.5,0.5\n1,9.0,0.25\n"
    trim_summary(path, 2)
    trim_summary(tmp_path / "none.csv", 0)
    assert len(path.read_text().splitlines()) == 3


def test_output_folders(tmp_path):
    first = get_outdir(str(tmp_path), "train", "run")
    assert get_outdir(str(tmp_path), "train", "run") == first
    made = [get_outdir(str(tmp_path), "train", "run", inc=True) for _ in range(2)]
    assert made == [f"{first}-1", f"{first}-2"]
    assert all((tmp_path / "train" / name).is_dir() for name in ("run", "run-1", "run-2"))


def test_logging_to_console_and_file(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(logging, "root", logging.RootLogger(logging.WARNING))
    setup_default_logging()
    setup_default_logging(log_path=str(tmp_path / "log.txt"))
    logging.root.info("plain")
    logging.root.warning("careful")
    logging.root.debug("unseen")
    assert capsys.readouterr().err == "plain\nWARNING: careful\n"
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert lines[1].endswith("[ WARNING] - careful")


def test_natural_key():
    names = ["epoch-10", "epoch-9", "Epoch-1"]
    assert sorted(names, key=natural_key) == ["Epoch-1", "epoch-9", "epoch-10"]
    assert natural_key("²") == ["²"]  # a digit, and no number
    assert sorted(["b10", "B9", "a", "b1²"], key=natural_key) == ["a", "b1²", "B9", "b10"]


def test_add_bool_arg():
    parser = argparse.ArgumentParser()
    add_bool_arg(parser, "use-ema", default=True)
    values = [parser.parse_args(line).use_ema for line in ([], ["--no-use-ema"], ["--use-ema"])]
    assert values == [True, False, True]


def test_key_value_options(capsys):
    parser = argparse.ArgumentParser()
    parser.add_argument("--model-kwargs", nargs="*", default={}, action=ParseKwargs)
    words = ["drop=0.2", "act=relu", "sizes=(1, 2)", "text=a=b", "none=None", "", "set={[]}", "deep=" + 9999 * "("]
    expected = {"drop": 0.2, "act": "relu", "sizes": (1, 2), "text": "a=b", "none": None}
    expected.update({"set": "{[]}", "deep": 9999 * "("})
    assert parser.parse_args(["--model-kwargs", *words]).model_kwargs == expected
    with pytest.raises(SystemExit):
        parser.parse_args(["--model-kwargs", "drop"])
    assert "expected KEY=VALUE, got 'drop'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options, sizes",
    [
        ({}, [64, 48, 32, 24, 16, 12, 8, 6, 4, 3, 2, 1, 0]),
        ({"num_intra_steps": 1}, [64, 32, 16, 8, 4, 2, 1, 0]),
        ({"num_intra_steps": 4, "no_odd": True}, [64, 56, 48, 40, 32, 28, 24, 20, 16, 14, 12, 10, 8, 6, 4, 2, 0]),
    ],
)
def test_smaller_batches(options, sizes):
    seen = [64]
    while seen[-1]:
        seen.append(decay_batch_step(seen[-1], **options))
    assert seen == sizes


@pytest.mark.parametrize("text, worth", [("CUDA out of memory", True), ("an Illegal memory access", False)])
def test_when_a_smaller_batch_may_help(text, worth):
    assert check_batch_size_retry(text) is worth


def test_random_seed_differs_by_rank():
    def draw(rank):
        random_seed(7, rank)
        return random.random(), np.random.rand(), paddle.rand([1]).item()

    assert draw(0) == draw(0)
    assert all(a != b for a, b in zip(draw(0), draw(1)))


def test_a_summary_gains_columns_and_loses_none(tmp_path):
    """As when a resumed training has an evaluation, or a rate, that it had not before, or no longer has."""
    path = tmp_path / "summary.csv"
    update_summary(0, {"loss": 3.0}, None, path)
    update_summary(1, {"loss": 2.0}, {"top1": 50.0}, path, lr=0.5)
    update_summary(2, {"loss": 1.0}, {}, path)
    assert path.read_text() == "epoch,train_loss,eval_top1,lr\n0,3.0,,\n1,2.0,50.0,0.5\n2,1.0,,\n"
    trim_summary(path, 1)
    assert path.read_text() == "epoch,train_loss,eval_top1,lr\n0,3.0,,\n"


def test_a_table_of_the_user_is_not_trimmed(tmp_path):
    for content in (b"name,age\nx,3\n", b"\xff\xfe,\n1,2\n", b"", b"epoch,x\nnone,1\n"):
        (tmp_path / "summary.csv").write_bytes(content)
        trim_summary(tmp_path / "summary.csv", 0)
        assert (tmp_path / "summary.csv").read_bytes() == content
