"""Numbers of classes: given by a class map, or by the natural order of the classes' names."""

from __future__ import annotations

import logging
import operator
import re
from collections import Counter
from pathlib import Path

from pimm.data.bounded import brief, parse_json, read_bytes
from pimm.data.imagenet import synset_indices
from pimm.errors import CheckpointError, DataError
from pimm.messages import did_you_mean
from pimm.utils.misc import natural_key
from pimm.utils.serialization import load_arrays

_logger = logging.getLogger(__name__)

MAX_CLASSES = 10_000_000  # a larger index is a mistake; the largest published data sets have two million classes
_MAX_NATURAL = 4000  # letters; Python refuses to read numbers of 4,300 digits
IMAGENET = "imagenet"  # the class map of this name has ImageNet's 1,000 synsets


def load_class_map(map_or_filename, root=""):
    """Return ``{class name: index}`` from a dict or a file.

    Args:
        map_or_filename: a dict; or a file, which is looked for as it is and then inside ``root``: ``.txt`` with one
            name a line, whose index is the line's number from 0; ``.json`` with a list of names, or an object of names
            and indices; ``.pkl`` with such a dict, of which nothing is run; or the word ``imagenet`` for the indices
            that ImageNet's 1,000 synsets have.
        root: the folder of the data set.

    Raises:
        DataError: for a file that is missing or holds anything else, and for a class that is named twice.
    """
    if isinstance(map_or_filename, dict):
        return _checked(map_or_filename, "class_map")
    path = next((path for path in (Path(map_or_filename), Path(root, map_or_filename)) if path.is_file()), None)
    if path is None and map_or_filename == IMAGENET:
        return dict(synset_indices())
    if path is None:
        raise DataError(f"{map_or_filename}: no such class map, nor inside {root or '.'}")
    read = _FORMATS.get(path.suffix.lower())
    if read is None:
        raise DataError(
            f"{path}: a class map is a .txt file with one class name a line, or one of {', '.join(_FORMATS)}"
        )
    try:
        content = read(path)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: a class map is text in UTF-8, which this is not: {error}") from None
    except (ValueError, OSError) as error:
        raise DataError(f"{path}: this class map is damaged: {brief(str(error), 200)}") from error
    return _checked(content, path)


def number_classes(names, class_map="", root="", source=""):
    """Return ``{class name: index}`` for the classes of a data set: by ``class_map``, or else in natural order.

    Without a class map, a warning is logged where the names are some of ImageNet's synsets, but not all.

    Args:
        names: names of the classes.
        class_map: what ``load_class_map`` takes, or nothing.
        root: folder in which the class map may lie.
        source: beginning of a message about a class: the place where the class was found.

    Raises:
        DataError: for a class that is not in the map.
    """
    if not class_map:
        names = sorted(names, key=natural_order)
        _warn_of_missing_synsets(names, source)
        return {name: index for index, name in enumerate(names)}
    class_to_idx = load_class_map(class_map, root)
    unknown = sorted(set(names) - class_to_idx.keys(), key=natural_order)
    if unknown:
        where = "class_map" if isinstance(class_map, dict) else f"the class map {class_map}"
        hint = did_you_mean(unknown[0][:99], class_to_idx, count=3)
        raise DataError(f"{source}{brief(unknown[0])}: this class is not in {where}{hint}")
    return class_to_idx


def number_labels(labels, class_map="", root="", source=""):
    """Return ``{label: index}`` for labels that are text: names of ``class_map``, or without one the indices.

    The arguments are those of ``number_classes``.

    Raises:
        DataError: for a label that is not in the map, or without a map for one that is no class index.
    """
    if class_map:
        return number_classes(labels, class_map, root, source)
    indices = {label: parse_index(label, source) for label in labels}
    return dict(sorted(indices.items(), key=lambda item: natural_order(item[0])))


def parse_index(label, source=""):
    """Return the class index that a text spells.

    Args:
        label: decimal digits.
        source: beginning of the message.

    Raises:
        DataError: for anything else, and for an index of ``MAX_CLASSES`` or more.
    """
    if not (label.isascii() and label.isdigit()):
        raise DataError(f"{source}{brief(repr(label))} is no class index, 0 or more; names of classes need a class_map")
    if len(label.lstrip("0")) > len(str(MAX_CLASSES)) or int(label) >= MAX_CLASSES:
        raise DataError(f"{source}{brief(label)}: too large for a class index, which is at most {MAX_CLASSES - 1}")
    return int(label)


def classes_of(targets):
    """Return ``{class name: index}`` for classes that have indices and no names."""
    return {str(target): target for target in sorted(set(targets))}


def natural_order(name):
    """Return a sort key for names in natural order, equal for equal names alone.

    Without the second part ``A`` and ``a``, or ``1`` and ``01``, would come in the random order of a set.
    """
    return (natural_key(name) if len(name) < _MAX_NATURAL else [name.lower()]), name


def _read_text(path):
    names = [line.strip() for line in read_bytes(path).decode("utf-8-sig").rstrip().splitlines()]
    if "" in names:  # timm counts an empty line, other readers of such files do not
        raise ValueError(f"line {names.index('') + 1} is empty, and has a class number all the same")
    return names


def _read_json(path):
    return parse_json(read_bytes(path).decode("utf-8-sig"), unique_keys=True)


def _read_pickle(path):
    try:
        return load_arrays(path, any_protocol=True)
    except CheckpointError as error:
        raise ValueError(str(error.__cause__ or error)) from error


_FORMATS = {".txt": _read_text, ".json": _read_json, ".pkl": _read_pickle}


def _checked(content, source):
    if isinstance(content, list) and all(isinstance(name, str) for name in content):
        _check_unique(content, source)
        content = {name: index for index, name in enumerate(content)}
    if not isinstance(content, dict) or not content:
        raise DataError(f"{source}: a class map holds class names and their indices, and at least one")
    for name, index in content.items():
        if not isinstance(name, str) and not (isinstance(name, int) and abs(name) < 2**63):
            raise DataError(f"{source}: {brief(name)} is no name of a class; names are texts")
        if not _is_index(index):
            raise DataError(
                f"{source}: class {brief(name)} has index {brief(index)}; an index is a whole number from 0 to "
                f"{MAX_CLASSES - 1}"
            )
    _check_unique([str(name) for name in content], source)
    return {str(name): operator.index(index) for name, index in content.items()}


def _is_index(value):
    try:
        return not isinstance(value, bool) and 0 <= operator.index(value) < MAX_CLASSES
    except TypeError:
        return False


def _check_unique(names, source):
    if len(set(names)) != len(names):
        twice, _ = Counter(names).most_common(1)[0]
        raise DataError(f"{source}: a class is named twice: {brief(twice)}")


def _warn_of_missing_synsets(names, source):
    """Log a warning where ``names`` are a part of ImageNet's synsets, whose natural order is not ImageNet's."""
    if len(names) < 2 or not re.fullmatch(r"n\d{8}", names[0]):
        return
    synsets = synset_indices()
    if set(names) < set(synsets):
        _logger.warning(
            "%s: %d of ImageNet's %d classes, numbered from 0 to %d here; weights trained on all of ImageNet need "
            "ImageNet's own numbers: class_map=%s",
            source.rstrip("/: "),
            len(names),
            len(synsets),
            len(names) - 1,
            IMAGENET,
        )
