"""Images in class folders, on disk or inside a tar file."""

from __future__ import annotations

import logging
from itertools import chain

import numpy as np
import paddle
from PIL import Image

from pimm.data.readers import open_reader
from pimm.errors import DataError

_logger = logging.getLogger(__name__)

MAX_BROKEN = 50


class Dataset(paddle.io.Dataset):
    """Images of a folder with one sub-folder a class, or of an uncompressed tar file that holds such folders.

    Classes are numbered in natural order of their folders' names (``2`` before ``10``), as timm does, or by the lines
    of ``class_map``. ``dataset[i]`` is ``(image, class index)``. An image that cannot be read is logged by path, once,
    and the next readable one takes its place; more than ``MAX_BROKEN`` of them are an error.

    Args:
        root: folder or tar file.
        load_bytes: hand the file's bytes to ``transform`` instead of a decoded RGB image.
        transform: callable applied to the PIL image (or the bytes).
        class_map: text file with one class name a line, its line number being the class index.

    Raises:
        DataError: for a missing or empty root, a class folder without images, or a class that is not in ``class_map``.
    """

    def __init__(self, root, load_bytes=False, transform=None, class_map=""):
        super().__init__()
        self.reader = open_reader(root, class_map)
        self.root = self.reader.root
        self.samples = self.reader.samples  # (path, class index)
        self.imgs = self.samples  # torchvision's name
        self.class_to_idx = self.reader.class_to_idx
        self.load_bytes = load_bytes
        self.transform = transform
        self.draft_size = None
        self.broken = {}  # path -> reason

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        image, target = self._next_readable(index)
        if self.transform is not None:
            image = self.transform(image)
        return image, target

    def filename(self, index, basename=False, absolute=False):
        """Path of one image: below ``root``, or its last part, or in full."""
        return self.reader.filename(index, basename, absolute)

    def filenames(self, indices=(), basename=False, absolute=False):
        """Paths of the images at ``indices``, of all if there are none."""
        return [self.filename(index, basename, absolute) for index in indices or range(len(self))]

    def skip(self, path, reason):
        """Note that an image cannot be read; log it once, and give up when there are too many.

        Workers are silent: what they note comes back to the main process with the batch.
        """
        if path in self.broken:
            return
        self.broken[path] = reason
        if paddle.io.get_worker_info() is None:
            _logger.warning("%s cannot be read and is replaced by the next image: %s", path, reason)
        if len(self.broken) > MAX_BROKEN:
            raise DataError(
                f"{self.root}: more than {MAX_BROKEN} images cannot be read, the last is {path} ({reason}); "
                f"is the data set damaged?"
            )

    def _next_readable(self, index):
        count = len(self.samples)
        index = range(count)[index]  # negative ones count from the end, as in a list
        for candidate in chain(range(index, count), range(index)):
            path, target = self.samples[candidate]
            if path in self.broken:
                continue
            try:
                return self._read(candidate), target
            except Exception as error:  # Pillow raises many types on damaged files, SyntaxError among them
                self.skip(path, f"{type(error).__name__}: {error}")
        path, reason = next(iter(self.broken.items()))
        raise DataError(f"{self.root}: not one of its {count} images can be read, starting with {path} ({reason})")

    def _read(self, index):
        with self.reader.open(index) as file:
            return file.read() if self.load_bytes else decode(file, self.draft_size)


DatasetTar = Dataset  # timm has a class of its own for tar files


def decode(file, draft_size=None):
    """Decode an image file to 8-bit RGB.

    ``draft_size`` (width, height) lets the JPEG decoder scale by 1/2, 1/4 or 1/8 as long as the image stays at least
    that large: faster, and its pixels differ a little from those of decoding in full.
    """
    image = Image.open(file)
    if draft_size is not None:
        image.draft("RGB", draft_size)
    if image.mode.startswith("I;16"):  # Pillow's conversion would clip at 255 instead of scaling
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode == "RGB":
        image.load()
        return image
    return image.convert("RGB")


class AugMixDataset:
    """Each image ``num_splits`` times: once clean, the others augmented; for losses that compare them, as AugMix's.

    ``dataset[i]`` is ``((clean, augmented, ...), class index)``. The transform is a tuple of three: what all splits
    share, what only the augmented ones get, and what ends each (see ``create_transform(separate=True)``).
    """

    def __init__(self, dataset, num_splits=2):
        self.dataset = dataset
        self.num_splits = num_splits
        self.augmentation = self.normalize = None
        if dataset.transform is not None:
            self.transform = dataset.transform

    @property
    def transform(self):
        return self.dataset.transform

    @transform.setter
    def transform(self, stages):
        if not isinstance(stages, (list, tuple)) or len(stages) != 3:
            raise DataError("AugMixDataset needs three transforms; make them with create_transform(separate=True)")
        self.dataset.transform, self.augmentation, self.normalize = stages

    def __getattr__(self, name):
        if name == "dataset":  # not set yet while being unpickled
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, index):
        image, target = self.dataset[index]
        splits = [image] + [self.augmentation(image) for _ in range(self.num_splits - 1)]
        return tuple(self.normalize(split) for split in splits), target
