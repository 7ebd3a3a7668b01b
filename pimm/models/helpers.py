"""Reading checkpoints into models."""

import logging
from pathlib import Path

from pimm.errors import CheckpointError
from pimm.models.state import load_state_dict_strictly
from pimm.optim import load_optimizer_state
from pimm.utils.checkpoint import EMA, MODEL, OPTIMIZER, STATE, read_checkpoint, verify_checkpoint
from pimm.utils.serialization import load_arrays

_logger = logging.getLogger(__name__)

_TORCH_SUFFIXES = (".pth", ".pt", ".tar")


def load_state_dict(checkpoint_path, use_ema=False):
    """Weights ``{name: array}`` of a checkpoint folder or of a ``.pdparams`` or ``.pdema`` file.

    ``use_ema`` takes the averaged ones: the folder's, or the ``.pdema`` file beside. Raises `CheckpointError` if
    there are none, and for anything damaged.
    """
    path = Path(checkpoint_path)
    if path.is_dir():
        path = _file_of_folder(path, EMA if use_ema else MODEL)
    elif use_ema:
        path = path.with_suffix(Path(EMA).suffix)
    return _load_arrays(path)


def _file_of_folder(folder, name):
    _require(name, verify_checkpoint(folder)["files"], folder)
    return folder / name


def _require(name, held, folder):
    if name not in held:
        raise CheckpointError(f"checkpoint {folder} has no {name}; it holds {', '.join(held)}")


def _load_arrays(path):
    if path.suffix in _TORCH_SUFFIXES:
        raise CheckpointError(f"{path} is PyTorch's; make a {Path(MODEL).suffix} file of it with convert_weights.py")
    arrays = load_arrays(path)
    if not isinstance(arrays, dict):
        raise CheckpointError(f"{path} holds a {type(arrays).__name__}, not weights by name")
    return arrays


def load_checkpoint(model, checkpoint_path, use_ema=False, strict=True):
    """Set the weights of ``model`` to those that `load_state_dict` finds.

    Raises `CheckpointError` with the first of the names left over on either side and of the shapes that differ. With
    ``strict`` false these are left alone, and logged; it is still an error if nothing fits.
    """
    arrays = load_state_dict(checkpoint_path, use_ema)
    if not strict:
        arrays = _fitting(model, arrays, checkpoint_path)
    load_state_dict_strictly(model, arrays, str(checkpoint_path))
    _logger.info("loaded %s from %s", "averaged weights" if use_ema else "weights", checkpoint_path)


def _fitting(model, arrays, source):
    own = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    fitting = {name: value for name, value in arrays.items() if name in own and value.shape == own[name].shape}
    if not fitting:
        raise CheckpointError(f"{source}: not one of its {len(arrays)} arrays fits the model")
    _logger.warning(
        "%s: the model keeps its own %s and leaves %s",
        source,
        sorted(own.keys() - fitting.keys()),
        sorted(arrays.keys() - fitting.keys()),
    )
    return {**own, **fitting}


def resume_checkpoint(model, checkpoint_path, optimizer=None, log_info=True):
    """Set ``model``, and ``optimizer`` if given, to where a checkpoint folder or a file of weights left them.

    Returns ``(other_state, resume_epoch)``: the optimizer's state and what the training loop had saved (None if
    nothing), under ``optimizer`` and ``state``, and the epoch to go on with, which is the same one after a checkpoint
    from inside an epoch; ``({}, None)`` for a file, which holds weights alone. Raises `CheckpointError` as
    `load_checkpoint` does.
    """
    path = Path(checkpoint_path)
    if not path.is_dir():
        load_checkpoint(model, path)
        if optimizer is not None:
            _logger.warning("%s holds weights alone: the optimizer starts afresh", path)
        return {}, None
    checkpoint = read_checkpoint(path)
    for name in (MODEL, OPTIMIZER):
        _require(name, checkpoint.files, path)
    load_state_dict_strictly(model, checkpoint.files[MODEL], str(path))
    if optimizer is not None:
        load_optimizer_state(optimizer, model, checkpoint.files[OPTIMIZER])
    epoch = checkpoint.manifest["epoch"]
    if log_info:
        _logger.info("loaded checkpoint %s of epoch %d", path, epoch)
    resume_epoch = epoch if "batch" in checkpoint.manifest else epoch + 1
    return {"optimizer": checkpoint.files[OPTIMIZER], "state": checkpoint.files.get(STATE)}, resume_epoch
