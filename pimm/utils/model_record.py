"""Note which model weights are of, beside them: in the manifest of a checkpoint, or with a file of weights.

A safetensors file has the note in its metadata. Paddle's files have no place for it: the file ``NAME.json`` beside the
file ``NAME`` has it, with the checksum of the weights, so that a note is never taken for that of other weights.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

from pimm.errors import CheckpointError
from pimm.utils.checkpoint import read_manifest
from pimm.utils.safetensors_file import dump_safetensors, is_safetensors, read_safetensors
from pimm.utils.serialization import atomic_file, file_sha256, is_for_safetensors, save_arrays, write_text

NOTE = ".json"
_MAX_NOTE = 1 << 24  # bytes; enough for the names of many thousands of classes
_logger = logging.getLogger(__name__)


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
        path: the folder of a checkpoint, or a file of weights.

    Raises:
        CheckpointError: for a damaged checkpoint or note.
    """
    path = Path(path)
    if path.is_dir():
        return _checked(read_manifest(path))
    if is_safetensors(path):
        found = dict(read_safetensors(path).metadata)
        return _checked({**found, "args": _parsed(found["args"], path)} if "args" in found else found)
    note = path.with_name(f"{path.name}{NOTE}")
    if not (note.is_file() and path.is_file()):
        return {}
    if note.stat().st_size > _MAX_NOTE:
        raise CheckpointError(f"{note} is too large for a note of which model weights are of")
    found = _parsed(note.read_bytes(), note)
    if not isinstance(found, dict) or found.get("sha256") != file_sha256(path):
        _logger.warning("%s is left alone: it is not of the weights in %s", note, path)
        return {}
    return _checked(found)


def _parsed(text, path):
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: the note of the model is no JSON: {error!s:.100}") from None


def _checked(found):
    return {name: found[name] for name, kind in (("arch", str), ("args", dict)) if isinstance(found.get(name), kind)}
