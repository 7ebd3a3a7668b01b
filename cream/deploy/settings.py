"""What a net needs beside its weights: how an image becomes its input, and what its outputs mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from cream.yaml_text import compose, plain
from pimm.data.transforms_factory import create_transform
from pimm.errors import ConfigError
from pimm.utils import write_text

SETTINGS = "inference.yml"
_MOST_BYTES = 2**22  # a file with the names of many thousands of classes
ORDERS = ("rgb", "bgr")
PRECISIONS = ("fp32", "bf16", "fp16", "int8")
_MODES = {1: "L", 3: "RGB"}  # number of channels: Pillow's mode


@dataclass(frozen=True)
class InferenceSettings:
    """Says how images become the input of a net, and which classes its outputs stand for.

    Args:
        model: the name of the net.
        input_size: channels, height and width of the images in pixels.
        interpolation: name of one of Pillow's filters.
        mean, std: of each channel, of pixels from 0 to 1.
        crop_pct: part of the scaled image that is cut out.
        crop_mode: as `pimm.data.create_transform` takes it.
        channel_order: ``rgb`` or ``bgr``.
        class_names: the names of the classes in the order of the outputs.
        source: the file of the weights.
        sha256: the checksum of the file of the weights.
        precision: the numbers that an exported net computes with, one of `PRECISIONS`.

    Raises:
        ConfigError: a value is none of the valid ones.
    """

    model: str
    input_size: tuple[int, int, int]
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_pct: float
    crop_mode: str
    channel_order: str
    class_names: tuple[str, ...]
    source: str
    sha256: str
    precision: str = "fp32"

    def __post_init__(self):
        if self.input_size[0] not in _MODES:
            raise ConfigError(f"the net takes images of {self.input_size[0]} channels; here it must be 1 or 3")
        if self.channel_order not in ORDERS:
            raise ConfigError(f"channel_order is {self.channel_order!r}; must be {' or '.join(ORDERS)}")
        if self.precision not in PRECISIONS:
            raise ConfigError(f"precision is {self.precision!r}; must be {', '.join(PRECISIONS)}")

    @property
    def mode(self) -> str:
        """Pillow's mode of the images."""
        return _MODES[self.input_size[0]]

    def transform(self) -> Callable[[Image.Image], np.ndarray]:
        """Return what makes the input [channels, height, width] of the net from an image in `mode`."""
        transform = create_transform(
            input_size=self.input_size,
            interpolation=self.interpolation,
            mean=self.mean,
            std=self.std,
            crop_pct=self.crop_pct,
            crop_mode=self.crop_mode,
        )

        def prepare(image: Image.Image) -> np.ndarray:
            prepared = transform(image).numpy()
            return prepared if self.channel_order == "rgb" else prepared[::-1]

        return prepare


def write_settings(folder: Path, settings: InferenceSettings, comment: str) -> None:
    """Write the settings into ``folder/inference.yml``, below a comment."""
    content = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(settings).items()}
    write_text(folder / SETTINGS, comment + yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def read_settings(folder: Path) -> InferenceSettings:
    """Read the settings that lie beside an exported net.

    Raises:
        ConfigError: the file lacks a setting, has one too many, or a value is of another type.
    """
    path = folder / SETTINGS
    root = compose(path, _MOST_BYTES)
    names = {field.name for field in fields(InferenceSettings) if field.default is MISSING}
    try:
        content = plain(root) if root else {}
        if not isinstance(content, dict) or content.keys() - {"precision"} != names:
            raise ConfigError(f"must hold exactly {', '.join(sorted(names))}")
        return InferenceSettings(
            input_size=tuple(int(size) for size in content.pop("input_size")),
            mean=tuple(float(value) for value in content.pop("mean")),
            std=tuple(float(value) for value in content.pop("std")),
            crop_pct=float(content.pop("crop_pct")),
            class_names=tuple(str(name) for name in content.pop("class_names")),
            **{name: str(value) for name, value in content.items()},
        )
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    except (TypeError, ValueError, IndexError, RecursionError) as error:
        raise ConfigError(f"{path}: a value is of the wrong type: {error}") from None
