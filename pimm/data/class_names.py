"""Names of a data set's classes by their indices, compared with those that a net was trained on."""

from __future__ import annotations

from pimm.data.bounded import brief
from pimm.errors import DataError

_SHOWN, _NAME, _LONGEST = 3, 30, 280  # in a message: names of a list, characters of a name, and of all differences


def class_names(dataset):
    """Return the names of a data set's classes in the order of their indices.

    An index without a class, and a class that has an index alone, is named after its index.
    """
    names = {index: name for name, index in dataset.class_to_idx.items()}
    return [names.get(index, str(index)) for index in range(max(names, default=-1) + 1)]


def check_class_names(expected, dataset, complete=True, remedy="A class map numbers both alike"):
    """Check that a data set has the classes, in the same order, that a net was trained on.

    Classes that have indices alone are compared by their indices: those of lists, of webdataset's ``.cls`` files and
    of Paddle's data sets. Of such a data set, and of one with a class map, classes without images may be missing:
    their absence does not change the indices of the others. A data set without ``class_to_idx``, such as one over a
    reader of the user's own, is not checked.

    Args:
        expected: the class names in the order of their indices, as a checkpoint has them; or only their number, for a
            net whose class names are not known.
        dataset: the ``ImageDataset`` to train or test on.
        complete: whether fewer classes than a number ``expected`` are an error; they are none in a new training.
        remedy: what the user can do, for the end of the message.

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
            f"{dataset.root}: images without class folders, expected {dataset.root}/CLASS/NAME for the {count} classes "
            "of the net; only an inference takes images without classes"
        )
    has_numbers = _are_numbers_of(found) if is_fixed else all(name.isdigit() for name in found)
    if isinstance(expected, int) or (has_numbers and is_fixed) or (_are_numbers(expected) and not has_numbers):
        problems = _differing_counts(count, found, may_be_fewer=is_fixed or not complete)
    else:
        problems = _differing_names(list(expected), found, is_fixed)
    if problems:
        differences = brief("; ".join(problems), _LONGEST)
        raise DataError(f"{dataset.root}: its classes are not those of the training: {differences}. {remedy}")


def moved_classes(expected, found):
    """Return a phrase for each class of ``{name: index}`` that has another index in the list ``expected``."""
    trained = {name: index for index, name in enumerate(expected)}
    return [
        f"{brief(name, _NAME)} has number {index} and had {trained[name]}"
        for name, index in sorted(found.items(), key=lambda item: item[1])
        if trained.get(name, index) != index
    ]


def _are_numbers(names):
    return all(name == str(index) for index, name in enumerate(names))


def _are_numbers_of(class_to_idx):
    return all(name == str(index) for name, index in class_to_idx.items())


def _differing_counts(count, found, may_be_fewer):
    highest = max(found.values(), default=-1)
    if highest >= count:
        return [f"{highest + 1} classes, and the training had {count}"]
    if not may_be_fewer and len(found) != count:
        return [f"{len(found)} classes ({_listed(list(found))}), and the training had {count}"]
    return []


def _differing_names(expected, found, is_fixed):
    # With a class map, an index without a class is named by its number.
    absent = [
        name for index, name in enumerate(expected) if name not in found and not (is_fixed and name == str(index))
    ]
    unknown = set(found) - set(expected)
    lists = {"missing": absent, "new": [name for name in found if name in unknown]}
    phrases = [
        f"{_listed(names)} {'is' if len(names) == 1 else 'are'} {what}" for what, names in lists.items() if names
    ]
    moved = moved_classes(expected, found)
    more = f", and {len(moved) - _SHOWN} more" if len(moved) > _SHOWN else ""
    return phrases + moved[: _SHOWN - 1] + [text + more for text in moved[_SHOWN - 1 : _SHOWN]]


def _listed(names):
    shown = [brief(name, _NAME) for name in names[:_SHOWN]]
    if len(names) > _SHOWN:
        return f"{', '.join(shown)} and {len(names) - _SHOWN} more"
    return ", ".join(shown)
