"""Images with classes, decoded one by one, from whatever a reader reads."""

from __future__ import annotations

import logging
import random
from itertools import chain

import numpy as np
import paddle
from PIL import Image

from pimm.data.bounded import brief
from pimm.data.jpeg import decode_for_resize
from pimm.data.pixels import convert, decode
from pimm.data.readers import create_reader
from pimm.data.transforms_factory import resizes_first
from pimm.errors import ConfigError, DataError

_logger = logging.getLogger(__name__)

MAX_BROKEN = 50


class ImageDataset(paddle.io.Dataset):
    """Give the images of class folders, tar files or a list file; ``dataset[i]`` is ``(image, class index)``.

    Classes are numbered in natural order of their folders' names (``2`` before ``10``), as timm does, or as
    ``class_map`` says. An image that cannot be read, or on which the transform fails, is logged by path, once, and the
    next usable image takes its place; more than ``MAX_BROKEN`` of them are an error.

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
        ConfigError: for an unknown reader, or an option that the reader does not have.
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
        """The sequence of (path, class index)."""
        return self.reader.samples

    imgs = samples  # torchvision's name

    @property
    def class_to_idx(self):
        """``{class name: class index}``."""
        return self.reader.class_to_idx

    def __len__(self):
        return len(self.reader)

    def __getitem__(self, index):
        image, target = self._next_usable(index)
        if target is None:  # an image without class
            target = -1
        elif self.target_transform is not None:
            target = self.target_transform(target)
        return image, target

    def filename(self, index, basename=False, absolute=False):
        """Return the path of one image: below ``root``, or its last part, or in full."""
        return self.reader.filename(index, basename, absolute)

    def filenames(self, basename=False, absolute=False):
        """Return the paths of all images, in the order of their indices."""
        return [self.filename(index, basename, absolute) for index in range(len(self))]

    def skip(self, path, reason):
        """Note that an image cannot be used, and log it once.

        Workers of ``create_loader`` are silent: what they note comes back to the main process with the batch.

        Args:
            path: of the image.
            reason: what went wrong, without the path.

        Raises:
            DataError: when there are more than ``MAX_BROKEN`` such images.
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

    def _next_usable(self, index):
        """Return the transformed image and the class index at ``index``, or at the next index that is usable."""
        count = len(self)
        index = range(count)[index]  # negative ones count from the end, as in a list
        cause = None
        for candidate in chain(range(index, count), range(index)):
            path = self.filename(candidate, absolute=True) if self.broken else None
            if path in self.broken:
                continue
            try:
                image, target = self._read(candidate)
                return self._transformed(image), target
            except ConfigError:  # not the fault of an image
                raise
            except Exception as error:  # Pillow raises many types on damaged files, SyntaxError among them
                path, cause = self.filename(candidate, absolute=True), error
                self.skip(path, _reason(error))
        path, reason = next(iter(self.broken.items()))
        raise DataError(
            f"{self.root}: not one of its {count} images can be read, starting with {path} ({reason})"
        ) from cause

    def _read(self, index):
        file, target = self.reader[index]
        if isinstance(file, Image.Image):
            if self.load_bytes:
                raise ConfigError(f"load_bytes: the images of {self.root} come from no files, there are no bytes")
            return convert(file, self.input_img_mode), target
        with file:
            if self.load_bytes:
                return file.read(), target
            read = decode_for_resize if resizes_first(self.transform) else decode
            return read(file, self.draft_size, self.input_img_mode), target

    def _transformed(self, image):
        """Apply the transform; where it fails, the random streams are put back, as if it had not been tried.

        Otherwise what is drawn for the image that takes the place would depend on whether the failure was known.
        """
        if self.transform is None:
            return image
        states = random.getstate(), np.random.get_state()
        try:
            return self.transform(image)
        except Exception as error:
            random.setstate(states[0])
            np.random.set_state(states[1])
            if isinstance(error, ConfigError):
                raise
            raise _TransformError(_reason(error)) from error


class Dataset(ImageDataset):
    """Give ``ImageDataset`` the name and the arguments that it has in timm 0.1.20."""

    def __init__(self, root, load_bytes=False, transform=None, class_map=""):
        super().__init__(root, class_map=class_map, load_bytes=load_bytes, transform=transform)

    def filenames(self, indices=(), basename=False, absolute=False):
        """Return the paths of the images at ``indices``, of all if there are none."""
        return [self.filename(index, basename, absolute) for index in indices or range(len(self))]


DatasetTar = Dataset  # timm has a class of its own for tar files


class AugMixDataset:
    """Give each image several times: once clean, the others augmented, for losses that compare them, as AugMix's.

    ``dataset[i]`` is ``((clean, augmented, ...), class index)``.

    Args:
        dataset: ``ImageDataset``. Its transform, if it has one, and whatever is assigned to ``transform`` later, is a
            tuple of three (see ``create_transform(separate=True)``): what all splits share, what only the augmented
            ones get, and what ends each.
        num_splits: how many times each image comes.
    """

    def __init__(self, dataset, num_splits=2):
        self.dataset = dataset
        self.num_splits = num_splits
        if dataset.transform is not None:
            self.transform = dataset.transform

    @property
    def transform(self):
        return self.dataset.transform

    @transform.setter
    def transform(self, stages):
        if not isinstance(stages, (list, tuple)) or len(stages) != 3:
            raise DataError("AugMixDataset needs three transforms; make them with create_transform(separate=True)")
        self.dataset.transform = _Splits(*stages, self.num_splits)

    def __getattr__(self, name):
        if name == "dataset":  # not set yet while being unpickled
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, index):
        return self.dataset[index]


class _Splits:
    """Make the tuple (clean, augmented, ...) of one image."""

    def __init__(self, shared, augment, finish, num_splits):
        self.shared = shared
        self.augment = augment
        self.finish = finish
        self.num_splits = num_splits

    def __call__(self, image):
        image = self.shared(image)
        splits = [image] + [self.augment(image) for _ in range(self.num_splits - 1)]
        return tuple(self.finish(split) for split in splits)


class _TransformError(Exception):
    """Report that the transform failed on one image."""


def _reason(error):
    if isinstance(error, _TransformError):
        return f"a transform failed: {error}"
    return f"{type(error).__name__}: {brief(str(error), 200)}"
