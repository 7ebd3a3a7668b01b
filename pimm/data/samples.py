"""Millions of (path, class index) in a few arrays.

As Python objects the 1.28 million files of ImageNet take about 300 MB, and every worker process comes to own a copy:
counting references writes to each object that is read. Arrays take a seventh, and stay shared after a fork.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class TextTable(Sequence):
    """Store strings as one array of UTF-8 bytes and one array of the positions where the strings end.

    Args:
        data: uint8 [bytes].
        ends: int64 [strings].
    """

    def __init__(self, data, ends):
        self.data = data
        self.ends = ends

    @classmethod
    def of(cls, strings):
        """Return the table of these strings."""
        encoded = [string.encode("utf-8", "surrogateescape") for string in strings]
        return cls.joined(b"".join(encoded), np.fromiter(map(len, encoded), np.int64, len(encoded)))

    @classmethod
    def joined(cls, data, lengths):
        """Return the table of strings given by their bytes, one string after the other, and by their lengths."""
        return cls(np.frombuffer(data, np.uint8), np.cumsum(lengths, dtype=np.int64))

    def __len__(self):
        return len(self.ends)

    def __getitem__(self, index):
        index = range(len(self))[index]
        start = self.ends[index - 1] if index else 0
        return self.data[start : self.ends[index]].tobytes().decode("utf-8", "surrogateescape")


class PathTable(Sequence):
    """Store paths ``folder/name``, each folder once.

    Args:
        folders: list of strings; the root is ``""``.
        folder_ids: int32 [paths]: index of each path's folder.
        names: ``TextTable`` [paths].
    """

    def __init__(self, folders, folder_ids, names):
        self.folders = folders
        self.folder_ids = folder_ids
        self.names = names

    @classmethod
    def of(cls, paths):
        """Return the table of relative paths with slashes."""
        pairs = [path.rpartition("/")[::2] for path in paths]
        ids = {}
        folder_ids = np.fromiter((ids.setdefault(folder, len(ids)) for folder, _ in pairs), np.int32, len(pairs))
        return cls(list(ids), folder_ids, TextTable.of([name for _, name in pairs]))

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        folder = self.folders[self.folder_ids[index]]
        return f"{folder}/{self.names[index]}" if folder else self.names[index]


class Reordered(Sequence):
    """Show a sequence in another order.

    Args:
        items: the sequence.
        order: int32 [items]: the index in ``items`` of each item of the new order.
    """

    def __init__(self, items, order):
        self.items = items
        self.order = order

    def __len__(self):
        return len(self.order)

    def __getitem__(self, index):
        return self.items[self.order[index]]


class Samples(Sequence):
    """Show arrays as the list of (path, class index) that timm and torchvision have; pairs are made on demand.

    Args:
        paths: sequence of relative paths, such as a ``PathTable``.
        targets: int32 [paths].
        full_path: callable from a relative path to the path to show.
    """

    def __init__(self, paths, targets, full_path):
        self.paths = paths
        self.targets = targets
        self.full_path = full_path

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[position] for position in range(len(self))[index]]
        return self.full_path(self.paths[index]), int(self.targets[index])
