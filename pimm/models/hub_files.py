"""Get files of models from the Hugging Face Hub, by the package huggingface_hub, and from folders of the same form.

The package caches files, lets one of several processes download a file while the others wait, and follows
``HF_ENDPOINT``, ``HF_HUB_OFFLINE``, ``HF_HOME`` and ``HF_TOKEN``. Of a download it checks the size alone. Its cache
names each file by the hub's checksum of the file, which is compared here with the content whenever the file is used.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
from pathlib import Path

import pimm
from pimm.errors import CheckpointError, ConfigError
from pimm.models.url_files import is_offline
from pimm.utils.serialization import file_sha256

_logger = logging.getLogger(__name__)

CONFIG = "config.json"
SAFE_WEIGHTS = "model.safetensors"
WEIGHTS = "pytorch_model.bin"

_OF_HUB = (SAFE_WEIGHTS, WEIGHTS, "open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_OF_FOLDER = (
    *(SAFE_WEIGHTS, WEIGHTS, "pytorch_model.pth", "model.pth"),
    *("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors"),
    *("open_clip_pytorch_model.bin", "open_clip_pytorch_model.pth"),
)
_ENDINGS = (".safetensors", ".pth", ".pth.tar", ".bin")  # of other names, the preferred ending first
_SHA256 = re.compile(r"[0-9a-f]{64}")  # the hub's checksum of a large file
_GIT_SHA1 = re.compile(r"[0-9a-f]{40}")  # of a small one
_ATTEMPTS = 3
_SHOWN = 8  # files in a message


def hub_library():
    """Return the package huggingface_hub.

    Raises:
        ConfigError: if it is not installed.
    """
    try:
        import huggingface_hub.constants
        import huggingface_hub.utils
    except ImportError:
        raise ConfigError(
            "weights from the Hugging Face Hub need huggingface_hub: pip install 'cream-paddle[hub]'"
        ) from None
    return huggingface_hub


def split_hub_id(model_id):
    """Return the repository of ``"org/name@revision"``, and the revision, or None for the newest.

    Raises:
        ConfigError: for more than one ``@``.
    """
    repo, _, revision = str(model_id).partition("@")
    if not repo or "@" in revision:
        raise ConfigError(f"{str(model_id)[:120]!r} names no model of the hub; valid is ORG/NAME or ORG/NAME@REVISION")
    return repo, revision or None


def hub_file(model_id, filename, cache_dir=None):
    """Return the path of a file of the hub in the cache; the file is downloaded unless it is there.

    Args:
        model_id: ``"org/name"`` or ``"org/name@revision"``.
        filename: the name in the repository.
        cache_dir: folder of the cache in place of huggingface_hub's own.

    Raises:
        ConfigError: for a wrong name, and if huggingface_hub is not installed.
        CheckpointError: if the file cannot be had, and if its content is not what the hub's checksum says.
    """
    path = _find_hub_file(model_id, filename, cache_dir)
    if path is None:
        raise CheckpointError(f"{model_id} has no {filename} at {hub_endpoint()}{_list_files(model_id)}")
    return path


def hub_weights(model_id, filename=None, cache_dir=None):
    """Return the path of the weights of a model of the hub in the cache; arguments and errors as `hub_file`.

    Without ``filename`` the first of timm's and OpenCLIP's usual names is taken. A file for safetensors comes before a
    pickle of the same name.
    """
    names = _with_safe_name(filename) if filename else _OF_HUB
    unreachable = None
    for name in names:
        try:
            path = _find_hub_file(model_id, name, cache_dir, local_files_only=unreachable is not None)
        except _Unreachable as error:  # the cache may have a file of the next name
            unreachable = unreachable or error
            continue
        if path is not None:
            return path
    raise unreachable or CheckpointError(
        f"{model_id} has no weights at {hub_endpoint()}: none of {', '.join(names)}{_list_files(model_id)}"
    )


def _with_safe_name(filename):
    if not filename.endswith(".bin"):
        return (filename,)
    return {name: (safe, name) for safe, name in (_OF_HUB[:2], _OF_HUB[2:])}.get(
        filename, (f"{filename[:-4]}.safetensors", filename)
    )


class _Unreachable(CheckpointError):
    """A file that the cache does not have, of a hub that does not answer or must not be asked."""


def _find_hub_file(model_id, filename, cache_dir, local_files_only=False):
    """Return the path of a file in the cache, or None if the hub says that it has none of this name."""
    hub = hub_library()
    repo, revision = split_hub_id(model_id)
    try:
        path = _download(
            hub,
            repo,
            filename,
            revision=revision,
            cache_dir=cache_dir,
            local_files_only=local_files_only or is_offline(),
        )
    except hub.utils.LocalEntryNotFoundError as error:
        raise _Unreachable(_say_unreachable(hub, model_id, filename, cache_dir, error)) from error
    except hub.utils.EntryNotFoundError:
        return None
    except hub.utils.HFValidationError as error:
        raise ConfigError(f"{repo[:120]!r} names no model of the hub; valid is ORG/NAME") from error
    except Exception as error:  # of the packages that speak HTTP, too
        raise CheckpointError(_explain(hub, model_id, filename, error)) from error
    _verify(path, model_id)
    return Path(path)


def _download(hub, repo, filename, **options):
    """Return what ``hf_hub_download`` does; call it again after a broken connection, as versions before 2 do not."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return hub.hf_hub_download(
                repo,
                filename,
                endpoint=hub_endpoint(),
                library_name="pimm",
                library_version=pimm.__version__,
                **options,
            )
        except (hub.utils.EntryNotFoundError, hub.utils.HfHubHTTPError, hub.utils.HFValidationError):
            raise
        except Exception as error:  # of the packages that speak HTTP, too
            if attempt == _ATTEMPTS:
                raise
            _logger.warning("%s of %s: %s; it is tried again", filename, repo, _first_line(error))


def _say_unreachable(hub, model_id, filename, cache_dir, error):
    folder = cache_dir or hub.constants.HF_HUB_CACHE
    if is_offline() or hub.constants.HF_HUB_OFFLINE:
        why = "HF_HUB_OFFLINE forbids a download"
    else:
        why = f"{hub_endpoint()} cannot be asked for it ({_first_line(error.__cause__ or error)})"
    return f"{filename} of {model_id} is not in the cache {folder}, and {why}"


def _explain(hub, model_id, filename, error):
    repo, revision = split_hub_id(model_id)
    reasons = {  # the first that fits
        hub.utils.GatedRepoError: "access to it must be asked for on its page there, and HF_TOKEN be set",
        hub.utils.RepositoryNotFoundError: "there is no such model, or it is private and HF_TOKEN must be set",
        hub.utils.RevisionNotFoundError: f"it has no revision {revision}",
    }
    reason = next((text for kind, text in reasons.items() if isinstance(error, kind)), None)
    return f"cannot get {filename} of {repo} from {hub_endpoint()}: {reason or _first_line(error)}"


def hub_endpoint():
    """Return the address of the hub; huggingface_hub itself reads the environment once, when it is imported."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or hub_library().constants.ENDPOINT


def _first_line(error):
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]:.150}"


def _list_files(model_id):
    """Return ``"; it holds FILE, ..."`` for a message, or nothing if the hub does not list the files."""
    repo, revision = split_hub_id(model_id)
    with contextlib.suppress(Exception):  # the message is about something else
        files = sorted(hub_library().HfApi(endpoint=hub_endpoint()).list_repo_files(repo, revision=revision))
        more = f" and {len(files) - _SHOWN} more" if len(files) > _SHOWN else ""
        return f"; it holds {', '.join(files[:_SHOWN]) or 'nothing'}{more}"
    return ""


def _verify(path, model_id):
    """Compare a file of the cache with the checksum that is the name of its blob, and remove a file that differs.

    A cache without symbolic links, as on some systems, has no such names.

    Raises:
        CheckpointError: if the content is another.
    """
    if not os.path.islink(path):
        return
    blob = Path(path).parent / os.readlink(path)
    digest = _digest(blob)
    if digest in (None, blob.name):
        return
    for each in (path, blob):
        with contextlib.suppress(OSError):
            os.unlink(each)
    raise CheckpointError(
        f"{Path(path).name} of {model_id} is damaged: its checksum is {digest[:16]}..., and that of the hub's file "
        f"{blob.name[:16]}...; it is removed from the cache, and the next attempt downloads it again"
    )


def _digest(blob):
    """Return the checksum of a file in the form of its name; None if the name is no checksum."""
    if _SHA256.fullmatch(blob.name):
        return file_sha256(blob)
    if _GIT_SHA1.fullmatch(blob.name):
        content = blob.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    return None


def folder_weights(folder):
    """Return the file of weights in a local folder of the hub's form: one of the usual names, or else by its ending.

    Raises:
        CheckpointError: if there is none.
    """
    folder = Path(folder)
    found = next((folder / name for name in _OF_FOLDER if (folder / name).is_file()), None)
    if found is not None:
        return found
    for ending in _ENDINGS:
        files = sorted(folder.glob(f"*{ending}"))
        if files:
            if len(files) > 1:
                _logger.warning("%s: %d files end in %s; %s is taken", folder, len(files), ending, files[0].name)
            return files[0]
    endings = ", ".join(f"*{ending}" for ending in _ENDINGS)
    raise CheckpointError(f"{folder} has no weights: no {', '.join(_OF_FOLDER[:2])} and no file {endings}")
