"""Loading of a training: from checkpoint folders of this version and of earlier ones, and from files of weights."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pimm.engine.steps import averaged_net
from pimm.errors import CheckpointError
from pimm.messages import changes
from pimm.models import load_checkpoint, resume_checkpoint
from pimm.optim import load_optimizer_state
from pimm.utils import read_checkpoint, scatter_bn
from pimm.utils.checkpoint import EMA, MODEL, OPTIMIZER, STATE
from pimm.utils.state import load_state_dict_strictly

if TYPE_CHECKING:
    from pimm.engine.loop import Trainer

_logger = logging.getLogger(__name__)

_SHOWN = 5  # changed settings that an error lists


def load_checkpoint_folder(trainer: Trainer, folder: Path, *, with_optimizer: bool = True, strict: bool = True) -> None:
    """Restore a training from the folder of a checkpoint; the arguments are those of ``Trainer.resume_or_start``.

    Raises:
        CheckpointError: the folder holds no training, one with other settings or weights, or one from inside an epoch
            with another layout.
    """
    checkpoint = read_checkpoint(folder)
    files, source = checkpoint.files, str(folder)
    missing = [name for name in ((MODEL, OPTIMIZER, STATE) if strict else (MODEL,)) if name not in files]
    if missing:
        raise CheckpointError(f"{folder} holds no training to resume: it lacks {', '.join(missing)}")
    check_settings(trainer.settings, checkpoint.manifest["args"], source)
    state = current_form(files[STATE]) if STATE in files else None
    if state is not None and with_optimizer:
        check_layout(trainer.layout, state, source)
    load_state_dict_strictly(trainer.step.net, files[MODEL], source)
    if trainer.step.ema is not None:
        _load_average(trainer, files.get(EMA), source, strict)
    if with_optimizer and OPTIMIZER in files:
        load_optimizer_state(trainer.step.update.optimizer, trainer.step.net, files[OPTIMIZER])
    if with_optimizer and state is not None:
        _load_state(trainer, state)
    else:
        epoch = checkpoint.manifest["epoch"]
        trainer.go_to(epoch if "batch" in checkpoint.manifest else epoch + 1)
    trainer.set_rates()


def _load_state(trainer: Trainer, state: Mapping) -> None:
    trainer.go_to(state["epoch"], state["batch"])
    trainer.metrics.load_state_dict(state["averages"])
    trainer.evaluated = state["evaluated"]
    trainer.step.load_state_dict(state["step"])
    for net, rows in zip(trainer.step.nets, state["statistics"]):
        scatter_bn(net, rows)
    if trainer.scheduler is not None and state["scheduler"] is not None:
        trainer.scheduler.load_state_dict(state["scheduler"])


def load_weights_file(trainer: Trainer, path: Path, *, with_optimizer: bool = True, strict: bool = True) -> None:
    """Restore a training from a file of weights; a PyTorch checkpoint also says after which epoch to continue.

    Raises:
        CheckpointError: the weights are another net's, or no epoch is left to train.
    """
    optimizer = trainer.step.update.optimizer if with_optimizer else None
    _, epoch = resume_checkpoint(trainer.step.net, path, optimizer)
    if trainer.step.ema is not None:
        try:
            load_checkpoint(averaged_net(trainer.step.ema), path, use_ema=None if strict else True)
        except CheckpointError as error:
            if strict:
                raise
            _start_average(trainer, error)
    trainer.go_to(epoch or 0)
    if strict and trainer.epoch >= trainer.epochs:
        raise CheckpointError(
            f"{path} is trained for {trainer.epoch} epochs already: EPOCHS={trainer.epochs} must be more"
        )
    trainer.set_rates()


def check_settings(settings: Mapping[str, object], recorded: Mapping[str, object], source: str) -> None:
    """Raise CheckpointError if a checkpoint belongs to a training with other settings."""
    changed = changes(recorded, {name: value for name, value in settings.items() if name in recorded})
    if changed:
        more = f" and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
        raise CheckpointError(
            f"{source} belongs to a training with other settings: {', '.join(changed[:_SHOWN])}{more}; "
            "resume with the same ones, or start anew in another folder"
        )


def check_layout(layout: Mapping[str, object], state: Mapping, source: str) -> None:
    """Raise CheckpointError if a checkpoint from inside an epoch divides that epoch in another way."""
    changed = changes(state["layout"], {name: value for name, value in layout.items() if name in state["layout"]})
    if changed and state["batch"]:
        raise CheckpointError(
            f"{source} is from inside an epoch with another layout: {', '.join(changed)}; resume with the same one, or "
            "from the end of an epoch"
        )
    if changed:
        state["statistics"] = []  # a row for each process of the interrupted training; all are equal after an epoch


def current_form(state: Mapping) -> dict:
    """Return the saved state of a training in the form of this version."""
    if "totals" in state:  # written by pimm_train.py of version 0.1
        loss, images = state["totals"]
        processes, batch_size, accumulate = state["shape"]
        scaler = next((value for name, value in state.items() if name.startswith("amp")), {})
        return {
            **state,
            "averages": {"sums": {"loss": loss}, "counts": {"loss": images}} if images else {"sums": {}, "counts": {}},
            "evaluated": {},
            "step": {"update": scaler},
            "layout": {"processes": processes, "batch size": batch_size, "batches of an update": accumulate},
        }
    return {"layout": {}, **state}


def _load_average(trainer: Trainer, arrays: Mapping | None, source: str, required: bool) -> None:
    if arrays is None and required:
        raise CheckpointError(f"{source} has no moving average, which this training keeps")
    if arrays is None:
        _start_average(trainer, f"{source} has no moving average")
    else:
        load_state_dict_strictly(averaged_net(trainer.step.ema), arrays, source)


def _start_average(trainer: Trainer, reason: object) -> None:
    _logger.warning("%s: the moving average starts from the net's own weights", reason)
    trainer.step.ema.set(trainer.step.net)
