"""Register models and find them by name."""

import fnmatch
import math

from pimm.data.constants import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    IMAGENET_INCEPTION_MEAN,
    IMAGENET_INCEPTION_STD,
)
from pimm.errors import ConfigError
from pimm.messages import did_you_mean
from pimm.model_packages import import_models
from pimm.utils.misc import natural_key

_entrypoints = {}


def register_model(fn):
    """Register the decorated function ``fn(pretrained=False, **kwargs)`` as the model of the function's name.

    Raises:
        ConfigError: if another function has the name.
    """
    name = fn.__name__
    if name in _entrypoints:
        raise ConfigError(
            f"two models are called {name!r:.80}: one in {_entrypoints[name].__module__}, one in {fn.__module__}"
        )
    _entrypoints[name] = fn
    return fn


def list_models(filter="", module=""):
    """Return the sorted names of the models that match a wildcard ``filter`` and belong to a ``module``, or of all."""
    import_models()
    names = fnmatch.filter(_entrypoints, filter) if filter else _entrypoints
    return sorted((n for n in names if not module or module == _module_of(n)), key=natural_key)


def _module_of(name):
    return _entrypoints[name].__module__.rpartition(".")[2]


def is_model(model_name):
    """Return whether a model of this name exists."""
    if model_name not in _entrypoints:
        import_models()
    return model_name in _entrypoints


def model_entrypoint(model_name):
    """Return the function that creates a model.

    Raises:
        ConfigError: for an unknown name; the message lists the nearest names.
    """
    if not is_model(model_name):
        hint = did_you_mean(model_name, _entrypoints, count=5)
        raise ConfigError(f"unknown model {str(model_name)[:80]!r}{hint or ';'} pimm.list_models() names them all")
    return _entrypoints[model_name]


def register_variants(variants, create):
    """Register a model for every ``{name: variant}``, created by ``create(variant, **kwargs)``."""
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
    """Return the image settings of a model of a mobile family, under timm's keys.

    Args:
        size: side of the images in pixels.
        crop_pct: share of the resized image that evaluation keeps.
        interpolation: how images are resized.
        centred: whether pixels are scaled to -1 .. 1 instead of by ImageNet's mean and standard deviation.
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
