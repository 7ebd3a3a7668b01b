"""Create models by name."""

from pimm.models.features import feature_net
from pimm.models.helpers import load_checkpoint
from pimm.models.registry import model_entrypoint

_OF_FEATURES = ("out_indices", "feature_cls")


def create_model(model_name, pretrained=False, num_classes=1000, in_chans=3, checkpoint_path="", **kwargs):
    """Create a model and load a checkpoint into it if one is given.

    Args:
        model_name: one of ``pimm.list_models()``.
        pretrained: refused if true, because pimm comes without weights.
        num_classes: classes; 0 for a net without a classifier.
        in_chans: channels of the images.
        checkpoint_path: file or folder with weights; with ``features_only`` those of the whole model.
        kwargs: further arguments of the model (``drop_rate``, ``drop_path_rate``, ``global_pool``, ``output_stride``,
            ``bn_momentum``, ``bn_eps``, ``bn_tf`` ...). The model's default replaces None. ``drop_connect_rate`` is an
            old name of ``drop_path_rate``. ``features_only=True`` returns a net that returns feature maps
            (`pimm.models.features.FeatureListNet`): those of ``out_indices``, by default all, as the kind of net that
            ``feature_cls`` names.

    Raises:
        ConfigError: for an unknown name and for ``pretrained=True``.
        CheckpointError: if the checkpoint does not fit the model.
    """
    create = model_entrypoint(model_name)
    kwargs.setdefault("drop_path_rate", kwargs.pop("drop_connect_rate", None))
    kwargs = {name: value for name, value in kwargs.items() if value is not None}
    features_only = kwargs.pop("features_only", False)
    of_features = {name: kwargs.pop(name) for name in _OF_FEATURES if name in kwargs and features_only}
    model = create(pretrained=pretrained, num_classes=num_classes, in_chans=in_chans, **kwargs)
    if checkpoint_path:
        load_checkpoint(model, checkpoint_path)
    return feature_net(model, **of_features) if features_only else model
