"""Ways to train a supernet beside the paper's: draws, teachers, losses, the estimated board; each by value."""

import re

import numpy as np
import paddle
import pytest
import tiny
from model_weights import weights
from paddle.nn import functional as F
from tiny import CREAM, batch, step_of

from cream import build
from cream.flops import CostTable
from cream.space import SKIP, SearchSpace
from cream.train.board import Entry
from cream.train.draws import EvenDraw, FairDraw, SandwichDraw, extreme_path
from cream.train.estimate import RIDGE, SPAN, AdditiveFit, EstimatedBoard
from cream.train.meta import Teacher
from cream.train.multi_path import MultiPathStep
from cream.train.sampler import Sampler
from cream.train.steps import CreamStep
from cream.train.teaching import Teaching
from pimm.errors import ConfigError

SPACE = SearchSpace(choices=((3, 3), (2,)), keeps_shape=((False, False), (False,)))
COSTS = CostTable([[[1.0, 5.0, 2.0], [3.0, 1.0, 9.0]], [[4.0, 2.0]]], 10.0)


def sampler(minimum=0.0, maximum=100.0):
    return Sampler(SPACE, COSTS, minimum, maximum)


# Draws


def test_the_extreme_paths_are_those_of_the_space_or_of_the_range():
    assert extreme_path(sampler(), largest=True) == ((1, 2), (0,))
    assert extreme_path(sampler(), largest=False) == ((0, 1), (1,))
    inside = sampler(15, 26)  # the paths cost 14 to 28
    assert COSTS(extreme_path(inside, largest=True)) == 26
    assert COSTS(extreme_path(inside, largest=False)) == 15
    assert extreme_path(inside, largest=True) == extreme_path(inside, largest=True)


def costs_in(error):
    return [float(text) for text in re.search(r"cost ([\d.]+) to ([\d.]+) ", str(error)).groups()]


def test_fair_draws_have_every_choice_equally_often():
    draw, rng = FairDraw(sampler(), 3), np.random.default_rng(0)
    seen = set()
    for _ in range(50):
        rows = np.array([SPACE.encode(arch) for arch in draw(rng)])
        assert sorted(rows[:, 0]) == sorted(rows[:, 1]) == [0, 1, 2]
        assert set(rows[:2, 2]) == {0, 1}  # of two choices each once, then the choices start over
        seen.add(tuple(rows[:, 0]))
    assert len(seen) == 6  # all orders occur
    with pytest.raises(ConfigError, match=r"DRAW=fair .* must hold all paths of the space, which cost 14 to 28 MFLOPs"):
        FairDraw(sampler(maximum=20), 3)
    finer = CostTable([[[1.0, 5.0, 2.0], [3.0, 1.0, 9.0]], [[4.0, 2.0]]], 120.5014)
    with pytest.raises(ConfigError, match=r"FLOPS_MAXIMUM=130 must hold .* cost 124.5 to 138.51 MFLOPs") as caught:
        FairDraw(Sampler(SPACE, finer, 0, 130), 3)
    FairDraw(Sampler(SPACE, finer, *costs_in(caught.value)), 3)  # the range of the message is accepted
    rounded = CostTable([[[0.07, 0.26, 0.16], [0.19, 0.2, 0.26]], [[0.28, 0.07]]], 0.6)
    assert rounded.least < 0.93 and rounded.most > 1.4  # by the last bit, which is lost when they are multiplied by 100
    with pytest.raises(ConfigError, match=r"FLOPS_MINIMUM=0.93 to .* cost 0.92 to 1.41 MFLOPs") as caught:
        FairDraw(Sampler(SPACE, rounded, 0.93, 1.4), 3)
    FairDraw(Sampler(SPACE, rounded, *costs_in(caught.value)), 3)
    with pytest.raises(ConfigError, match="HOW_TO_PROB must be even"):
        FairDraw(Sampler(SPACE, COSTS, 0, 100, "pre_prob", [1, 2, 3]), 3)
    with pytest.raises(ConfigError, match="FLOPS_BINS must be 1, not 2"):
        FairDraw(Sampler(SPACE, COSTS, 14, 28, bins=2), 3)


def test_a_number_of_fair_paths_that_is_no_multiple_of_the_choices_is_noticed(caplog):
    for n, said in ((3, False), (6, False), (2, True), (4, True)):
        caplog.clear()
        FairDraw(sampler(), n)
        assert (f"SUPERNET.PATHS={n} is no multiple of the 3 choices of a block" in caplog.text) == said


def test_a_sandwich_has_the_largest_path_first_and_the_smallest_last():
    draw = SandwichDraw(sampler(), 4)
    first, *between, last = draw(np.random.default_rng(0))
    assert (first, last) == (((1, 2), (0,)), ((0, 1), (1,)))
    assert between == EvenDraw(sampler(), 2)(np.random.default_rng(0))
    with pytest.raises(ConfigError, match="PATHS is 2; must be at least 3"):
        SandwichDraw(sampler(), 2)


# Losses


def test_the_losses_of_a_taught_path_by_hand():
    logits, teacher = paddle.to_tensor([[2.0, 0.0], [0.0, 1.0]]), paddle.to_tensor([[0.0, 4.0], [1.0, 1.0]])
    label_loss = paddle.to_tensor(0.7)

    def cross_entropy(temperature):
        shares = [np.exp(row / temperature) / np.exp(row / temperature).sum() for row in teacher.numpy()]
        logs = [row / temperature - np.log(np.exp(row / temperature).sum()) for row in logits.numpy()]
        return -np.mean([(share * log).sum() for share, log in zip(shares, logs)])

    def losses(form, temperature=1.0, only_better=False, teacher_loss=0.1):
        teaching = Teaching(form, temperature, only_better)
        return [x.item() for x in teaching(0.6, logits, label_loss, teacher, lambda _: paddle.to_tensor(teacher_loss))]

    kd = cross_entropy(1)
    assert losses("mixed") == pytest.approx([(0.6 * kd + 1.4 * 0.7) / 2, kd])
    assert losses("added") == pytest.approx([0.7 + 0.3 * kd, kd])
    warm = 9 * cross_entropy(3)
    assert losses("added", temperature=3.0) == pytest.approx([0.7 + 0.3 * warm, warm])
    assert losses("mixed", only_better=True) == pytest.approx([(0.6 * kd + 1.4 * 0.7) / 2, kd])
    assert losses("mixed", only_better=True, teacher_loss=0.7) == pytest.approx([0.7, kd])  # not below: labels alone
    assert losses("added", only_better=True, teacher_loss=0.8) == pytest.approx([0.7, kd])


# The estimated board


def test_the_fit_is_ridge_regression_of_what_exceeds_the_neighbours_with_forgetting():
    rng = np.random.default_rng(0)
    fit, window, n, rows, losses = AdditiveFit(SPACE, 20.0), 20.0, 3 * SPAN, [], []
    assert fit(((0, 0), (0,))) == 0
    for number in range(n):
        arch = sampler()(rng)
        loss = 5 - 0.03 * number + 0.2 * arch[0][0] + rng.normal()
        fit.observe(arch, loss)
        rows.append(np.concatenate([np.eye(n)[c] for n, c in zip((3, 3, 2), SPACE.encode(arch))]))
        losses.append(loss)
    x = np.array(rows)
    excess = np.array([loss - np.mean(losses[max(i - SPAN, 0) : i + SPAN + 1]) for i, loss in enumerate(losses)])
    ages = n - SPAN - 1 - np.arange(n)  # a batch begins to age once it has all its neighbours
    weights = np.exp(-np.maximum(ages, 0) / window)
    effects = np.linalg.solve((x.T * weights) @ x + RIDGE * np.eye(8), (x.T * weights) @ excess)
    level = np.mean(losses[-2 * SPAN :])
    for arch in (((0, 1), (1,)), ((2, 2), (0,))):
        row = np.concatenate([np.eye(n)[c] for n, c in zip((3, 3, 2), SPACE.encode(arch))])
        assert fit(arch) == pytest.approx(level + row @ effects)
    again = AdditiveFit(SPACE, 20.0)
    again.load_state_dict(fit.state_dict())
    assert again(((2, 2), (0,))) == fit(((2, 2), (0,)))
    for each in (fit, again):
        each.observe(((0, 1), (1,)), 1.0)
    assert again(((2, 2), (0,))) == fit(((2, 2), (0,)))


def test_paths_on_the_same_images_are_compared_with_each_other():
    fit, archs, rng = (
        AdditiveFit(SPACE, 1e9),
        [((0, 1), (0,)), ((1, 2), (1,)), ((2, 0), (0,))],
        np.random.default_rng(0),
    )
    x = np.array([fit.features(arch) for arch in archs])
    x, y = x - x.mean(axis=0), np.array([-0.2, 0.0, 0.2])
    for _ in range(5):
        fit.observe_together(archs, y + rng.normal(2.0, 3.0))  # images differ by far more than paths
    effects = np.linalg.solve(5 * x.T @ x + RIDGE * np.eye(8), 5 * x.T @ y)
    differences = [fit(arch) - fit(archs[1]) for arch in archs]
    expected = [(fit.features(arch) - fit.features(archs[1])) @ effects for arch in archs]
    assert differences == pytest.approx(expected) and differences[0] < -0.1 < 0.1 < differences[2]


def test_a_falling_loss_does_not_hide_the_operations_that_help():
    rng = np.random.default_rng(2)
    fit = AdditiveFit(SPACE, 500.0)
    for number in range(600):
        arch = sampler()(rng)
        fit.observe(arch, 3 - number / 200 - 0.1 * arch[0][0] + 0.02 * rng.normal())
    assert fit(((0, 0), (0,))) - fit(((2, 0), (0,))) == pytest.approx(0.2, abs=0.02)


def test_the_fit_finds_the_operations_that_help_in_noise():
    rng = np.random.default_rng(1)
    fit = AdditiveFit(SPACE, 500.0)
    for _ in range(1000):
        arch = sampler()(rng)
        fit.observe(arch, 2 - 0.1 * arch[0][0] + 0.05 * arch[0][1] + 0.2 * rng.normal())
    paths = [SPACE.decode([a, b, c]) for a in range(3) for b in range(3) for c in range(2)]
    assert min(paths, key=fit)[0] == (2, 0)
    assert fit(((0, 0), (0,))) - fit(((2, 0), (0,))) == pytest.approx(0.2, abs=0.05)


def test_a_choice_that_is_not_drawn_counts_for_nothing():
    space = SearchSpace(choices=((2, 2),), keeps_shape=((False, True),))
    fit = AdditiveFit(space, 10.0)
    fit.observe(((1, SKIP),), 3.0)
    assert fit.features(((1, SKIP),)).tolist() == [0, 1, 0, 0]
    drawn = AdditiveFit(SearchSpace(((2, 2),), ((False, True),), draws_skip=True), 10.0)
    assert drawn.features(((1, SKIP),)).tolist() == [0, 1, 0, 0, 1]


def entry(arch, mflops=1.0, value=0.0):
    return Entry(arch, 50.0, mflops, paddle.full([2, 3, 4, 4], value), paddle.full([2, 3], value))


def test_entries_move_with_their_estimates_and_refresh():
    board = EstimatedBoard(2, AdditiveFit(SPACE, 5.0))
    good, bad, other = ((0, 0), (0,)), ((1, 1), (1,)), ((2, 2), (0,))
    board.observe(good, lambda: 1.0)
    board.observe(bad, lambda: 2.0)
    board.add(entry(bad))
    board.add(entry(good))
    assert [each.arch for each in board.entries] == [good, bad]
    assert not board.accepts(99.0, 5.0, bad) and board.accepts(0.0, 0.5, bad)  # as good as the last, and cheaper
    for _ in range(30):
        board.observe(good, lambda: 3.0)
        board.observe(other, lambda: 0.5)
    assert [each.arch for each in board.entries] == [bad, good]  # the first has aged
    assert board.accepts(0.0, 9.0, other)
    board.add(entry(other))
    assert [each.arch for each in board.entries] == [other, bad]
    board.add(entry(bad, value=7.0))  # seen again: its images and features are those of now
    assert board.entries[1].features.numpy()[0, 0] == 7 and len(board) == 2
    again = EstimatedBoard(2, AdditiveFit(SPACE, 5.0))
    again.load_state_dict(board.state_dict())
    assert [each.arch for each in again.entries] == [other, bad]
    assert again.fit(good) == board.fit(good)


# Steps


def test_several_paths_move_the_weights_by_their_mean_gradient(data, tmp_path):
    step = step_of(data, tmp_path, "SUPERNET.METHOD=multi_path", "SUPERNET.PATHS=2", "MOMENTUM=0", "WEIGHT_DECAY=0")
    assert isinstance(step, MultiPathStep)
    net, archs = step.net, [((0, 1, -1),), ((1, 1, 0),)]
    step.draw = lambda rng: archs
    images, labels = batch()
    losses, expected, before = [], {}, weights(net)
    for arch in archs:
        loss = F.cross_entropy(net(images, arch), labels)
        losses.append(loss.item())
        parameters = net.active_parameters(arch)
        for parameter, gradient in zip(parameters, paddle.grad(loss, parameters)):
            expected[parameter.name] = expected.get(parameter.name, 0) + gradient.numpy() / 2
    metrics = step(images, labels, epoch=0)
    assert metrics["loss"].item() == pytest.approx(np.mean(losses), rel=1e-5)
    for name, parameter in net.named_parameters():
        if not parameter.stop_gradient:
            moved = before[name] - 0.05 * expected.get(parameter.name, 0)
            np.testing.assert_allclose(parameter.numpy(), moved, rtol=1e-4, atol=1e-6, err_msg=name)
    assert step.sampled.counts[0][0] == [1, 1] and step.sampled.counts[0][1] == [0, 2, 0]


def test_paths_may_be_updated_one_by_one_and_their_losses_are_fitted_together(data, tmp_path):
    settings = ("SUPERNET.METHOD=multi_path", "SUPERNET.PATHS=2", "SUPERNET.UPDATES=each", "SUPERNET.ESTIMATE=True")
    step, alone = step_of(data, tmp_path, *settings), step_of(data, tmp_path)
    archs, (images, labels), taken = [((0, 1, -1),), ((1, 1, 0),)], batch(), []
    step.draw, step.fit.observe_together = lambda rng: archs, lambda *seen: taken.extend(seen)
    losses = [alone.train_path(arch, images, labels)[0][0].item() for arch in archs]
    metrics = step(images, labels, epoch=0)
    assert metrics["loss"].item() == pytest.approx(np.mean(losses), rel=1e-5)
    assert taken[0] == archs and taken[1] == pytest.approx(losses, rel=1e-5)
    for name, value in weights(alone.net).items():
        np.testing.assert_allclose(weights(step.net)[name], value, rtol=1e-5, atol=1e-7, err_msg=name)


def test_the_largest_path_of_a_sandwich_teaches_the_others_after_the_start(data, tmp_path):
    settings = ("SUPERNET.METHOD=multi_path", "SUPERNET.DRAW=sandwich", "SUPERNET.PATHS=3", "EPOCHS=3")
    step = step_of(data, tmp_path, *settings, "SUPERNET.META_STA_EPOCH=0", "SUPERNET.TEACHING=added", "SUPERNET.RHO=1")
    images, labels = batch()
    archs = step.draw(np.random.default_rng(step.rng.bit_generator.state["state"]["state"] % 2**32))
    assert archs[0] == ((1, 1, 1),)
    step.draw = lambda rng: archs
    before = step.net.state_dict()
    values = {name: value.clone() for name, value in before.items()}
    assert step(images, labels, epoch=0)["kd_loss"].item() == 0
    step.net.set_state_dict(values)
    logits = [step.net(images, arch) for arch in archs]
    soft = F.softmax(logits[0], axis=1)
    distances = [-(soft * F.log_softmax(each, axis=1)).sum(1).mean().item() for each in logits[1:]]
    label_losses = [F.cross_entropy(each, labels).item() for each in logits]
    found = step(images, labels, epoch=1)
    assert found["kd_loss"].item() == pytest.approx(sum(distances) / 3, rel=1e-4)
    assert found["loss"].item() == pytest.approx((sum(label_losses) + 0.5 * sum(distances)) / 3, rel=1e-4)
    silent = step_of(data, tmp_path, *settings, "SUPERNET.META_STA_EPOCH=0", "SUPERNET.RHO=0")
    assert silent(images, labels, epoch=1)["kd_loss"].item() == 0


def filled(step):
    for seed, arch in enumerate((((0, 0, 0),), ((1, 0, 1),), ((0, 1, 0),))):
        images, labels = batch(seed)
        logits = step.net(images, arch)
        step.board.observe(arch, lambda logits=logits, labels=labels: F.cross_entropy(logits, labels).item())
        step.offer_to_board(arch, 50.0 + seed, images, logits.detach())
    return step


def test_teachers_that_no_matching_network_picks(data, tmp_path):
    largest = filled(step_of(data, tmp_path, *CREAM, "SUPERNET.PICK_METHOD=largest", "SUPERNET.RHO=1.5"))
    assert largest.match(((0, 0, 0),)) == Teacher(((1, 1, 1),), 1.5)
    best = filled(step_of(data, tmp_path, *CREAM, "SUPERNET.PICK_METHOD=top1", "SUPERNET.RHO=0.7"))
    assert best.match(((0, 0, 0),)) == Teacher(((0, 1, 0),), 0.7)
    any_of = filled(step_of(data, tmp_path, *CREAM, "SUPERNET.PICK_METHOD=random"))
    drawn = [any_of.match(((0, 0, 0),)) for _ in range(30)]
    assert {teacher.arch for teacher in drawn} == {entry.arch for entry in any_of.board.entries}
    assert {teacher.rho for teacher in drawn} == {0.5} and not any_of.learns_to_match


def test_the_papers_teaching_is_the_default(data, tmp_path):
    step = step_of(data, tmp_path, *CREAM)
    assert isinstance(step, CreamStep) and step.teaching == Teaching("mixed", 1.0, False)
    assert type(step.board).__name__ == "PrioritizedBoard" and step.learns_to_match


@pytest.mark.parametrize(
    "settings",
    [
        ("SUPERNET.METHOD=multi_path", "SUPERNET.DRAW=fair", "EPOCHS=2"),
        ("SUPERNET.METHOD=multi_path", "SUPERNET.DRAW=sandwich", "SUPERNET.META_STA_EPOCH=0", "EPOCHS=2"),
        (*CREAM, "SUPERNET.BOARD_SCORE=estimate", "SUPERNET.PICK_METHOD=top1", "SUPERNET.TEACHING=added"),
        (*CREAM, "SUPERNET.PICK_METHOD=random", "SUPERNET.TEMPERATURE=2", "SUPERNET.TEACH_ONLY_BETTER=True"),
        (*CREAM, "SUPERNET.BOARD_SCORE=estimate", "SUPERNET.UPDATE_ITER=2"),
        ("SUPERNET.METHOD=multi_path", "SUPERNET.DRAW=fair", "SUPERNET.UPDATES=each", "SUPERNET.ESTIMATE=True"),
        ("SUPERNET.METHOD=single_path", "SUPERNET.ESTIMATE=True", "SUPERNET.AVERAGE=0.9"),
    ],
    ids=lambda settings: " ".join(one.partition(".")[2] for one in settings if "SUPERNET" in one),
)
def test_a_resumed_step_goes_on_bit_for_bit(settings, data, tmp_path):
    def run(step, numbers):
        for number in numbers:
            step(*batch(number), epoch=number // 4)
        return step

    extra = ["SUPERNET.DRAW=even"] if "SUPERNET.METHOD=cream" in settings else []
    whole = run(step_of(data, tmp_path, *extra, *settings), range(12))
    first = run(step_of(data, tmp_path, *extra, *settings), range(7))
    second = step_of(data, tmp_path, *extra, *settings)
    second.net.set_state_dict(weights(first.net))
    if first.ema is not None:
        second.ema.ema.set_state_dict(weights(first.ema.ema))
    _copy_optimizer(first, second)
    second.load_state_dict(first.state_dict())
    run(second, range(7, 12))
    for name, value in weights(whole.net).items():
        np.testing.assert_array_equal(weights(second.net)[name], value, err_msg=name)
    assert second.log_state() == whole.log_state()
    if whole.fit is not None:
        assert second.fit(((0, 1, 0),)) == whole.fit(((0, 1, 0),)) != whole.fit(((1, 0, 0),))


def _copy_optimizer(source, target):
    """Copy the momentum of one step's optimizer to that of another net of the same names."""
    from pimm.optim.state import load_optimizer_state, optimizer_state

    load_optimizer_state(target.update.optimizer, target.net, optimizer_state(source.update.optimizer, source.net))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (("SUPERNET.METHOD=multi_path", "SUPERNET.UPDATES=each", "SUPERNET.ACCUMULATE=2"), "ACCUMULATE=2 must be 1"),
        (("SUPERNET.METHOD=multi_path", "SUPERNET.SELECT_RANDOM=0"), "METHOD=multi_path has no board to select from"),
        (
            ("SUPERNET.METHOD=multi_path", "SUPERNET.DRAW=sandwich", "EPOCHS=3"),
            "EPOCHS=3 ends before paths teach each other",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_told(settings, says, data, tmp_path):
    cfg = tiny.settings(data, tmp_path, *settings)
    with pytest.raises(ConfigError, match=says):
        build.check_search(cfg)
        build.plan_search(cfg)


def test_a_search_by_several_paths_runs_and_selects(data, tmp_path):
    settings = ("SUPERNET.METHOD=multi_path", "SUPERNET.DRAW=sandwich", "SUPERNET.META_STA_EPOCH=0", "EPOCHS=2")
    folder = tiny.run_search(data, tmp_path, *settings)
    assert (folder / "architecture.json").is_file()


@pytest.mark.parametrize(
    "settings",
    [
        (*CREAM, "SUPERNET.BOARD_SCORE=estimate", "SUPERNET.PICK_METHOD=random", "SUPERNET.TEACHING=added"),
        ("SUPERNET.METHOD=multi_path", "SUPERNET.DRAW=sandwich", "SUPERNET.META_STA_EPOCH=0", "EPOCHS=3"),
    ],
    ids=["estimate", "sandwich"],
)
def test_a_killed_search_ends_as_one_without_a_break(settings, data, tmp_path):
    settings = ("RECOVERY_INTERVAL=2", *settings)
    whole = tiny.run_search(data, tmp_path / "whole", *settings)
    kind = MultiPathStep if "SUPERNET.METHOD=multi_path" in settings else CreamStep
    broken = tiny.run_killed_search(data, tmp_path / "broken", kind, *settings)
    tiny.assert_ended_alike(broken, whole)


def test_several_paths_of_shuffle_nets_are_trained_together(data, tmp_path):
    shuffle = ("SUPERNET.FAMILY=shuffle", "SUPERNET.SHUFFLE.DEPTHS=(1,1)", "SUPERNET.SHUFFLE.CHANNELS=(18,24)")
    settings = ("SUPERNET.SPACE=None", "SUPERNET.RESOLUTION=32", "SUPERNET.METHOD=multi_path", "SUPERNET.DRAW=fair")
    step = step_of(data, tmp_path, *shuffle, *settings, "SUPERNET.PATHS=4")
    rng = np.random.default_rng(0)
    images = paddle.to_tensor(rng.normal(size=(6, 3, 32, 32)).astype(np.float32))
    before = weights(step.net)
    assert step(images, paddle.to_tensor(rng.integers(3, size=6)), epoch=0)["loss"].item() > 0
    assert step.sampled.counts == [[[1, 1, 1, 1]], [[1, 1, 1, 1]]]  # each choice once
    moved = {name for name, value in weights(step.net).items() if not np.array_equal(value, before[name])}
    assert {name for name, p in step.net.named_parameters() if not p.stop_gradient} <= moved


def test_sampling_by_the_board_runs_a_search(data, tmp_path):
    by_board = ("SUPERNET.HOW_TO_PROB=teacher", "SUPERNET.SELECT_RANDOM=0")
    folder = tiny.run_search(data, tmp_path, *CREAM, *by_board)
    assert len((folder / "candidates.csv").read_text().splitlines()) == 4  # the heading, and the board of three
