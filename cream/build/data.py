"""The images of a job, opened once, and the loaders of its trainings, evaluations and selections."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cream.build.held_out import Part, hold_out
from cream.config import Config
from pimm.data import Dataset, FastCollateMixup, add_img_extensions, create_loader
from pimm.data.constants import DEFAULT_CROP_MODE, DEFAULT_CROP_PCT
from pimm.data.embedded import find_images
from pimm.data.loader import Loader
from pimm.data.transforms import Compose
from pimm.errors import DataError
from pimm.utils import world_size

SPOS_MEAN, SPOS_STD = (0.0,) * 3, (1 / 255,) * 3  # values from 0 to 255, of pixels from 0 to 1


@dataclass(frozen=True)
class Images:
    """The images below DATA_DIR: to train on, held out for the selection (None without), and to validate on."""

    train: Dataset | Part
    held_out: Part | None
    val: Dataset


def open_images(cfg: Config) -> Images:
    """Open the images below DATA_DIR.

    Raises:
        DataError: images are missing, or the classes differ from the settings' or between the splits.
        ConfigError: the images that HELD_OUT asks for cannot be held out.
    """
    train, held_out = training_images(cfg)
    val = open_split(cfg, ("val", "validation"))
    check_same_classes(train, val)
    return Images(train, held_out, val)


def open_split(cfg: Config, names: tuple[str, ...]) -> Dataset:
    """Open the images below ``DATA_DIR`` in a folder or tar file of one of these names.

    Raises:
        DataError: there is none, or its classes are not ``DATASET.NUM_CLASSES``.
    """
    add_img_extensions(cfg.DATASET.IMG_EXTENSIONS)
    folder = Path(find_images(cfg.DATA_DIR))
    candidates = [folder / f"{name}{ending}" for name in names for ending in ("", ".tar")]
    found = [path for path in candidates if path.exists()]
    if not found:
        problem = "does not hold images" if folder.is_dir() else "is not a folder"
        raise DataError(f"DATA_DIR={folder} {problem}; must hold {' or '.join(path.name for path in candidates)}")
    dataset = Dataset(str(found[0]))
    classes = len(dataset.class_to_idx)
    if classes != cfg.DATASET.NUM_CLASSES:
        raise DataError(f"{found[0]} has {classes} classes, but DATASET.NUM_CLASSES is {cfg.DATASET.NUM_CLASSES}")
    return dataset


def training_images(cfg: Config) -> tuple[Dataset | Part, Part | None]:
    """Open the images to train on, and those that SUPERNET.SELECT_ON=held_out keeps for the selection."""
    dataset = open_split(cfg, ("train",))
    if cfg.SUPERNET.SELECT_ON == "val":
        return dataset, None
    labels = [label for _, label in dataset.samples]
    train, held = hold_out(labels, cfg.SUPERNET.HELD_OUT, cfg.SEED)
    return Part(dataset, train), Part(dataset, held)


def check_same_classes(train: Dataset, val: Dataset) -> None:
    """Raise DataError if the splits have different classes, whose numbers would then mean different things."""
    differing = sorted(train.class_to_idx.keys() ^ val.class_to_idx.keys())
    if differing:
        raise DataError(f"{train.root} and {val.root} must hold the same classes; {differing[0]} is in one of them")


def training_loader(
    cfg: Config, images: Dataset | Part, resolution: int, auto_augment: str | None = None, mixup: float = 0.0
) -> Loader:
    """Return the loader of shuffled, augmented batches.

    Raises:
        DataError: the images do not fill one batch in each process.
    """
    augmentation, most = cfg.AUGMENTATION, len(images) // world_size()
    if most < cfg.DATASET.BATCH_SIZE:
        raise DataError(
            f"{len(images)} images do not fill one batch: DATASET.BATCH_SIZE={cfg.DATASET.BATCH_SIZE} on "
            f"{world_size()} process{'es' if world_size() > 1 else ''}; choose a batch size of at most {most}"
        )
    return make_loader(
        cfg,
        images,
        batch_size=cfg.DATASET.BATCH_SIZE,
        is_training=True,
        train_crop_mode=cfg.DATASET.TRAIN_CROP,
        scale=cfg.DATASET.SCALE,
        hflip=cfg.DATASET.HFLIP,
        color_jitter=augmentation.COLOR_JITTER,
        auto_augment=auto_augment,
        re_prob=augmentation.RE_PROB,
        re_mode=augmentation.RE_MODE,
        interpolation="random",
        collate_fn=FastCollateMixup(mixup, augmentation.SMOOTHING, cfg.DATASET.NUM_CLASSES) if mixup else None,
        **loader_options(cfg, resolution),
    )


def evaluation_loader(cfg: Config, images: Dataset | Part, resolution: int) -> Loader:
    """Return the loader of every image once, in order."""
    return make_loader(
        cfg,
        images,
        batch_size=cfg.DATASET.VAL_BATCH_MUL * cfg.DATASET.BATCH_SIZE,
        interpolation=cfg.DATASET.INTERPOLATION,
        **loader_options(cfg, resolution),
    )


def selection_loader(cfg: Config, images: Images, validation: Loader, resolution: int) -> tuple[Loader, str]:
    """Return the loader of the images that paths are scored on, each once, and a description of these images."""
    if images.held_out is None:
        return validation, "validation images"
    held_out = evaluation_loader(cfg, images.held_out, resolution)
    return held_out, f"{len(images.held_out)} held-out training images"


def make_loader(cfg: Config, images: Dataset | Part, **options) -> Loader:
    """Return a loader; with SPOS_PREPROCESSING it shows images to a net as SPOS's authors do."""
    loader = create_loader(images, **options)
    if cfg.DATASET.SPOS_PREPROCESSING:
        images.transform = Compose([images.transform, blue_first])
    return loader


def blue_first(image: np.ndarray) -> np.ndarray:
    """Return an image [3, H, W] with its channels in the order blue, green, red."""
    return image[::-1]


def image_settings(cfg: Config, resolution: int) -> dict:
    """Return how the images of an evaluation become a net's input, as `cream.deploy.InferenceSettings` has it."""
    shared = loader_options(cfg, resolution)
    return {
        **{name: shared[name] for name in ("input_size", "mean", "std")},
        "crop_pct": shared["crop_pct"] or DEFAULT_CROP_PCT,
        "interpolation": cfg.DATASET.INTERPOLATION,
        "crop_mode": DEFAULT_CROP_MODE,
        "channel_order": "bgr" if cfg.DATASET.SPOS_PREPROCESSING else "rgb",
    }


def loader_options(cfg: Config, resolution: int) -> dict:
    """Return what training and validation loaders have in common."""
    spos = cfg.DATASET.SPOS_PREPROCESSING
    return {
        "input_size": (3, resolution, resolution),
        "use_prefetcher": not cfg.DATASET.NO_PREFECHTER,
        "mean": SPOS_MEAN if spos else cfg.DATASET.MEAN,
        "std": SPOS_STD if spos else cfg.DATASET.STD,
        "crop_pct": cfg.DATASET.CROP_PCT,
        "num_workers": cfg.WORKERS,
        "distributed": True,
        "seed": cfg.SEED,
    }
