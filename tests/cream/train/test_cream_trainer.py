"""What a search and a retraining set up: optimizer, schedule, probes and batch norm; and going on from a checkpoint."""

import csv
import errno
import importlib
import itertools
import logging
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import paddle
import pytest
from PIL import Image

from cream import build, jobs
from cream.build.data import open_images, training_images
from cream.build.families import child_net, fresh_supernet, search_space
from cream.build.recipe import retrain_config_for, supernet_optimizer, supernet_scheduler, timm_args
from cream.build.retraining import plan_retraining
from cream.config.keys import CHANGEABLE, KEYS, resume_settings
from cream.config.load import load_config
from cream.mobile.nets import MobileSuperNet
from pimm import preemption
from pimm.data import Dataset, create_loader, set_img_extensions
from pimm.data.img_extensions import IMG_EXTENSIONS
from pimm.engine import RunLog
from pimm.engine.run_log import LogFile
from pimm.errors import CheckpointError, ConfigError, DataError
from pimm.layers.norm import BatchNorm2d, SyncBatchNorm2d
from pimm.optim import group_lrs
from pimm.optim.param_groups import group_list
from pimm.utils import latest_checkpoint, read_checkpoint

ARCH = "NET.INPUT_ARCH=[[0],[0],[0],[0],[0],[0],[0]]"
TINY = ["SUPERNET.STAGE_DEPTHS=(1,1,1,1,1)", "SUPERNET.RESOLUTION=32", "DATASET.NUM_CLASSES=10"]


def supernet(cfg):
    return fresh_supernet(cfg, search_space(cfg)[0])


# Optimizer and schedule of a search


def test_the_matching_network_has_a_rate_of_its_own_and_no_decay():
    cfg = load_config(None, [*TINY, "LR=0.5", "META_LR=0.001", "WEIGHT_DECAY=0.01"])
    net = supernet(cfg)
    optimizer = supernet_optimizer(cfg, net)
    names = {parameter.name: name for name, parameter in net.named_parameters()}
    trainable = [name for name, parameter in net.named_parameters() if not parameter.stop_gradient]
    groups = [[names[parameter.name] for parameter in group["params"]] for group in group_list(optimizer)]
    assert sorted(name for group in groups for name in group) == sorted(trainable)
    assert sorted(groups[2]) == ["meta_layer.bias", "meta_layer.weight"]
    assert not [name for name in groups[0] if not name.endswith(("bias", "bn1.weight", "bn2.weight", "bn3.weight"))]
    assert group_lrs(optimizer) == pytest.approx([0.5, 0.5, 0.001])
    state = net.state_dict()
    before = {name: state[name].numpy().copy() for name in ("conv_stem.weight", "bn1.weight", "meta_layer.weight")}
    for name in before:
        state[name].grad = paddle.zeros_like(state[name])
    optimizer.step()
    decay = {
        "conv_stem.weight": 0.5 * 0.01 * 1.9,
        "bn1.weight": 0,
        "meta_layer.weight": 0,
    }  # 1.9: Nesterov
    for name, value in before.items():
        np.testing.assert_allclose(state[name].numpy(), value * (1 - decay[name]), rtol=1e-6)


def test_the_rates_of_a_search_fall_from_lr_to_zero_over_its_batches():
    """The official code has this for LR=1 alone: elsewhere its rates become negative before the end."""
    cfg = load_config(None, [*TINY, "LR=0.2", "META_LR=0.001", "EPOCHS=3"])
    optimizer = supernet_optimizer(cfg, supernet(cfg))
    scheduler, epochs = supernet_scheduler(cfg, optimizer, batches=7)
    seen = [group_lrs(optimizer)]
    for update in range(1, 22):
        scheduler.step_update(update)
        seen.append(group_lrs(optimizer))
    expected = np.outer(1 - np.arange(22) / 21, [0.2, 0.2, 0.001])
    np.testing.assert_allclose(seen, expected, atol=1e-12)
    assert epochs == 3


def test_another_schedule_acts_in_a_search():
    cfg = load_config(None, [*TINY, "SCHED=step", "LR=0.2", "DECAY_EPOCHS=1", "DECAY_RATE=0.5", "WARMUP_EPOCHS=0"])
    optimizer = supernet_optimizer(cfg, supernet(cfg))
    scheduler, _ = supernet_scheduler(cfg, optimizer, batches=7)
    scheduler.step(2)
    assert group_lrs(optimizer)[0] == pytest.approx(0.05)


def test_plateau_follows_the_metric_upwards_where_more_is_better():
    for metric, mode in (("prec1", "max"), ("prec5", "max"), ("loss", "min")):
        assert timm_args(load_config(None, [f"EVAL_METRICS={metric}"])).plateau_mode == mode


# Nets


@pytest.mark.parametrize(("sync", "kind"), [(True, SyncBatchNorm2d), (False, BatchNorm2d)])
def test_batch_norm_of_all_processes_together_where_asked_for(sync, kind):
    cfg = load_config(None, [*TINY, ARCH, f"BATCHNORM.SYNC_BN={sync}"])
    for net in (child_net(cfg)[1], supernet(cfg)):
        kinds = {type(layer) for layer in net.sublayers() if isinstance(layer, BatchNorm2d)}
        assert kinds == {kind}


def test_settings_of_batch_norm_and_head_reach_both_nets():
    options = ["BATCHNORM.BN_MOMENTUM=0.3", "BATCHNORM.BN_EPS=1e-3", "NET.DROPOUT_RATE=0.4", "NET.GP=max"]
    cfg = load_config(None, [*TINY, ARCH, *options])
    for net in (child_net(cfg)[1], supernet(cfg)):
        assert (net.bn1._momentum, net.bn1._epsilon) == (pytest.approx(0.7), 1e-3)
        assert (net.drop_rate, net.global_pool.pool_type) == (0.4, "max")


# Images


class Stop(Exception):
    """Ends a job once it has made its loaders."""


@pytest.fixture
def loader_calls(monkeypatch):
    """Arguments of every loader that a job makes, up to the second, where it ends."""
    calls = []

    def record(dataset, **kwargs):
        calls.append(kwargs)
        if len(calls) == 2:
            raise Stop
        return create_loader(dataset, **kwargs)

    monkeypatch.setattr("cream.build.data.create_loader", record)
    return calls


@pytest.mark.parametrize(("job", "acts"), [("search", False), ("retrain", True)])
def test_auto_augmentation_and_mixup_are_for_retraining(job, acts, loader_calls, data, tmp_path):
    augmentation = ["AUGMENTATION.AA=rand-m5", "AUGMENTATION.MIXUP=0.2", "SUPERNET.META_STA_EPOCH=0", "EPOCHS=2"]
    with pytest.raises(Stop):
        net = [ARCH if acts else "NET.INPUT_ARCH=None"]
        getattr(jobs, job)(settings(data, tmp_path, *TINY, *augmentation, *net, "DATASET.NUM_CLASSES=2"))
    training, validation = loader_calls
    assert training["auto_augment"] == ("rand-m5" if acts else None)
    assert (training["collate_fn"] is not None) == acts
    assert training["interpolation"] == "random"
    assert "auto_augment" not in validation and "collate_fn" not in validation


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "random"])
def test_validation_takes_the_interpolation_of_the_settings(interpolation, loader_calls, data, tmp_path):
    with pytest.raises(Stop):
        jobs.retrain(settings(data, tmp_path, f"DATASET.INTERPOLATION={interpolation}"))
    assert loader_calls[1]["interpolation"] == interpolation
    assert not loader_calls[1].get("is_training", False)


# Runs


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for path in (folder / split / name for split in ("train", "val") for name in ("apple", "pear")):
        path.mkdir(parents=True)
        for number in range(8):
            Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(path / f"{number}.png")
    return folder


def settings(data, folder, *more):
    small = ["DATASET.NUM_CLASSES=2", "DATASET.BATCH_SIZE=8", "DATASET.IMAGE_SIZE=32", "WORKERS=0", "LOG_INTERVAL=1"]
    return load_config(None, [*small, ARCH, f"DATA_DIR={data}", f"SAVE_PATH={folder}", "MODEL=run", *more])


def rates_logged(monkeypatch):
    """Learning rates of all batches that a run trains from here on."""
    rates = []

    def recorded(self, group, values, step):
        if group == "train":
            rates.append(values["lr"])

    monkeypatch.setattr(RunLog, "scalars", recorded)
    return rates


def test_the_same_probes_are_evaluated_after_every_epoch(data, tmp_path, monkeypatch):
    """And with them the best of the board, once there is one."""
    asked = []
    forward = MobileSuperNet.forward

    def recorded(self, images, arch):
        if not self.training and len(images) == 16:
            asked.append(arch)
        return forward(self, images, arch)

    monkeypatch.setattr(MobileSuperNet, "forward", recorded)
    options = [*TINY, "SUPERNET.META_STA_EPOCH=0", "SUPERNET.PROBES=3", "SUPERNET.POOL_SIZE=1", "EPOCHS=2", "LR=0.01"]
    options += ["SUPERNET.SELECT_BATCHES=1", "DATASET.NUM_CLASSES=2", "NET.INPUT_ARCH=None", "ENGINE=eager"]
    cfg = settings(data, tmp_path, *options)
    found = jobs.search(cfg)
    assert len(set(asked[:3])) == 3
    assert asked[3:6] == asked[:3]
    assert asked[6:] == [found.arch, found.arch]  # the board's best, and then the only candidate


SCHEDULES = {
    "none": ["SCHED=sgd"],
    "cosine": ["SCHED=cosine", "WARMUP_EPOCHS=1", "COOLDOWN_EPOCHS=0"],
    "linear": ["SCHED=linear", "WARMUP_EPOCHS=0"],
}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_new_rate_and_number_of_epochs_act_from_the_break_on(schedule, data, tmp_path, monkeypatch):
    def run(folder, *more):
        rates = rates_logged(monkeypatch)
        jobs.retrain(settings(data, tmp_path / folder, *SCHEDULES[schedule], *more))
        return rates

    run("broken", "LR=0.1", "EPOCHS=2")
    resumed = run("broken", "LR=0.01", "EPOCHS=4")
    assert resumed == pytest.approx(run("whole", "LR=0.01", "EPOCHS=4")[4:], rel=1e-9)


def test_mixup_stays_off_after_a_break(data, tmp_path):
    """Resumed behind MIXUP_OFF_EPOCH, the training sees what it would have seen without the break."""
    mixup = ["AUGMENTATION.MIXUP=0.5", "AUGMENTATION.MIXUP_OFF_EPOCH=1", "SCHED=sgd", "LR=0.01"]
    for folder, epochs in (("broken", 1), ("broken", 3), ("whole", 3)):
        jobs.retrain(settings(data, tmp_path / folder, *mixup, f"EPOCHS={epochs}"))
    broken, whole = (read_checkpoint(latest_checkpoint(tmp_path / name / "run")).files for name in ("broken", "whole"))
    for name, value in whole["model.pdparams"].items():
        np.testing.assert_array_equal(broken["model.pdparams"][name], value, err_msg=name)


@pytest.mark.parametrize("moment", ["evaluation", "last batch of an epoch", "last save"])
def test_nothing_is_lost_by_sigterm_whenever_it_comes(moment, data, tmp_path, monkeypatch):
    def terminated(function, call):
        """The function, in whose call of this number SIGTERM comes."""
        calls = itertools.count(1)

        def wrapped(*args, **kwargs):
            if next(calls) == call:
                os.kill(os.getpid(), signal.SIGTERM)
            return function(*args, **kwargs)

        return wrapped

    options = ["SCHED=sgd", "EPOCHS=2", "LR=0.01", "NET.EMA.USE=False"]
    whole = jobs.retrain(settings(data, tmp_path / "whole", *options))
    name, call, left = {
        "evaluation": ("cream.train.evaluation.evaluate", 2, "recovery-1-2"),
        "last batch of an epoch": ("pimm.engine.steps.accuracy", 4, "recovery-1-2"),
        "last save": ("pimm.utils.checkpoint_saver.write_checkpoint", 2, "checkpoint-1"),
    }[moment]
    module, _, function = name.rpartition(".")
    with monkeypatch.context() as patch, pytest.raises(preemption.Preempted, match="ended by SIGTERM"):
        patch.setattr(name, terminated(getattr(importlib.import_module(module), function), call))
        jobs.retrain(settings(data, tmp_path / "broken", *options))
    folder = tmp_path / "broken" / "run"
    assert latest_checkpoint(folder).name == left
    assert jobs.retrain(settings(data, tmp_path / "broken", *options)) == whole


def test_sigterm_while_an_image_is_read_is_not_taken_for_a_broken_image(data, monkeypatch):
    images = Dataset(data / "train")
    monkeypatch.setattr("PIL.Image.open", lambda *args, **kwargs: os.kill(os.getpid(), signal.SIGTERM))
    with preemption.raising(), pytest.raises(preemption.Preempted):
        images[0]


def start(cfg):
    with build.running(cfg) as run:
        build.open_run(cfg, run, training_images(cfg)[0])


def test_a_folder_is_for_one_run_at_a_time(data, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    held = "import pathlib, sys; from pimm.engine.run_log import lock; held = lock(pathlib.Path(sys.argv[1]))\n"
    held += "print(flush=True); sys.stdin.read()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", held, str(folder)], **pipes) as other:
        other.stdout.readline()
        with pytest.raises(ConfigError, match=rf"another process is at work in {folder} \(.*, process {other.pid}\): "):
            start(settings(data, tmp_path))
        other.stdin.close()
    start(settings(data, tmp_path))


def test_a_full_disk_leaves_the_settings_of_a_run(data, tmp_path, monkeypatch):
    build.write_config(settings(data, tmp_path), tmp_path)
    before = (tmp_path / "config.yaml").read_text()

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(CheckpointError, match="No space left on device; what was there before is untouched"):
        build.write_config(settings(data, tmp_path, "EPOCHS=7"), tmp_path)
    assert (tmp_path / "config.yaml").read_text() == before


def test_a_log_on_a_full_disk_says_so_once(capsys):
    file = LogFile("/dev/full")
    for _ in range(2):
        file.handle(logging.makeLogRecord({"msg": "a line"}))
    assert capsys.readouterr().err == "warning: /dev/full cannot be written: No space left on device\n"
    file.close()


def test_a_found_net_keeps_its_pooling_and_is_trained_on_all_images(data, tmp_path):
    cfg = settings(data, tmp_path, "NET.GP=catavgmax", "SUPERNET.SELECT_ON=held_out", "SUPERNET.HELD_OUT=0.5")
    assert len(training_images(cfg)[0]) == 8
    recipe = retrain_config_for(cfg, cfg, ((0,),), 32)
    assert recipe.NET.GP == "catavgmax" and len(training_images(recipe)[0]) == 16


def test_a_found_net_sees_images_as_the_supernet_did(data, tmp_path):
    shown = {"MEAN": (0.1, 0.2, 0.3), "STD": (0.4, 0.5, 0.6), "SPOS_PREPROCESSING": True}
    cfg = settings(data, tmp_path, *(f"DATASET.{name}={value}" for name, value in shown.items()))
    recipe = retrain_config_for(settings(data, tmp_path), cfg, ((0,),), 32)
    assert {name: getattr(recipe.DATASET, name) for name in shown} == shown


@pytest.mark.parametrize(("epochs", "told"), [(1, True), (2, False)])
def test_a_retraining_of_warm_up_alone_is_told(data, tmp_path, capsys, epochs, told):
    jobs.retrain(settings(data, tmp_path, "SCHED=cosine", "COOLDOWN_EPOCHS=0", "WARMUP_EPOCHS=1", f"EPOCHS={epochs}"))
    assert ("EPOCHS=1 are all warm-up: WARMUP_EPOCHS=1 should be fewer\n" in capsys.readouterr().err) == told


@pytest.mark.parametrize(("cooldown", "told"), [(1, False), (2, True)])
def test_a_retraining_that_mostly_cools_down_is_told(data, tmp_path, caplog, cooldown, told):
    plan = plan_retraining(settings(data, tmp_path, "SCHED=cosine", "EPOCHS=1", f"COOLDOWN_EPOCHS={cooldown}"))
    assert plan.epochs == 1 + cooldown
    assert (f"EPOCHS=1 are followed by COOLDOWN_EPOCHS={cooldown} at MIN_LR" in caplog.text) == told


def test_retraining_writes_checkpoints_and_keeps_the_best(data, tmp_path):
    """Of the moving average, and of the net itself."""
    options = ["SCHED=sgd", "EPOCHS=4", "CHECKPOINT_HISTORY=1"]
    jobs.retrain(settings(data, tmp_path, *options))
    folder = tmp_path / "run"
    rows = list(csv.DictReader((folder / "summary.csv").read_text().splitlines()))
    assert [row["eval_loss"] != row["eval_loss_without_ema"] for row in rows] == [True] * 4
    best = max(float(row["eval_prec1"]) for row in rows)
    kept = sorted(path.name for path in folder.glob("checkpoint-*"))
    assert "checkpoint-3" in kept and len(kept) <= 2
    assert read_checkpoint(folder / "model_best").manifest["metric"] == pytest.approx(best)


def test_a_finished_run_started_again_says_what_it_said(data, tmp_path):
    cfg = settings(data, tmp_path, "SCHED=sgd", "EPOCHS=1")
    assert jobs.retrain(cfg) == jobs.retrain(cfg)


def test_other_processes_write_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("pimm.engine.run_log.is_main_process", lambda: False)
    with RunLog(tmp_path, exclusive=True, loggers=("cream",)) as log:
        log.scalars("train", {"loss": 1.0}, 0)
        log.epoch(0, {"loss": 1.0}, {"prec1": 2.0}, lr=0.1)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_records_the_settings_that_it_needs(data, tmp_path):
    cfg = settings(data, tmp_path, "SCHED=sgd", "EPOCHS=1")
    jobs.retrain(cfg)
    recorded = read_checkpoint(tmp_path / "run" / "checkpoint-0").manifest["args"]
    assert recorded.pop("number of processes") == 1
    assert recorded.pop("classes") == ["apple", "pear"]
    assert recorded == resume_settings(cfg)
    assert recorded["NET.INPUT_ARCH"] == [[0]] * 7
    assert recorded.keys() == KEYS.keys() - CHANGEABLE


def test_a_renamed_class_is_told_in_a_resume_and_in_a_test(data, tmp_path):
    cfg = settings(data, tmp_path, "SCHED=sgd", "EPOCHS=1")
    jobs.retrain(cfg)
    renamed = tmp_path / "renamed"
    shutil.copytree(data, renamed)
    for split in ("train", "val"):
        (renamed / split / "apple").rename(renamed / split / "zebra")
    for job in (jobs.retrain, jobs.test):
        with pytest.raises(DataError, match="classes are not those of the training: apple is missing; zebra is new"):
            job(settings(renamed, tmp_path, "SCHED=sgd", "EPOCHS=2", f"RESUME_PATH={tmp_path / 'run'}"))


def test_changeable_settings_exist():
    assert KEYS.keys() >= CHANGEABLE


def test_a_plateau_keeps_its_rates():
    """It has lowered them by itself, so that a new LR would not act: it must not pass in silence."""
    assert {"LR", "META_LR"} <= resume_settings(load_config(None, ["SCHED=plateau"])).keys()
    assert not {"LR", "META_LR"} & resume_settings(load_config(None, ["SCHED=cosine"])).keys()


def test_the_image_size_of_a_search_is_that_of_its_flops(capsys):
    cfg = load_config(None, ["SUPERNET.FLOPS_MAXIMUM=40", "DATASET.IMAGE_SIZE=96"])
    with RunLog(loggers=("cream",)):
        assert search_space(cfg)[1] == 128  # even the cheapest path takes more than 40 MFLOPs at 160 pixels
    assert "DATASET.IMAGE_SIZE=96 is ignored: the search takes 128 pixels" in capsys.readouterr().err


def test_the_summary_survives_what_a_kill_left_of_it(tmp_path):
    summary = tmp_path / "summary.csv"
    for left, kept in (("", ""), ("epoch,a\n0,1\n1,2\n", "epoch,a\n0,1\n"), ("epoch,a\n0,1\n1", "epoch,a\n0,1\n")):
        summary.write_text(left)
        with RunLog(tmp_path) as run:
            run.rewind(1)
        assert summary.read_text() == kept


def test_a_decay_means_the_same_in_search_and_retraining():
    cfg = load_config(None, [*TINY, "OPT=adamw", "LR=0.001", "WEIGHT_DECAY=1e-4"])
    decays = [group["weight_decay"] for group in group_list(supernet_optimizer(cfg, supernet(cfg)))]
    assert decays == pytest.approx([0.0, 0.1, 0.0])


def test_images_of_further_endings_are_trained_on(data, tmp_path):
    renamed = tmp_path / "renamed"
    shutil.copytree(data, renamed)
    for image in (*renamed.glob("*/*/0.*"), *renamed.glob("*/*/1.*")):
        Image.open(image).save(image.with_suffix(".tif"))
        image.unlink()
    counts = []
    for more in ("[]", "[.tif, .gif]"):
        try:
            images = open_images(settings(renamed, tmp_path, f"DATASET.IMG_EXTENSIONS={more}"))
        finally:
            set_img_extensions(IMG_EXTENSIONS)
        counts.append((len(images.train), len(images.val)))
    whole = open_images(settings(data, tmp_path))
    assert counts[1] == (len(whole.train), len(whole.val))
    assert counts[0] < counts[1]
