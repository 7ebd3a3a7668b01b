"""Data sets, augmentation and loaders, under timm's names."""

from pimm.data.auto_augment import (
    AutoAugment,
    RandAugment,
    auto_augment_policy,
    auto_augment_transform,
    rand_augment_ops,
    rand_augment_transform,
)
from pimm.data.config import resolve_data_config
from pimm.data.constants import (
    DEFAULT_CROP_PCT,
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    IMAGENET_DPN_MEAN,
    IMAGENET_DPN_STD,
    IMAGENET_INCEPTION_MEAN,
    IMAGENET_INCEPTION_STD,
)
from pimm.data.dataset import AugMixDataset, Dataset, DatasetTar, ImageDataset
from pimm.data.dataset_factory import create_dataset
from pimm.data.img_extensions import (
    add_img_extensions,
    del_img_extensions,
    get_img_extensions,
    is_img_extension,
    set_img_extensions,
)
from pimm.data.iterable import IterableImageDataset
from pimm.data.loader import create_loader
from pimm.data.mixup import FastCollateMixup, Mixup, mixup_batch, mixup_target
from pimm.data.random_erasing import RandomErasing
from pimm.data.readers import create_reader
from pimm.data.samplers import OrderedDistributedSampler
from pimm.data.transforms import (
    RandomResizedCropAndInterpolation,
    ToNumpy,
    ToTensor,
)
from pimm.data.transforms_factory import create_transform

__all__ = [
    "DEFAULT_CROP_PCT",
    "IMAGENET_DEFAULT_MEAN",
    "IMAGENET_DEFAULT_STD",
    "IMAGENET_DPN_MEAN",
    "IMAGENET_DPN_STD",
    "IMAGENET_INCEPTION_MEAN",
    "IMAGENET_INCEPTION_STD",
    "AugMixDataset",
    "AutoAugment",
    "Dataset",
    "DatasetTar",
    "FastCollateMixup",
    "ImageDataset",
    "IterableImageDataset",
    "Mixup",
    "OrderedDistributedSampler",
    "RandAugment",
    "RandomErasing",
    "RandomResizedCropAndInterpolation",
    "ToNumpy",
    "ToTensor",
    "add_img_extensions",
    "auto_augment_policy",
    "auto_augment_transform",
    "create_dataset",
    "create_loader",
    "create_reader",
    "create_transform",
    "del_img_extensions",
    "get_img_extensions",
    "is_img_extension",
    "mixup_batch",
    "mixup_target",
    "rand_augment_ops",
    "rand_augment_transform",
    "resolve_data_config",
    "set_img_extensions",
]
