"""Note which model weights are of, beside them: in the manifest of a checkpoint, or with a file of weights.

A safetensors file has the note in its metadata. Paddle's files have no place for it: the file ``NAME.json`` beside the
file ``NAME`` has it, with the checksum of the weights, so that a note is never taken for that of other weights.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

from pimm.errors import CheckpointError
from pimm.utils.checkpoint import MANIFEST, read_manifest
from pimm.utils.safetensors_file import dump_safetensors, is_safetensors, read_safetensors
from pimm.utils.serialization import atomic_file, file_sha256, is_for_safetensors, save_arrays, write_text

NOTE = ".json"
_MAX_NOTE = 1 << 24  # bytes; enough for the names of many thousands of classes
_logger = logging.getLogger(__name__)


def _is_list_of(*kinds):
    return lambda value: isinstance(value, (list, tuple)) and all(type(each) in kinds for each in value)


# What the settings of a training may be that name its net and its images; all may be None.
_SETTINGS = {
    **dict.fromkeys(
        ("model", "gp", "crop_mode", "interpolation", "class_map", "input_img_mode"), lambda value: type(value) is str
    ),
    **dict.fromkeys(("num_classes", "in_chans", "img_size"), lambda value: type(value) is int),
    **dict.fromkeys(("crop_pct", "bn_eps"), lambda value: type(value) in (int, float)),
    **dict.fromkeys(("mean", "std"), _is_list_of(int, float)),
    "input_size": _is_list_of(int),
    "classes": _is_list_of(str),
    "model_kwargs": lambda value: isinstance(value, dict),
}


def save_with_record(path, arrays, record):
    """Write weights, and the note of which model they are of.

    Args:
        path: the file; one that ends in ``.safetensors`` gets this format.
        arrays: the weights, ``{name: tensor or array}``.
        record: ``arch``, the name of the model; ``args``, the settings of its training as JSON has them.

    Raises:
        CheckpointError: as `pimm.utils.save_arrays`.
    """
    if is_for_safetensors(path):
        text = {name: value if isinstance(value, str) else json.dumps(value) for name, value in record.items()}
        with atomic_file(path) as file:
            dump_safetensors(arrays, file, {"format": "pd", **text})
        return
    save_arrays(path, arrays)
    write_text(f"{path}{NOTE}", json.dumps({**record, "sha256": file_sha256(path)}, indent=1) + "\n")


def read_record(path):
    """Return the note ``{"arch": name, "args": settings}`` of which model weights are of; empty if there is none.

    Args:
        path: the folder of a checkpoint, a file of weights in one, or another file of weights.

    Raises:
        CheckpointError: for a damaged checkpoint or note.
    """
    path = Path(path)
    if path.is_dir():
        return _checked(read_manifest(path), path)
    if path.is_file() and (path.parent / MANIFEST).is_file():
        manifest = read_manifest(path.parent)
        if path.name in manifest["files"] and file_sha256(path) == manifest["files"][path.name]["sha256"]:
            return _checked(manifest, path)
    if is_safetensors(path):
        found = dict(read_safetensors(path).metadata)
        return _checked({**found, "args": _parsed(found["args"], path)} if "args" in found else found, path)
    note = path.with_name(f"{path.name}{NOTE}")
    if not (note.is_file() and path.is_file()):
        return {}
    if note.stat().st_size > _MAX_NOTE:
        raise CheckpointError(f"{note} is too large for a note of which model weights are of")
    found = _parsed(note.read_bytes(), note)
    if not isinstance(found, dict) or found.get("sha256") != file_sha256(path):
        _logger.warning("%s is left alone: it is not of the weights in %s", note, path)
        return {}
    return _checked(found, note)


def _parsed(text, path):
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: the note of the model is no JSON: {error!s:.100}") from None


def _checked(found, path):
    """Return the model's name and the settings of its training, those that there are."""
    found = {name: found[name] for name, kind in (("arch", str), ("args", dict)) if isinstance(found.get(name), kind)}
    for name, value in found.get("args", {}).items():
        if value is not None and not _SETTINGS.get(name, lambda _: True)(value):
            raise CheckpointError(f"{path}: {name} in the note of the model cannot be {value!r:.80}")
    return found
