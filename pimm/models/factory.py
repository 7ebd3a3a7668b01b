"""The one way to create a model by name."""

from pimm.models.helpers import load_checkpoint
from pimm.models.registry import model_entrypoint


def create_model(model_name, pretrained=False, num_classes=1000, in_chans=3, checkpoint_path="", **kwargs):
    """Create the model called ``model_name`` and load ``checkpoint_path`` into it, if one is given.

    Further arguments go to the model (``drop_rate``, ``drop_path_rate``, ``global_pool``, ``bn_momentum``, ``bn_eps``,
    ``bn_tf``, ...); those that are None are left to it, and ``drop_connect_rate`` is an old name of
    ``drop_path_rate``. Raises `ConfigError` on an unknown name and on ``pretrained=True``: no weights come with
    pimm; `CheckpointError` if the checkpoint does not fit.
    """
    create = model_entrypoint(model_name)
    kwargs.setdefault("drop_path_rate", kwargs.pop("drop_connect_rate", None))
    kwargs = {name: value for name, value in kwargs.items() if value is not None}
    model = create(pretrained=pretrained, num_classes=num_classes, in_chans=in_chans, **kwargs)
    if checkpoint_path:
        load_checkpoint(model, checkpoint_path)
    return model
