"""Read small files of strangers at a bounded cost, and name their contents in short texts for messages."""

from __future__ import annotations

import json
import os
import stat
from collections import Counter

MAX_TEXT = 64 << 20  # bytes of a class map, a list of shards, or the JSON file of one sample


def open_regular(path):
    """Open a regular file to read bytes from it.

    Raises:
        OSError: for what is missing or no regular file; a FIFO would wait for a writer, and a device may never end.
    """
    return open(path, "rb", opener=_open_without_waiting)


def read_bytes(path, limit=MAX_TEXT):
    """Return the content of a regular file of at most ``limit`` bytes.

    Raises:
        OSError: for what is missing or no regular file.
        ValueError: for a larger file.
    """
    with open_regular(path) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"it is larger than {limit >> 20} MiB")
    return content


def parse_json(content, unique_keys=False):
    """Return the value of a JSON text.

    Args:
        content: text, or bytes in UTF-8.
        unique_keys: refuse an object that names a key twice; otherwise the last one counts.

    Raises:
        ValueError: for what is no JSON, or is nested too deep.
    """
    try:
        return json.loads(content, object_pairs_hook=_unique if unique_keys else None)
    except RecursionError:
        raise ValueError("its lists are nested too deep") from None


def brief(value, limit=60):
    """Return ``value`` as one line of at most ``limit`` characters, for a message."""
    if isinstance(value, int) and abs(value) >= 10**limit:  # Python refuses to print thousands of digits
        return f"a number of {value.bit_length()} bits"
    text = value if isinstance(value, str) else repr(value)
    text = "".join(letter if letter.isprintable() else "?" for letter in text[: limit + 1])
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def _open_without_waiting(path, flags):
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path} is no regular file")
    return descriptor


def _unique(pairs):
    content = dict(pairs)
    if len(content) != len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(f"{brief(twice)} is named twice")
    return content
