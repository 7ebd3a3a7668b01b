"""What a model's weights are made for: images, classes, and where the weights come from; timm's field names."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from pimm.data.constants import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    IMAGENET_INCEPTION_MEAN,
    IMAGENET_INCEPTION_STD,
)
from pimm.errors import ConfigError
from pimm.messages import did_you_mean

_SOURCES = ("url", "file", "hf_hub_id", "hf_hub_filename", "source")
_KEPT_NULL = ("pool_size", "first_conv", "classifier")  # which timm writes even where they are None


@dataclass(frozen=True)
class PretrainedCfg:
    """The settings of a model, or of one of its sets of weights.

    Args:
        url, file, state_dict, hf_hub_id, hf_hub_filename, source: where weights are.
        architecture: the name of the model.
        tag: the name of the set of weights.
        custom_load: whether the model reads its weights by a function of its own.
        input_size: channels, height and width of the images.
        test_input_size: the same for evaluation, if it differs.
        min_input_size: the least that the net takes.
        fixed_input_size: whether the net takes this size alone.
        interpolation: how images are resized.
        crop_pct, test_crop_pct: share of the resized image that evaluation keeps.
        crop_mode: how it is cut out.
        mean, std: of each channel, of pixels from 0 to 1.
        num_classes: classes of the weights.
        label_offset: number of classes before the first of the data set.
        label_names, label_descriptions: names of the classes.
        pool_size, test_pool_size: height and width of the last feature maps.
        first_conv, classifier: names of the layers that depend on image channels and on classes.
        license, description, origin_url, paper_name, paper_ids, notes: where the model comes from.
    """

    url: str | None = None
    file: str | None = None
    state_dict: dict | None = None
    hf_hub_id: str | None = None
    hf_hub_filename: str | None = None
    source: str | None = None
    architecture: str | None = None
    tag: str | None = None
    custom_load: bool = False
    input_size: tuple = (3, 224, 224)
    test_input_size: tuple | None = None
    min_input_size: tuple | None = None
    fixed_input_size: bool = False
    interpolation: str = "bicubic"
    crop_pct: float = 0.875
    test_crop_pct: float | None = None
    crop_mode: str = "center"
    mean: tuple = IMAGENET_DEFAULT_MEAN
    std: tuple = IMAGENET_DEFAULT_STD
    num_classes: int = 1000
    label_offset: int | None = None
    label_names: tuple | None = None
    label_descriptions: dict | None = None
    pool_size: tuple | None = None
    test_pool_size: tuple | None = None
    first_conv: str | None = None
    classifier: str | None = None
    license: str | None = None
    description: str | None = None
    origin_url: str | None = None
    paper_name: str | None = None
    paper_ids: Any | None = None
    notes: tuple | None = None

    @property
    def has_weights(self) -> bool:
        """Whether it says where weights are."""
        return bool(self.url or self.file or self.hf_hub_id)

    def to_dict(self, remove_source: bool = False, remove_null: bool = True) -> dict:
        """Return the fields as a dict.

        Args:
            remove_source: whether to leave out where weights are.
            remove_null: whether to leave out fields that are None, except those that timm keeps.
        """
        return {
            name: value
            for name, value in asdict(self).items()
            if not (remove_source and name in _SOURCES)
            and not (remove_null and value is None and name not in _KEPT_NULL)
        }


def merge_cfg(cfg: PretrainedCfg, changes: PretrainedCfg | dict | None, what: str) -> PretrainedCfg:
    """Return settings with some of their fields replaced.

    Args:
        cfg: the settings.
        changes: fields by name.
        what: the argument that ``changes`` come from, for messages.

    Raises:
        ConfigError: for a field that there is not.
    """
    known = [field.name for field in fields(PretrainedCfg)]
    for name in changes or {}:
        if name not in known:
            hint = did_you_mean(name, known) or f"; valid are {', '.join(known)}"
            raise ConfigError(f"{what} has no field {str(name)[:80]!r}{hint}")
    return replace(cfg, **(changes or {}))


def default_cfg(size=224, crop_pct=0.875, interpolation="bicubic", centred=False, **fields) -> PretrainedCfg:
    """Return the settings of a model of a mobile family, which halves images five times.

    Args:
        size: side of the images in pixels.
        crop_pct: share of the resized image that evaluation keeps.
        interpolation: how images are resized.
        centred: whether pixels are scaled to -1 .. 1 instead of by ImageNet's mean and standard deviation.
        fields: further fields of `PretrainedCfg`.
    """
    given = {
        "input_size": (3, size, size),
        "pool_size": (math.ceil(size / 32),) * 2,
        "crop_pct": crop_pct,
        "interpolation": interpolation,
        "mean": IMAGENET_INCEPTION_MEAN if centred else IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_INCEPTION_STD if centred else IMAGENET_DEFAULT_STD,
        "first_conv": "conv_stem",
        "classifier": "classifier",
    }
    return PretrainedCfg(**{**given, **fields})
