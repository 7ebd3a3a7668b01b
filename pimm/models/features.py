"""Take feature maps out of a model: their description, the choice of them, and the nets that return them alone.

Names, arguments and meaning are those of timm 1.x.
"""

from __future__ import annotations

import copy
from numbers import Integral
from typing import NamedTuple

from paddle import nn

from pimm.errors import ConfigError
from pimm.messages import did_you_mean

_OUTPUT_STRIDES = (2, 4, 8, 16, 32, None)


class Stage(NamedTuple):
    """What `stage_features` needs to know of a stage: whether it was to shrink its input, and its output."""

    shrinks: bool
    channels: int
    reduction: int


def limit_strides(strides, output_stride, reduction=2):
    """Yield the stride and the dilation of each block, and by how much its output is smaller than the image.

    A stride that would make the image smaller than ``output_stride`` says becomes 1, and the blocks after it are
    dilated by it, so that they see as far as before (https://arxiv.org/abs/1606.00915).

    Args:
        strides: the strides of the blocks, in forward order.
        output_stride: the largest product of all strides: 8, 16 or 32; None for no limit.
        reduction: the stride of what comes before the blocks.

    Raises:
        ConfigError: for another ``output_stride``.
    """
    if output_stride not in _OUTPUT_STRIDES:
        raise ConfigError(f"output_stride is {output_stride!r:.80}; valid are 8, 16 and 32")
    dilation = 1
    for stride in strides:
        own_dilation = dilation
        if output_stride and reduction * stride > output_stride:
            dilation, stride = dilation * stride, 1
        reduction *= stride
        yield stride, own_dilation, reduction


def stage_features(stem, stages, stem_module="bn1", stages_module="blocks"):
    """List the feature maps of a net: the output of the last stage before each one that shrinks it, and of the last.

    Args:
        stem: the `Stage` of the stem.
        stages: the `Stage` of each stage, in forward order. A stage whose stride became dilation counts as one that
            shrinks its input, so that ``output_stride`` does not change the number of feature maps.
        stem_module: name of the stem's layer.
        stages_module: name of the layer that holds the stages by number.

    Returns:
        a dict for each feature map: ``num_chs``; ``reduction``, by how much an image is larger; ``module``, the name of
        the layer; ``stage``, how many stages come before it.
    """
    outputs = [stem, *stages]
    modules = [stem_module, *(f"{stages_module}.{index}" for index in range(len(stages)))]
    last = len(stages)
    return [
        feature_map(module, number, output.channels, output.reduction)
        for number, (output, module) in enumerate(zip(outputs, modules))
        if number == last or stages[number].shrinks
    ]


def row_features(names, taps):
    """List the feature maps of a net of layers in a row.

    Args:
        names: names of the layers, in forward order.
        taps: (name of the layer, channels, reduction) of each feature map, in forward order.

    Returns:
        a dict for each feature map, as `stage_features` makes it.
    """
    return [feature_map(name, names.index(name) + 1, channels, reduction) for name, channels, reduction in taps]


def feature_map(module, stage, num_chs, reduction):
    """Return the description of a feature map, for ``feature_info``.

    Args:
        module: name of the layer that returns the feature map.
        stage: how many stages come before the feature map.
        num_chs: channels.
        reduction: by how much an image is larger.
    """
    return {"num_chs": num_chs, "reduction": reduction, "module": module, "stage": stage}


def feature_take_indices(num_features, indices=None):
    """Return the feature maps that are asked for, as numbers from 0, and the largest of the numbers.

    Args:
        num_features: how many feature maps there are.
        indices: None for all; a number n for the last n; or a list, in which -1 is the last.

    Raises:
        ConfigError: if there is no such feature map.
    """
    indices = num_features if indices is None else indices
    listed = indices if isinstance(indices, (list, tuple, range)) else [indices]
    if not all(isinstance(index, Integral) for index in listed):
        raise ConfigError(f"the feature maps are {indices!r:.80}; must be a number, or a list of numbers")
    if isinstance(indices, int):
        if not 0 < indices <= num_features:
            raise ConfigError(f"there are {num_features} feature maps: the last {indices} of them cannot be taken")
        indices = range(-indices, 0)
    invalid = [index for index in indices if not -num_features <= index < num_features]
    if invalid or not indices:
        what = f"there is no feature map {invalid[0]}" if invalid else "no feature map is asked for"
        raise ConfigError(f"{what}; valid are 0 to {num_features - 1}, and -1 to -{num_features} from the end")
    taken = [index % num_features for index in indices]
    return taken, max(taken)


class FeatureInfo:
    """Describe the feature maps of a net, and which of them are returned.

    Args:
        feature_info: a dict for each feature map, as `stage_features` makes them.
        out_indices: which are returned, None for all; a number n stands for the last n.

    Raises:
        ConfigError: if there is no such feature map.
    """

    def __init__(self, feature_info, out_indices):
        out_indices = len(feature_info) if out_indices is None else out_indices
        feature_take_indices(len(feature_info), out_indices)
        self.info = [{**info, "index": index} for index, info in enumerate(feature_info)]
        self.out_indices = tuple(range(-out_indices, 0) if isinstance(out_indices, int) else out_indices)

    def from_other(self, out_indices):
        """Return the description of the same feature maps, of which others are returned."""
        return FeatureInfo(self.info, out_indices)

    def get(self, key, idx=None):
        """Return the values of ``key`` for the returned feature maps, or for those numbered ``idx``.

        Args:
            key: ``num_chs``, ``reduction``, ``module``, ``stage`` or ``index``.
            idx: None, a list of numbers, or a number, which gives a value in place of a list.
        """
        return self._select(lambda info: info[key], idx)

    def get_dicts(self, keys=None, idx=None):
        """Return dicts with ``keys``, None for all of them; ``idx`` as in `get`."""
        return self._select(lambda info: copy.copy(info) if keys is None else {key: info[key] for key in keys}, idx)

    def _select(self, read, idx):
        if isinstance(idx, int):
            return read(self.info[idx])
        return [read(self.info[index]) for index in (self.out_indices if idx is None else idx)]

    def channels(self, idx=None):
        """Return the numbers of channels; ``idx`` as in `get`."""
        return self.get("num_chs", idx)

    def reduction(self, idx=None):
        """Return by how much images are larger than the feature maps; ``idx`` as in `get`."""
        return self.get("reduction", idx)

    def module_name(self, idx=None):
        """Return the names of the layers; ``idx`` as in `get`."""
        return self.get("module", idx)

    def __getitem__(self, index):
        return self.info[index]

    def __len__(self):
        return len(self.info)


class FeatureGetterNet(nn.Layer):
    """Return a list of feature maps of a model, whose names in the state dict begin with ``model.``.

    Layers that the feature maps do not need are taken out of the model.

    Args:
        model: a net with `pimm.models.interface.ImageModel`'s interface.
        out_indices: which feature maps, None for all; -1 is the last, and a number n stands for the last n.
        output_fmt: order of the axes of a feature map.
        norm: whether the model's last normalisation is applied to the feature maps.
    """

    def __init__(self, model, out_indices=None, output_fmt="NCHW", norm=False):
        super().__init__()
        self.feature_info = FeatureInfo(model.feature_info, out_indices)
        self.out_indices = model.prune_intermediate_layers(self.feature_info.out_indices, prune_norm=not norm)
        self.output_fmt, self.norm = output_fmt, norm
        self._hold(model)

    def _hold(self, model):
        self.model = model

    def set_grad_checkpointing(self, enable=True):
        """Compute activations again in the backward pass, or keep them; the gradients are the same."""
        self.model.set_grad_checkpointing(enable)

    def forward(self, x):  # [N, in_chans, H, W]
        return self.model.forward_intermediates(  # of each feature map [N, num_chs, H / reduction, W / reduction]
            x,
            indices=self.out_indices,
            norm=self.norm,
            stop_early=True,
            output_fmt=self.output_fmt,
            intermediates_only=True,
        )


class FeatureListNet(FeatureGetterNet):
    """Return a list of feature maps; names in the state dict are those of the model.

    Arguments are those of `FeatureGetterNet`.
    """

    def _hold(self, model):
        # Not as a sublayer, whose name would begin all names, but with the model's own tables of layers and parameters:
        # what replaces a layer of this net, replaces it in the model.
        object.__setattr__(self, "model", model)
        self._sub_layers, self._parameters, self._buffers = model._sub_layers, model._parameters, model._buffers

    def train(self):
        """Put this net and the model into training mode."""
        super().train()
        self.model.training = True

    def eval(self):
        """Put this net and the model into evaluation mode."""
        super().eval()
        self.model.training = False


class FeatureDictNet(FeatureListNet):
    """Return feature maps by ``str(index)``, the index being as it was given in ``out_indices``.

    Arguments are those of `FeatureGetterNet`.
    """

    def forward(self, x):
        names = sorted(zip(self.out_indices, self.feature_info.out_indices))  # feature maps come in forward order
        return {str(name): found for (_, name), found in zip(names, super().forward(x))}


FEATURE_NETS = {"list": FeatureListNet, "dict": FeatureDictNet, "getter": FeatureGetterNet}
_NOT_OF_FEATURES = ("num_classes", "classifier", "global_pool")  # settings of a classifier


def feature_net(model, feature_cls="list", **kwargs):
    """Return the net that returns the feature maps of a model, which it takes apart.

    Args:
        model: a net with `pimm.models.interface.ImageModel`'s interface.
        feature_cls: ``list``, ``dict`` or ``getter``.
        kwargs: further arguments of `FeatureGetterNet`; ``out_indices`` is by default the model's
            ``default_out_indices``, if it has any, and ``output_fmt`` its own except with ``getter``.

    Raises:
        ConfigError: for another ``feature_cls``, and for a model without feature maps.
    """
    if feature_cls not in FEATURE_NETS:
        hint = did_you_mean(feature_cls, FEATURE_NETS)
        raise ConfigError(f"feature_cls is {feature_cls!r:.80}; valid are {', '.join(FEATURE_NETS)}{hint}")
    if not hasattr(model, "forward_intermediates"):
        raise ConfigError(f"features_only: {type(model).__name__} has no forward_intermediates(), which it needs")
    kwargs.setdefault("out_indices", getattr(model, "default_out_indices", None))
    if feature_cls != "getter":  # as timm: the others return what the layers do
        kwargs.setdefault("output_fmt", getattr(model, "output_fmt", "NCHW"))
    net = FEATURE_NETS[feature_cls](model, **kwargs)
    cfg = {key: value for key, value in getattr(model, "default_cfg", {}).items() if key not in _NOT_OF_FEATURES}
    net.pretrained_cfg = net.default_cfg = cfg
    return net
