"""Where a data set's split lies: words for splits, and the folders, tar files and lists that are named by them."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

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


def split_words(split):
    """All words for a split, as timm knows them, that which was given first."""
    group = next((words for words in _SYNONYMS if split in words), ())
    return (split, *(word for word in group if word != split))


def search_split_root(root, split):
    """``root/SPLIT`` or ``root/SPLIT.tar``, under any word for this split, or ``root`` itself where there is none.

    Raises DataError for a root that holds other splits but not this one.
    """
    root = Path(root)
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
    """The list file of a split and the folder that its paths start from.

    ``root`` is the list, whose own folder its paths then start from, or the folder; in that case the list is
    ``list_file`` (as it is, or inside the folder) or the folder's ``SPLIT_list.txt`` or ``SPLIT.txt``.
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
    """Full paths of the tar files that make up a split, in natural order.

    ``root`` is a tar file, or a folder of them. Of a folder these are, in this order: what ``split`` spells out
    (``name-{0000..0099}.tar`` or ``*`` patterns), what ``info.json`` lists for it as webdataset's does, those whose
    names have the split's word where all names have one for some split, and else all.

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
    braces = re.search(r"\{(\d+)\.\.(\d+)\}", pattern)
    if braces:
        first, last = braces.groups()
        numbers = (str(number).zfill(len(first)) for number in range(int(first), int(last) + 1))
        return [pattern[: braces.start()] + number + pattern[braces.end() :] for number in numbers]
    return [str(path.relative_to(root)) for path in root.glob(pattern)]


def _listed(root, split):
    for path in (root / "_info.json", root / "info.json"):
        if not path.is_file():
            continue
        try:
            splits = json.loads(path.read_text(encoding="utf-8"))["splits"]
            return next((splits[word]["filenames"] for word in split_words(split) if word in splits), [])
        except (ValueError, LookupError, TypeError) as error:
            raise DataError(f"{path}: not the description of a data set's splits: {error!r}") from error
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
