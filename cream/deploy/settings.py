"""What a net needs beside its weights: how an image becomes its input, and what its outputs mean."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
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
_LARGEST = 2**14  # pixels of a side of the scaled image; a wrong number must not ask for all the memory


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
        for problem in self._problems():
            raise ConfigError(problem)

    def _problems(self) -> Iterator[str]:
        """Yield what is wrong with the values."""
        if len(self.input_size) != 3:
            yield f"input_size has {len(self.input_size)} numbers; must be channels, height and width"
        channels, *sides = self.input_size
        if channels not in _MODES:
            yield f"the net takes images of {channels} channels; here it must be 1 or 3"
        if not 0 < self.crop_pct < math.inf:
            yield f"crop_pct is {self.crop_pct}; must be above 0"
        if min(sides) < 1 or max(sides) > _LARGEST * min(1.0, self.crop_pct):
            yield f"input_size is {list(self.input_size)} with a crop_pct of {self.crop_pct:g}; a side has 1 to " + (
                f"{_LARGEST} pixels"
            )
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != channels:
                yield f"{name} has {len(values)} numbers; must be {channels}, one for each channel"
            if not all(map(math.isfinite, values)) or (name == "std" and min(values) <= 0):
                yield f"{name} is {list(values)}; must be numbers{' above 0' if name == 'std' else ''}"
        for name, valid, joint in (("channel_order", ORDERS, " or "), ("precision", PRECISIONS, ", ")):
            if getattr(self, name) not in valid:
                yield f"{name} is {getattr(self, name)!r:.80}; must be {joint.join(valid)}"

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
    try:
        content = plain(root) if root else {}
        if not isinstance(content, dict) or content.keys() - {"precision"} != _NAMES:
            raise ConfigError(f"must hold exactly {', '.join(sorted(_NAMES))}")
        return InferenceSettings(**{name: _READERS.get(name, _text)(name, value) for name, value in content.items()})
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    except (ValueError, OverflowError, RecursionError) as error:
        raise ConfigError(f"{path}: a value is of the wrong type: {error!s:.150}") from None


def is_export(folder: Path) -> bool:
    """Return whether a folder holds settings of an exported net, whatever their values."""
    try:
        content = plain(compose(folder / SETTINGS, _MOST_BYTES))
    except (ConfigError, OSError, AttributeError, RecursionError):
        return False
    return isinstance(content, dict) and content.keys() >= _NAMES


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{name} is a {type(value).__name__}; must be a text")
    return value


def _list_of(kind: Callable[[str], object]) -> Callable[[str, object], tuple]:
    """Return what reads a list of values of a type."""

    def read(name: str, value: object) -> tuple:
        if not isinstance(value, list):
            raise ConfigError(f"{name} is a {'text' if isinstance(value, str) else 'mapping'}; must be a list")
        return tuple(kind(_text(f"an entry of {name}", each)) for each in value)

    return read


_NAMES = {field.name for field in fields(InferenceSettings) if field.default is MISSING}
_READERS = {
    "input_size": _list_of(int),
    "mean": _list_of(float),
    "std": _list_of(float),
    "crop_pct": lambda name, value: float(_text(name, value)),
    "class_names": _list_of(str),
}
