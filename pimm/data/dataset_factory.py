"""Make data sets by their names, as timm does."""

from __future__ import annotations

from pimm.data.dataset import ImageDataset
from pimm.data.iterable import IterableImageDataset
from pimm.data.paddle_datasets import PADDLE_DATASETS, open_paddle
from pimm.data.readers import READERS
from pimm.data.splits import search_split_root
from pimm.errors import ConfigError
from pimm.messages import did_you_mean

_NAMES = (*READERS, "wds", *(f"paddle/{name}" for name in PADDLE_DATASETS))


def create_dataset(
    name,
    root=None,
    split="validation",
    search_split=True,
    class_map=None,
    load_bytes=False,
    is_training=False,
    download=False,
    batch_size=1,
    num_samples=None,
    seed=42,
    repeats=0,
    input_img_mode="RGB",
    trust_remote_code=False,
    **kwargs,
):
    """Make a data set; the arguments are timm's.

    Args:
        name: ``folder``, ``tar`` or ``list``, or empty to choose by what ``root`` is, for an ``ImageDataset``; ``wds``
            for an ``IterableImageDataset``; ``paddle/cifar10`` and the other ``PADDLE_DATASETS`` for an
            ``ImageDataset`` over Paddle's own readers, see ``open_paddle``. Upper and lower case are the same.
        root: folder, tar file or list file; of Paddle's data sets, the folder with their archives.
        split: train, validation or test, by any of timm's words.
        search_split: go to the sub-folder or tar file of ``root`` that is named after the split, if there is one.
        class_map: file or dict of class names and indices.
        load_bytes: hand the transform the files' bytes (not for arrays: CIFAR and MNIST).
        is_training: with the next four, an argument of ``IterableImageDataset``.
        batch_size: see ``is_training``.
        num_samples: see ``is_training``.
        seed: see ``is_training``.
        repeats: see ``is_training``.
        download: let Paddle fetch what is missing of its data sets; nothing is ever downloaded otherwise.
        input_img_mode: Pillow's mode to convert to.
        trust_remote_code: must be False; timm's scripts pass it.
        kwargs: further arguments of the data set or its reader; those that are None are left out.

    Raises:
        ConfigError: for an unknown name, and an argument that this kind of data set does not have.
        DataError: where the images, or Paddle's archives, are missing or unusable.
    """
    kind, _, rest = name.lower().partition("/")
    if kind not in ("", "wds", "paddle", *READERS):
        raise ConfigError(f"{name:.60}: no such data set{_near(name)}; there are {', '.join(_NAMES)}")
    if trust_remote_code:
        raise ConfigError("trust_remote_code: no data set here runs code that comes with it")
    kwargs = {key: value for key, value in kwargs.items() if value is not None}
    epoch = {"num_samples": num_samples, "repeats": repeats}
    if kind == "wds":
        _refuse(name, download=download, load_bytes=load_bytes)
        return IterableImageDataset(
            search_split_root(root, split) if search_split and root else root,
            split=split,
            class_map=class_map,
            is_training=is_training,
            batch_size=batch_size,
            seed=seed,
            input_img_mode=input_img_mode,
            **epoch,
            **kwargs,
        )
    _refuse(name, **epoch)
    if kind == "paddle":
        reader = open_paddle(rest, root, split, download, class_map)
        return ImageDataset(root, reader, load_bytes=load_bytes, input_img_mode=input_img_mode, **kwargs)
    _refuse(name, download=download)
    if search_split and root and kind != "list":
        root = search_split_root(root, split)
    return ImageDataset(root, name, split, class_map, load_bytes=load_bytes, input_img_mode=input_img_mode, **kwargs)


def _refuse(name, **options):
    wrong = next((option for option, value in options.items() if value), None)
    if wrong is not None:
        raise ConfigError(f"{wrong}={options[wrong]} means nothing for the data set '{name:.60}'")


def _near(name):
    words = {word: full for full in _NAMES for word in (full, full.rpartition("/")[2])}
    near = did_you_mean(name.lower().rpartition("/")[2], words)
    word = near.rpartition(" ")[2].rstrip("?")
    return near.replace(word, words[word]) if near else ""
