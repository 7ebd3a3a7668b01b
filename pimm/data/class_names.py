"""Names of a data set's classes by their indices, compared with those that a net was trained on."""

from __future__ import annotations

from pimm.data.bounded import brief
from pimm.errors import DataError

_SHOWN = 3  # differences that a message lists


def class_names(dataset):
    """Return the names of a data set's classes in the order of their indices.

    An index without a class, and a class that has an index alone, is named after its index.
    """
    names = {index: name for name, index in dataset.class_to_idx.items()}
    return [names.get(index, str(index)) for index in range(max(names, default=-1) + 1)]


def check_class_names(expected, dataset):
    """Check that a data set has the classes, in the same order, that a net was trained on.

    Classes that have indices alone are compared by their indices: those of lists, of webdataset's ``.cls`` files and
    of Paddle's data sets. Of such a data set, and of one with a class map, classes without images may be missing:
    their absence does not change the indices of the others. A data set without ``class_to_idx``, such as one over a
    reader of the user's own, is not checked.

    Args:
        expected: the class names in the order of their indices, as a checkpoint has them; or only their number, for a
            net whose class names are not known.
        dataset: the ``ImageDataset`` to train or test on.

    Raises:
        DataError: listing the differences: classes with other indices, classes that are missing, classes that the net
            does not know, and a folder without class folders.
    """
    found = getattr(dataset, "class_to_idx", None)
    if found is None:
        return
    count = expected if isinstance(expected, int) else len(expected)
    is_fixed = getattr(getattr(dataset, "reader", None), "fixed_indices", False)
    if list(found) == [""] and count != 1:
        raise DataError(
            f"{dataset.root}: images without class folders; the net knows {count} classes, expected CLASS/NAME"
        )
    has_numbers = all(name.isdigit() for name in found) if not is_fixed else _are_numbers_of(found)
    if isinstance(expected, int) or (has_numbers and is_fixed) or (_are_numbers(expected) and not has_numbers):
        problems = _differing_counts(count, found, is_fixed)
    else:
        problems = _differing_names(list(expected), found)
    if problems:
        more = f", and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise DataError(
            f"{dataset.root}: its classes are not those of the training: {'; '.join(problems[:_SHOWN])}{more}. "
            "A class_map numbers both alike"
        )


def _are_numbers(names):
    return all(name == str(index) for index, name in enumerate(names))


def _are_numbers_of(class_to_idx):
    return all(name == str(index) for name, index in class_to_idx.items())


def _differing_counts(count, found, is_fixed):
    highest = max(found.values(), default=-1)
    if highest >= count:
        return [f"{highest + 1} classes, and the training had {count}"]
    if not is_fixed and len(found) != count:
        return [f"{len(found)} classes, and the training had {count}"]
    return []


def _differing_names(expected, found):
    trained = {name: index for index, name in enumerate(expected)}
    moved = [
        f"{brief(name)} has number {index} and had {trained[name]}"
        for name, index in found.items()
        if name in trained and trained[name] != index
    ]
    missing = [
        f"{brief(name)} is missing" for index, name in enumerate(expected) if name not in found and name != str(index)
    ]
    new = [f"{brief(name)} is new" for name in found if name not in trained]
    return [*missing, *new, *moved]
