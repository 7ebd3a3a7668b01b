"""The interface of image models that are layers in a row, pooling and a classifier, under the names of timm 1.x."""

from __future__ import annotations

from paddle import nn

from pimm.models.interface import ImageModel


def row_features(names, taps):
    """List the feature maps of a net of layers in a row.

    Args:
        names: names of the layers, in forward order.
        taps: (name of the layer, channels, reduction) of each feature map, in forward order.

    Returns:
        a dict for each feature map, as `pimm.models.features.stage_features` makes it.
    """
    return [
        {"num_chs": channels, "reduction": reduction, "module": name, "stage": names.index(name) + 1}
        for name, channels, reduction in taps
    ]


class RowMixin:
    """Layers in a row, which ``row_names`` names, in place of stem and stages; each counts as a stage.

    A name may lead into a layer, such as ``features.conv0``; the last layers of a container can be taken out of it.
    """

    row_names: tuple = ()

    def embed(self, x):
        """Return the input of the first layer."""
        return x

    def stage_list(self):
        """Return the layers in forward order."""
        return [_find(self, name)[2] for name in self.row_names]

    def keep_stages(self, count):
        """Take out the layers after the first ``count``."""
        for name in self.row_names[count:]:
            owner, own_name, _ = _find(self, name)
            if owner is self:
                setattr(self, own_name, nn.Identity())
            else:
                del owner._sub_layers[own_name]
        self.row_names = self.row_names[:count]


def _find(model, name):
    """Return what holds a layer, the layer's name there, and the layer."""
    *path, own_name = name.split(".")
    owner = model
    for part in path:
        owner = owner._sub_layers[part]
    return owner, own_name, owner._sub_layers[own_name]


class RowModel(RowMixin, ImageModel):
    """A net of layers in a row, pooling, dropout and a classifier."""
