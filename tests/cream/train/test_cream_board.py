"""The prioritized board, the teachers that are chosen from it, and how a Cream step uses both."""

import golden
import numpy as np
import paddle
import pytest
from paddle.nn import functional as F

from cream.build.recipe import supernet_optimizer
from cream.build.search import supernet_step
from cream.config.load import load_config
from cream.flops import cost_tables
from cream.mobile.nets import MobileSuperNet
from cream.mobile.space import mobile_space
from cream.train import steps
from cream.train.board import Entry, PrioritizedBoard
from cream.train.meta import best_teacher, match_teacher
from cream.train.sampler import Sampler
from cream.train.search_net import SearchNet
from cream.train.steps import CreamStep, Update
from pimm.loss import LabelSmoothingCrossEntropy
from pimm.optim import group_lrs

SLICE, CLASSES = 2, 10


def path(*choices):
    return ((0,), *((choice,) for choice in choices), (0,))


def entry(number, prec1, mflops=1.0):
    """An entry whose path, images and features tell its number."""
    arch = path(number % 6, number // 6, 0, 0, 0)
    images = paddle.to_tensor(golden.inputs((SLICE, 3, 32, 32), stream=number))
    features = F.softmax(paddle.to_tensor(golden.inputs((SLICE, CLASSES), stream=100 + number)), axis=1)
    return Entry(arch, prec1, mflops, images, features)


def board_of(*entries, size=None):
    board = PrioritizedBoard(size or len(entries))
    for item in entries:
        board.add(item)
    return board


def ranking(board):
    return [(item.prec1, item.mflops) for item in board.entries]


# Who is on the board


def test_the_accurate_come_first_and_of_equals_the_cheap():
    board = board_of(entry(0, 50, 3), entry(1, 70, 9), entry(2, 50, 1), entry(3, 60, 2))
    assert ranking(board) == [(70, 9), (60, 2), (50, 1), (50, 3)]


def test_the_last_gives_way_to_a_better_one():
    board = board_of(entry(0, 50), entry(1, 60), entry(2, 55), size=2)
    assert ranking(board) == [(60, 1), (55, 1)]


@pytest.mark.parametrize(
    ("prec1", "mflops", "accepted"),
    [(51, 99, True), (50, 2, True), (50, 3, False), (49, 0.1, False)],  # 51: no gap of five points is asked for
)
def test_a_full_board_takes_what_beats_its_last(prec1, mflops, accepted):
    board = board_of(entry(0, 60, 3), entry(1, 50, 3))
    assert board.accepts(prec1, mflops) is accepted


@pytest.mark.parametrize("gap", [0, 5, 7.5])
@pytest.mark.parametrize("mflops", [2.0, 3.0, 4.0])  # cheaper than the last, as cheap, dearer
@pytest.mark.parametrize("prec1", [49.0, 50.0, 50.5, 55.0, 55.5, 57.5, 58.0, 61.0])
def test_with_a_gap_the_board_follows_the_official_rule(prec1, mflops, gap):
    board = PrioritizedBoard(2, acc_gap=gap)
    board.add(entry(0, 60, 9))
    assert board.accepts(0.0, 999)
    board.add(entry(1, 50, 3))
    last_prec1, last_mflops = ranking(board)[-1]
    official = prec1 > last_prec1 + gap or (prec1 > last_prec1 and mflops < last_mflops)
    assert board.accepts(prec1, mflops) is official


@pytest.mark.parametrize(("text", "gap"), [("5", 5.0), ("None", None)])
def test_the_gap_of_the_settings_reaches_the_board(net, text, gap):
    cfg = load_config(None, [f"ACC_GAP={text}"])
    mflops, mparams = cost_tables(net, 32)
    searched = SearchNet(net, 32, mflops, mparams, Sampler(net.space, mflops, 0, 600))
    assert supernet_step(cfg, searched, supernet_optimizer(cfg, net)).board.acc_gap == gap


def test_a_board_with_room_takes_all():
    assert board_of(entry(0, 60, 3), size=2).accepts(0.0, 999)


@pytest.mark.parametrize(("first", "second"), [(40, 60), (60, 40)])
def test_a_path_is_there_once_with_its_best_meeting(first, second):
    board = board_of(entry(1, first), entry(1, second), size=3)
    assert ranking(board) == [(60, 1)]


def test_images_and_features_come_in_the_order_of_the_ranking():
    low, high, middle = entry(0, 10), entry(1, 90), entry(2, 50)
    board = board_of(low, high, size=3)
    assert board.batch()[0].shape == [2 * SLICE, 3, 32, 32]
    board.add(middle)
    images, features = board.batch()
    for i, item in enumerate((high, middle, low)):
        np.testing.assert_array_equal(images[i * SLICE : (i + 1) * SLICE].numpy(), item.images.numpy())
        np.testing.assert_array_equal(features[i].numpy(), item.features.numpy())


def test_frequency_of_choices_counts_searched_blocks_of_a_full_board():
    """The first and last stage, whose only choice is called 0 as well, and left-out blocks do not count."""
    space = mobile_space((2, 1, 1, 1, 1))
    paths = [((0,), (3, -1), (3,), (3,), (1,), (5,), (0,)), ((0,), (3, 4), (0,), (3,), (1,), (5,), (0,))]
    items = [
        Entry(space.check(arch), 50 + i, 1.0, entry(i, 0).images, entry(i, 0).features) for i, arch in enumerate(paths)
    ]
    board = board_of(items[0], size=2)
    assert board.choice_frequency(space) is None
    board.add(items[1])
    np.testing.assert_allclose(board.choice_frequency(space), np.array([1, 2, 0, 5, 1, 2]) / 11)


def test_state_goes_there_and_back():
    board = board_of(entry(0, 10, 1.5), entry(1, 90, 2.5))
    restored = PrioritizedBoard(2)
    restored.load_state_dict(board.state_dict())
    assert [item.arch for item in restored.entries] == [item.arch for item in board.entries]
    assert ranking(restored) == ranking(board)
    for ours, theirs in zip(restored.batch(), board.batch()):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


# Who teaches


@pytest.fixture
def net():
    paddle.seed(0)
    net = MobileSuperNet(mobile_space((1, 1, 1, 1, 1)), num_classes=CLASSES, slice_size=SLICE)
    weight = golden.inputs(tuple(net.meta_layer.weight.shape), stream=5)
    net.meta_layer.weight.set_value(weight)
    net.meta_layer.bias.set_value(np.array([0.3], np.float32))
    return net


def statistics(net):
    return {n: v.numpy().copy() for n, v in net.state_dict().items() if n.endswith(("_mean", "_variance"))}


STUDENT = path(1, 2, 3, 4, 5)


def scores_of(net, board):
    """The scores by hand, in numpy, from the student's probabilities on all images of the board."""
    with paddle.no_grad():
        logits = net(board.batch()[0], STUDENT).numpy().astype(np.float64)
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = exponents / exponents.sum(axis=1, keepdims=True)
    difference = probabilities.reshape(len(board), -1) - board.batch()[1].numpy().reshape(len(board), -1)
    return difference @ net.meta_layer.weight.numpy()[:, 0] + net.meta_layer.bias.numpy()[0]


@pytest.mark.parametrize("count", [1, 3, 10])
def test_the_teacher_has_the_highest_score_and_rho_is_its_sigmoid(net, count):
    """Not the last entry's score, and with a useful teacher above one half."""
    board = board_of(*(entry(number, 50 + number) for number in range(count)))
    scores = scores_of(net, board)
    chosen = int(scores.argmax())
    if count > 1:
        assert chosen != count - 1
    teacher = match_teacher(net, board, STUDENT)
    assert teacher.arch == board.entries[chosen].arch
    assert teacher.rho == pytest.approx(1 / (1 + np.exp(-scores[chosen])), rel=1e-4)
    assert (teacher.rho > 0.5) == (scores[chosen] > 0)


def test_choosing_a_teacher_is_one_forward_pass_that_leaves_no_trace(net):
    board = board_of(*(entry(number, 50 + number) for number in range(4)))
    before, calls = statistics(net), []
    hook = net.register_forward_pre_hook(lambda layer, inputs: calls.append(inputs[0].shape[0]))
    teacher = match_teacher(net, board, STUDENT)
    hook.remove()
    assert calls == [4 * SLICE]
    assert teacher.difference.stop_gradient
    for name, value in statistics(net).items():
        np.testing.assert_array_equal(value, before[name])


def test_the_best_path_teaches_with_equal_say_when_top1_is_asked_for(net):
    teacher = best_teacher(net, board_of(entry(0, 10), entry(1, 90)), STUDENT)
    assert (teacher.arch, teacher.rho) == (entry(1, 0).arch, 0.5)


# How a step uses them

RATE, META_RATE = 0.05, 1e-3


def make_step(net, size=3, pick_method="meta", update_interval=2):
    cfg = load_config(None, [f"LR={RATE}", f"META_LR={META_RATE}"])
    mflops, _ = cost_tables(net, 32)
    return CreamStep(
        net,
        LabelSmoothingCrossEntropy(0.1),
        Update(supernet_optimizer(cfg, net)),
        Sampler(net.space, mflops, 0, 600),
        np.random.default_rng(0),
        board=PrioritizedBoard(size),
        flops=mflops,
        pick_method=pick_method,
        start_epoch=1,
        update_interval=update_interval,
        slice_size=SLICE,
    )


def batch(number):
    images = golden.inputs((6, 3, 32, 32), stream=1000 + number)
    return paddle.to_tensor(images), paddle.to_tensor(golden.targets(6, CLASSES, stream=2000 + number))


def record_forwards(net):
    """What the net was asked and answered: (images, path, logits, whether for training)."""
    records = []

    def hook(layer, inputs, output):
        records.append((inputs[0].numpy(), inputs[1], output.numpy().copy(), not output.stop_gradient))

    net.register_forward_post_hook(hook)
    return records


def test_the_board_stays_empty_through_the_start_epoch(net):
    step = make_step(net)
    sizes = [len(step.board) for epoch in (0, 1, 1, 2, 2) for _ in [step(*batch(epoch), epoch)]]
    assert sizes == [0, 0, 0, 1, 2]


def test_an_entry_keeps_its_own_logits_and_images_not_its_teachers(net):
    step, records = make_step(net), record_forwards(net)
    step(*batch(0), 2)
    del records[:]
    images, labels = batch(1)
    step(images, labels, 2)
    ((_, student, own, _),) = [record for record in records if record[3]]
    teachers = [logits for asked, arch, logits, _ in records if len(asked) == len(labels) and arch != student]
    (item,) = [item for item in step.board.entries if item.arch == student]
    np.testing.assert_array_equal(item.images.numpy(), images[:SLICE].numpy())
    np.testing.assert_allclose(item.features.numpy(), F.softmax(paddle.to_tensor(own[:SLICE]), 1).numpy(), rtol=1e-5)
    assert np.abs(F.softmax(paddle.to_tensor(teachers[0][:SLICE]), 1).numpy() - item.features.numpy()).max() > 1e-3


def test_statistics_move_on_the_students_path_alone(net):
    """Neither the choice of a teacher, nor the teacher, nor the matching network's update touches them."""
    step, records = make_step(net, update_interval=1), record_forwards(net)
    step(*batch(0), 2)
    before = statistics(net)
    del records[:]
    metrics = step(*batch(1), 2)
    assert metrics["meta_updates"] == 1
    ((_, student, _, _),) = [record for record in records if record[3] and len(record[0]) == 6]
    on_path = {f"blocks.{stage}.0.{choice}." for stage, (choice,) in enumerate(student)}
    moved = {name for name, value in statistics(net).items() if (value != before[name]).any()}
    assert moved == {name for name in before if name.startswith(("bn1.", *on_path))}


def test_the_matching_network_learns_by_the_students_rate_and_at_its_own(net, monkeypatch):
    """The lesson is taught at the student's rate; META_LR is how far the matching network then moves."""
    rates, lessons, steep = [], [], 100.0
    monkeypatch.setattr(
        steps,
        "meta_gradients",
        lambda net, arch, teacher, lesson, rate, loss_fn: (
            lessons.append(lesson) or rates.append(rate) or paddle.full(net.meta_layer.weight.shape, steep),
            paddle.full([1], steep),
        ),
    )
    step = make_step(net, update_interval=1)
    step(*batch(0), 2)
    weights = {name: value.numpy().copy() for name, value in net.state_dict().items()}
    step.update_matching(STUDENT, best_teacher(net, step.board, STUDENT), *batch(1))
    assert rates == [pytest.approx(RATE)]
    (images, labels), (lesson,) = batch(1), lessons
    np.testing.assert_array_equal(lesson.images.numpy(), images[:SLICE].numpy())
    np.testing.assert_array_equal(lesson.held_out_images.numpy(), images[SLICE : 2 * SLICE].numpy())
    np.testing.assert_array_equal(lesson.held_out_labels.numpy(), labels[SLICE : 2 * SLICE].numpy())
    assert group_lrs(step.update.optimizer) == [pytest.approx(rate) for rate in (RATE, RATE, META_RATE)]
    for name, value in net.state_dict().items():
        moved = META_RATE * steep * 1.9 if name.startswith("meta_layer") else 0  # the first step of Nesterov, 1 + 0.9
        np.testing.assert_allclose(value.numpy(), weights[name] - moved, rtol=1e-5, err_msg=name)


def test_a_student_has_the_teacher_that_the_updated_matching_network_chooses(net, monkeypatch):
    ones = paddle.full(net.meta_layer.weight.shape, 100.0), paddle.full([1], 100.0)
    monkeypatch.setattr(steps, "meta_gradients", lambda *arguments: ones)
    step = make_step(net, update_interval=1)
    step(*batch(0), 2)
    before = step.match(STUDENT).rho
    teacher = step.find_teacher(STUDENT, *batch(1))
    assert teacher.rho == step.match(STUDENT).rho
    assert abs(teacher.rho - before) > 1e-3


@pytest.mark.parametrize(
    ("pick_method", "interval", "updates"),
    [("meta", 2, [0, 0, 1, 1, 2]), ("meta", 3, [0, 0, 0, 1, 1]), ("top1", 1, [0, 0, 0, 0, 0])],
)
def test_updates_are_counted_in_taught_batches_through_all_epochs(net, pick_method, interval, updates):
    step = make_step(net, pick_method=pick_method, update_interval=interval)
    seen = [step(*batch(i), epoch)["meta_updates"] for i, epoch in enumerate((2, 2, 3, 4, 5))]
    assert seen == updates


def test_a_taught_student_is_as_sure_of_its_teacher_as_rho_says(net):
    """loss = (rho * distillation + (2 - rho) * cross-entropy) / 2, with the rho that was just chosen."""
    step = make_step(net, pick_method="top1")
    step(*batch(0), 2)
    plain = make_step(net)
    plain.rng.bit_generator.state = step.rng.bit_generator.state
    state = {name: value.numpy().copy() for name, value in net.state_dict().items()}
    taught = step(*batch(1), 2)
    net.set_state_dict(state)
    alone = plain(*batch(1), 0)
    expected = (0.5 * taught["kd_loss"] + 1.5 * alone["loss"]) / 2
    assert taught["loss"].item() == pytest.approx(expected.item(), rel=1e-5)
