"""Which number a class has: given by a class map, or by the natural order of the classes' names."""

from __future__ import annotations

import difflib
import json
import pickle
from pathlib import Path

import numpy as np

from pimm.errors import DataError
from pimm.utils.misc import natural_key


def load_class_map(map_or_filename, root=""):
    """``{class name: index}`` from a dict, or from a file, which is looked for as it is and then inside ``root``.

    Files: ``.txt`` with one name a line, its line number, from 0, being the index; ``.json`` with such a list, or with
    an object of names and indices; ``.pkl`` with such a dict, of which nothing is run.

    Raises:
        DataError: for a file that is missing or holds anything else, and for a class that is named twice.
    """
    if isinstance(map_or_filename, dict):
        return _checked(map_or_filename, "class_map")
    path = next((path for path in (Path(map_or_filename), Path(root, map_or_filename)) if path.is_file()), None)
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
    except (ValueError, pickle.UnpicklingError, EOFError) as error:
        raise DataError(f"{path}: this class map is damaged: {error}") from error
    return _checked(content, path)


def number_classes(names, class_map="", root="", source=""):
    """``{class name: index}`` for the classes of a data set: of ``class_map``, or else in natural order.

    Raises DataError where a class is not in the map; ``source`` says whose class it is.
    """
    if not class_map:
        return {name: index for index, name in enumerate(sorted(names, key=natural_order))}
    class_to_idx = load_class_map(class_map, root)
    unknown = sorted(set(names) - class_to_idx.keys(), key=natural_order)
    if unknown:
        near = difflib.get_close_matches(unknown[0], class_to_idx, n=3)
        hint = f"; near names there: {', '.join(near)}" if near else ""
        where = "class_map" if isinstance(class_map, dict) else f"the class map {class_map}"
        raise DataError(f"{source}{unknown[0]}: this class is not in {where}{hint}")
    return class_to_idx


def number_labels(labels, class_map="", root="", source=""):
    """``{label: index}`` for labels as text: names of ``class_map``, or without one the indices themselves."""
    if class_map:
        return number_classes(labels, class_map, root, source)
    wrong = next((label for label in labels if not label.isascii() or not label.isdigit()), None)
    if wrong is not None:
        raise DataError(f"{source}{wrong}: not a class index; labels that are names need a class_map")
    return {label: int(label) for label in sorted(labels, key=natural_order)}


def classes_of(targets):
    """``{class name: index}`` of classes that have but numbers."""
    return {str(target): target for target in sorted(set(targets))}


def natural_order(name):
    """Sort key without ties: ``A`` and ``a``, or ``1`` and ``01``, would come in the chance order of a set."""
    return natural_key(name), name


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module, name):
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no class map needs")


def _read_text(path):
    names = [line.strip() for line in path.read_text(encoding="utf-8-sig").rstrip().splitlines()]
    if "" in names:  # timm counts it, other readers of such files do not
        raise ValueError(f"line {names.index('') + 1} is empty, and has a class number all the same")
    return names


def _read_json(path):
    return json.loads(path.read_text(encoding="utf-8-sig"))


def _read_pickle(path):
    with path.open("rb") as file:
        return _PlainUnpickler(file).load()


_FORMATS = {".txt": _read_text, ".json": _read_json, ".pkl": _read_pickle}


def _checked(content, source):
    if isinstance(content, list) and all(isinstance(name, str) for name in content):
        if len(set(content)) != len(content):
            raise DataError(f"{source}: a class is named twice: {next(n for n in content if content.count(n) > 1)}")
        content = {name: index for index, name in enumerate(content)}
    if not isinstance(content, dict) or not content:
        raise DataError(f"{source}: a class map holds class names and their indices, and at least one")
    for name, index in content.items():
        if isinstance(index, bool) or not isinstance(index, (int, np.integer)) or index < 0:
            raise DataError(f"{source}: class {name} has index {index!r}; an index is a whole number from 0 on")
    return {str(name): int(index) for name, index in content.items()}
