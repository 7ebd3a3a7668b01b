"""Measure whether it can be learnt which teacher helps which path: the task of Cream's matching network.

``python benchmarks/matching.py FOLDER`` takes the folder of a finished search. A lesson is worth what a step along the
teaching gradient lowers the loss on held-out images, to first order: the inner product of both gradients, which is what
trains the matching network. Several teachers teach each student, several times, each time on other images. The share of
the variance that stems from the pair of student and teacher (intraclass correlation) bounds what can be learnt from
pairs; that share within students is what a choice among teachers can gain. A ridge regression on the network's own
input shows how much of it the input holds. Docs: ``docs/ranking.md``.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import paddle
from paddle.nn import functional as F

from cream import build
from cream.build.data import open_images, training_loader
from cream.train.meta import MetaBatch, Teacher, meta_gradients

RATE = 1e-4  # so small that the student does not move while it is judged
RIDGES = (1e-2, 1e-1, 1.0, 10.0, 100.0)


def lesson(net, student, teacher, images, labels, loss_fn) -> float:
    """Return the inner product of the teaching gradient on half of the images and the held-out gradient on the rest."""
    half = len(images) // 2
    batch = MetaBatch(images[:half], images[half:], labels[half:])
    teacher = replace(teacher, difference=paddle.zeros([1]))  # of which the product does not depend
    _, d_score = meta_gradients(net, student, teacher, batch, RATE, loss_fn)  # -RATE rho (1 - rho) product
    return -d_score.item() / (RATE * teacher.rho * (1 - teacher.rho))


@paddle.no_grad()
def difference(net, student, teacher, images) -> np.ndarray:
    """Return the input of the matching network: the student's minus the teacher's probabilities, flat."""
    return (F.softmax(net(images, student), axis=1) - F.softmax(net(images, teacher), axis=1)).numpy().ravel()


def pair_share(worth: np.ndarray) -> float:
    """Return the intraclass correlation of lessons [pairs, repeats], whose repeats have a mean of their own."""
    worth = worth - worth.mean(axis=0)
    repeats = worth.shape[1]
    between = repeats * worth.mean(axis=1).var(ddof=1)
    within = worth.var(axis=1, ddof=1).mean()
    return float((between - within) / (between + (repeats - 1) * within))


def predicted(inputs: np.ndarray, worth: np.ndarray, students: np.ndarray) -> float:
    """Return the best R2, over RIDGES, of predictions of lessons [pairs, repeats] by a ridge regression.

    The regression has seen neither the students (ten folds) nor the images of these lessons: it is fitted to the first
    half of the repeats, and predicts the second.
    """
    half, folds = worth.shape[1] // 2, students % 10
    seen, wanted = worth[:, :half].mean(axis=1), worth[:, half:].mean(axis=1)
    wanted = wanted - wanted.mean()
    inputs = (inputs - inputs.mean(axis=0)) / (inputs.std(axis=0) + 1e-12)
    best = -np.inf
    for ridge in RIDGES:
        guess = np.empty(len(worth))
        for fold in range(10):
            x, y = inputs[folds != fold], seen[folds != fold]
            weights = np.linalg.solve(x.T @ x + ridge * len(x) * np.eye(x.shape[1]), x.T @ (y - y.mean()))
            guess[folds == fold] = inputs[folds == fold] @ weights
        best = max(best, 1 - ((wanted - guess) ** 2).sum() / (wanted**2).sum())
    return float(best)


def main() -> None:
    """Give every pair its lessons and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="SAVE_PATH/MODEL of a finished search")
    parser.add_argument("--students", type=int, default=30, metavar="N", help="paths that are taught (default: 30)")
    parser.add_argument("--teachers", type=int, default=5, metavar="N", help="teachers of each (default: 5)")
    parser.add_argument("--repeats", type=int, default=4, metavar="N", help="lessons of each pair (default: 4)")
    parser.add_argument("--images", type=int, nargs="+", default=[8, 64], metavar="N", help="images of a lesson")
    args = parser.parse_args()
    cfg, _ = build.settings_of_search(args.folder)
    searched, step = build.trained_search(args.folder, cfg)
    net, rng = searched.net, np.random.default_rng(0)
    net.train()
    batches = iter(training_loader(cfg, open_images(cfg).train, searched.resolution))
    shown = next(batches)[0][: cfg.SUPERNET.SLICE]
    draw = searched.sampler
    students = draw.spread(rng, args.students)
    pairs = [(student, Teacher(draw(rng), 0.5)) for student in students for _ in range(args.teachers)]
    inputs = np.array([difference(net, student, teacher.arch, shown) for student, teacher in pairs])
    number = np.arange(len(pairs)) // args.teachers  # of the student
    print("| images of a lesson | share of positive worth | share of pairs | share of teachers | R2 of the input |")
    print("|---|---|---|---|---|")
    for n in args.images:
        worth = np.empty((len(pairs), args.repeats))
        for repeat in range(args.repeats):
            images, labels = next(batches)
            for row, (student, teacher) in enumerate(pairs):
                worth[row, repeat] = lesson(net, student, teacher, images[:n], labels[:n], step.loss_fn)
        each = worth.reshape(args.students, args.teachers, args.repeats)
        of_teachers = (each - each.mean(axis=1, keepdims=True)).reshape(worth.shape)
        found = (
            (worth > 0).mean(),
            pair_share(worth),
            pair_share(of_teachers),
            predicted(inputs, worth, number),
        )
        print(f"| {n} | {' | '.join(f'{value:.3f}' for value in found)} |", flush=True)


if __name__ == "__main__":
    main()
