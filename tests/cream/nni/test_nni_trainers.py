"""The trainers under NNI's names: the documented examples, every step against Cream's own, and resumed trainings."""

import tarfile
from pathlib import Path

import numpy as np
import paddle
import pytest
import tiny
from model_weights import assert_same_weights, weights
from nni_net import CLASSES, EXAMPLES, SIZE, SLICE, TRAIN, VAL, cream_trainer, make_net, spos_trainer
from paddle import nn
from paddle.nn import functional as F
from paths import ROOT

import cream
from cream.flops import cost_tables
from cream.nni import (
    CreamSupernetTrainer,
    SPOSEvolution,
    SPOSSupernetTrainer,
)
from cream.nni.loop import Batches
from cream.train.board import PrioritizedBoard
from cream.train.evaluation import evaluate
from cream.train.steps import CreamStep, Update
from pimm.data import Dataset, create_loader
from pimm.data.loader import Loader
from pimm.engine.evaluation import train_mode
from pimm.errors import CheckpointError, ConfigError, TrainingError

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


def test_more_epochs_continue_a_training_of_the_same_process():
    trainer, whole = spos_trainer(make_net(), epochs=1), spos_trainer(make_net(), epochs=2)
    trainer.train()
    trainer.num_epochs = 2
    assert trainer.train() == whole.train()
    assert_same_weights(weights(trainer.model), weights(whole.model))


def test_an_empty_name_of_a_folder_or_file_is_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spos_trainer(make_net(), folder="").train()
    numbers = {"max_epochs": 1, "num_select": 1, "num_population": 1, "num_crossover": 0, "num_mutation": 0}
    SPOSEvolution(**numbers, file="").search(make_net(), TRAIN, VAL, resolution=SIZE, select_batches=1)
    assert not list(tmp_path.iterdir())
