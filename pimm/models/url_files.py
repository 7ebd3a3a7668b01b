"""Download files of weights by their URLs, verified by the checksum in their names, into the cache that timm uses."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import logging
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pimm
from pimm.errors import CheckpointError, ConfigError
from pimm.utils.locks import try_lock
from pimm.utils.serialization import atomic_file, file_sha256

_logger = logging.getLogger(__name__)

_CHECKSUM = re.compile(r"-([0-9a-f]{8,64})\.")  # the first digits of the SHA-256, as PyTorch's files are called
_ATTEMPTS = 3
_PAUSE = 1.0  # seconds between two attempts
_WAIT = 0.1  # seconds between two looks at a lock
_TIMEOUT = 60.0  # seconds without an answer
_BLOCK = 1 << 20  # bytes
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_TRUE = ("1", "on", "yes", "true")


def url_file(url, cache_dir=None):
    """Return the path of a URL's file in the cache; the file is downloaded unless it is there.

    Of several processes one downloads, and the others wait for the file.

    Args:
        url: the URL, or a pair of the URL and the file's name in the cache.
        cache_dir: the folder; None for that of PyTorch's hub: ``hub/checkpoints`` in ``TORCH_HOME``.

    Raises:
        ConfigError: for another kind of URL than HTTP's.
        CheckpointError: if the file cannot be downloaded, and if its checksum is not that of its name.
    """
    url, name = url if isinstance(url, (tuple, list)) else (url, "")
    parts = urllib.parse.urlsplit(url)
    name = name or Path(urllib.parse.unquote(parts.path)).name
    if parts.scheme not in ("http", "https") or Path(name).name != name or not name:
        raise ConfigError(f"{url!r:.200} is no URL of a file of weights; valid is https://HOST/.../FILE")
    folder = Path(cache_dir or _default_folder()).expanduser()
    path = folder / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"cannot create the cache {folder}: {error.strerror}") from error
    with _locked(folder / f".{name}.lock"):
        if not (path.is_file() and _is_intact(path)):
            _download(url, path)
    return path


def is_offline():
    """Tell whether the environment forbids downloads, by ``HF_HUB_OFFLINE=1`` as huggingface_hub has it."""
    return any(os.environ.get(name, "").lower() in _TRUE for name in _OFFLINE)


def _default_folder():
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("TORCH_HOME") or Path(cache, "torch"), "hub", "checkpoints")


@contextlib.contextmanager
def _locked(path):
    """Hold a lock between processes while the block runs; a system without locks downloads a file several times."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            file = stack.enter_context(open(path, "a"))
            while not try_lock(file):
                time.sleep(_WAIT)
        yield


def _checksum(name):
    found = _CHECKSUM.search(name)
    return found[1] if found else ""


def _is_intact(path):
    intact = file_sha256(path).startswith(_checksum(path.name))
    if not intact:
        _logger.warning("%s is damaged, by the checksum in its name, and is downloaded again", path)
    return intact


def _download(url, path):
    if is_offline():
        raise CheckpointError(f"{path.name} is not in the cache {path.parent}, and HF_HUB_OFFLINE forbids a download")
    _logger.info("downloading %s to %s", url, path)
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            with atomic_file(path) as file:
                digest = _copy(url, file)
                if not digest.startswith(_checksum(path.name)):
                    raise CheckpointError(
                        f"{url} is damaged: its SHA-256 begins with {digest[:16]}, and must begin with "
                        f"{_checksum(path.name)}, as its name says"
                    )
            return
        except _Broken as error:
            if attempt == _ATTEMPTS or not error.is_passing:
                raise CheckpointError(f"cannot download {url}: {error}") from error
            _logger.warning("%s: %s; attempt %d of %d follows", url, error, attempt + 1, _ATTEMPTS)
            time.sleep(_PAUSE)


class _Broken(Exception):
    """A download that failed; no OSError, which would stand for the file that is written."""

    def __init__(self, reason, is_passing=True):
        super().__init__(reason)
        self.is_passing = is_passing


def _copy(url, file):
    """Write the body of a URL into a file, and return the SHA-256 of the body."""
    digest, size = hashlib.sha256(), 0
    with contextlib.closing(_open(url)) as response:
        while True:
            try:
                block = response.read(_BLOCK)
            except (OSError, http.client.HTTPException) as error:
                raise _Broken(f"the connection broke after {size:,} bytes ({error})") from error
            if not block:
                break
            file.write(block)
            digest.update(block)
            size += len(block)
        expected = response.headers.get("Content-Length")
    if expected is not None and size != int(expected):
        raise _Broken(f"the connection broke after {size:,} of {int(expected):,} bytes")
    return digest.hexdigest()


def _open(url):
    request = urllib.request.Request(url, headers={"User-Agent": f"pimm/{pimm.__version__}"})
    try:
        return urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        raise _Broken(
            f"the server answers {error.code} {error.reason}", error.code in (408, 429) or error.code >= 500
        ) from error
    except (OSError, http.client.HTTPException) as error:
        raise _Broken(str(getattr(error, "reason", error))) from error
