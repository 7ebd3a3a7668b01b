"""Register models and find them by name; names, arguments and meaning are those of timm 1.x.

The module of a family is imported when one of its models is asked for, or when models are listed.

A name may be followed by a tag, as in ``resnet50.a1_in1k``: the tag is the name of a set of weights with its settings.
"""

from __future__ import annotations

import fnmatch
import importlib
import sys
from collections.abc import Mapping
from dataclasses import replace
from numbers import Integral, Real

from pimm.errors import ConfigError
from pimm.messages import did_you_mean
from pimm.model_packages import import_models
from pimm.models.pretrained_cfg import PretrainedCfg, merge_cfg
from pimm.models.timm_table import families, old_names, timm_cfgs, timm_module
from pimm.utils.misc import natural_key

_entrypoints: dict = {}
_cfgs: dict = {}  # name: {tag: PretrainedCfg}, of which the first is the default


def split_model_name_tag(model_name, no_tag=""):
    """Return the name of a model without its tag, and the tag, or ``no_tag`` if there is none."""
    name, _, tag = str(model_name).partition(".")
    return name, tag or no_tag


def get_arch_name(model_name):
    """Return the name of a model without its tag."""
    return split_model_name_tag(model_name)[0]


def get_deprecated_models(module=""):
    """Return the names that timm has replaced, ``{old: current}``, of all modules or of one."""
    return {old: name for key, names in old_names().items() if module in ("", key) for old, name in names.items()}


def current_name(model_name):
    """Return the name that timm has now for a model of an old name, with its tag; another name is returned as it is.

    A tag behind the old name takes the place of the one that the old name stands for.
    """
    name, given = split_model_name_tag(model_name)
    current = None if name in _entrypoints else get_deprecated_models().get(name)
    if current is None:
        return model_name
    arch, tag = split_model_name_tag(current)
    return ".".join(filter(None, (arch, given or tag)))


def register_model(fn):
    """Register the decorated function ``fn(pretrained=False, **kwargs)`` as the model of the function's name.

    Its settings are those that a dict ``default_cfgs`` of the function's module has under this name, if any: a dict or
    a `PretrainedCfg`.

    Raises:
        ConfigError: if another function has the name.
    """
    name = fn.__name__
    if name in _entrypoints:
        raise ConfigError(
            f"two models are called {name!r:.80}: one in {_entrypoints[name].__module__}, one in {fn.__module__}"
        )
    _entrypoints[name] = fn
    found = getattr(sys.modules.get(fn.__module__), "default_cfgs", {}).get(name)
    if found is not None:
        _register_cfgs(name, {"": _as_cfg(found, f"default_cfgs[{name!r}]")})
    return fn


def register_variants(variants, create, cfg_of=None):
    """Register a model for every ``{name: variant}``; a model of timm gets timm's settings.

    The functions that create the models become names of the module of ``create``, as they are in timm.

    Args:
        variants: the variants by name.
        create: a function that creates a model, ``create(variant, **kwargs)``, or the class of the models; a variant of
            a class that is a dict holds arguments, which the caller's override.
        cfg_of: a function that returns the `PretrainedCfg` of a variant, for models that timm has not.
    """
    for name, variant in variants.items():
        setattr(sys.modules[create.__module__], name, register_model(_entrypoint(name, variant, create)))
        of_timm = timm_cfgs(name) if _module_of(name) == timm_module(name) else {}
        _register_cfgs(name, of_timm or {"": cfg_of(variant)})


def _register_cfgs(name, cfgs):
    _cfgs[name] = {tag: replace(cfg, architecture=name, tag=tag or None) for tag, cfg in cfgs.items()}


def _as_cfg(found, what):
    return found if isinstance(found, PretrainedCfg) else merge_cfg(PretrainedCfg(), found, what)


def _entrypoint(name, variant, create):
    def entrypoint(pretrained=False, **kwargs):
        if pretrained:
            return _create_by_name(name, pretrained=True, **kwargs)
        check_arguments(kwargs)
        cfg = get_pretrained_cfg(name)
        kwargs = with_image_size(kwargs, cfg)
        of_class = isinstance(create, type) and isinstance(variant, dict)
        model = create(**{**variant, **kwargs}) if of_class else create(variant, **kwargs)
        model.pretrained_cfg = model.default_cfg = cfg.to_dict()
        return model

    entrypoint.has_settings = True
    return _named(entrypoint, name, create.__module__)


def _create_by_name(*args, **kwargs):
    from pimm.models.factory import create_model  # late: it imports this module

    return create_model(*args, **kwargs)


def _named(function, name, module):
    function.__name__ = function.__qualname__ = name
    function.__module__ = module
    return function


def check_arguments(kwargs, where=""):
    """Raise `ConfigError` for a rate of dropout that is no share below 1, and for an impossible image size.

    Args:
        kwargs: arguments of a net.
        where: the beginning of the message.
    """
    for name, value in kwargs.items():
        if not name.endswith(("drop_rate", "drop_path_rate")) or isinstance(value, (list, tuple, type(None))):
            continue
        if not isinstance(value, Real) or not 0 <= value < 1:
            raise ConfigError(f"{where}{name} is {value!r:.80}; must be a number of at least 0 and below 1")
    size = kwargs.get("img_size")
    if size is not None:
        sides = tuple(size) if isinstance(size, (list, tuple)) else (size, size)
        if len(sides) != 2 or not all(isinstance(side, Integral) and side > 0 for side in sides):
            raise ConfigError(
                f"{where}img_size is {size!r:.80}; must be a whole number of pixels above 0, or height and width"
            )


def loads_by_settings(model_name):
    """Return whether a model's pretrained weights are what its settings name, and its function loads none itself."""
    return hasattr(_entrypoints.get(get_arch_name(model_name)), "has_settings")


def with_image_size(kwargs, cfg):
    """Return the arguments of a net, with the image size of its settings if it is made for one size."""
    if cfg is None or not cfg.fixed_input_size or kwargs.get("img_size") is not None:
        return kwargs
    return {**kwargs, "img_size": cfg.input_size[-2:]}


def _import_family(name):
    """Import the module of pimm that has timm's model of this name, if there is one."""
    module = timm_module(name)
    if module in families():
        importlib.import_module(f"pimm.models.{module}")


def _import_all():
    for module in families():
        importlib.import_module(f"pimm.models.{module}")
    import_models()


def _words(value):
    """Return a word, or several, as a list, which is empty for "" and None."""
    return [value] if isinstance(value, str) and value else list(value or ())


def _module_of(name):
    return _entrypoints[name].__module__.rpartition(".")[2]


def _with_tags(name):
    return [f"{name}.{tag}" if tag else name for tag in _cfgs.get(name, ("",))]


def list_models(filter="", module="", pretrained=False, exclude_filters="", name_matches_cfg=False, include_tags=None):
    """Return the names of models in natural order.

    Args:
        filter: a wildcard, or several, of which a name must match one.
        module: the module, or several, that the models belong to, such as ``mobilenetv3``.
        pretrained: whether to list only models with weights.
        exclude_filters: a wildcard, or several, of which a name must match none.
        name_matches_cfg: whether to list only models that have settings under their own name.
        include_tags: whether names have tags; None: as ``pretrained`` says. A wildcard without a tag means all tags.
    """
    _import_all()
    modules, include_tags = _words(module), pretrained if include_tags is None else include_tags
    names = [name for name in _entrypoints if not modules or _module_of(name) in modules]
    if name_matches_cfg:
        names = [name for name in names if name in _cfgs]
    if include_tags:
        names = [tagged for name in names for tagged in _with_tags(name)]
    if pretrained:
        names = [name for name in names if is_model_pretrained(name)]
    wanted, unwanted = (_wildcards(words, include_tags) for words in (filter, exclude_filters))
    names = [name for name in names if not wanted or _matches(name, wanted)]
    return sorted((name for name in names if not _matches(name, unwanted)), key=natural_key)


def _wildcards(words, include_tags):
    words = _words(words)
    return words + [f"{word}.*" for word in words if include_tags and "." not in word]


def _matches(name, wildcards):
    return any(fnmatch.fnmatchcase(name, wildcard) for wildcard in wildcards)


def list_pretrained(filter="", exclude_filters=""):
    """Return the names, with tags, of models with weights; arguments as those of `list_models`."""
    return list_models(filter, pretrained=True, exclude_filters=exclude_filters, include_tags=True)


def list_modules():
    """Return the names of the modules that have models."""
    _import_all()
    return sorted({_module_of(name) for name in _entrypoints})


def is_model(model_name):
    """Return whether a model of this name, or of this old name, exists; a tag does not matter."""
    name = get_arch_name(current_name(model_name))
    if name not in _entrypoints:
        _import_family(name)
    if name not in _entrypoints:
        import_models()
    return name in _entrypoints


def is_model_in_modules(model_name, module_names):
    """Return whether a model belongs to a module, or to one of several."""
    return is_model(model_name) and _module_of(get_arch_name(current_name(model_name))) in _words(module_names)


def is_model_pretrained(model_name):
    """Return whether there are weights of a model, or of a model with a tag."""
    name, tag = split_model_name_tag(model_name)
    cfgs = _cfgs.get(name, {}) if is_model(name) else {}
    return tag in cfgs and cfgs[tag].has_weights if tag else any(cfg.has_weights for cfg in cfgs.values())


def model_entrypoint(model_name, module_filter=None):
    """Return the function that creates a model.

    Args:
        model_name: the name, or an old name; a tag does not matter.
        module_filter: the module that the model must belong to, or None.

    Raises:
        ConfigError: for an unknown name; the message lists the nearest names.
    """
    if not is_model(model_name):
        _import_all()
        hint = _near(get_arch_name(model_name))
        raise ConfigError(f"unknown model {str(model_name)[:80]!r}{hint or ';'} pimm.list_models() names them all")
    name = get_arch_name(current_name(model_name))
    if module_filter and _module_of(name) != module_filter:
        raise ConfigError(f"the model {name} belongs to the module {_module_of(name)}, not to {module_filter!r:.80}")
    create = _entrypoints[name]
    if current_name(model_name) == model_name:
        return create
    old = get_arch_name(model_name)  # stands for a set of weights too
    return _named(lambda pretrained=False, **kwargs: _create_by_name(old, pretrained, **kwargs), old, create.__module__)


def _near(name):
    """Return a hint of the shortest names that begin with a name, or else of names that are written alike."""
    begun = sorted(
        (known for known in _entrypoints if name and known.startswith(name)), key=lambda name: (len(name), name)
    )
    return f"; did you mean {', '.join(begun[:5])}?" if begun else did_you_mean(name, _entrypoints, count=5)


def get_pretrained_cfg(model_name, allow_unregistered=True):
    """Return the `PretrainedCfg` of a model, without a tag that of its first tag.

    Args:
        model_name: the name, or an old name.
        allow_unregistered: whether to return None for a model without settings, instead of raising.

    Raises:
        ConfigError: for a tag that the model does not have; without ``allow_unregistered``, for no settings.
    """
    name, tag = split_model_name_tag(current_name(model_name))
    cfgs = _cfgs.get(name) if is_model(name) else None
    if cfgs is None:
        if allow_unregistered:
            return None
        raise ConfigError(f"the model {name!r:.80} has no settings registered")
    if tag and tag not in cfgs:
        valid = ", ".join(filter(None, cfgs))
        hint = did_you_mean(tag, cfgs) or (f"; valid are {valid}" if valid else "; it has no tags")
        raise ConfigError(f"the model {name} has no tag {tag[:80]!r}{hint}")
    return cfgs[tag] if tag else next(iter(cfgs.values()))


def get_pretrained_cfg_value(model_name, cfg_key):
    """Return one of a model's settings, None if there is none of this name.

    Raises:
        ConfigError: if the model has no settings, or not this tag.
    """
    return getattr(get_pretrained_cfg(model_name, allow_unregistered=False), cfg_key, None)


def get_arch_pretrained_cfgs(model_name):
    """Return the settings of all tags of a model, ``{name with tag: PretrainedCfg}``, none for an unknown model."""
    name = get_arch_name(model_name) if is_model(model_name) else None
    return dict(zip(_with_tags(name), _cfgs[name].values())) if name in _cfgs else {}


def resolve_pretrained_cfg(model_name, pretrained_cfg=None, pretrained_cfg_overlay=None):
    """Return the `PretrainedCfg` that a model is created with, or None if nothing tells.

    Args:
        model_name: the name, with or without a tag.
        pretrained_cfg: a tag, or settings in place of the registered ones: a dict or a `PretrainedCfg`.
        pretrained_cfg_overlay: a dict of fields that replace those of the settings.

    Raises:
        ConfigError: for an unknown tag or field.
    """
    name, tag = split_model_name_tag(model_name)
    if isinstance(pretrained_cfg, str):
        tag, pretrained_cfg = pretrained_cfg, None
    if isinstance(pretrained_cfg, (Mapping, PretrainedCfg)) and pretrained_cfg:
        cfg = _as_cfg(pretrained_cfg, "pretrained_cfg")
    else:
        cfg = get_pretrained_cfg(f"{name}.{tag}" if tag else name)
    if cfg is None and not pretrained_cfg_overlay:
        return None
    cfg = cfg or PretrainedCfg()
    return merge_cfg(
        replace(cfg, architecture=cfg.architecture or name), pretrained_cfg_overlay, "pretrained_cfg_overlay"
    )
