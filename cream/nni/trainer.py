"""The trainers of SPOS's and Cream's supernets."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Callable

import paddle
from paddle import Tensor, nn
from paddle.nn import functional as F

from cream.nni.loop import Batches, SupernetTrainer
from cream.nni.mutator import CreamSupernetTrainingMutator, SPOSSupernetTrainingMutator
from cream.nni.paths import Cost, Found, check_numbers, checked, given_costs, path_cost, path_parameters
from cream.selection.candidates import score
from cream.space import Arch
from cream.supernet import SuperNet
from cream.train.board import PrioritizedBoard
from cream.train.evaluation import evaluate
from cream.train.meta import PICK_METHODS, MetaMatching
from cream.train.steps import CreamStep, SinglePathStep
from pimm.engine.evaluation import train_mode
from pimm.errors import ConfigError, check_whole
from pimm.layers import BatchNorm2d
from pimm.optim.param_groups import group_list


class SPOSSupernetTrainer(SupernetTrainer):
    """Trains a supernet one uniformly drawn path a batch (SPOS, section 3.2); `SPOSEvolution` then searches it.

    Args:
        model: the supernet.
        loss: maps logits and labels to a batch's mean loss.
        metrics: maps logits and labels to further numbers by name, or None; ``validate`` adds their means over this
            process's validation images to ``loss``, ``prec1`` and ``prec5``.
        optimizer: holds the model's parameters.
        num_epochs: number of epochs.
        train_loader: batches of images and labels.
        valid_loader: the same for validation.
        mutator: draws the paths, by default evenly.
        options: the further arguments of `SupernetTrainer`.
    """

    def __init__(
        self,
        model: SuperNet,
        loss: Callable[[Tensor, Tensor], Tensor],
        metrics: Callable[[Tensor, Tensor], Mapping[str, float]] | None,
        optimizer: paddle.optimizer.Optimizer,
        num_epochs: int,
        train_loader: Iterable,
        valid_loader: Iterable,
        mutator: SPOSSupernetTrainingMutator | None = None,
        **options,
    ):
        loaders = Batches(train_loader), Batches(valid_loader)
        mutator = mutator or SPOSSupernetTrainingMutator(model)
        super().__init__(SinglePathStep, model, loss, optimizer, num_epochs, *loaders, mutator, **options)
        self.loss, self.metrics = loss, metrics or (lambda logits, labels: {})

    def validate_path(self, arch: Arch) -> dict[str, float]:
        """Return loss, accuracies and the user's metrics of one path on the validation images."""
        sums, images = {}, 0

        def loss_fn(logits: Tensor, labels: Tensor) -> Tensor:
            nonlocal images
            for name, value in self.metrics(logits, labels).items():
                # A tensor stays on the device: to read the tensor here would wait for the device in every batch.
                value = value.astype("float64") if isinstance(value, Tensor) else value
                sums[name] = sums.get(name, 0.0) + value * len(labels)
            images += len(labels)
            return self.loss(logits, labels)

        with train_mode(self.model, training=False):
            found = evaluate(partial(self.model, arch=arch), self.valid_loader, loss_fn)
        return {**found, **{name: float(total) / images for name, total in sums.items()}}


class CreamSupernetTrainer(SupernetTrainer, Found):
    """Trains a supernet whose paths teach each other, and scores the best of them (https://arxiv.org/abs/2010.15821).

    After training, ``board`` holds the best paths seen, and ``candidates`` the same paths, the best first, scored on
    all validation images after batch norm was recalibrated for each path.

    Args:
        model: the supernet; with ``pick_method="meta"`` it gets a ``meta_layer`` if it has none.
        loss: maps logits and labels to a batch's mean loss.
        val_loss: the same for validation, by default cross-entropy.
        optimizer: holds the model's parameters.
        num_epochs: number of epochs.
        train_loader: batches of images and labels.
        valid_loader: the same for validation.
        mutator: draws the paths.
        meta_sta_epoch: the last epoch, counted from 0, in which no path has a teacher.
        update_iter: number of taught batches between two updates of the matching network.
        slices: number of images in each of the two slices from which the matching network learns.
        pool_size: number of places on the board.
        pick_method: ``meta`` or ``top1``: what picks each path's teacher.
        choice_num, sta_num: NNI's description of the space; where given, they must be the space's.
        acc_gap: the official rule of the board (NNI's value is 5); without it accuracy decides, then FLOPs.
        flops_dict, flops_fixed: NNI's table of costs in millions; without it the mutator's ``flops_func`` counts, and
            without that FLOPs are counted at ``resolution`` pixels.
        resolution: side of the images in pixels.
        meta_lr: rate of plain descent for the matching network, where the optimizer does not hold it.
        select_batches: number of training batches that recalibrate batch norm before a path is scored.
        options: the further arguments of `SupernetTrainer`.

    Raises:
        ConfigError: arguments that do not go together.
    """

    def __init__(
        self,
        model: SuperNet,
        loss: Callable[[Tensor, Tensor], Tensor],
        val_loss: Callable[[Tensor, Tensor], Tensor] | None,
        optimizer: paddle.optimizer.Optimizer,
        num_epochs: int,
        train_loader: Iterable,
        valid_loader: Iterable,
        mutator: CreamSupernetTrainingMutator | None = None,
        *,
        meta_sta_epoch: int = 20,
        update_iter: int = 200,
        slices: int = 2,
        pool_size: int = 10,
        pick_method: str = "meta",
        choice_num: int | None = None,
        sta_num: Sequence[int] | None = None,
        acc_gap: float | None = None,
        flops_dict: Mapping | Sequence | None = None,
        flops_fixed: float = 0.0,
        resolution: int | None = None,
        meta_lr: float = 1e-4,
        select_batches: int = 32,
        **options,
    ):
        self.space = checked(model).space
        self.val_loss, self.select_batches = val_loss or F.cross_entropy, select_batches
        check_numbers(self.space, choice_num, sta_num)
        counts = {"slices": (slices, 1), "pool_size": (pool_size, 1), "update_iter": (update_iter, 0)}
        for name, (value, least) in {**counts, "select_batches": (select_batches, 0)}.items():
            check_whole(name, value, least)
        if pick_method not in PICK_METHODS:
            raise ConfigError(f"pick_method is {pick_method!r:.80}; must be {' or '.join(PICK_METHODS)}")
        check_batch_norms(model)
        if num_epochs < meta_sta_epoch + 2:
            raise ConfigError(
                f"num_epochs={num_epochs} ends before paths teach each other, which they do after epoch "
                f"meta_sta_epoch={meta_sta_epoch}: it must be at least {meta_sta_epoch + 2}"
            )
        mutator = mutator or CreamSupernetTrainingMutator(model)
        if flops_dict is not None:
            self.flops: Cost = given_costs(self.space, flops_dict, flops_fixed)
        else:
            self.flops = mutator.flops_func or path_cost(model, resolution)
        make_step = partial(
            CreamStep,
            board=PrioritizedBoard(pool_size, acc_gap),
            flops=self.flops,
            pick_method=pick_method,
            start_epoch=meta_sta_epoch,
            update_interval=update_iter,
            slice_size=slices,
            matching_optimizer=matching(model, optimizer, slices, meta_lr) if pick_method == "meta" else None,
        )
        loaders = Batches(train_loader, least=2 * slices), Batches(valid_loader)
        super().__init__(make_step, model, loss, optimizer, num_epochs, *loaders, mutator, **options)

    @property
    def board(self) -> PrioritizedBoard:
        """The best paths that the training has seen."""
        return self.step.board

    def settings(self) -> dict[str, object]:
        """Return the settings that a resumed training must share with the interrupted one, as plain data."""
        step = self.step
        return {
            **super().settings(),
            "meta_sta_epoch": step.start_epoch,
            "update_iter": step.update_interval,
            "slices": step.slice_size,
            "pool_size": self.board.size,
            "acc_gap": self.board.acc_gap,
            "learns to match": step.learns_to_match,
        }

    def train(self) -> dict[str, float]:
        """Train to the last epoch, resuming what was interrupted, and score the board's paths."""
        metrics = super().train()
        costs = self.flops, partial(path_parameters, self.model)
        archs = [entry.arch for entry in self.board.entries]
        self.candidates = score(self.model, archs, costs, self.train_loader, self.valid_loader, self.select_batches)
        return metrics

    def validate(self) -> dict[str, float]:
        """Return the means over the fixed paths, and ``board_prec1``, the accuracy of the board's best path."""
        entries = self.board.entries
        board_prec1 = self.validate_path(entries[0].arch)["prec1"] if entries else math.nan
        return {**super().validate(), "board_prec1": board_prec1}

    def validate_path(self, arch: Arch) -> dict[str, float]:
        """Return loss and accuracies of one path on the validation images."""
        with train_mode(self.model, training=False):
            return evaluate(partial(self.model, arch=arch), self.valid_loader, self.val_loss)


def check_batch_norms(model: SuperNet) -> None:
    """Raise ConfigError for batch norms whose statistics would move while a path only teaches."""
    foreign = [
        name
        for name, layer in model.named_sublayers()
        if isinstance(layer, nn.BatchNorm2D) and not isinstance(layer, BatchNorm2d)
    ]
    if foreign:
        raise ConfigError(
            f"{foreign[0]} and {len(foreign) - 1} more are paddle.nn.BatchNorm2D, whose running statistics would move "
            "while a path only teaches: take pimm.layers.BatchNorm2d"
        )


def matching(
    model: SuperNet, optimizer: paddle.optimizer.Optimizer, slices: int, meta_lr: float
) -> paddle.optimizer.Optimizer:
    """Return the optimizer of the model's matching network; a model without a matching network gets one.

    Raises:
        ConfigError: the model has no ``num_classes``, or its matching network is for slices of another size.
    """
    classes = getattr(model, "num_classes", None)
    if classes is None:
        raise ConfigError(f"pick_method='meta' needs {type(model).__name__}.num_classes; or take pick_method='top1'")
    if not hasattr(model, "meta_layer"):
        model.meta_layer = MetaMatching(classes, slices)
    layer = model.meta_layer
    if layer.weight.shape[0] != classes * slices:
        raise ConfigError(
            f"the model's meta_layer is for {layer.weight.shape[0] / classes:g} images, but slices is {slices}; "
            "they must be the same"
        )
    held = {parameter.name for group in group_list(optimizer) for parameter in group["params"]}
    if layer.weight.name in held:
        return optimizer
    return paddle.optimizer.SGD(meta_lr, parameters=layer.parameters())
