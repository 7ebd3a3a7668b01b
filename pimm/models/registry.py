"""Models by name."""

import difflib
import fnmatch
import math

from pimm.data.constants import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    IMAGENET_INCEPTION_MEAN,
    IMAGENET_INCEPTION_STD,
)
from pimm.errors import ConfigError
from pimm.utils.misc import natural_key

_entrypoints = {}


def register_model(fn):
    """Decorator: make ``fn(pretrained=False, **kwargs)`` the model called as the function is.

    Raises `ConfigError` if the name is taken.
    """
    name = fn.__name__
    if name in _entrypoints:
        raise ConfigError(
            f"two models are called {name!r}: {_entrypoints[name].__module__} has it, {fn.__module__} too"
        )
    _entrypoints[name] = fn
    return fn


def list_models(filter="", module=""):
    """Sorted names of all models, of those that match a wildcard ``filter``, or of those of one ``module``."""
    names = fnmatch.filter(_entrypoints, filter) if filter else _entrypoints
    return sorted((n for n in names if not module or module == _module_of(n)), key=natural_key)


def _module_of(name):
    return _entrypoints[name].__module__.rpartition(".")[2]


def is_model(model_name):
    """Whether there is a model of this name."""
    return model_name in _entrypoints


def model_entrypoint(model_name):
    """The function that creates the model; `ConfigError` with the nearest names if there is none."""
    if model_name not in _entrypoints:
        near = difflib.get_close_matches(model_name, _entrypoints, n=5)
        hint = f"did you mean {', '.join(near)}? " if near else ""
        raise ConfigError(f"unknown model {model_name!r}; {hint}pimm.list_models() names them all")
    return _entrypoints[model_name]


def register_variants(variants, create):
    """Register a model for every ``{name: variant}``, made by ``create(variant, **kwargs)``."""
    for name, variant in variants.items():
        register_model(_entrypoint(name, variant, create))


def _entrypoint(name, variant, create):
    def entrypoint(pretrained=False, **kwargs):
        if pretrained:
            raise ConfigError(
                f"no pretrained weights of {name} come with pimm: convert timm's with convert_weights.py and pass the "
                "result as checkpoint_path"
            )
        return create(variant, **kwargs)

    entrypoint.__name__ = entrypoint.__qualname__ = name
    entrypoint.__module__ = create.__module__
    return entrypoint


def default_cfg(size=224, crop_pct=0.875, interpolation="bicubic", centred=False):
    """How a model of a mobile family wants its images, under timm's keys.

    ``size`` in pixels; ``centred`` means pixels from -1 to 1 and not ImageNet's statistics.
    """
    return {
        "num_classes": 1000,
        "input_size": (3, size, size),
        "pool_size": (math.ceil(size / 32),) * 2,
        "crop_pct": crop_pct,
        "interpolation": interpolation,
        "mean": IMAGENET_INCEPTION_MEAN if centred else IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_INCEPTION_STD if centred else IMAGENET_DEFAULT_STD,
        "first_conv": "conv_stem",
        "classifier": "classifier",
    }
