"""Averaged weights, updates of several batches, teaching on a part of a batch, and boards scored on held-out images."""

import numpy as np
import paddle
import pytest
import tiny
from model_weights import weights
from paddle.nn import functional as F
from tiny import CREAM, batch, step_of

from cream import build
from cream.build.checks import check_supernet
from cream.build.search import trained_search
from cream.mobile.nets import MobileSuperNet
from cream.mobile.space import MobileSpace, read_spec
from cream.train.board import Entry
from cream.train.held_out_board import HeldOutBoard, HeldOutLoss
from cream.train.meta import Teacher
from cream.train.steps import CreamStep
from cream.train.teaching import Teaching
from pimm.errors import ConfigError
from pimm.optim import group_lrs
from pimm.utils import latest_checkpoint, read_checkpoint

HELD_OUT = ("SUPERNET.BOARD_SCORE=held_out", "SUPERNET.SELECT_ON=held_out", "SUPERNET.HELD_OUT=6")


# Averaged weights


def test_the_average_of_a_weight_moves_with_the_updates_of_this_weight_alone(data, tmp_path):
    step = step_of(data, tmp_path, "SUPERNET.AVERAGE=0.75")
    net, start = step.net, weights(step.net)
    expected, trained = {name: value.astype(np.float64) for name, value in start.items()}, {}
    for number in range(4):
        step(*batch(number), epoch=0)
        active = {p.name for p in net.active_parameters(step._arch)}
        trained[number] = active
        for name, p in net.named_parameters():
            if p.name in active:
                expected[name] = 0.75 * expected[name] + 0.25 * p.numpy()
    averages = weights(step.ema.ema)
    for name, p in net.named_parameters():
        if not p.stop_gradient:
            np.testing.assert_allclose(averages[name], expected[name], rtol=1e-5, atol=1e-7, err_msg=name)
    assert len({frozenset(names) for names in trained.values()}) > 1  # some weights have rested
    statistics = {name: value for name, value in weights(net).items() if name.endswith(("_mean", "_variance"))}
    step.score_by_average()
    for name, p in net.named_parameters():
        wanted = averages[name] if not p.stop_gradient else statistics[name]
        np.testing.assert_array_equal(p.numpy(), wanted, err_msg=name)


def test_without_an_average_the_last_weights_score(data, tmp_path):
    step = step_of(data, tmp_path)
    step(*batch(), epoch=0)
    before = weights(step.net)
    step.score_by_average()
    assert step.ema is None
    for name, value in weights(step.net).items():
        np.testing.assert_array_equal(value, before[name])


def test_a_search_selects_and_is_read_by_its_averages(data, tmp_path):
    folder = tiny.run_search(data, tmp_path, "SUPERNET.AVERAGE=0.5", "EPOCHS=2")
    files = read_checkpoint(latest_checkpoint(folder)).files
    last, average = files["model.pdparams"], files["ema.pdema"]
    searched = trained_search(folder, build.settings_of_search(folder)[0])[0]
    moved = 0
    for name, p in searched.net.named_parameters():
        if not p.stop_gradient:
            np.testing.assert_array_equal(p.numpy(), average[name], err_msg=name)
            moved += not np.array_equal(last[name], average[name])
    assert moved > 5
    inherited = paddle.load(str(folder / "architecture.pdparams"))
    np.testing.assert_array_equal(np.asarray(inherited["conv_stem.weight"]), average["conv_stem.weight"])


# Blocks that begin as the identity


def test_blocks_with_a_shortcut_begin_as_the_identity(data, tmp_path):
    plain, net = step_of(data, tmp_path).net, step_of(data, tmp_path, "SUPERNET.ZERO_RESIDUAL=True").net
    images, _ = batch()
    logits = [
        net(images, ((first, second, third),)).numpy() for first, second, third in ((0, 0, 0), (0, 1, 1), (1, 0, 1))
    ]
    np.testing.assert_array_equal(logits[0], logits[1])  # the first block halves the image, the others keep its shape
    assert not np.allclose(logits[0], logits[2])
    assert not np.allclose(plain(images, ((0, 0, 0),)).numpy(), plain(images, ((0, 1, 1),)).numpy())
    before, changed = dict(plain.named_parameters()), []
    for name, p in net.named_parameters():
        if not p.stop_gradient and not np.array_equal(p.numpy(), before[name].numpy()):
            assert not p.numpy().any(), name
            changed.append(name)
    assert len(changed) == 4  # two operations at two positions


def test_blocks_of_every_kind_that_has_a_shortcut_begin_as_the_identity():
    kinds = (
        {"block": "ir", "expansion": 2, "se": 0.25},
        {"block": "ds"},
        {"block": "er", "expansion": 2},
        {"block": "ru"},
    )
    operations = [{"kernel": 3, **kind} for kind in kinds]
    stage = {"channels": 8, "stride": 1, "depth": 2}
    spec = {"stem": 8, "head": 16, "activation": "relu", "operations": operations, "stages": [stage]}
    net = MobileSuperNet(MobileSpace(read_spec(spec)), num_classes=3)
    net.begin_with_identities()
    x = paddle.abs(paddle.randn([2, 8, 8, 8]))  # the residual unit ends with a ReLU
    for block in net.blocks[0][1]:
        np.testing.assert_array_equal(block(x).numpy(), x.numpy(), err_msg=type(block).__name__)


# Updates of several batches


def test_two_batches_train_one_path_by_their_mean_gradient(data, tmp_path):
    settings = ("SUPERNET.ACCUMULATE=2", "MOMENTUM=0", "WEIGHT_DECAY=0")
    step = step_of(data, tmp_path, *settings)
    net, start = step.net, weights(step.net)
    step(*batch(0), epoch=0)
    arch = step._arch
    for name, p in net.named_parameters():
        if not p.stop_gradient:
            np.testing.assert_array_equal(p.numpy(), start[name])
    step(*batch(1), epoch=0)
    assert step._arch == arch and sum(map(sum, step.sampled.counts[0])) == 3  # one path of three blocks
    found = weights(net)
    net.set_state_dict(start)
    parameters, gradients = net.active_parameters(arch), {}
    for number in range(2):
        images, labels = batch(number)
        for p, gradient in zip(parameters, paddle.grad(F.cross_entropy(net(images, arch), labels), parameters)):
            gradients[p.name] = gradients.get(p.name, 0) + gradient.numpy() / 2
    for name, p in net.named_parameters():
        if not p.stop_gradient:
            moved = start[name] - 0.05 * gradients.get(p.name, 0)
            np.testing.assert_allclose(found[name], moved, rtol=1e-4, atol=1e-6, err_msg=name)


def test_the_board_notes_the_accuracy_over_all_batches_of_an_update(data, tmp_path):
    step = step_of(data, tmp_path, *CREAM, "SUPERNET.ACCUMULATE=3")
    accuracies = [step(*batch(number), epoch=1)["prec1"].item() for number in range(3)]
    assert len(set(accuracies)) > 1
    (entry,) = step.board.entries
    assert entry.prec1 == pytest.approx(np.mean(accuracies)) and entry.arch == step._arch
    assert step.batches_taught == 0
    for number in range(3, 6):
        step(*batch(number), epoch=1)
    assert step.batches_taught == 1 and step.sampled.counts[0][0][0] + step.sampled.counts[0][0][1] == 2


def test_the_rate_falls_over_the_updates(data, tmp_path):
    plan = build.plan_search(tiny.settings(data, tmp_path, "SUPERNET.ACCUMULATE=3", "EPOCHS=2"))
    assert len(plan.train_loader) == 4  # so that an epoch has two updates
    rates = []
    for update in (0, 1, 2, 4):
        plan.scheduler.step_update(update)
        rates.append(group_lrs(plan.step.update.optimizer)[0])
    assert rates == pytest.approx([0.05, 0.0375, 0.025, 0.0], abs=1e-9)


# Teaching on a part of a batch


def test_a_teacher_is_asked_about_the_first_images_alone(data, tmp_path):
    settings = (*CREAM, "SUPERNET.TEACH_SHARE=0.5", "SUPERNET.TEACHING=added")
    step = step_of(data, tmp_path, *settings)
    net, (images, labels) = step.net, batch()
    student, teacher = ((0, 0, 0),), ((1, 1, 1),)
    start = {name: value.clone() for name, value in net.state_dict().items()}
    with paddle.no_grad():
        soft = F.softmax(net(images[:3], teacher), axis=1)
        logits = net(images, student)
        distance = -(soft * F.log_softmax(logits[:3], axis=1)).sum(1).mean()
        expected = F.cross_entropy(logits, labels) + 0.8 / 2 * distance
    net.set_state_dict(start)
    values, _ = step.train_path(student, images, labels, Teacher(teacher, 0.8))
    np.testing.assert_allclose(values[:2].numpy(), [expected.item(), distance.item()], rtol=1e-5)


def test_a_teacher_of_a_part_is_compared_with_the_student_on_this_part():
    logits, teacher = paddle.to_tensor([[0.0, 0.0], [9.0, 0.0]]), paddle.to_tensor([[1.0, 0.0]])
    teaching = Teaching("added", only_better=True, share=0.5)
    label_loss = paddle.to_tensor(0.01)  # over the whole batch the student is better, on the first image it is worse
    loss, distance = teaching(1.0, logits, label_loss, teacher, lambda x: -x[0, 0])
    assert loss.item() == pytest.approx(0.01 + distance.item() / 2)
    assert [teaching.images(n) for n in (1, 6, 7)] == [1, 3, 4]


def test_a_taught_path_may_learn_from_labels_that_are_not_smoothed(data, tmp_path):
    settings = (*CREAM, "SUPERNET.TEACHING=added", "AUGMENTATION.SMOOTHING=0.3", "SUPERNET.TAUGHT_SMOOTHING=0")
    step = step_of(data, tmp_path, *settings)
    (images, labels), arch = batch(), ((0, 0, 0),)
    start = {name: value.clone() for name, value in step.net.state_dict().items()}
    logits = step.net(images, arch)
    plain, smoothed = F.cross_entropy(logits, labels).item(), step.loss_fn(logits, labels).item()
    assert abs(plain - smoothed) > 0.01
    step.net.set_state_dict(start)
    loss, distance, *_ = step.train_path(arch, images, labels, Teacher(((1, 1, 1),), 0.8))[0].tolist()
    assert loss == pytest.approx(plain + 0.4 * distance, rel=1e-5)
    step.net.set_state_dict(start)
    assert step.train_path(arch, images, labels)[0][0].item() == pytest.approx(smoothed, rel=1e-5)


# The board of held-out images


class Losses:
    """Returns the losses of a table, and counts the calls."""

    def __init__(self, table):
        self.table, self.calls, self.probability = table, 0, 0.0

    def __call__(self, arch):
        self.calls += 1
        return self.table[arch]

    def probabilities(self, arch, images):
        return paddle.full([2, 3], self.probability)


def entry(arch, prec1):
    return Entry(arch, prec1, 1.0, paddle.zeros([2, 3, 4, 4]), paddle.zeros([2, 3]))


def archs_of(entries):
    return [each.arch[0][0] for each in entries]


def test_entries_are_scored_again_before_each_epoch_and_age():
    paths = [((number,),) for number in range(6)]
    losses = Losses({arch: 1.0 + number for number, arch in enumerate(paths)})
    board = HeldOutBoard(2, losses)
    assert board.start_epoch(0) == []
    board.add(entry(paths[3], 90.0))  # free places are taken at once, and ranked by the loss
    board.add(entry(paths[2], 10.0))
    assert archs_of(board.entries) == [2, 3] and not board.accepts(99.0, 1.0, paths[2])
    for number, prec1 in ((0, 50.0), (4, 60.0), (5, 55.0)):
        assert board.accepts(prec1, 1.0, paths[number])
        board.add(entry(paths[number], prec1))
    assert archs_of(board.waiting) == [4, 5] and archs_of(board.entries) == [2, 3]  # the luckiest of the batches wait
    assert not board.accepts(40.0, 1.0, paths[1]) and losses.calls == 2
    again = HeldOutBoard(2, losses)
    again.load_state_dict(board.state_dict())
    losses.table[paths[2]], losses.table[paths[5]], losses.probability = 7.0, 0.5, 0.25
    for each in (board, again):
        assert each.start_epoch(1) == [paths[5]]
        assert archs_of(each.entries) == [5, 3] and not each.waiting  # the first has aged
        assert each.entries[1].features.numpy().tolist() == np.full([2, 3], 0.25).tolist()
        calls = losses.calls
        assert each.start_epoch(1) == () and losses.calls == calls
    assert again.losses == board.losses


def test_the_held_out_loss_is_that_of_the_batch_and_changes_nothing(data, tmp_path):
    net = step_of(data, tmp_path).net
    images, labels = batch()
    before = weights(net)
    loss_of, arch = HeldOutLoss(net, images, labels), ((0, 1, 0),)
    found, shares = loss_of(arch), loss_of.probabilities(arch, images)
    for name, value in weights(net).items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)
    logits = net(images, arch)
    assert found == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    np.testing.assert_allclose(shares.numpy(), F.softmax(logits, axis=1).numpy(), rtol=1e-5)


def test_the_held_out_images_are_spread_over_the_classes(data, tmp_path):
    step = step_of(data, tmp_path, *CREAM, *HELD_OUT)
    assert isinstance(step.board, HeldOutBoard)
    assert sorted(step.board.loss_of.labels.tolist()) == [0, 0, 1, 1, 2, 2]
    with pytest.raises(ConfigError, match="SELECT_ON must be held_out"):
        check_supernet(tiny.settings(data, tmp_path, *CREAM, HELD_OUT[0]))


# Exact resume


@pytest.mark.parametrize(
    "settings",
    [
        ("EPOCHS=3", "SUPERNET.AVERAGE=0.9", "SUPERNET.ACCUMULATE=3"),
        (*CREAM, *HELD_OUT, "SUPERNET.TEACH_SHARE=0.5", "SUPERNET.AVERAGE=0.9", "SUPERNET.UPDATE_ITER=2"),
        (*CREAM, "SUPERNET.ACCUMULATE=2", "SUPERNET.UPDATE_ITER=2"),
    ],
    ids=["average", "held_out", "accumulate"],
)
def test_a_killed_search_ends_as_one_without_a_break(settings, data, tmp_path):
    settings = ("RECOVERY_INTERVAL=1", *settings)
    whole = tiny.run_search(data, tmp_path / "whole", *settings)
    kind = CreamStep if "SUPERNET.METHOD=cream" in settings else CreamStep.__bases__[0]
    broken = tiny.run_killed_search(data, tmp_path / "broken", kind, *settings)
    tiny.assert_ended_alike(broken, whole)
