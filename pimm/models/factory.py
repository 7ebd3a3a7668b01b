"""Create models by name."""

from pimm.errors import check_whole
from pimm.models.features import feature_net
from pimm.models.helpers import load_initial_weights
from pimm.models.registry import model_entrypoint, resolve_pretrained_cfg, with_image_size

_OF_FEATURES = ("out_indices", "feature_cls")


def create_model(
    model_name,
    pretrained=False,
    num_classes=None,
    in_chans=None,
    checkpoint_path="",
    pretrained_cfg=None,
    pretrained_cfg_overlay=None,
    **kwargs,
):
    """Create a model and load a checkpoint into it if one is given.

    Args:
        model_name: one of ``pimm.list_models()``.
        pretrained: refused if true, because pimm comes without weights.
        num_classes: classes; 0 for a net without a classifier; None for as many as the model's settings say.
        in_chans: channels of the images; None for as many as the model's settings say.
        checkpoint_path: file or folder with weights; with ``features_only`` those of the whole model. Where
            ``num_classes`` or ``in_chans`` is given and the weights are of another number, the classifier begins anew,
            or the first convolution is adapted, as `load_initial_weights` says.
        pretrained_cfg: settings in place of the model's own, which become its ``default_cfg``: a dict, a
            `PretrainedCfg`, or the tag of registered ones.
        pretrained_cfg_overlay: a dict of fields that replace those of the settings.
        kwargs: further arguments of the model (``drop_rate``, ``drop_path_rate``, ``global_pool``, ``output_stride``,
            ``bn_momentum``, ``bn_eps``, ``bn_tf`` ...). The model's default replaces None. ``drop_connect_rate`` is an
            old name of ``drop_path_rate``. ``features_only=True`` returns a net that returns feature maps
            (`pimm.models.features.FeatureListNet`): those of ``out_indices``, by default all, as the kind of net that
            ``feature_cls`` names.

    Raises:
        ConfigError: for an unknown name, tag or setting, for ``pretrained=True``, and for impossible numbers of classes
            and channels.
        CheckpointError: if the checkpoint does not fit the model.
    """
    create = model_entrypoint(model_name)
    cfg = resolve_pretrained_cfg(model_name, pretrained_cfg, pretrained_cfg_overlay)
    kwargs.setdefault("drop_path_rate", kwargs.pop("drop_connect_rate", None))
    kwargs = {name: value for name, value in kwargs.items() if value is not None}
    features_only = kwargs.pop("features_only", False)
    of_features = {name: kwargs.pop(name) for name in _OF_FEATURES if name in kwargs and features_only}
    adapted = [name for name, given in (("num_classes", num_classes), ("in_chans", in_chans)) if given is not None]
    if num_classes is None:
        num_classes = cfg.num_classes if cfg else 1000
    if in_chans is None:
        in_chans = cfg.input_size[0] if cfg else 3
    check_whole("num_classes", num_classes, least=0)
    check_whole("in_chans", in_chans, least=1)
    kwargs = with_image_size(kwargs, cfg)
    model = create(pretrained=pretrained, num_classes=num_classes, in_chans=in_chans, **kwargs)
    if cfg:
        model.pretrained_cfg = model.default_cfg = cfg.to_dict()
    if checkpoint_path:
        load_initial_weights(model, checkpoint_path, adapted=adapted)
    return feature_net(model, **of_features) if features_only else model
