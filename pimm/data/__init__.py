"""Data sets, augmentation and loaders, under timm's names."""

from pimm.data.auto_augment import (
    AutoAugment,
    RandAugment,
    auto_augment_policy,
    auto_augment_transform,
    rand_augment_ops,
    rand_augment_transform,
)
from pimm.data.class_names import check_class_names, class_names
from pimm.data.config import resolve_data_config, resolve_model_data_config
from pimm.data.constants import (
    DEFAULT_CROP_MODE,
    DEFAULT_CROP_PCT,
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    IMAGENET_DPN_MEAN,
    IMAGENET_DPN_STD,
    IMAGENET_INCEPTION_MEAN,
    IMAGENET_INCEPTION_STD,
    OPENAI_CLIP_MEAN,
    OPENAI_CLIP_STD,
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
    CenterCropOrPad,
    MaybePILToTensor,
    MaybeToTensor,
    RandomCropOrPad,
    RandomPad,
    RandomResizedCropAndInterpolation,
    ResizeKeepRatio,
    ToNumpy,
    ToTensor,
    TrimBorder,
    center_crop_or_pad,
    crop_or_pad,
    interp_mode_to_str,
    str_to_pil_interp,
)
from pimm.data.transforms_factory import create_transform

__all__ = [
    "DEFAULT_CROP_MODE",
    "DEFAULT_CROP_PCT",
    "IMAGENET_DEFAULT_MEAN",
    "IMAGENET_DEFAULT_STD",
    "IMAGENET_DPN_MEAN",
    "IMAGENET_DPN_STD",
    "IMAGENET_INCEPTION_MEAN",
    "IMAGENET_INCEPTION_STD",
    "OPENAI_CLIP_MEAN",
    "OPENAI_CLIP_STD",
    "AugMixDataset",
    "AutoAugment",
    "CenterCropOrPad",
    "Dataset",
    "DatasetTar",
    "FastCollateMixup",
    "ImageDataset",
    "IterableImageDataset",
    "MaybePILToTensor",
    "MaybeToTensor",
    "Mixup",
    "OrderedDistributedSampler",
    "RandAugment",
    "RandomCropOrPad",
    "RandomErasing",
    "RandomPad",
    "RandomResizedCropAndInterpolation",
    "ResizeKeepRatio",
    "ToNumpy",
    "ToTensor",
    "TrimBorder",
    "add_img_extensions",
    "auto_augment_policy",
    "auto_augment_transform",
    "center_crop_or_pad",
    "check_class_names",
    "class_names",
    "create_dataset",
    "create_loader",
    "create_reader",
    "create_transform",
    "crop_or_pad",
    "del_img_extensions",
    "get_img_extensions",
    "interp_mode_to_str",
    "is_img_extension",
    "mixup_batch",
    "mixup_target",
    "rand_augment_ops",
    "rand_augment_transform",
    "resolve_data_config",
    "resolve_model_data_config",
    "set_img_extensions",
    "str_to_pil_interp",
]
