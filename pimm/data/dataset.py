"""Images with classes, decoded one by one, from whatever a reader reads."""

from __future__ import annotations

import logging
from itertools import chain

import numpy as np
import paddle
from PIL import Image

from pimm.data.readers import create_reader
from pimm.errors import ConfigError, DataError

_logger = logging.getLogger(__name__)

MAX_BROKEN = 50


class ImageDataset(paddle.io.Dataset):
    """Images of class folders, tar files or a list file; ``dataset[i]`` is ``(image, class index)``.

    Classes are numbered in natural order of their folders' names (``2`` before ``10``), as timm does, or as
    ``class_map`` says. An image that cannot be read is logged by path, once, and the next readable one takes its place;
    more than ``MAX_BROKEN`` of them are an error.

    Args:
        root: folder, tar file or list file.
        reader: name of one of ``pimm.data.readers``, None to choose by ``root``, or an object of the user's with
            ``len``, ``reader[i]`` (an open file or a PIL image, and a class index) and ``filename(i, ...)``.
        split: which part of ``root``, where it holds several (lists and folders of tar files).
        class_map: file or dict of class names and indices, see ``load_class_map``.
        load_bytes: hand the file's bytes to ``transform`` instead of a decoded image.
        input_img_mode: Pillow's mode to convert to, such as RGB or L; empty for none.
        transform: callable applied to the PIL image (or the bytes).
        target_transform: callable applied to the class index.
        kwargs: further arguments of the reader.

    Raises:
        DataError: for a missing or empty root, a class folder without images, a class that is not in ``class_map``, and
            whatever else the reader finds wrong.
        ConfigError: for a reader or an option of it that does not exist.
    """

    def __init__(
        self,
        root,
        reader=None,
        split="train",
        class_map=None,
        load_bytes=False,
        input_img_mode="RGB",
        transform=None,
        target_transform=None,
        **kwargs,
    ):
        super().__init__()
        if reader is None or isinstance(reader, str):
            reader = create_reader(reader or "", root, split=split, class_map=class_map, **kwargs)
        elif class_map or kwargs:
            raise ConfigError(f"{', '.join(kwargs) or 'class_map'}: for readers by name; this one is an object already")
        self.root = getattr(reader, "root", root)
        self.reader = reader
        self.load_bytes = load_bytes
        self.input_img_mode = input_img_mode
        self.transform = transform
        self.target_transform = target_transform
        self.draft_size = None
        self.broken = {}  # path -> reason

    @property
    def samples(self):
        """Sequence of (path, class index)."""
        return self.reader.samples

    imgs = samples  # torchvision's name

    @property
    def class_to_idx(self):
        """``{class name: class index}``."""
        return self.reader.class_to_idx

    def __len__(self):
        return len(self.reader)

    def __getitem__(self, index):
        image, target = self._next_readable(index)
        if self.transform is not None:
            image = self.transform(image)
        if target is None:  # an image without class
            target = -1
        elif self.target_transform is not None:
            target = self.target_transform(target)
        return image, target

    def filename(self, index, basename=False, absolute=False):
        """Path of one image: below ``root``, or its last part, or in full."""
        return self.reader.filename(index, basename, absolute)

    def filenames(self, basename=False, absolute=False):
        """Paths of all images, in the order of their indices."""
        return [self.filename(index, basename, absolute) for index in range(len(self))]

    def skip(self, path, reason):
        """Note that an image cannot be read; log it once, and give up when there are too many.

        Workers of ``create_loader`` are silent: what they note comes back to the main process with the batch.
        """
        if path in self.broken:
            return
        self.broken[path] = reason
        worker = paddle.io.get_worker_info()
        if worker is None or worker.dataset is self:
            _logger.warning("%s cannot be read and is replaced by the next image: %s", path, reason)
        if len(self.broken) > MAX_BROKEN:
            raise DataError(
                f"{self.root}: more than {MAX_BROKEN} images cannot be read, the last is {path} ({reason}); "
                f"is the data set damaged?"
            )

    def _next_readable(self, index):
        count = len(self)
        index = range(count)[index]  # negative ones count from the end, as in a list
        for candidate in chain(range(index, count), range(index)):
            path = self.filename(candidate, absolute=True) if self.broken else None
            if path in self.broken:
                continue
            try:
                return self._read(candidate)
            except ConfigError:  # no image's fault
                raise
            except Exception as error:  # Pillow raises many types on damaged files, SyntaxError among them
                path = self.filename(candidate, absolute=True)
                self.skip(path, f"{type(error).__name__}: {error}")
        path, reason = next(iter(self.broken.items()))
        raise DataError(f"{self.root}: not one of its {count} images can be read, starting with {path} ({reason})")

    def _read(self, index):
        file, target = self.reader[index]
        if isinstance(file, Image.Image):
            if self.load_bytes:
                raise ConfigError(f"load_bytes: the images of {self.root} come from no files, there are no bytes")
            return convert(file, self.input_img_mode), target
        with file:
            image = file.read() if self.load_bytes else decode(file, self.draft_size, self.input_img_mode)
        return image, target


class Dataset(ImageDataset):
    """``ImageDataset`` by the name, and with the arguments, that it has in timm 0.1.20."""

    def __init__(self, root, load_bytes=False, transform=None, class_map=""):
        super().__init__(root, class_map=class_map, load_bytes=load_bytes, transform=transform)

    def filenames(self, indices=(), basename=False, absolute=False):
        """Paths of the images at ``indices``, of all if there are none."""
        return [self.filename(index, basename, absolute) for index in indices or range(len(self))]


DatasetTar = Dataset  # timm has a class of its own for tar files


def decode(file, draft_size=None, mode="RGB"):
    """Decode an image file, to 8-bit RGB or another of Pillow's modes; none leaves the file's own.

    ``draft_size`` (width, height) lets the JPEG decoder scale by 1/2, 1/4 or 1/8 as long as the image stays at least
    that large: faster, and its pixels differ a little from those of decoding in full.
    """
    image = Image.open(file)
    if draft_size is not None:
        image.draft(mode if mode in ("RGB", "L") else None, draft_size)
    image.load()
    return convert(image, mode)


def convert(image, mode="RGB"):
    """Convert a PIL image to one of Pillow's modes; of 16 bits an 8-bit mode keeps the upper ones."""
    if not mode or image.mode == mode:
        return image
    if image.mode.startswith("I;16") and mode not in (
        "I",
        "F",
    ):  # Pillow would clip at 255, not scale
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image.convert(mode)


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
