"""Where a data set's split lies: words for splits, and the folders, tar files and lists that are named by them."""

from __future__ import annotations

import os
import re
from pathlib import Path

from pimm.data.bounded import brief, parse_json, read_bytes
from pimm.data.embedded import find_images
from pimm.errors import DataError
from pimm.utils.misc import natural_key

_SYNONYMS = (
    ("train", "training"),
    ("val", "valid", "validation", "eval", "evaluation"),
    ("test", "testing"),
)
_WORDS = {word for words in _SYNONYMS for word in words}
_ENDINGS = ("", ".tar")
_LIST_ENDINGS = ("_list.txt", ".txt")
_MAX_SHARDS = 1_000_000  # that a pattern with braces may spell out


def split_words(split):
    """Return all of timm's words for a split, the given one first."""
    group = next((words for words in _SYNONYMS if split in words), ())
    return (split, *(word for word in group if word != split))


def search_split_root(root, split):
    """Return ``root/SPLIT`` or ``root/SPLIT.tar``, under any word for this split, or ``root`` where there is neither.

    Raises:
        DataError: for a root that holds other splits but not this one.
    """
    root = Path(find_images(root))
    if not split or not root.is_dir():
        return str(root)
    for word in split_words(split):
        for ending in _ENDINGS:
            if (root / f"{word}{ending}").exists():
                return str(root / f"{word}{ending}")
    others = sorted(path.name for path in root.iterdir() if path.stem in _WORDS and path.suffix in _ENDINGS)
    if others:
        raise DataError(
            f"{root}: no split {split} here, but {', '.join(others)}; if these are classes, pass search_split=False"
        )
    return str(root)


def find_list(root, split, list_file=None):
    """Return the list file of a split and the folder that the list's paths start from.

    Args:
        root: the list, whose own folder its paths then start from; or the folder.
        split: of a folder, the list is ``SPLIT_list.txt`` or ``SPLIT.txt``, under any word for the split.
        list_file: the list, as it is or inside the folder.

    Raises:
        DataError: where there is no such list.
    """
    root = Path(root)
    if root.is_file() and not list_file:
        return root, root.parent
    names = [list_file] if list_file else [f"{word}{end}" for word in split_words(split) for end in _LIST_ENDINGS]
    folders = (root,) if not list_file else (Path(), root)
    candidates = (folder / name for name in names for folder in folders)
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        raise DataError(f"{root}: no list file here; looked for {', '.join(map(str, names))}")
    return found, root


def find_tars(root, split=""):
    """Return the full paths of the tar files that make up a split, in natural order.

    Args:
        root: a tar file, or a folder of tar files.
        split: chooses among the tar files of a folder, by the first of these that applies: the names that ``split``
            spells out (``name-{0000..0099}.tar`` or ``*`` patterns); the names that ``info.json`` lists for the split,
            as webdataset's does; the names with the split's word in them, where every name has the word of some
            split; all tar files.

    Raises:
        DataError: where there are none, or some are missing.
    """
    if os.path.isfile(root):
        return [os.fspath(root)]
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: no such tar file, nor a folder of them")
    names = _spelled_out(root, split) if ".tar" in split else _listed(root, split) or _named(root, split)
    missing = next((name for name in names if not (root / name).is_file()), None)
    if missing is not None or not names:
        raise DataError(f"{root}: no tar file {missing or split or 'at all'} here; a split is one or more of them")
    return [str(root / name) for name in sorted(names, key=natural_key)]


def _spelled_out(root, pattern):
    braces = re.search(r"\{(\d{1,15})\.\.(\d{1,15})\}", pattern)
    if not braces:
        return [str(path.relative_to(root)) for path in root.glob(pattern)]
    first, last = braces.groups()
    if int(last) - int(first) >= _MAX_SHARDS:
        raise DataError(f"{root}: {brief(pattern)} spells out more than {_MAX_SHARDS} tar files")
    numbers = (str(number).zfill(len(first)) for number in range(int(first), int(last) + 1))
    return [pattern[: braces.start()] + number + pattern[braces.end() :] for number in numbers]


def _listed(root, split):
    for path in (root / "_info.json", root / "info.json"):
        if not path.is_file():
            continue
        try:
            splits = parse_json(read_bytes(path))["splits"]
            names = next((splits[word]["filenames"] for word in split_words(split) if word in splits), [])
            if not isinstance(names, list) or not all(isinstance(name, str) and "\0" not in name for name in names):
                raise ValueError(f"{brief(names)} is no list of file names")
            return names
        except (ValueError, LookupError, TypeError, OSError) as error:
            reason = brief(repr(error), 200)
            raise DataError(f"{path}: not the description of a data set's splits: {reason}") from error
    return []


def _named(root, split):
    names = [path.name for path in root.glob("*.tar") if not path.name.startswith(".")]
    words = {name: _WORDS.intersection(re.split(r"[^a-z]+", name.lower())) for name in names}
    if not split or not all(words.values()):
        return names
    wanted = set(split_words(split))
    found = [name for name in names if words[name] & wanted]
    if names and not found:
        raise DataError(f"{root}: no tar file of split {split} here, but {', '.join(sorted(names)[:3])}")
    return found
