"""The script that measures what a matching network can learn: its statistics by known cases, and a run."""

import sys
import types

import numpy as np
import paddle
import pytest
import tiny
from paddle.nn import functional as F
from paths import ROOT

from cream import build
from cream.train.meta import Teacher


@pytest.fixture(scope="module")
def script():
    path = ROOT / "benchmarks" / "matching.py"
    module = types.ModuleType(path.stem)
    exec(compile(path.read_text(), path, "exec"), module.__dict__)
    return module


def test_the_share_of_pairs_is_that_of_the_variance(script):
    rng = np.random.default_rng(0)
    pairs, noise = rng.normal(size=(4000, 1)), rng.normal(size=(4000, 5))
    assert script.pair_share(pairs + 2 * noise + 50 * np.arange(5)) == pytest.approx(1 / 5, abs=0.02)
    assert script.pair_share(noise) == pytest.approx(0, abs=0.02)
    assert script.pair_share(np.repeat(pairs, 5, axis=1)) == pytest.approx(1)


def test_predictions_count_for_unseen_students_and_images_alone(script):
    rng = np.random.default_rng(0)
    inputs, noise, students = rng.normal(size=(400, 20)), rng.normal(size=(400, 2)), np.arange(400) // 4
    assert script.predicted(inputs, inputs[:, :1] + noise, students) == pytest.approx(0.5, abs=0.1)
    assert script.predicted(inputs, noise, students) < 0.02
    alike, own = np.repeat(inputs[:100], 4, axis=0), np.repeat(noise[:100], 4, axis=0)
    assert script.predicted(alike, own, students) < 0.02  # what a student has alone
    assert script.predicted(inputs, inputs[:, :2] + noise, students) < 0.02  # what holds for some images alone


def test_a_lesson_is_worth_the_product_of_both_gradients(script, tmp_path, monkeypatch, capsys):
    tiny.write_images(tmp_path)
    folder = tiny.run_search(tmp_path, tmp_path / "out")
    searched, step = build.trained_search(folder, build.settings_of_search(folder)[0])
    net = searched.net
    net.train()
    rng = np.random.default_rng(0)
    images = paddle.to_tensor(rng.normal(size=(6, 3, 16, 16)).astype(np.float32))
    labels = paddle.to_tensor(rng.integers(3, size=6))
    student, teacher = ((0, 1, 0),), ((1, 1, -1),)
    weights = net.active_parameters(student)
    soft = F.softmax(net(images[:3], teacher), axis=1).detach()
    taught = paddle.grad(-(soft * F.log_softmax(net(images[:3], student), axis=1)).sum(1).mean(), weights)
    held_out = paddle.grad(step.loss_fn(net(images[3:], student), labels[3:]), weights)
    product = sum((a * b).sum().item() for a, b in zip(taught, held_out))
    found = script.lesson(net, student, Teacher(teacher, 0.3), images, labels, step.loss_fn)
    assert found == pytest.approx(product, rel=1e-3, abs=1e-6)
    numbers = ["--students", "3", "--teachers", "2", "--repeats", "2", "--images", "6"]
    monkeypatch.setattr(sys, "argv", ["matching.py", str(folder), *numbers])
    script.main()
    rows = capsys.readouterr().out.splitlines()
    assert rows[-1].startswith("| 6 |") and len(rows[-1].split("|")) == 7
