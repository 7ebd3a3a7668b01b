"""Folders of checkpoints: damage is told, a kill loses nothing, and files of the user stay."""

import errno
import hashlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import paddle
import pytest
from array_trees import TREE, assert_same
from damage import flip_a_bit, truncate
from paddle import nn
from paths import ROOT

from pimm.errors import CheckpointError, ConfigError
from pimm.optim import create_optimizer_v2, load_optimizer_state
from pimm.utils import (
    CheckpointSaver,
    ModelEma,
    latest_checkpoint,
    load_arrays,
    read_checkpoint,
    save_arrays,
    write_checkpoint,
)
from pimm.utils.checkpoint import link_checkpoint


class FullDisk:
    """``os.fsync`` of a disk that turns out to be full after ``calls`` files."""

    def __init__(self, calls):
        self.calls = calls
        self.fsync = os.fsync

    def __call__(self, descriptor):
        self.calls -= 1
        if self.calls < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.fsync(descriptor)


FILES = {"model.pdparams": {"w": np.arange(1000.0)}, "state.pdstate": {"step": 3}}


def write_three(folder):
    for epoch in range(3):
        write_checkpoint(folder / f"checkpoint-{epoch}", {**FILES, "state.pdstate": {"step": epoch}}, {"epoch": epoch})


def test_checkpoint_round_trip(tmp_path):
    write_checkpoint(tmp_path / "checkpoint-3", {**FILES, "state.pdstate": TREE}, {"epoch": 3, "metric": 0.1})
    found = read_checkpoint(tmp_path / "checkpoint-3")
    assert found.manifest["epoch"] == 3 and found.manifest["metric"] == 0.1
    assert_same(found.files, {**FILES, "state.pdstate": TREE})
    write_checkpoint(tmp_path / "checkpoint-3", FILES, {"epoch": 3})
    assert set(read_checkpoint(tmp_path / "checkpoint-3").files) == set(FILES)
    assert os.listdir(tmp_path) == ["checkpoint-3"]


@pytest.mark.parametrize("calls", range(3))
def test_a_full_disk_loses_nothing(tmp_path, monkeypatch, calls):
    write_three(tmp_path)
    monkeypatch.setattr(os, "fsync", FullDisk(calls))
    for epoch in (2, 3):
        with pytest.raises(CheckpointError, match=r"No space left on device; earlier checkpoints are untouched"):
            write_checkpoint(tmp_path / f"checkpoint-{epoch}", FILES, {"epoch": epoch})
    monkeypatch.undo()
    assert sorted(os.listdir(tmp_path)) == ["checkpoint-0", "checkpoint-1", "checkpoint-2"]
    assert read_checkpoint(latest_checkpoint(tmp_path)).files["state.pdstate"] == {"step": 2}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
def test_a_write_that_fails_half_way(tmp_path, monkeypatch):
    save_arrays(tmp_path / "a", {"x": 1})
    real = open

    def full(target, mode="r"):
        return real("/dev/full" if mode == "wb" else target, mode)

    monkeypatch.setattr("builtins.open", full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        save_arrays(tmp_path / "a", {"x": np.zeros(100000)})
    with pytest.raises(CheckpointError, match="No space left on device"):
        write_checkpoint(tmp_path / "checkpoint-0", FILES, {})
    monkeypatch.undo()
    assert load_arrays(tmp_path / "a") == {"x": 1}
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
@pytest.mark.parametrize("damage", [truncate, flip_a_bit, os.unlink])
def test_damage_is_told_and_the_checkpoint_before_is_used(tmp_path, caplog, name, damage):
    write_three(tmp_path)
    damage(tmp_path / "checkpoint-2" / name)
    with pytest.raises(CheckpointError, match=name):
        read_checkpoint(tmp_path / "checkpoint-2")
    with caplog.at_level(logging.WARNING):
        assert latest_checkpoint(tmp_path) == tmp_path / "checkpoint-1"
    assert f"checkpoint-2/{name}" in caplog.text and "going back" in caplog.text


def test_another_format_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("pimm.utils.checkpoint.FORMAT", 99)
    write_checkpoint(tmp_path / "checkpoint-0", FILES, {})
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="format 99; this version reads format 1"):
        read_checkpoint(tmp_path / "checkpoint-0")


def test_the_order_of_checkpoints(tmp_path):
    assert latest_checkpoint(tmp_path / "nowhere") is None
    for name in ("checkpoint-2", "recovery-3-500", "recovery-3-1000", "checkpoint-10", "recovery-2-9999", "run-a"):
        write_checkpoint(tmp_path / name, FILES, {})
    assert latest_checkpoint(tmp_path).name == "checkpoint-10"
    assert latest_checkpoint(tmp_path, "recovery").name == "recovery-3-1000"
    os.rename(tmp_path / "checkpoint-10", tmp_path / "elsewhere")
    assert latest_checkpoint(tmp_path).name == "recovery-3-1000"


def test_leftovers_of_a_kill(tmp_path):
    write_three(tmp_path)
    (tmp_path / ".tmp-checkpoint-3").mkdir()
    (tmp_path / ".tmp-checkpoint-3" / "model.pdparams").write_bytes(b"half")
    os.rename(tmp_path / "checkpoint-2", tmp_path / ".old-checkpoint-2")  # between the two renames of a replacement
    write_checkpoint(tmp_path / ".old-checkpoint-1", FILES, {})  # after both
    before = sorted(os.listdir(tmp_path))
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoint-1"
    assert sorted(os.listdir(tmp_path)) == before  # another process may be writing it
    CheckpointSaver(checkpoint_dir=tmp_path)
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoint-2"
    assert sorted(os.listdir(tmp_path)) == ["checkpoint-0", "checkpoint-1", "checkpoint-2"]
    assert read_checkpoint(tmp_path / "checkpoint-1").files["state.pdstate"] == {"step": 1}


@pytest.mark.parametrize("stays", [False, True])
def test_what_could_not_be_removed_once_does_not_end_a_training(tmp_path, monkeypatch, stays):
    """As on NFS, whose folders stay while somebody has a file open."""
    folder, old = tmp_path / "checkpoint-0", tmp_path / ".old-checkpoint-0"
    for path in (folder, old):
        write_checkpoint(path, FILES, {})
    remove = shutil.rmtree
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda path, **more: None if stays and path == old else remove(path, **more))
        write_checkpoint(folder, {"state.pdstate": {"step": 2}}, {})
        write_checkpoint(folder, {"state.pdstate": {"step": 3}}, {})
    assert read_checkpoint(folder).files == {"state.pdstate": {"step": 3}}
    assert old.exists() == stays
    CheckpointSaver(checkpoint_dir=tmp_path)
    assert os.listdir(tmp_path) == ["checkpoint-0"]


def snapshot(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_files_of_the_user_stay_where_they_are(tmp_path, training):
    """Whatever they are called: folders and files beside checkpoints, and files inside of folders with their names."""
    users = [
        *(".old-thesis/chapter.txt", ".tmp-notes/a.txt", ".tmp-mine", ".old-mine", ".tmp-checkpoint-7/notes.txt"),
        *(".tmp-notes-3/model.pdparams", ".old-notes-3/model.pdparams", ".old-checkpoint-8/model.pdparams"),
        *(".tmp-checkpoint-9/deep/model.pdparams", "checkpoint-20/photo.jpg", "recovery-0-1/model.pdparams"),
        *(".old-checkpoint-1/mine.txt", ".tmp-recovery-1-5/mine.txt"),
    ]
    for name in users:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "kept").mkdir()
    os.symlink(tmp_path / "kept", tmp_path / ".tmp-checkpoint-6")
    before = snapshot(tmp_path)
    saver = CheckpointSaver(checkpoint_dir=tmp_path, max_history=1, max_recoveries=1)
    for epoch in range(3):
        saver.save_checkpoint(*training, ARGS, epoch, metric=float(epoch))
        saver.save_recovery(*training, ARGS, epoch, batch_idx=5)
        saver.save_recovery(*training, ARGS, epoch, batch_idx=6)
    assert before.items() <= snapshot(tmp_path).items()
    assert (tmp_path / ".tmp-checkpoint-6").is_symlink()
    assert saver.checkpoint_files == [(tmp_path / "checkpoint-2", 2.0)]


def test_a_folder_of_the_user_is_not_replaced_by_a_checkpoint(tmp_path):
    (tmp_path / "checkpoint-0").mkdir()
    (tmp_path / "checkpoint-0" / "photo.jpg").write_text("photo")
    with pytest.raises(
        CheckpointError, match=r"holds 'photo\.jpg', which is no part of a checkpoint; move that folder"
    ):
        write_checkpoint(tmp_path / "checkpoint-0", FILES, {})
    assert snapshot(tmp_path) == {"checkpoint-0/photo.jpg": b"photo"}


def test_weights_without_a_manifest_are_set_aside(tmp_path, caplog):
    write_checkpoint(tmp_path / "checkpoint-0", FILES, {"epoch": 0})
    (tmp_path / "checkpoint-0" / "manifest.json").unlink()
    weights = (tmp_path / "checkpoint-0" / "model.pdparams").read_bytes()
    write_checkpoint(tmp_path / "checkpoint-0", FILES, {"epoch": 1})
    assert read_checkpoint(tmp_path / "checkpoint-0").manifest["epoch"] == 1
    assert snapshot(tmp_path)[".old-checkpoint-0/model.pdparams"] == weights and "is kept as" in caplog.text


def test_files_of_a_file_system_do_not_matter(tmp_path):
    for epoch in range(2):
        write_checkpoint(tmp_path / "checkpoint-0", FILES, {"epoch": epoch})
        (tmp_path / "checkpoint-0" / ".nfs000000000023").write_text("")
    assert read_checkpoint(tmp_path / "checkpoint-0").manifest["epoch"] == 1
    assert os.listdir(tmp_path) == ["checkpoint-0"]


WRONG_MANIFESTS = {
    "brackets": b"[" * 100_000,
    "objects": b'{"a":' * 100_000,
    "no text": b"\xff\xfe",
    "a list": b"[1]",
    "a number of many digits": b'{"checksum": ' + b"9" * 100_000 + b"}",
    "no format": {"format": None},
    "no files": {"files": None},
    "a format of text": {"format": "1"},
    "a list of files": {"files": ["model.pdparams"]},
    "no size": {"files": {"model.pdparams": {"sha256": ""}}},
    "a size of text": {"files": {"model.pdparams": {"bytes": "3", "sha256": ""}}},
    "no digest": {"files": {"model.pdparams": {"bytes": 3}}},
    "a file elsewhere": {"files": {"../checkpoint-1/model.pdparams": {"bytes": 3, "sha256": ""}}},
    "a file of no name": {"files": {"": {"bytes": 3, "sha256": ""}}},
    "a file name with a surrogate": {"files": {"\udc80": {"bytes": 3, "sha256": ""}}},
    "a folder for a file": {"files": {"..": {"bytes": 3, "sha256": ""}}},
    "an epoch of text": {"epoch": "2"},
    "a negative epoch": {"epoch": -1},
    "an epoch that is endless": {"epoch": float("inf")},
    "a metric of text": {"metric": "good"},
    "arguments of text": {"args": "all"},
    "a number for a name": {"arch": 3},
}


@pytest.mark.parametrize("name", WRONG_MANIFESTS)
def test_a_wrong_manifest_is_damage(tmp_path, caplog, name):
    write_three(tmp_path)
    path, content = tmp_path / "checkpoint-2" / "manifest.json", WRONG_MANIFESTS[name]
    if isinstance(content, dict):  # with a checksum that is right
        entries = {**json.loads(path.read_text()), **content}
        del entries["checksum"]
        entries = {key: value for key, value in entries.items() if value is not None}
        checksum = hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()
        content = json.dumps({**entries, "checksum": checksum}).encode()
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"checkpoint-2.manifest\.json is damaged") as caught:
        read_checkpoint(tmp_path / "checkpoint-2")
    assert len(str(caught.value)) < 400
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoint-1"
    assert "going back to the checkpoint before it" in caplog.text
    CheckpointSaver(checkpoint_dir=tmp_path)


WRITER = """
import sys, itertools, numpy as np
from pimm.utils import write_checkpoint
for epoch in itertools.count():
    write_checkpoint(f"{sys.argv[1]}/checkpoint-{epoch % 3}", {"model.pdparams": {"w": np.full(100000, epoch)}}, {})
    print(epoch, flush=True)
"""


def test_killed_while_writing(tmp_path):
    """At whatever moment: everything under a checkpoint's name is whole, and no older than what was reported."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
    )
    reported = [int(process.stdout.readline()) for _ in range(20)][-1]
    process.send_signal(signal.SIGKILL)
    reported = ([reported] + [int(line) for line in process.stdout.read().split()])[-1]
    process.wait()
    CheckpointSaver(checkpoint_dir=tmp_path)
    found = {path.name: read_checkpoint(path).files["model.pdparams"]["w"] for path in tmp_path.iterdir()}
    assert set(found) == {"checkpoint-0", "checkpoint-1", "checkpoint-2"}
    assert all((value == value[0]).all() for value in found.values())
    assert max(value[0] for value in found.values()) >= reported


ARGS = types.SimpleNamespace(model="tiny", lr=0.1, folder=Path("data"))


@pytest.fixture
def training():
    net = nn.Sequential(nn.Conv2D(3, 4, 3), nn.BatchNorm2D(4))
    optimizer = create_optimizer_v2(net, "rmsproptf", lr=0.1)
    net(paddle.ones([2, 3, 5, 5])).sum().backward()
    optimizer.step()
    return net, optimizer


def save_epochs(saver, training, metrics, first=0):
    return [saver.save_checkpoint(*training, ARGS, epoch, metric=metric) for epoch, metric in enumerate(metrics, first)]


@pytest.mark.parametrize(
    "decreasing, metrics, kept, best",
    [
        (False, [30.0, 10.0, 50.0, 40.0, 0.0], [2, 3, 4], (50.0, 2)),
        (True, [3.0, 1.0, 5.0, 4.0, 2.0], [1, 4], (1.0, 1)),
        (False, [None, None, None], [1, 2], (None, None)),
        (False, [5.0, float("nan"), 6.0, None], [0, 2, 3], (6.0, 2)),
    ],
)
def test_the_best_and_the_newest_are_kept(tmp_path, training, decreasing, metrics, kept, best):
    saver = CheckpointSaver(checkpoint_dir=tmp_path, decreasing=decreasing, max_history=2)
    results = save_epochs(saver, training, metrics)
    folders = {f"checkpoint-{epoch}" for epoch in kept}
    assert results[-1] == best
    assert set(os.listdir(tmp_path)) == folders | ({"model_best"} if best[0] is not None else set())
    assert {path.name for path, _ in saver.checkpoint_files} == folders
    if best[0] is not None:
        assert read_checkpoint(tmp_path / "model_best").manifest["epoch"] == best[1]


def test_a_resumed_saver_goes_on_with_its_history(tmp_path, training):
    save_epochs(CheckpointSaver(checkpoint_dir=tmp_path, max_history=2), training, [10.0, 30.0, 20.0])
    saver = CheckpointSaver(checkpoint_dir=tmp_path, max_history=2)
    assert (saver.best_metric, saver.best_epoch) == (30.0, 1)
    assert save_epochs(saver, training, [25.0, 5.0], first=3)[-1] == (30.0, 1)
    assert sorted(os.listdir(tmp_path)) == ["checkpoint-1", "checkpoint-3", "checkpoint-4", "model_best"]


@pytest.mark.parametrize("linked", [None, 0])
def test_a_kill_between_a_checkpoint_and_its_name_of_the_best_is_made_good(tmp_path, training, linked):
    saver = CheckpointSaver(checkpoint_dir=tmp_path)
    save_epochs(saver, training, [10.0, 30.0, 20.0])
    shutil.rmtree(tmp_path / "model_best")
    if linked is not None:
        link_checkpoint(tmp_path / f"checkpoint-{linked}", tmp_path / "model_best")
    saver = CheckpointSaver(checkpoint_dir=tmp_path)
    assert (saver.best_metric, saver.best_epoch) == (30.0, 1)
    assert read_checkpoint(tmp_path / "model_best").manifest["epoch"] == 1


def test_a_saver_without_a_folder_tidies_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".tmp-mine").mkdir()
    CheckpointSaver()
    assert (tmp_path / ".tmp-mine").is_dir()


def test_what_a_checkpoint_holds(tmp_path, training):
    net, optimizer = training
    average = ModelEma(net)
    rng = np.random.default_rng(5)
    state = {"rng": rng.bit_generator.state, "board": [{"image": np.ones((3, 2, 2), np.uint8), "score": 1.5}]}
    saver = CheckpointSaver(checkpoint_dir=tmp_path)
    saver.save_checkpoint(net, optimizer, ARGS, 7, model_ema=average, metric=paddle.to_tensor(12.5), state=state)
    found = read_checkpoint(latest_checkpoint(tmp_path))
    assert found.manifest["arch"] == "tiny" and found.manifest["metric"] == 12.5
    assert found.manifest["args"] == {"model": "tiny", "lr": 0.1, "folder": "data"}
    assert_same(found.files["state.pdstate"], state)
    assert_same(found.files["model.pdparams"], {name: value.numpy() for name, value in net.state_dict().items()})
    assert_same(found.files["ema.pdema"], {name: value.numpy() for name, value in average.ema.state_dict().items()})
    load_optimizer_state(optimizer, net, found.files["optimizer.pdopt"])


def test_recovery_keeps_two(tmp_path, training):
    saver = CheckpointSaver(checkpoint_dir=tmp_path)
    assert saver.find_recovery() == ""
    for epoch, batch in ((0, 90), (1, 9), (1, 100)):
        saver.save_recovery(*training, ARGS, epoch, batch_idx=batch, state={"batch": batch})
    assert sorted(os.listdir(tmp_path)) == ["recovery-1-100", "recovery-1-9"]
    found = read_checkpoint(saver.find_recovery())
    assert (found.manifest["epoch"], found.manifest["batch"], found.files["state.pdstate"]) == (1, 100, {"batch": 100})
    truncate(tmp_path / "recovery-1-100" / "model.pdparams")
    assert Path(saver.find_recovery()).name == "recovery-1-9"


def test_a_saver_of_what_it_was_given(tmp_path, training):
    net, optimizer = training
    average = ModelEma(net)
    scaler = types.SimpleNamespace(state_dict_key="amp_scaler", state_dict=lambda: {"scale": 8.0})
    saver = CheckpointSaver(net, optimizer, args=ARGS, model_ema=average, amp_scaler=scaler, checkpoint_dir=tmp_path)
    saver.save_recovery(0, batch_idx=3)
    assert saver.save_checkpoint(0, 12.5) == saver.save_checkpoint(1, metric=2.0) == (12.5, 0)
    assert sorted(os.listdir(tmp_path)) == ["checkpoint-0", "checkpoint-1", "model_best", "recovery-0-3"]
    for name in ("checkpoint-1", "recovery-0-3"):
        found = read_checkpoint(tmp_path / name)
        assert found.manifest["arch"] == "tiny"
        assert set(found.files) == {"model.pdparams", "ema.pdema", "optimizer.pdopt", "state.pdstate"}
        assert found.files["state.pdstate"] == {"amp_scaler": {"scale": 8.0}}
    with pytest.raises(TypeError, match="metrics"):
        saver.save_checkpoint(2, metrics=1.0)
    with pytest.raises(ConfigError, match="needs its optimizer"):
        CheckpointSaver(net)


def test_damaged_history_is_told_and_does_not_stop_a_saver(tmp_path, training, caplog):
    save_epochs(CheckpointSaver(checkpoint_dir=tmp_path), training, [10.0, 20.0])
    for name in ("checkpoint-0", "model_best"):
        truncate(tmp_path / name / "manifest.json")
    saver = CheckpointSaver(checkpoint_dir=tmp_path)
    assert "checkpoint-0" in caplog.text
    assert saver.save_checkpoint(*training, ARGS, 2, metric=15.0) == (15.0, 2)
    assert read_checkpoint(tmp_path / "model_best").manifest["epoch"] == 2


def test_only_the_main_process_writes(tmp_path, training, monkeypatch):
    monkeypatch.setattr("pimm.utils.checkpoint_saver.is_main_process", lambda: False)
    saver = CheckpointSaver(checkpoint_dir=tmp_path)
    assert saver.save_checkpoint(*training, ARGS, 0, metric=1.0) == (None, None)
    saver.save_recovery(*training, ARGS, 0)
    assert os.listdir(tmp_path) == []


def test_a_history_of_none():
    with pytest.raises(ConfigError, match="max_history is at least 1"):
        CheckpointSaver(max_history=0)


@pytest.mark.parametrize("prefix", ["", "a/b", "../a", ".a", "a-1"])
@pytest.mark.parametrize("name", ["checkpoint_prefix", "recovery_prefix"])
def test_prefixes_that_no_resumed_training_would_find(prefix, name, tmp_path):
    with pytest.raises(ConfigError, match="names of checkpoints cannot begin with"):
        CheckpointSaver(checkpoint_dir=tmp_path, **{name: prefix})


def test_recoveries_do_not_replace_the_ends_of_epochs(tmp_path):
    alike = {"checkpoint_prefix": "net", "recovery_prefix": "net"}
    with pytest.raises(ConfigError, match="are both 'net'; must differ"):
        CheckpointSaver(checkpoint_dir=tmp_path, **alike)
    CheckpointSaver(checkpoint_dir=tmp_path, recovery_dir=tmp_path / "inside", **alike)
