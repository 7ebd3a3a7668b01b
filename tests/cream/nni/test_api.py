"""The searches under NNI's names: the documented examples, and every step and draw against what stands behind it."""

import itertools
import math
import re
import tarfile
from collections import Counter
from pathlib import Path

import golden
import numpy as np
import paddle
import pytest
import tiny
from paddle import nn
from paddle.nn import functional as F
from paths import ROOT

import cream
from cream.flops import cost_tables
from cream.nni import (
    CreamSupernetTrainer,
    CreamSupernetTrainingMutator,
    SPOSEvolution,
    SPOSSupernetTrainer,
    SPOSSupernetTrainingMutator,
    evolution,
)
from cream.nni.loop import Batches
from cream.nni.paths import given_costs
from cream.selection.candidates import Candidate
from cream.space import SKIP
from cream.train.board import PrioritizedBoard
from cream.train.evaluation import evaluate
from cream.train.steps import CreamStep, Update
from pimm.data import Dataset, create_loader
from pimm.data.loader import Loader
from pimm.engine.evaluation import train_mode
from pimm.errors import CheckpointError, ConfigError, DataError, TrainingError

EXAMPLES = re.findall(r"```python\n(.*?)```", (ROOT / "docs/api.md").read_text(), re.DOTALL)
SIZE, CLASSES, SLICE = 8, 5, 2
PAGE: dict = {}
exec(EXAMPLES[0], PAGE)


def make_net(seed=0):
    paddle.seed(seed)
    return PAGE["MyNet"](CLASSES)


def batch(number, count=6):
    images = golden.inputs((count, 3, SIZE, SIZE), stream=number)
    return paddle.to_tensor(images), paddle.to_tensor(golden.targets(count, CLASSES, stream=1000 + number))


TRAIN, VAL = [batch(i) for i in range(3)], [batch(10), batch(11, count=3)]
CREAM = {"resolution": SIZE, "meta_sta_epoch": 0, "update_iter": 2, "slices": SLICE, "pool_size": 2}


def cream_trainer(net, epochs=3, rate=0.1, mutator=None, val_loss=None, **options):
    optimizer = paddle.optimizer.Momentum(rate, parameters=net.parameters())
    options = {**CREAM, "meta_lr": 0.5, "select_batches": 2, **options}
    return CreamSupernetTrainer(net, nn.CrossEntropyLoss(), val_loss, optimizer, epochs, TRAIN, VAL, mutator, **options)


def spos_trainer(net, train=TRAIN, metrics=None, epochs=1, **options):
    optimizer = paddle.optimizer.Momentum(0.1, parameters=net.parameters())
    return SPOSSupernetTrainer(net, nn.CrossEntropyLoss(), metrics, optimizer, epochs, train, VAL, **options)


def weights(net):
    return {name: value.numpy().copy() for name, value in net.state_dict().items()}


def assert_same_weights(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def all_paths(space):
    return [space.decode(row) for row in itertools.product(*space.options)]


# The page


def write_part(split, folder, every):
    """Some of the embedded images, so that the examples take seconds."""
    embedded = ROOT / f"data/fashion_mnist/{split}.tar"
    with tarfile.open(embedded) as whole, tarfile.open(folder / f"{split}.tar", "w") as part:
        for member in [member for member in whole if member.isfile()][::every]:
            part.addfile(member, whole.extractfile(member))


def test_the_documented_examples_run(tmp_path, monkeypatch, capsys):
    images = tmp_path / "data/fashion_mnist"
    images.mkdir(parents=True)
    write_part("train", images, every=3)
    write_part("val", images, every=6)
    monkeypatch.chdir(tmp_path)
    names = {}
    for code in EXAMPLES[:3]:
        exec(code, names)
    # Nothing is written but what was asked for.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["architecture_final.json", "data", "spos_final.json"]
    space, searched = names["net"].space, names["evolution"]
    accuracies = [candidate.prec1 for candidate in searched.candidates]
    assert len(accuracies) == 8 and accuracies == sorted(accuracies, reverse=True)
    assert max(candidate.mflops for candidate in searched.candidates) <= 0.15
    assert space.from_nni_json(Path("spos_final.json").read_text()) == searched.best_arch
    assert f"{searched.best_arch} {accuracies[0]}" in capsys.readouterr().out
    exec(EXAMPLES[3], names)
    assert len(Path("my_search/summary.csv").read_text().splitlines()) == 1 + 2
    assert {"log.txt", "checkpoint-0", "checkpoint-1"} <= {path.name for path in Path("my_search").iterdir()}
    assert names["schedule"].last_lr == pytest.approx(0.0)
    assert capsys.readouterr().out.startswith("0 ")


def test_the_examples_result_is_the_best_of_the_board(tmp_path):
    trainer = cream_trainer(make_net())
    with pytest.raises(TrainingError, match="no path has been scored yet"):
        trainer.export(tmp_path / "early.json")
    metrics = trainer.train()
    on_board = {entry.arch for entry in trainer.board.entries}
    assert {candidate.arch for candidate in trainer.candidates} == on_board and len(on_board) == 2
    best = max(trainer.candidates, key=lambda candidate: (candidate.prec1, -candidate.mflops))
    assert trainer.best_arch == best.arch
    trainer.export(tmp_path / "final.json")
    assert trainer.space.from_nni_json((tmp_path / "final.json").read_text()) == best.arch
    assert metrics["board_prec1"] == trainer.validate_path(trainer.board.entries[0].arch)["prec1"]
    parameters = trainer.model.active_parameters(best.arch)
    assert best.mparams == sum(np.prod(parameter.shape) for parameter in parameters) / 1e6


def test_the_names_are_creams_too():
    assert cream.CreamSupernetTrainer is CreamSupernetTrainer and cream.SPOSEvolution is SPOSEvolution
    with pytest.raises(AttributeError, match="No cream attribute Other"):
        _ = cream.Other


# Steps


@pytest.mark.parametrize("pick_method", ["meta", "top1"])
def test_a_trainers_steps_are_creams(pick_method):
    trainer = cream_trainer(make_net(), pick_method=pick_method, acc_gap=5)
    twin = make_net()
    matching = None
    if pick_method == "meta":
        twin.meta_layer = type(trainer.model.meta_layer)(CLASSES, SLICE)
        matching = paddle.optimizer.SGD(0.5, parameters=twin.meta_layer.parameters())
    twin.set_state_dict(weights(trainer.model))
    held = [parameter for name, parameter in twin.named_parameters() if not name.startswith("meta_layer")]
    step = CreamStep(
        twin,
        nn.CrossEntropyLoss(),
        Update(paddle.optimizer.Momentum(0.1, parameters=held)),
        lambda rng, board: twin.space.decode(twin.space.sample(rng)[0]),
        np.random.default_rng([42, 1]),
        board=PrioritizedBoard(2, acc_gap=5),
        flops=cost_tables(twin, SIZE)[0],
        pick_method=pick_method,
        start_epoch=0,
        update_interval=2,
        slice_size=SLICE,
        matching_optimizer=matching,
    )
    before = weights(twin)
    trainer.train()
    twin.train()
    for epoch in range(3):
        for images, labels in TRAIN:
            metrics = step(images, labels, epoch)
    assert metrics["meta_updates"] == (2 if pick_method == "meta" else 0)
    assert_same_weights(weights(trainer.model), weights(twin))
    assert [vars(entry)["arch"] for entry in trainer.board.entries] == [entry.arch for entry in step.board.entries]
    moved = {name for name, value in weights(twin).items() if (value != before[name]).any()}
    assert ("meta_layer.weight" in moved) == (pick_method == "meta") and "last.weight" in moved


def test_a_matching_network_in_the_users_optimizer_learns_there():
    net = make_net()
    net.meta_layer = type(cream_trainer(make_net()).model.meta_layer)(CLASSES, SLICE)
    trainer = cream_trainer(net)
    assert trainer.step.matching_optimizer is trainer.step.update.optimizer
    with pytest.raises(ConfigError, match="meta_layer is for 2 images, but slices is 3"):
        cream_trainer(net, slices=3)


def test_any_loader_will_do():
    """Paddle's own, with labels [N, 1], against the same batches in a list."""

    class Images(paddle.io.Dataset):
        def __getitem__(self, index):
            images, labels = TRAIN[index // 6]
            return images[index % 6].numpy(), labels[index % 6 : index % 6 + 1].numpy()

        def __len__(self):
            return 18

    nets = make_net(), make_net()
    for net, loader in zip(nets, (TRAIN, paddle.io.DataLoader(Images(), batch_size=6, num_workers=0))):
        spos_trainer(net, loader, batch_size=6, workers=0).train()
    assert_same_weights(weights(nets[1]), weights(nets[0]))


def test_validation_is_the_mean_over_fixed_paths():
    def wrong(logits, labels):
        return {"wrong": 100.0 * (logits.argmax(axis=1) != labels).astype("float32").mean()}

    trainer = spos_trainer(make_net(), metrics=wrong, probes=3)
    found = trainer.validate()
    with train_mode(trainer.model, training=False):
        each = [evaluate(lambda x, arch=arch: trainer.model(x, arch), VAL) for arch in trainer.probes]
    assert len(each) == 3
    for name in ("loss", "prec1", "prec5"):
        assert found[name] == pytest.approx(np.mean([one[name] for one in each]), rel=1e-5)
    assert found["wrong"] == pytest.approx(100 - found["prec1"], rel=1e-5)


def test_the_validation_loss_is_the_users():
    trainer = cream_trainer(make_net(), val_loss=lambda logits, labels: 3 * F.cross_entropy(logits, labels))
    plain = cream_trainer(make_net())
    arch = trainer.probes[0]
    assert trainer.validate_path(arch)["loss"] == pytest.approx(3 * plain.validate_path(arch)["loss"], rel=1e-5)


def test_callbacks_hear_of_every_epoch():
    heard = []
    last = spos_trainer(make_net(), epochs=2, callbacks=[lambda *told: heard.append(told)]).train()
    assert [epoch for epoch, _ in heard] == [0, 1] and heard[1][1] == last


# Going on


@pytest.mark.parametrize("in_folder", [True, False])
def test_an_interrupted_training_goes_on_as_if_nothing_had_happened(tmp_path, in_folder):
    whole, folder = make_net(), tmp_path / "run" if in_folder else None

    def interrupt(epoch, metrics):
        if epoch == 1 and interruptions:
            raise interruptions.pop()

    def trainer(net, **options):
        schedule = paddle.optimizer.lr.CosineAnnealingDecay(0.1, T_max=9)
        return cream_trainer(net, rate=schedule, lr_scheduler=schedule, **options)

    expected = trainer(whole).train()
    interruptions = [KeyboardInterrupt()]
    options = {"folder": folder, "recovery_interval": 1 if in_folder else 0, "callbacks": [interrupt]}
    broken = trainer(make_net(), **options)
    with pytest.raises(KeyboardInterrupt):
        broken.train()
    if in_folder:
        broken = trainer(make_net(seed=1), **options)
    found = broken.train()
    assert found == expected
    assert_same_weights(weights(broken.model), weights(whole))
    if in_folder:
        other = trainer(make_net(), **options, pool_size=3)
        for _ in range(2):  # not forgotten when the notebook's cell is run again
            with pytest.raises(CheckpointError, match="pool_size was 2 and is 3"):
                other.train()


def test_a_schedule_that_a_callback_steps_is_left_alone_by_a_resume(tmp_path):
    for epochs in (2, 3):
        schedule = paddle.optimizer.lr.StepDecay(0.1, step_size=1, gamma=0.5)
        options = {"rate": schedule, "folder": tmp_path, "callbacks": [lambda *told, own=schedule: own.step()]}
        cream_trainer(make_net(), epochs=epochs, **options).train()
    assert schedule.last_epoch == 1  # the caller's business: it began anew


def test_a_training_with_pimms_loaders_goes_on_exactly(tmp_path):
    tiny.write_images(tmp_path)

    def train(folder, epochs, stop=None):
        splits = {"train": True, "val": False}
        loaders = [
            create_loader(Dataset(tmp_path / name), (3, SIZE, SIZE), 4, is_training=training, num_workers=0)
            for name, training in splits.items()
        ]
        net = make_net()
        optimizer = paddle.optimizer.Momentum(0.1, parameters=net.parameters())
        options = {"folder": folder, "recovery_interval": 5, "callbacks": [stop] if stop else None}
        SPOSSupernetTrainer(net, nn.CrossEntropyLoss(), None, optimizer, epochs, *loaders, **options).train()
        return weights(net)

    def interrupt(epoch, metrics):
        if epoch == 1:
            raise KeyboardInterrupt

    expected = train(tmp_path / "whole", 3)
    train(tmp_path / "broken", 1)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "broken", 3, interrupt)
    assert (tmp_path / "broken/recovery-1-4").is_dir()
    assert_same_weights(train(tmp_path / "broken", 3), expected)


def test_a_loader_of_the_users_passes_over_what_was_done(monkeypatch):
    told = []

    class Known(Loader):
        def __init__(self):
            pass

        def set_epoch(self, *where):
            told.append(where)

    sampler = paddle.io.DistributedBatchSampler(list(range(8)), 2, num_replicas=1, rank=0, shuffle=True)
    monkeypatch.setattr(sampler, "set_epoch", told.append)
    batches = Batches(paddle.io.DataLoader(list(range(8)), batch_sampler=sampler, num_workers=0))
    batches.set_epoch(4)
    Batches(Known()).set_epoch(5, 2)
    assert told == [4, (5, 2)]
    batches = Batches(TRAIN)
    for start in (2, 0):
        batches.set_epoch(1, start_batch=start)
        assert [images is TRAIN[start + i][0] for i, (images, _) in enumerate(batches)] == [True] * (3 - start)


# Draws


def shares_of(sampler, n=2000):
    rng = np.random.default_rng(0)
    return Counter(sampler(rng) for _ in range(n)), n


def assert_drawn_as(sampler, expected):
    counts, n = shares_of(sampler)
    assert set(counts) <= set(expected)
    for arch, share in expected.items():
        assert counts[arch] / n == pytest.approx(share, abs=5 * math.sqrt(share / n)), arch


@pytest.mark.parametrize("bins", [1, 2])
@pytest.mark.parametrize("exact", [True, False])
def test_paths_come_from_all_parts_of_the_range_alike(exact, bins):
    net = make_net()
    table, _ = cost_tables(net, 32)
    low, high = 0.1, 0.16
    mutator = SPOSSupernetTrainingMutator(net, table if exact else lambda arch: table(arch), low, high, bins)
    parts = [[] for _ in range(bins)]
    for arch in all_paths(net.space):
        if low <= table(arch) <= high:
            parts[min(int((table(arch) - low) / (high - low) * bins), bins - 1)].append(arch)
    assert min(map(len, parts)) > 3
    assert_drawn_as(mutator.sampler, {arch: 1 / bins / len(part) for part in parts for arch in part})


def test_operations_are_drawn_by_their_probabilities():
    net = make_net()
    given = (0.1, 0.2, 0.3, 0.4)  # the last for leaving a block out
    mutator = CreamSupernetTrainingMutator(net, "pre_prob", given, CHOICE_NUM=3, sta_num=(2, 2))
    first = np.array(given[:3]) / sum(given[:3])
    expected = {
        ((a, b), (c, d)): first[a] * given[b] * first[c] * given[d]
        for a, c in itertools.product(range(3), repeat=2)
        for b, d in itertools.product((0, 1, 2, SKIP), repeat=2)
    }
    assert_drawn_as(mutator.sampler, expected)
    assert mutator.sample_search() in expected
    assert mutator.sample_search() != mutator.sample_search()


def test_costs_may_be_given_as_nni_does():
    net = make_net()
    table, _ = cost_tables(net, SIZE)
    by_position = [costs for stage in table.choices for costs in stage]
    as_dict = {number: dict(enumerate(costs)) for number, costs in enumerate(by_position)}
    for given in (by_position, as_dict):
        costs = given_costs(net.space, given, table.fixed)
        assert [costs(arch) for arch in all_paths(net.space)] == [table(arch) for arch in all_paths(net.space)]
    assert cream_trainer(net, flops_dict=as_dict, flops_fixed=7.0).flops.fixed == 7.0


# Evolution


def quality(arch):
    """Known to the test alone: the path ((2, 1), (0, 2)) is best."""
    wanted = (2, 1, 0, 2)
    return 100.0 - sum((a - b) ** 2 for a, b in zip(itertools.chain(*arch), wanted))


def test_evolution_finds_the_best_path_and_goes_on_after_a_kill(tmp_path, monkeypatch):
    net, scored = make_net(), []

    def score(model, archs, costs, train, val, batches):
        if kill_at is not None and len(scored) + len(archs) > kill_at:
            raise KeyboardInterrupt
        scored.extend(archs)
        return [Candidate(arch, quality(arch), 100.0, 0.0, *(cost(arch) for cost in costs)) for arch in archs]

    monkeypatch.setattr(evolution, "score", score)
    table, _ = cost_tables(net, 32)
    numbers = {"max_epochs": 6, "num_select": 4, "num_population": 10, "num_crossover": 4, "num_mutation": 4}

    def search(file=None):
        found = SPOSEvolution(**numbers, m_prob=0.3, flops_limit=table(((2, 1), (0, 2))), file=file)
        return found.search(net, TRAIN, VAL, resolution=32)

    kill_at = None
    whole = search()
    assert whole[0].arch == ((2, 1), (0, 2)) and len(scored) == len(set(scored)) == len(whole) <= 60
    assert max(candidate.mflops for candidate in whole) <= table(((2, 1), (0, 2)))
    assert whole[0].mparams == sum(np.prod(p.shape) for p in net.active_parameters(whole[0].arch)) / 1e6
    del scored[:]
    kill_at = 17
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "evolution.json")
    kill_at = None
    assert search(tmp_path / "evolution.json") == whole and len(scored) == len(whole)
    net.last.weight.set_value(net.last.weight + 1)
    # The old scores must not be taken in silence.
    with pytest.raises(ConfigError, match="belongs to an evolution with other settings: weights was"):
        search(tmp_path / "evolution.json")


def test_evolution_under_the_least_cost_finds_the_cheapest_path():
    net = make_net()
    table, _ = cost_tables(net, SIZE)
    found = SPOSEvolution(max_epochs=2, num_select=1, num_population=2, num_crossover=1, num_mutation=1)
    found.flops_limit = table.least
    (only,) = found.search(net, TRAIN, VAL, resolution=SIZE, select_batches=1)
    assert table(only.arch) == table.least == min(table(arch) for arch in all_paths(net.space))


# Mistakes


class Foreign(PAGE["MyNet"]):
    def __init__(self):
        super().__init__(CLASSES)
        self.extra = nn.BatchNorm2D(3)


class Short(PAGE["MyNet"]):
    def __init__(self):
        super().__init__(CLASSES)
        self.blocks = nn.LayerList([self.stage(8, 32)])


class Nameless(PAGE["MyNet"]):
    def __init__(self):
        super().__init__(CLASSES)
        del self.num_classes


MISTAKES = {
    "another kind of net": (lambda: cream_trainer(nn.Linear(2, 2)), "Linear is no cream.supernet.SuperNet"),
    "positions that the space does not know": (lambda: cream_trainer(Short()), r"\[2\] positions, .* \[2, 2\]"),
    "paddle's batch norm": (lambda: cream_trainer(Foreign()), "extra and 0 more are paddle.nn.BatchNorm2D"),
    "no number of classes": (lambda: cream_trainer(Nameless()), "needs Nameless.num_classes"),
    "no image size": (lambda: cream_trainer(make_net(), resolution=None), "give resolution"),
    "too few epochs": (lambda: cream_trainer(make_net(), epochs=1), "it must be at least 2"),
    "choice_num": (lambda: cream_trainer(make_net(), choice_num=6), "choice_num is 6, but .* has 3"),
    "sta_num": (lambda: cream_trainer(make_net(), sta_num=(4, 4)), r"sta_num is \(4, 4\), but .* \[2, 2\]"),
    "flops_dict": (lambda: cream_trainer(make_net(), flops_dict=[[1, 2]]), r"\[2\] choices .* \[3, 3, 3, 3\]"),
    "a range of nothing": (lambda: SPOSSupernetTrainingMutator(make_net(), flops_lb=1.0, flops_ub=2.0), "go together"),
    "a range that no path keeps": (
        lambda: SPOSSupernetTrainingMutator(make_net(), lambda arch: 1.0, 2.0, 3.0, 1, 9).sample_search(),
        "none of flops_sample_timeout=9 sampled paths costs between 2 and 3",
    ),
    "a plateau of Paddle's": (
        lambda: cream_trainer(make_net(), lr_scheduler=paddle.optimizer.lr.ReduceOnPlateau(0.1)),
        "must be pimm's PlateauLRScheduler",
    ),
    "an unknown way to draw": (lambda: CreamSupernetTrainingMutator(make_net(), "best"), "'best'; must be even"),
    "a range upside down": (
        lambda: SPOSSupernetTrainingMutator(make_net(), len, 5, 1),
        "flops_lb is 5 and",
    ),
    "no trials": (lambda: SPOSSupernetTrainingMutator(make_net(), len, 1, 5, 1, 0), "flops_sample_timeout is 0"),
    "parts of an infinite range": (
        lambda: SPOSSupernetTrainingMutator(make_net(), len, 0, math.inf),
        "flops_ub=inf have no equal parts: give flops_bin_num=1",
    ),
    "weights below 0": (
        lambda: CreamSupernetTrainingMutator(make_net(), "pre_prob", (1, -1, 1, 1)),
        r"PRE_PROB is \[1.0, -1.0, 1.0, 1.0\]; must be at least 0",
    ),
    "no weights": (lambda: CreamSupernetTrainingMutator(make_net(), "pre_prob", None), "PRE_PROB has 1 entries"),
    "a picker": (lambda: cream_trainer(make_net(), pick_method="Meta"), "pick_method is 'Meta'; must be meta or top1"),
    "an image size": (lambda: cost_tables(make_net(), 8.0), "resolution is 8.0; must be a whole number of at least 1"),
    "a mutation": (
        lambda: SPOSEvolution(m_prob=2).search(make_net(), TRAIN, VAL, resolution=SIZE),
        "is 2; must be",
    ),
    "no generation": (lambda: SPOSEvolution(0).search(make_net(), TRAIN, VAL, resolution=SIZE), "GENERATIONS is 0"),
}
OUT_OF_BOUNDS = {
    **{"slices": 0, "pool_size": 0, "update_iter": -3, "select_batches": -1},  # NNI's
    **{"epochs": 2.5, "probes": 0, "seed": -1},
}


@pytest.mark.parametrize("name", OUT_OF_BOUNDS)
def test_numbers_out_of_bounds_are_told_before_anything_is_trained(name):
    value = OUT_OF_BOUNDS[name]
    with pytest.raises(ConfigError, match=f"{name} is {value}; must be a whole number of at least"):
        cream_trainer(make_net(), **{name: value})


def test_bounds_that_are_infinite_are_those_of_the_space():
    net = make_net()
    table, _ = cost_tables(net, SIZE)
    mutator = SPOSSupernetTrainingMutator(net, table, -math.inf, math.inf, 2)
    drawn = Counter(mutator.sample_search() for _ in range(2000))
    assert drawn.keys() == set(all_paths(net.space))
    tried = SPOSSupernetTrainingMutator(net, lambda arch: table(arch), -math.inf, math.inf, 1)
    assert tried.sample_search() in drawn


def test_an_empty_name_of_a_folder_or_file_is_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spos_trainer(make_net(), folder="").train()
    numbers = {"max_epochs": 1, "num_select": 1, "num_population": 1, "num_crossover": 0, "num_mutation": 0}
    SPOSEvolution(**numbers, file="").search(make_net(), TRAIN, VAL, resolution=SIZE, select_batches=1)
    assert not list(tmp_path.iterdir())


def test_more_epochs_continue_a_training_of_the_same_process():
    trainer, whole = spos_trainer(make_net(), epochs=1), spos_trainer(make_net(), epochs=2)
    trainer.train()
    trainer.num_epochs = 2
    assert trainer.train() == whole.train()
    assert_same_weights(weights(trainer.model), weights(whole.model))


def test_an_evolution_at_another_image_size_does_not_mix_costs(tmp_path):
    file, net = tmp_path / "evolution.json", make_net()
    numbers = {"max_epochs": 1, "num_select": 1, "num_population": 2, "num_crossover": 0, "num_mutation": 0}

    def search(resolution):
        return SPOSEvolution(**numbers, file=file).search(net, TRAIN, VAL, resolution=resolution, select_batches=1)

    first = search(SIZE)
    assert search(SIZE) == first
    with pytest.raises(ConfigError, match=r"an evolution with other settings: path .* cost .* and costs"):
        search(2 * SIZE)
    content = file.read_text()
    for part in ('"rng"', '"generations"', '"mflops"'):
        file.write_text(content.replace(part, '"other"'))
        with pytest.raises(CheckpointError, match="is not the state of an evolution: KeyError"):
            search(SIZE)


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named(name):
    make, message = MISTAKES[name]
    with pytest.raises(ConfigError, match=message):
        make()


def test_arguments_of_nni_that_something_else_decides_are_passed_over_and_others_refused(caplog):
    with caplog.at_level("INFO", logger="cream"):
        spos_trainer(make_net(), device="gpu")
    assert "device is ignored: paddle.set_device decides" in caplog.text
    with pytest.raises(TypeError, match="there is no argument 'log_freqency'"):
        spos_trainer(make_net(), log_freqency=3)


@pytest.mark.parametrize(
    ("labels", "least", "message"),
    [
        (paddle.zeros([6, 5]), 1, r"labels of shape \[6, 5\]; class indices have"),
        (TRAIN[0][1], 8, "a batch has 6 images; must be at least 8"),
    ],
)
def test_batches_that_cannot_be_learnt_from(labels, least, message):
    with pytest.raises(DataError, match=message):
        list(Batches([(TRAIN[0][0], labels)], least))
