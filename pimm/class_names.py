"""Compare the classes of images with the classes that a model was trained on."""

from __future__ import annotations

from pathlib import Path

from pimm.data.readers import FolderReader
from pimm.errors import ConfigError
from pimm.utils.checkpoint import MANIFEST, latest_checkpoint, read_manifest

_SHOWN = 3  # names of a list in a message


def class_list(dataset):
    """Return the names of a data set's classes by their indices; an index without a class is its own name."""
    names = {index: name for name, index in dataset.class_to_idx.items()}
    return [names.get(index, str(index)) for index in range(max(names) + 1)]


def recorded_classes(path):
    """Return the class names that a checkpoint, or the latest one of a training's folder, was trained on, or None."""
    folder = Path(path)
    if path and folder.is_dir() and not (folder / MANIFEST).exists():
        folder = latest_checkpoint(folder)
    return read_manifest(folder)["args"].get("classes") if path and folder and folder.is_dir() else None


def check_classes(dataset, num_classes, trained=None, evaluating=True):
    """Raise `ConfigError` if the labels of a data set may mean other classes than the outputs of the model.

    Args:
        dataset: labelled images with ``root`` and ``class_to_idx``.
        num_classes: outputs of the model.
        trained: names of the classes that the model was trained on, by their indices; None if unknown.
        evaluating: whether every class of the model must be there, unless labels are numbers.
    """
    classes = dataset.class_to_idx
    if set(classes) == {""}:
        raise ConfigError(
            f"{dataset.root} has images without class folders, expected {dataset.root}/CLASS/NAME: only "
            "tools/pimm_inference.py takes images without classes"
        )
    if max(classes.values()) >= num_classes:
        raise ConfigError(
            f"{dataset.root} has classes up to number {max(classes.values())}, the model only {num_classes}: "
            "--num-classes must be larger"
        )
    labels_are_numbers = _are_numbers(class_list(dataset)) and not isinstance(
        getattr(dataset, "reader", None), FolderReader
    )
    if labels_are_numbers:
        return
    if trained and not (_are_numbers(trained) and not set(classes) & set(trained)):
        differences = class_differences(classes, trained)
        if differences:
            raise ConfigError(f"{dataset.root}: {'; '.join(differences)}. --class-map FILE numbers both alike")
    elif evaluating and len(classes) != (len(trained) if trained else num_classes):
        raise ConfigError(
            f"{dataset.root} has {len(classes)} classes ({_listed(sorted(classes))}) and the model "
            f"{len(trained) if trained else num_classes}: --class-map FILE says which numbers they have"
        )


def class_differences(classes, trained):
    """Return what distinguishes ``{name: index}`` from the names of a training, as phrases."""
    missing = [name for name in trained if name not in classes]
    added = [name for name in classes if name not in trained]
    lists = {"missing here": missing, "unknown to the training": added}
    return other_numbers(classes, trained)[:1] + [
        f"{title}: {_listed(names)}" for title, names in lists.items() if names
    ]


def other_numbers(classes, trained):
    """Return a phrase for each class of ``{name: index}`` whose index another class has in the training."""
    there = dict(enumerate(trained))
    return [
        f"class {name} has number {index}, which in the training was {there[index]}"
        for name, index in sorted(classes.items(), key=lambda item: item[1])
        if there.get(index, name) != name
    ]


def _are_numbers(names):
    return all(name == str(index) for index, name in enumerate(names))


def _listed(names):
    shown = [name[:40] for name in names[:_SHOWN]]
    return ", ".join(shown) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
