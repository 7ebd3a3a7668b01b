"""pimm-train on other weights: adapted starts, frozen layers, a rate for the body, and a teacher."""

import json
import logging
import shutil

import numpy as np
import paddle
import pytest
import script_runs
from script_net import script_net

from pimm.commands import train as pimm_train
from pimm.commands import validate as pimm_validate
from pimm.commands.lines import train as train_line
from pimm.engine import ClassifyStep, DistillStep, Teacher, Update
from pimm.errors import CheckpointError, ConfigError, DataError
from pimm.loss import LabelSmoothingCrossEntropy, LogitDistillationLoss, distillation_weights
from pimm.optim import create_optimizer_v2
from pimm.utils import load_arrays, save_arrays
from pimm.utils.checkpoint import latest_checkpoint, read_checkpoint
from pimm.utils.model_record import save_with_record

NET = ("--model", "script_net", "-j", "0", "-b", "6", "--device", "cpu")
BRIEF = ("--epochs", "1", "--warmup-epochs", "0", "--lr", "0.1", "--no-aug", "--smoothing", "0")
pytestmark = pytest.mark.usefixtures("registered")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Return a folder with four images a class to train on and two to validate on."""
    folder = tmp_path_factory.mktemp("images")
    script_runs.write_images(folder, train=4, val=2)
    return str(folder)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weights of the net for five classes and three channels."""
    paddle.seed(0)
    path = tmp_path_factory.mktemp("weights") / "five.pdparams"
    save_arrays(path, {name: value.numpy() for name, value in script_net(num_classes=5).state_dict().items()})
    return path


def train(images, output, *options, classes="3"):
    """Train one epoch unless told otherwise, and return the arrays of the latest checkpoint, and the folder."""
    pimm_train.main(
        [images, *NET, *BRIEF, "--num-classes", classes, "--output", str(output), "--experiment", "net", *options]
    )
    return read_checkpoint(latest_checkpoint(output / "net")).files["model.pdparams"], output / "net"


# Starts


@pytest.mark.parametrize("option", ("--initial-checkpoint", "--pretrained-path"))
def test_a_training_starts_from_weights_of_other_classes_and_channels(images, weights, tmp_path, option, caplog):
    with caplog.at_level(logging.WARNING):
        trained, _ = train(images, tmp_path, option, str(weights), "--in-chans", "1", "--freeze", "conv")
    stem = load_arrays(weights)["conv.weight"].sum(axis=1, keepdims=True)
    np.testing.assert_allclose(trained["conv.weight"], stem, rtol=1e-6)  # frozen, so as it started
    assert trained["fc.weight"].shape == (4, 3)
    assert len([line for line in caplog.messages if "begins anew, with 3 classes in place of 5" in line]) == 1


def test_pretrained_path_begins_a_new_classifier_even_if_it_fits(images, weights, tmp_path, caplog):
    options = ("--freeze", "fc", "conv", "bn1.weight")
    kept, _ = train(images, tmp_path / "kept", "--initial-checkpoint", str(weights), *options, classes="5")
    theirs = load_arrays(weights)
    np.testing.assert_array_equal(kept["fc.weight"], theirs["fc.weight"])
    pretrained = ("--pretrained", "--pretrained-path", str(weights))  # both, as timm wants it
    anew, _ = train(images, tmp_path / "anew", *pretrained, *options, classes="5")
    assert abs(anew["fc.weight"] - theirs["fc.weight"]).max() > 0.01
    np.testing.assert_array_equal(anew["conv.weight"], theirs["conv.weight"])


def test_resuming_and_validating_stay_strict(images, weights, tmp_path):
    _, folder = train(images, tmp_path)
    with pytest.raises(CheckpointError, match="does not fit the model"):
        train(images, tmp_path / "other", "--resume", str(folder), classes="4")
    line = [images, *NET, "--num-classes", "3", "--split", "val", "--checkpoint", str(weights)]
    with pytest.raises(CheckpointError, match="does not fit the model"):
        pimm_validate.main(line)


# Frozen layers and rates


def test_frozen_layers_keep_weights_and_statistics(images, weights, tmp_path):
    """The five-class start fits, so that each value can be compared."""
    theirs = load_arrays(weights)
    frozen = ("--freeze", "conv", "bn*", "--model-ema", "--epochs", "2")
    trained, folder = train(images, tmp_path, "--initial-checkpoint", str(weights), *frozen, classes="5")
    for name in theirs:
        assert np.array_equal(trained[name], theirs[name]) == (not name.startswith("fc.")), name
    checkpoint = str(folder / "checkpoint-0")
    train(images, tmp_path / "resumed", *frozen, "--resume", checkpoint, classes="5")
    ours, whole = (read_checkpoint(path / "checkpoint-1").files for path in (tmp_path / "resumed" / "net", folder))
    for name in ours:
        np.testing.assert_equal(ours[name], whole[name], err_msg=name)


def test_a_lower_rate_for_the_body(images, weights, tmp_path):
    """One step of plain gradient descent moves the body by the share of what it moves at the full rate."""
    theirs, moved = load_arrays(weights), {}
    for scale in ("1", "0.25", "0"):
        options = ("--initial-checkpoint", str(weights), "-b", "12", "--momentum", "0", "--weight-decay", "0")
        trained, _ = train(images, tmp_path / scale, *options, "--backbone-lr-scale", scale, classes="5")
        moved[scale] = {name: trained[name] - theirs[name] for name in ("conv.weight", "fc.weight")}
    np.testing.assert_allclose(moved["0.25"]["conv.weight"], moved["1"]["conv.weight"] / 4, atol=1e-6)
    np.testing.assert_allclose(moved["0.25"]["fc.weight"], moved["1"]["fc.weight"], atol=1e-6)
    assert not moved["0"]["conv.weight"].any() and abs(moved["1"]["conv.weight"]).max() > 1e-3


# Distillation


def test_the_divergence_by_value():
    """Of two classes at temperature 2: p is 3/4 for the teacher and 1/2 for the net."""
    ours, theirs = paddle.zeros([1, 2]), paddle.to_tensor([[2 * np.log(3.0), 0.0]], "float32")
    expected = (0.75 * np.log(0.75 / 0.5) + 0.25 * np.log(0.25 / 0.5)) * 4
    assert LogitDistillationLoss(2.0)(ours, theirs).item() == pytest.approx(expected, rel=1e-6)
    both = paddle.concat([ours, theirs]), paddle.concat([theirs, theirs])
    assert LogitDistillationLoss(2.0)(*both).item() == pytest.approx(expected / 2, rel=1e-6)  # a mean over images
    assert LogitDistillationLoss(3.0)(theirs + 5, theirs).item() == pytest.approx(0, abs=1e-6)


def test_its_gradient_is_the_difference_of_probabilities_times_the_temperature():
    rng = np.random.default_rng(0)
    ours, theirs = (paddle.to_tensor(rng.normal(0, 2, (5, 4)).astype("float32")) for _ in range(2))
    ours.stop_gradient = False
    LogitDistillationLoss(3.0)(ours, theirs).backward()
    softmax = paddle.nn.functional.softmax
    wanted = 3.0 * (softmax(ours / 3) - softmax(theirs / 3)) / 5
    np.testing.assert_allclose(ours.grad.numpy(), wanted.numpy(), atol=1e-6)


@pytest.mark.parametrize(
    ("task", "distill", "weights"),
    [(None, None, (1, 1)), (0.3, None, (0.3, 0.7)), (None, 2.0, (1, 2)), (0.3, 2.0, (0.3, 2)), (0.0, None, (0, 1))],
)
def test_weights_as_timm_resolves_them(task, distill, weights):
    assert distillation_weights(task, distill) == pytest.approx(weights)


@pytest.mark.parametrize("given", [(1.5, None), (-1.0, 1.0), (1.0, -0.1), (float("nan"), None)])
def test_weights_below_zero_are_refused(given):
    with pytest.raises(ConfigError, match="must be 0 or more"):
        distillation_weights(*given)


@pytest.mark.parametrize("temperature", (0.0, -1.0, float("nan"), float("inf")))
def test_a_temperature_is_above_zero(temperature):
    with pytest.raises(ConfigError, match="must be above 0"):
        LogitDistillationLoss(temperature)


def test_a_teacher_sees_images_by_its_own_statistics():
    net = script_net(num_classes=3)
    net.train()
    pixels = paddle.rand([4, 3, 8, 8])
    given, own = ((0.1, 0.2, 0.3), (0.5, 0.6, 0.7)), ((0.4, 0.4, 0.5), (0.2, 0.3, 0.4))
    normalised = [
        (pixels - paddle.to_tensor(mean).reshape([1, 3, 1, 1])) / paddle.to_tensor(std).reshape([1, 3, 1, 1])
        for mean, std in (given, own)
    ]
    statistics = net.bn1._mean.numpy()
    logits = Teacher(net, own, given)(normalised[0])
    assert logits.stop_gradient and not net.training
    np.testing.assert_array_equal(net.bn1._mean.numpy(), statistics)
    np.testing.assert_allclose(logits.numpy(), net(normalised[1]).numpy(), atol=1e-5)
    np.testing.assert_array_equal(Teacher(net, own, own)(normalised[1]).numpy(), net(normalised[1]).numpy())


def test_a_teacher_of_reversed_channels():
    """Images in RGB for a teacher of BGR: its channels and statistics are in the other order."""
    net = script_net(num_classes=3)
    pixels = paddle.rand([4, 3, 8, 8])
    given, own = ((0.1, 0.2, 0.3), (0.5, 0.6, 0.7)), ((0.4, 0.45, 0.5), (0.2, 0.3, 0.4))
    rgb, bgr = (
        (each - paddle.to_tensor(mean).reshape([1, 3, 1, 1])) / paddle.to_tensor(std).reshape([1, 3, 1, 1])
        for each, (mean, std) in ((pixels, given), (pixels.flip([1]), own))
    )
    logits = Teacher(net, own, given, reverse=True)(rgb)
    np.testing.assert_allclose(logits.numpy(), net(bgr).numpy(), atol=1e-5)
    same = Teacher(net, ((0.5,) * 3,) * 2, ((0.5,) * 3,) * 2, reverse=True)(rgb)
    np.testing.assert_array_equal(same.numpy(), net(rgb.flip([1])).numpy())


def test_a_file_that_notes_its_model_teaches(images, tmp_path):
    arrays, folder = train(images, tmp_path)
    recorded = json.loads((folder / "checkpoint-0" / "manifest.json").read_text())["args"]
    save_with_record(tmp_path / "noted.pdparams", arrays, {"arch": "script_net", "args": recorded})
    options = ("--task-loss-weight", "0", "--freeze", "bn1")
    by_file, _ = train(images, tmp_path / "file", "--kd-checkpoint", str(tmp_path / "noted.pdparams"), *options)
    by_folder, _ = train(images, tmp_path / "folder", "--kd-checkpoint", str(folder), *options)
    np.testing.assert_equal(by_file, by_folder)


def test_the_best_checkpoint_of_a_training_teaches(images, tmp_path, caplog):
    _, folder = train(images, tmp_path)
    with caplog.at_level(logging.INFO):
        train(images, tmp_path / "taught", "--kd-checkpoint", str(folder))
    assert f"the teacher is script_net, with {folder / 'model_best'}" in caplog.messages


def test_a_step_adds_the_losses_with_their_weights():
    paddle.seed(0)
    net, teacher = (script_net(num_classes=3, norm=False) for _ in range(2))
    images, labels = paddle.rand([6, 3, 8, 8]), paddle.to_tensor([0, 1, 2, 0, 1, 2])
    task_loss, kd_loss = LabelSmoothingCrossEntropy(0.0), LogitDistillationLoss(2.0)
    before = {name: value.numpy().copy() for name, value in net.state_dict().items()}
    task, kd = task_loss(net(images), labels), kd_loss(net(images), teacher(images))
    gradient = paddle.grad(0.3 * task + 0.7 * kd, net.parameters())
    step = DistillStep(
        net,
        task_loss,
        Update(create_optimizer_v2(net, "sgd", lr=0.1, momentum=0.0)),
        topk=(1,),
        teacher=Teacher(teacher, *[((0.5,) * 3, (0.5,) * 3)] * 2),
        kd_loss=kd_loss,
        weights=(0.3, 0.7),
    )
    metrics = step(images, labels, 0)
    assert list(metrics) == ["loss", "task_loss", "kd_loss", "prec1"] and isinstance(step, ClassifyStep)
    found = [metrics[name].item() for name in ("loss", "task_loss", "kd_loss")]
    assert found == pytest.approx([0.3 * task.item() + 0.7 * kd.item(), task.item(), kd.item()], rel=1e-5)
    for (name, value), grad in zip(net.named_parameters(), gradient):
        np.testing.assert_allclose(value.numpy(), before[name] - 0.1 * grad.numpy(), atol=1e-6)


def test_a_training_learns_from_its_teacher_alone(images, tmp_path):
    """Without the labels' loss, and from the teacher's own weights, nothing is left to learn."""
    theirs, teacher = train(images, tmp_path / "teacher", "--std", "0.3", "0.3", "0.3")
    kd = ("--kd-checkpoint", str(teacher), "--task-loss-weight", "0")
    same, _ = train(
        images, tmp_path / "same", *kd, "--initial-checkpoint", str(teacher), "--freeze", "bn1", "--std", "0.3"
    )
    np.testing.assert_allclose(same["fc.weight"], theirs["fc.weight"], atol=1e-5)
    _, folder = train(images, tmp_path / "student", *kd, "--kd-temperature", "2", "--freeze", "conv")
    header = (folder / "summary.csv").read_text().splitlines()[0]
    assert "train_kd_loss" in header and "train_task_loss" in header
    recorded = json.loads((folder / "checkpoint-0" / "manifest.json").read_text())["args"]
    assert (recorded["kd_checkpoint"], recorded["kd_temperature"]) == (str(teacher), 2.0)


# Mistakes


def other_classes(images, tmp_path):
    """The same images, with one class under another name."""
    folder = shutil.copytree(images, tmp_path / "renamed")
    for split in ("train", "val"):
        (folder / split / "grey").rename(folder / split / "gray")
    return str(folder)


def test_mistakes_end_in_one_line(images, weights, tmp_path, capsys):
    _, folder = train(images, tmp_path)
    _, four = train(images, tmp_path / "four", classes="4")
    cases = {
        ("--freeze", "con"): "no layer or parameter of ScriptNet has a name like 'con'; did you mean conv",
        ("--freeze", "*"): "all are frozen",
        ("--initial-checkpoint", "none.pdparams"): "none.pdparams: there is no checkpoint here",
        ("--initial-checkpoint", str(weights), "--pretrained-path", str(weights)): "give one of them",
        ("--kd-model-name", "script_net"): "--kd-checkpoint PATH is missing",
        ("--kd-checkpoint", "none.pdparams"): "none.pdparams: there is no checkpoint here",
        ("--kd-checkpoint", str(weights)): "--kd-model-name NAME is missing",
        ("--kd-checkpoint", str(weights), "--kd-model-name", "script_net"): "--kd-checkpoint is no script_net of 3",
        ("--kd-checkpoint", str(four)): "num_classes of the teacher",
        ("--kd-checkpoint", str(folder), "--kd-model-name", "script_nett"): "unknown model 'script_nett'",
        ("--kd-checkpoint", str(folder), "--kd-temperature", "0"): "temperature of a distillation must be above 0",
        ("--kd-checkpoint", str(folder), "--task-loss-weight", "2"): "must be 0 or more",
        ("--kd-checkpoint", str(folder), "--kd-distill-type", "token"): "invalid choice: 'token'",
        ("--task-loss-weight", "0.5"): "need a teacher: --kd-checkpoint is missing",
        ("--distill-loss-weight", "0.5"): "need a teacher: --kd-checkpoint is missing",
        ("--layer-decay", "-1"): "layer_decay must be at least 0, got -1",
        ("--backbone-lr-scale", "2"): "it is from 0 to 1",
    }
    for number, (options, message) in enumerate(cases.items()):
        line = [
            images,
            *NET,
            *BRIEF,
            "--num-classes",
            "3",
            "--output",
            str(tmp_path / "x"),
            "--experiment",
            str(number),
        ]
        capsys.readouterr()
        try:
            code = train_line([*line, *options])
        except SystemExit as stop:
            code = stop.code
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert code == 2 and message in error and len(error) < 400, (options, error)
        assert not (tmp_path / "x" / str(number)).exists()


def test_a_teacher_of_other_classes_is_refused(images, tmp_path):
    _, folder = train(images, tmp_path)
    with pytest.raises(DataError, match="trained on other classes: 'grey' where the net has 'gray'"):
        train(other_classes(images, tmp_path), tmp_path / "student", "--kd-checkpoint", str(folder))
