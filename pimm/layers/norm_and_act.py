"""Normalisation and an activation after it in one layer, whose state has the names of the normalisation alone.

Arguments that all of them share:

    eps: added to the variance.
    affine: whether there are a weight and, except for RMS, a bias.
    apply_act: whether there is an activation.
    act_layer: class or name of the activation; None for none.
    act_kwargs: arguments of the activation.
    drop_layer: class of a layer between normalisation and activation, such as a `DropBlock2d` with its arguments bound.
    inplace: ignored, as everywhere.
"""

from __future__ import annotations

import functools

from paddle import nn

from pimm.errors import ConfigError
from pimm.layers.activations import Swish
from pimm.layers.create_act import create_act_layer
from pimm.layers.layer_norm import RmsNorm, RmsNorm2d, channels_last
from pimm.layers.norm import SYNCHRONIZED, BatchNorm2d, SyncBatchNorm2d


def _add_act(layer, apply_act, act_layer, act_kwargs, drop_layer):
    layer.drop = drop_layer() if drop_layer else nn.Identity()
    act = create_act_layer(act_layer, **(act_kwargs or {})) if apply_act else None
    layer.act = nn.Identity() if act is None else act


class BatchNormAct2d(BatchNorm2d):
    """`BatchNorm2d` and an activation."""

    def __init__(
        self,
        num_features,
        eps=1e-5,
        momentum=0.1,
        affine=True,
        apply_act=True,
        act_layer=nn.ReLU,
        act_kwargs=None,
        inplace=True,
        drop_layer=None,
    ):
        super().__init__(num_features, eps, momentum, affine)
        _add_act(self, apply_act, act_layer, act_kwargs, drop_layer)

    def forward(self, x):
        fused = self._fuses_swish()
        x = super().forward(x, then_swish=fused)
        return x if fused else self.finish(x)

    def finish(self, x):
        return self.act(self.drop(x))

    def _fuses_swish(self):
        """Return whether batch norm and swish may take one pass over the data, as in `pimm.layers.norm_act`."""
        act = self.act
        plain = type(act) is Swish and type(self.drop) is nn.Identity
        return plain and not (act._forward_pre_hooks or act._forward_post_hooks)


class SyncBatchNormAct2d(BatchNormAct2d, SyncBatchNorm2d):
    """`BatchNormAct2d` that normalises by the batches of all processes."""


SYNCHRONIZED[BatchNormAct2d] = SyncBatchNormAct2d


def groups_of(num_channels, groups, group_size):
    """Return the number of groups: ``groups``, or of ``group_size`` channels each if that is given.

    Raises:
        ConfigError: if the channels do not make whole groups.
    """
    groups = num_channels // group_size if group_size else groups
    if not groups or num_channels % groups or (group_size and num_channels % group_size):
        of = f"groups of {group_size}" if group_size else f"{groups} groups"
        raise ConfigError(f"{num_channels} channels cannot be normalised in {of}: they do not divide evenly")
    return groups


class GroupNormAct(nn.GroupNorm):
    """Normalisation of groups of channels (https://arxiv.org/abs/1803.08494), and an activation.

    ``group_size`` gives the channels of a group, in place of ``num_groups``.
    """

    def __init__(
        self,
        num_channels,
        num_groups=32,
        eps=1e-5,
        affine=True,
        group_size=None,
        apply_act=True,
        act_layer=nn.ReLU,
        act_kwargs=None,
        inplace=True,
        drop_layer=None,
    ):
        attr = None if affine else False
        groups = groups_of(num_channels, num_groups, group_size)
        super().__init__(groups, num_channels, epsilon=eps, weight_attr=attr, bias_attr=attr)
        _add_act(self, apply_act, act_layer, act_kwargs, drop_layer)

    def forward(self, x):
        return self.act(self.drop(super().forward(x)))


class GroupNorm1Act(GroupNormAct):
    """`GroupNormAct` of a single group of all channels."""

    def __init__(self, num_channels, eps=1e-5, **kwargs):
        super().__init__(num_channels, 1, eps, **kwargs)


class LayerNormAct(nn.LayerNorm):
    """Normalisation of the last axis (https://arxiv.org/abs/1607.06450), and an activation."""

    def __init__(
        self,
        normalization_shape,
        eps=1e-5,
        affine=True,
        apply_act=True,
        act_layer=nn.ReLU,
        act_kwargs=None,
        inplace=True,
        drop_layer=None,
    ):
        attr = None if affine else False
        super().__init__(normalization_shape, epsilon=eps, weight_attr=attr, bias_attr=attr)
        _add_act(self, apply_act, act_layer, act_kwargs, drop_layer)

    def forward(self, x):
        return self.act(self.drop(super().forward(x)))


class LayerNormAct2d(LayerNormAct):
    """`LayerNormAct` over the channels of images [N, C, H, W]."""

    def forward(self, x):
        normalise = functools.partial(nn.LayerNorm.forward, self)
        return self.act(self.drop(channels_last(normalise, x)))


class RmsNormAct(RmsNorm):
    """Division by the root mean square of the last axis (https://arxiv.org/abs/1910.07467), and an activation."""

    def __init__(
        self,
        num_channels,
        eps=1e-6,
        affine=True,
        apply_act=True,
        act_layer=nn.ReLU,
        act_kwargs=None,
        inplace=True,
        drop_layer=None,
    ):
        super().__init__(num_channels, eps=eps, affine=affine)
        _add_act(self, apply_act, act_layer, act_kwargs, drop_layer)

    def forward(self, x):
        return self.act(self.drop(super().forward(x)))


class RmsNormAct2d(RmsNorm2d):
    """`RmsNormAct` over the channels of images [N, C, H, W]."""

    def __init__(
        self,
        num_channels,
        eps=1e-6,
        affine=True,
        apply_act=True,
        act_layer=nn.ReLU,
        act_kwargs=None,
        inplace=True,
        drop_layer=None,
    ):
        super().__init__(num_channels, eps=eps, affine=affine)
        _add_act(self, apply_act, act_layer, act_kwargs, drop_layer)

    def forward(self, x):
        return self.act(self.drop(super().forward(x)))
