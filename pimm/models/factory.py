"""Create models by name."""

import logging

from pimm.errors import ConfigError, PimmError, check_whole
from pimm.models.features import feature_net
from pimm.models.helpers import load_initial_weights
from pimm.models.hub import check_weights, load_pretrained
from pimm.models.hub_config import load_model_config, parse_model_name
from pimm.models.registry import (
    current_name,
    loads_by_settings,
    model_entrypoint,
    resolve_pretrained_cfg,
    with_image_size,
)

_logger = logging.getLogger(__name__)
# What wrong arguments raise, of which Python itself explains that there is no such argument.
_OF_ARGUMENTS = (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError)
_UNKNOWN = "unexpected keyword argument"
_OF_FEATURES = ("out_indices", "feature_cls")


def create_model(
    model_name,
    pretrained=False,
    num_classes=None,
    in_chans=None,
    checkpoint_path="",
    pretrained_cfg=None,
    pretrained_cfg_overlay=None,
    cache_dir=None,
    pretrained_strict=True,
    **kwargs,
):
    """Create a model, and load pretrained weights or a checkpoint into it if they are asked for.

    Args:
        model_name: one of ``pimm.list_models()``, with or without a tag; a name that timm has replaced, such as
            ``tv_resnet50``, of which a warning tells the current one; ``hf-hub:ORG/NAME``, with or without
            ``@REVISION``, for a model of timm's form on the Hugging Face Hub; ``local-dir:PATH`` for such a folder.
        pretrained: whether to load the weights that the settings name, as `pimm.models.hub.load_pretrained` does.
        num_classes: classes; 0 for a net without a classifier; None for as many as the model's settings say.
        in_chans: channels of the images; None for as many as the model's settings say.
        checkpoint_path: file or folder with weights; with ``features_only`` those of the whole model. Where
            ``num_classes`` or ``in_chans`` is given and the weights are of another number, the classifier begins anew,
            or the first convolution is adapted, as `load_initial_weights` says.
        pretrained_cfg: settings in place of the model's own, which become its ``default_cfg``: a dict, a
            `PretrainedCfg`, or the tag of registered ones.
        pretrained_cfg_overlay: a dict of fields that replace those of the settings.
        cache_dir: folder for downloads in place of the usual ones.
        pretrained_strict: whether pretrained weights must fit in all but classes and image channels.
        kwargs: further arguments of the model (``drop_rate``, ``drop_path_rate``, ``global_pool``, ``output_stride``,
            ``bn_momentum``, ``bn_eps``, ``bn_tf`` ...). The model's default replaces None. ``drop_connect_rate`` is an
            old name of ``drop_path_rate``. ``features_only=True`` returns a net that returns feature maps
            (`pimm.models.features.FeatureListNet`): those of ``out_indices``, by default all, as the kind of net that
            ``feature_cls`` names.

    Raises:
        ConfigError: for an unknown name, tag or setting, for ``pretrained=True`` if the settings name no weights, and
            for impossible numbers of classes and channels, and other arguments that the model cannot be made with.
        CheckpointError: if weights cannot be had, or do not fit the model.
    """
    adapted = [name for name, given in (("num_classes", num_classes), ("in_chans", in_chans)) if given is not None]
    kwargs.setdefault("drop_path_rate", kwargs.pop("drop_connect_rate", None))
    kwargs = {name: value for name, value in kwargs.items() if value is not None}
    features_only = kwargs.pop("features_only", False)
    of_features = {name: kwargs.pop(name) for name in _OF_FEATURES if name in kwargs and features_only}
    model_name, pretrained_cfg, saved = _find_model(model_name, pretrained_cfg, cache_dir)
    create = model_entrypoint(model_name)
    cfg = resolve_pretrained_cfg(model_name, pretrained_cfg, pretrained_cfg_overlay)
    by_settings = pretrained and cfg is not None and (cfg.has_weights or loads_by_settings(model_name))
    if by_settings:
        check_weights(cfg)
    arguments = _arguments(num_classes, in_chans, saved, cfg, kwargs)
    try:
        model = create(pretrained=pretrained and not by_settings, **arguments)
    except Exception as error:
        _explain(error, model_name, kwargs, saved, cfg)
        raise
    if cfg:
        model.pretrained_cfg = model.default_cfg = cfg.to_dict()
    model.model_args = arguments  # which save_for_hf writes
    if by_settings:
        load_pretrained(
            model, cfg, arguments["num_classes"], arguments["in_chans"], strict=pretrained_strict, cache_dir=cache_dir
        )
    if checkpoint_path:
        load_initial_weights(model, checkpoint_path, adapted=adapted)
    return feature_net(model, **of_features) if features_only else model


def _find_model(model_name, pretrained_cfg, cache_dir):
    """Return the name of a model without its source, its settings, and the arguments that were saved with it."""
    source, name = parse_model_name(model_name)
    saved = {}
    if source is not None:
        if pretrained_cfg:
            raise ConfigError(f"{model_name} has settings of its own: pretrained_cfg cannot be given")
        pretrained_cfg, name, saved = load_model_config(source, name, cache_dir)
    current = current_name(name)
    if current != name:
        _logger.warning("%s is an old name: the model is called %s now", name, current)
    return current, pretrained_cfg, saved


def _arguments(num_classes, in_chans, saved, cfg, kwargs):
    """Return the arguments of a net: those that are given, else those that were saved with it, else its settings'."""
    arguments = {**saved, **kwargs}
    for name, given, own in (
        ("num_classes", num_classes, cfg.num_classes if cfg else 1000),
        ("in_chans", in_chans, cfg.input_size[0] if cfg else 3),
    ):
        value = given if given is not None else saved.get(name, own)
        check_whole(name, value, least=0 if name == "num_classes" else 1)
        arguments[name] = value
    return with_image_size(arguments, cfg)


def _explain(error, model_name, given, saved, cfg):
    """Raise `ConfigError` for an error of a net's constructor that the arguments caused.

    Args:
        error: the error.
        model_name: the name of the model.
        given: the arguments of the caller.
        saved: the arguments that were saved with the weights; what strangers wrote can raise anything.
        cfg: the settings of the model.
    """
    of_caller = given and isinstance(error, _OF_ARGUMENTS) and _UNKNOWN not in str(error)
    if isinstance(error, PimmError) or not (saved or of_caller):
        return
    what = f"{type(error).__name__}: {' '.join(str(error).split()):.150}"
    if saved:
        raise ConfigError(f"config.json of {cfg.hf_hub_id or cfg.file}: model_args do not fit: {what}") from error
    listed = ", ".join(f"{name}={value!r:.40}" for name, value in given.items())
    raise ConfigError(f"{model_name} cannot be made with {listed:.150}: {what}") from error
