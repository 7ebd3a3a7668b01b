"""Read checkpoints into models."""

import logging
import pickle
from functools import partial
from pathlib import Path

from pimm.errors import CheckpointError
from pimm.models.adapt import ADAPTED, adapt_arrays
from pimm.models.prefixes import with_own_names
from pimm.models.torch_names import from_torch_arrays, is_batch_counter, to_torch_arrays, transposed_names
from pimm.models.torch_weights import find_weights, rename_arrays
from pimm.models.variants import warn_of_variant
from pimm.optim import load_optimizer_state, load_torch_optimizer_state, optimizer_state
from pimm.torch_file import begins_as_torch, load_torch
from pimm.utils.checkpoint import EMA, MODEL, OPTIMIZER, STATE, read_checkpoint, verify_checkpoint
from pimm.utils.model_record import read_record
from pimm.utils.safetensors_file import ENDING, is_safetensors, read_safetensors
from pimm.utils.serialization import load_arrays
from pimm.utils.state import load_state_dict_strictly

_logger = logging.getLogger(__name__)

# Where the first bytes of a file, enough for those of a tar archive, do not tell, the ending does.
_KINDS = {**dict.fromkeys((".pth", ".pt", ".tar", ENDING), "torch"), **dict.fromkeys((".pdparams", ".pdema"), "paddle")}
_ENOUGH = 512
_SHOWN = 10  # names in a warning


def load_state_dict(checkpoint_path, use_ema=False):
    """Return the weights ``{name: array}`` of a checkpoint folder or of a file with Paddle's names.

    Args:
        checkpoint_path: the folder, or a ``.pdparams``, ``.pdema`` or safetensors file; not a file of PyTorch's.
        use_ema: take averaged weights: those of the folder, or of the ``.pdema`` file beside the named file.

    Raises:
        CheckpointError: if there are no such weights, and for damaged files.
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
    if is_torch_file(path):
        raise CheckpointError(f"{path} is PyTorch's, with other names for a model's weights: use load_checkpoint")
    arrays = load_arrays(path)
    if not isinstance(arrays, dict):
        raise CheckpointError(f"{path} holds a {type(arrays).__name__}, not weights by name")
    return arrays


def is_torch_file(path):
    """Tell whether the weights in a file have PyTorch's names; errors as `weights_kind`."""
    return weights_kind(path) == "torch"


def weights_kind(path):
    """Return whose names the weights in a file have, ``"torch"`` or ``"paddle"``; None if nothing tells.

    The content decides, and where it is damaged or missing the ending of the name.

    Raises:
        CheckpointError: for a damaged safetensors file.
    """
    path = Path(path)
    if path.is_dir():
        return "paddle"
    if is_safetensors(path):
        return "paddle" if read_safetensors(path).is_paddles else "torch"
    start = _first_bytes(path)
    if begins_as_torch(start):
        return "torch"
    return "paddle" if _begins_as_pickle(start) else _KINDS.get(path.suffix.lower())


def _first_bytes(path):
    try:
        if path.is_file():  # and no pipe, which would wait
            with path.open("rb") as file:
                return file.read(_ENOUGH)
    except OSError:  # the reader says what is wrong
        pass
    return b""


def _begins_as_pickle(start):
    return start[:1] == pickle.PROTO and start[1:2] <= bytes([pickle.HIGHEST_PROTOCOL])


def load_checkpoint(model, checkpoint_path, use_ema=False, strict=True):
    """Set the weights of ``model`` to those that `load_state_dict` returns, or to those of a file of PyTorch's.

    Args:
        model: the net.
        checkpoint_path: a checkpoint folder, a file of weights, or a file of PyTorch's.
        use_ema: take averaged weights; None takes them where a file of PyTorch's has them, and plain ones elsewhere.
        strict: refuse weights that do not fit; otherwise what does not fit is left alone and named in the log.

    Raises:
        CheckpointError: with the first names left over on either side and the first shapes that differ; without
            ``strict``, if nothing fits.
    """
    load_weights(model, checkpoint_path, use_ema, fit=None if strict else keep_fitting)


def load_initial_weights(model, checkpoint_path, use_ema=False, adapted=ADAPTED, new_classifier=False):
    """Set the weights that a training starts from; they may be of another number of classes or image channels.

    A classifier of other classes begins anew, and the first convolution takes the sum over the channels, or repeats
    them (`pimm.models.adapt`). A line of the log says so. Everything else must fit.

    Args:
        model: the net.
        checkpoint_path, use_ema: as in `load_checkpoint`.
        adapted: what may differ: ``num_classes``, ``in_chans`` or both.
        new_classifier: whether the classifier begins anew even if it fits.

    Raises:
        CheckpointError: as `load_checkpoint`.
    """
    fit = partial(adapt_arrays, model, adapted=adapted, new_classifier=new_classifier)
    load_weights(model, checkpoint_path, use_ema, fit)


def load_weights(model, checkpoint_path, use_ema, fit):
    """Read a checkpoint into a model; ``fit(own, arrays, source)`` returns the arrays that are loaded."""
    if is_torch_file(checkpoint_path):
        use_ema = _load_torch_weights(model, load_torch(checkpoint_path), checkpoint_path, use_ema, fit)
    else:
        arrays = with_own_names(load_state_dict(checkpoint_path, use_ema), model.state_dict())
        if fit:
            arrays = fit(_values(model), arrays, checkpoint_path)
        load_state_dict_strictly(model, arrays, str(checkpoint_path))
        warn_of_variant(model, arrays, read_record(checkpoint_path).get("arch"), checkpoint_path)
    _logger.info("loaded %s from %s", "averaged weights" if use_ema else "weights", checkpoint_path)


def _load_torch_weights(model, content, source, use_ema, fit=None):
    """Set the weights of ``model``, and return whether they are averaged ones."""
    try:
        weights = find_weights(content, use_ema)
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from None
    set_torch_weights(model, weights.arrays, source, fit, weights.prefix, str(weights))
    warn_of_variant(model, weights.arrays, content.get("arch"), source)
    return weights.averaged


def set_torch_weights(model, arrays, source, fit=None, prefix="", what="the weights"):
    """Set the weights of ``model`` to arrays with PyTorch's names.

    Args:
        model: the net.
        arrays: ``{name: array}``.
        source: where they are from, for errors.
        fit: a function ``(own, arrays, source)`` that returns the arrays that are loaded, of those under the names of
            the model and the model's own; None loads them as they are.
        prefix: what was taken off each name, as in `find_weights`.
        what: what an error calls the arrays.

    Raises:
        CheckpointError: as `check_state`.
    """
    try:
        arrays, _ = rename_arrays(model, arrays, prefix)
        if fit:
            own = to_torch_arrays(model, _values(model))
            arrays = fit({name: own[name] for name in own if not is_batch_counter(name)}, arrays, source)
        arrays = from_torch_arrays(model, arrays, what)
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from None
    load_state_dict_strictly(model, arrays, str(source))


def _values(model):
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def keep_fitting(own, arrays, source):
    """Return ``own`` with each array replaced for which ``arrays`` has one of the same name and shape."""
    fitting = {name: value for name, value in arrays.items() if name in own and value.shape == own[name].shape}
    if not fitting:
        raise CheckpointError(f"{source}: not one of its {len(arrays)} arrays fits the model")
    kept, left = sorted(own.keys() - fitting.keys()), sorted(arrays.keys() - fitting.keys())
    _logger.warning("%s: the model keeps its own %s and leaves %s", source, _first(kept), _first(left))
    return {**own, **fitting}


def _first(names):
    return f"{names[:_SHOWN]} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else f"{names}"


def resume_checkpoint(model, checkpoint_path, optimizer=None, log_info=True):
    """Set ``model``, and ``optimizer`` if given, to where a checkpoint folder or a file of weights left them.

    Args:
        model: the net.
        checkpoint_path: a checkpoint folder, or a file as in `load_checkpoint`.
        optimizer: the optimizer of the net, or None.
        log_info: whether to log which epoch was loaded.

    Returns:
        ``(other_state, resume_epoch)``: the optimizer's state and what the training loop had saved (None if nothing),
        under ``optimizer`` and ``state``, and the epoch to go on with, which is the same epoch after a checkpoint from
        inside an epoch; ``({}, None)`` for a file, which holds weights alone, unless PyTorch's training code wrote it.

    Raises:
        CheckpointError: as `load_checkpoint`, and for a checkpoint without the optimizer's state.
    """
    path = Path(checkpoint_path)
    if is_torch_file(path):
        return _resume_from_torch(model, path, optimizer)
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
    epoch = checkpoint.manifest.get("epoch")
    if epoch is None:
        raise CheckpointError(f"checkpoint {path} does not say of which epoch it is")
    if log_info:
        _logger.info("loaded checkpoint %s of epoch %d", path, epoch)
    resume_epoch = epoch if "batch" in checkpoint.manifest else epoch + 1
    return {"optimizer": checkpoint.files[OPTIMIZER], "state": checkpoint.files.get(STATE)}, resume_epoch


def _resume_from_torch(model, path, optimizer):
    content = load_torch(path)
    _load_torch_weights(model, content, path, use_ema=False)
    other_state = {}
    if optimizer is not None:
        try:
            state = content.get("optimizer")
            load_torch_optimizer_state(optimizer, model, state, transposed_names(model))
            other_state["optimizer"] = optimizer_state(optimizer, model)
        except CheckpointError as error:
            _logger.warning("%s: the optimizer starts afresh: %s", path, error)
    epoch = content.get("epoch")
    if type(epoch) is not int or epoch < 0:
        return other_state, None
    _logger.info("loaded checkpoint %s of epoch %d", path, epoch)
    version = content.get("version")  # timm's first version saved the epoch to go on with, later ones the last epoch
    return other_state, epoch + 1 if type(version) is int and version > 1 else epoch
