"""Keep the best few checkpoints of a training, and always the newest."""

from __future__ import annotations

import contextlib
import json
import logging
import math
from pathlib import Path

from pimm.errors import CheckpointError, ConfigError
from pimm.optim.state import optimizer_state
from pimm.utils.checkpoint import (
    EMA,
    MODEL,
    OPTIMIZER,
    STATE,
    clear_leftovers,
    is_prefix,
    latest_checkpoint,
    link_checkpoint,
    list_checkpoints,
    read_manifest,
    remove_checkpoint,
    verify_checkpoint,
    write_checkpoint,
)
from pimm.utils.distributed import is_main_process
from pimm.utils.model import get_state_dict, unwrap_model

_logger = logging.getLogger(__name__)

BEST = "model_best"


class CheckpointSaver:
    """Saves a training after epochs and in the middle of them, in folders that ``read_checkpoint`` reads.

    Of the checkpoints after epochs, the ``max_history`` best by metric are kept and always the newest, so that a
    resumed training never goes back; ``model_best`` is the best one. Checkpoints that are found in ``checkpoint_dir``
    count as this saver's own: a resumed training goes on with the history that it had. Only the main process writes;
    it begins by clearing away what a kill left half-done.

    As in today's timm the saver can be given what it saves: ``save_checkpoint(epoch, metric=None)`` and
    ``save_recovery(epoch, batch_idx=0)`` are then enough, and the state of ``amp_scaler`` is saved as well. As in
    0.1.20 the saver can do without; then each call names it all: ``save_checkpoint(model, optimizer, args, epoch,
    model_ema=None, metric=None, use_amp=False, state=None)`` and ``save_recovery(model, optimizer, args, epoch,
    model_ema=None, use_amp=False, batch_idx=0, state=None)``. There ``state`` is whatever else the training needs,
    plain data and arrays; a loss scaler's state belongs there, for which 0.1.20 had ``use_amp``.

    Args:
        model: the net to save; None if each call names the net.
        optimizer: its optimizer.
        args: the settings of the training, noted in the manifest.
        model_ema: the moving average of the weights, if any.
        amp_scaler: the loss scaler, if any.
        checkpoint_prefix: how the names of checkpoints after epochs begin.
        recovery_prefix: how the names of checkpoints inside epochs begin.
        checkpoint_dir: the folder of the checkpoints after epochs.
        recovery_dir: the folder of those inside epochs; by default ``checkpoint_dir``.
        decreasing: whether a lower metric is better.
        max_history: how many checkpoints after epochs to keep.
        unwrap_fn: returns the net inside a wrapped model.
        max_recoveries: how many checkpoints inside epochs to keep.

    Raises:
        ConfigError: for numbers below one, prefixes that are alike or no part of a name, and a model without an
            optimizer.
    """

    def __init__(
        self,
        model=None,
        optimizer=None,
        args=None,
        model_ema=None,
        amp_scaler=None,
        checkpoint_prefix="checkpoint",
        recovery_prefix="recovery",
        checkpoint_dir="",
        recovery_dir="",
        decreasing=False,
        max_history=10,
        unwrap_fn=unwrap_model,
        max_recoveries=2,
    ):
        for name, kept in (("max_history", max_history), ("max_recoveries", max_recoveries)):
            if kept < 1:
                raise ConfigError(f"{name} is at least 1, got {kept}")
        for prefix in (checkpoint_prefix, recovery_prefix):
            if not is_prefix(prefix):
                raise ConfigError(f"names of checkpoints cannot begin with {prefix!r:.80}; take letters")
        if checkpoint_prefix == recovery_prefix and Path(recovery_dir or checkpoint_dir) == Path(checkpoint_dir):
            # The checkpoints after epochs would be removed as old ones from inside an epoch.
            raise ConfigError(f"checkpoint_prefix and recovery_prefix are both {checkpoint_prefix!r:.80}; must differ")
        if model is not None and optimizer is None:
            raise ConfigError("a saver of a model needs its optimizer too")
        self.model = model
        self.optimizer = optimizer
        self.args = args
        self.model_ema = model_ema
        self.amp_scaler = amp_scaler
        self.save_prefix = checkpoint_prefix
        self.recovery_prefix = recovery_prefix
        self.checkpoint_dir = Path(checkpoint_dir)
        self.recovery_dir = Path(recovery_dir or checkpoint_dir)
        self.decreasing = decreasing
        self.max_history = max_history
        self.unwrap_fn = unwrap_fn
        self.max_recoveries = max_recoveries
        self.best_epoch = None
        self.best_metric = None
        self.checkpoint_files = []  # (folder, metric), the best first
        if checkpoint_dir and is_main_process():  # the working directory is not the saver's own to tidy
            for folder in {self.checkpoint_dir, self.recovery_dir}:
                clear_leftovers(folder, (checkpoint_prefix, recovery_prefix))
        self._find_history()

    def save_checkpoint(self, *call, **named):
        """Save the end of an epoch, and return the best metric and its epoch, or two Nones.

        The description of the class has the arguments. Raises `CheckpointError` if the checkpoint cannot be written.
        """
        save = self._save_given_checkpoint if self.model is None else self._save_own_checkpoint
        return save(*call, **named)

    def save_recovery(self, *call, **named):
        """Save the moment before a batch; the description of the class has the arguments."""
        save = self._save_given_recovery if self.model is None else self._save_own_recovery
        return save(*call, **named)

    def _save_own_checkpoint(self, epoch, metric=None):
        own = self.model, self.optimizer, self.args, epoch, self.model_ema
        return self._save_given_checkpoint(*own, metric, state=self._scaler_state())

    def _save_own_recovery(self, epoch, batch_idx=0):
        own = self.model, self.optimizer, self.args, epoch, self.model_ema
        return self._save_given_recovery(*own, batch_idx=batch_idx, state=self._scaler_state())

    def _scaler_state(self):
        if self.amp_scaler is None:
            return None
        return {self.amp_scaler.state_dict_key: self.amp_scaler.state_dict()}

    def _save_given_checkpoint(
        self, model, optimizer, args, epoch, model_ema=None, metric=None, use_amp=False, state=None
    ):
        if not is_main_process():
            return self.best_metric, self.best_epoch
        metric = None if metric is None else float(metric)
        folder = self.checkpoint_dir / f"{self.save_prefix}-{epoch}"
        self._write(folder, model, optimizer, args, {"epoch": epoch, "metric": metric}, model_ema, state)
        self.checkpoint_files = [entry for entry in self.checkpoint_files if entry[0] != folder]
        self.checkpoint_files.insert(0, (folder, metric))  # the newer of two equal ones comes first
        self._sort()
        self._link_if_best(folder, epoch, metric)
        self._prune(newest=folder)
        return self.best_metric, self.best_epoch

    def _save_given_recovery(
        self, model, optimizer, args, epoch, model_ema=None, use_amp=False, batch_idx=0, state=None
    ):
        if not is_main_process():
            return
        folder = self.recovery_dir / f"{self.recovery_prefix}-{epoch}-{batch_idx}"
        self._write(folder, model, optimizer, args, {"epoch": epoch, "batch": batch_idx}, model_ema, state)
        for old in list_checkpoints(self.recovery_dir, self.recovery_prefix)[self.max_recoveries :]:
            if old != folder:
                remove_checkpoint(old)

    def find_recovery(self):
        """Return the path of the furthest complete checkpoint from inside an epoch, or an empty string."""
        return str(latest_checkpoint(self.recovery_dir, self.recovery_prefix) or "")

    def _write(self, folder, model, optimizer, args, manifest, model_ema, state):
        net = self.unwrap_fn(model)
        files = {MODEL: net.state_dict(), OPTIMIZER: optimizer_state(optimizer, net)}
        if model_ema is not None:
            files[EMA] = get_state_dict(model_ema, self.unwrap_fn)
        if state is not None:
            files[STATE] = state
        described = json.loads(json.dumps(vars(args) if args is not None else {}, default=str))
        arch = described.get("model") or getattr(net, "model_name", None) or type(net).__name__
        write_checkpoint(folder, files, {**manifest, "arch": arch, "args": described})

    def _link_if_best(self, folder, epoch, metric):
        if metric is not None and (self.best_metric is None or self._rank(metric) > self._rank(self.best_metric)):
            link_checkpoint(folder, self.checkpoint_dir / BEST)
            self.best_epoch, self.best_metric = epoch, metric

    def _rank(self, metric):
        if metric is None or math.isnan(metric):
            return -math.inf
        return -metric if self.decreasing else metric

    def _sort(self):
        self.checkpoint_files.sort(key=lambda entry: self._rank(entry[1]), reverse=True)

    def _prune(self, newest):
        kept = self.checkpoint_files[: self.max_history]
        for entry in self.checkpoint_files[self.max_history :]:
            if entry[0] == newest:
                kept.append(entry)
            else:
                remove_checkpoint(entry[0])
        self.checkpoint_files = kept
        listed = "\n".join(f" {folder}: {metric}" for folder, metric in kept)
        _logger.debug("checkpoints:\n%s", listed)

    def _find_history(self):
        for folder in list_checkpoints(self.checkpoint_dir, self.save_prefix):
            try:
                self.checkpoint_files.append((folder, read_manifest(folder)["metric"]))
            except (CheckpointError, KeyError) as error:
                _logger.warning("%s does not count among the checkpoints: %s", folder, error)
        self._sort()
        best = self.checkpoint_dir / BEST
        if best.is_dir():
            with contextlib.suppress(
                CheckpointError, KeyError
            ):  # a damaged one is replaced by the next that has a metric
                manifest = read_manifest(best)
                self.best_epoch, self.best_metric = manifest["epoch"], manifest["metric"]
        if self.checkpoint_files and is_main_process():  # a kill may have come before the best one was linked
            with contextlib.suppress(CheckpointError, KeyError):
                folder, metric = self.checkpoint_files[0]
                self._link_if_best(folder, verify_checkpoint(folder)["epoch"], metric)
