"""Create models by name."""

from pimm.errors import check_whole
from pimm.models.helpers import load_checkpoint
from pimm.models.registry import model_entrypoint


def create_model(model_name, pretrained=False, num_classes=1000, in_chans=3, checkpoint_path="", **kwargs):
    """Create a model and load a checkpoint into it if one is given.

    Args:
        model_name: one of ``pimm.list_models()``.
        pretrained: refused if true, because pimm comes without weights.
        num_classes: classes; 0 for a net without a classifier.
        in_chans: channels of the images.
        checkpoint_path: file or folder with weights.
        kwargs: further arguments of the model (``drop_rate``, ``drop_path_rate``, ``global_pool``, ``bn_momentum``,
            ``bn_eps``, ``bn_tf`` ...). The model's default replaces None. ``drop_connect_rate`` is an old name of
            ``drop_path_rate``.

    Raises:
        ConfigError: for an unknown name, for ``pretrained=True``, and for impossible numbers of classes and channels.
        CheckpointError: if the checkpoint does not fit the model.
    """
    create = model_entrypoint(model_name)
    check_whole("num_classes", num_classes, least=0)
    check_whole("in_chans", in_chans, least=1)
    kwargs.setdefault("drop_path_rate", kwargs.pop("drop_connect_rate", None))
    kwargs = {name: value for name, value in kwargs.items() if value is not None}
    model = create(pretrained=pretrained, num_classes=num_classes, in_chans=in_chans, **kwargs)
    if checkpoint_path:
        load_checkpoint(model, checkpoint_path)
    return model
