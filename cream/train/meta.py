"""The matching network: which teacher does a path learn most from (Cream, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import paddle
from paddle import Tensor, nn
from paddle.nn import functional as F

from cream.space import Arch
from cream.train.board import PrioritizedBoard
from pimm.layers import frozen_batch_norm_statistics
from pimm.loss import SoftTargetCrossEntropy
from pimm.utils import all_reduce_mean, broadcast_values


class MetaMatching(nn.Linear):
    """Scores teachers by the differences between a student's and their own class probabilities on the same images.

    The network is one linear unit over [slice, num_classes] differences; ``sigmoid(score)`` is rho, the weight of the
    teacher in the student's loss.
    """

    def __init__(self, num_classes: int, slice_size: int):
        super().__init__(num_classes * slice_size, 1)

    def forward(self, difference: Tensor) -> Tensor:
        """Return the scores [teachers] of differences [teachers, slice, num_classes]."""
        return super().forward(difference.flatten(1)).squeeze(1)


@dataclass(frozen=True)
class Teacher:
    """Holds the teacher of one student: a path of the board, and its weight rho in the student's loss.

    ``difference`` [slice, num_classes] is the student's minus the teacher's probabilities on the teacher's images, and
    None where the matching network did not pick the teacher.
    """

    arch: Arch
    rho: float
    difference: Tensor | None = None


@paddle.no_grad()
def match_teacher(net: nn.Layer, board: PrioritizedBoard, student: Arch) -> Teacher:
    """Pick the teacher with the highest score for a student, by one forward pass over all images of the board.

    Batch-norm statistics stay as they are. All processes pick the same teacher.
    """
    images, features = board.batch()
    with frozen_batch_norm_statistics():
        probabilities = F.softmax(net(images, student), axis=1)
    difference = probabilities.reshape(features.shape) - features
    with paddle.amp.auto_cast(enable=False):  # in half precision scores would tie
        scores = net.meta_layer(difference)
    best = paddle.argmax(scores)
    # One read gets both numbers, and all processes take those of the first: two GPUs may round a tie differently.
    score = paddle.gather(scores, best)  # scores[best] would read the index, and wait for the device once more
    index, rho = broadcast_values(paddle.stack([best.astype("float32"), F.sigmoid(score).astype("float32")]))
    return Teacher(board.entries[int(index)].arch, rho, difference[int(index)])


def best_teacher(net: nn.Layer, board: PrioritizedBoard, student: Arch, rho: float = 0.5) -> Teacher:
    """Pick the best path on the board for any student."""
    return Teacher(board.entries[0].arch, rho)


def random_teacher(
    net: nn.Layer, board: PrioritizedBoard, student: Arch, rho: float, rng: np.random.Generator
) -> Teacher:
    """Draw a path of the board for any student."""
    return Teacher(board.entries[int(rng.integers(len(board)))].arch, rho)


PICK_METHODS = {"meta": match_teacher, "top1": best_teacher}


@dataclass(frozen=True)
class MetaBatch:
    """Holds the images that teach a student and the held-out images that test it, [slice, 3, H, W]; labels [slice]."""

    images: Tensor
    held_out_images: Tensor
    held_out_labels: Tensor


def path_gradients(loss: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    """Return the gradients of ``loss``, averaged over all processes; the parameters' own ``.grad`` stays as it is."""
    return all_reduce_mean(paddle.grad(loss, parameters))


def meta_gradients(
    net: nn.Layer, student: Arch, teacher: Teacher, batch: MetaBatch, learning_rate: float, loss_fn: nn.Layer
) -> tuple[Tensor, Tensor]:
    """Return the gradients of a taught student's held-out loss for the matching network's weight and bias.

    With ``g`` the gradient of the student's cross-entropy against the teacher, ``w' = w - lr rho g`` the taught
    student and ``L`` its held-out loss, ``dL/dtheta = -lr <dL/dw', g> drho/dtheta``: exact, and of first order
    only, because the student depends on the matching network through the number rho alone.

    The student's weights, their ``.grad`` and all batch-norm statistics are left as they were.
    """
    weights = net.active_parameters(student)
    before = [weight.detach().clone() for weight in weights]
    with frozen_batch_norm_statistics():
        with paddle.no_grad():
            soft_labels = F.softmax(net(batch.images, teacher.arch), axis=1)
        taught = path_gradients(SoftTargetCrossEntropy()(net(batch.images, student), soft_labels), weights)
        try:
            with paddle.no_grad():
                for weight, gradient in zip(weights, taught):
                    weight.subtract_(gradient * (learning_rate * teacher.rho))
            held_out_loss = loss_fn(net(batch.held_out_images, student), batch.held_out_labels)
            held_out = path_gradients(held_out_loss, weights)
        finally:
            with paddle.no_grad():
                for weight, value in zip(weights, before):
                    paddle.assign(value, weight)
    agreement = paddle.add_n([(a * b).sum() for a, b in zip(held_out, taught)])
    d_score = -learning_rate * teacher.rho * (1.0 - teacher.rho) * agreement
    return d_score * teacher.difference.reshape([-1, 1]), d_score.reshape([1])
