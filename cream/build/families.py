"""The families of nets that SUPERNET.FAMILY names: their search spaces, supernets and single nets."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Callable, NamedTuple

import paddle
from paddle import nn

from cream.config.load import load_config
from cream.config.rules import given_space
from cream.config.schema import Config
from cream.counting import count_macs, count_parameters
from cream.mobile.depths import fit_to_flops
from cream.mobile.nets import ChildNet, MobileSuperNet
from cream.mobile.published import child_spec
from cream.shuffle.nets import ShuffleNet, ShuffleSuperNet, shuffle_space
from cream.space import ChildSpec, SearchSpace, format_arch
from cream.supernet import SuperNet
from pimm.errors import ConfigError
from pimm.layers import convert_sync_batchnorm
from pimm.models.efficientnet_blocks import resolve_bn_args

_logger = logging.getLogger(__name__)


class Family(NamedTuple):
    """Holds the functions that build a family of nets.

    ``space(cfg)`` returns the search space and its image size, ``supernet(cfg, space)`` a supernet, ``spec(cfg)`` the
    architecture and image size of the net that ``cfg.NET`` names, and ``net(cfg, spec)`` that net.
    """

    space: Callable[[Config], tuple[SearchSpace, int]]
    supernet: Callable[[Config, SearchSpace], SuperNet]
    spec: Callable[[Config], ChildSpec]
    net: Callable[[Config, ChildSpec], nn.Layer]


def search_space(cfg: Config) -> tuple[SearchSpace, int]:
    """Return the search space and its image size."""
    return FAMILIES[cfg.SUPERNET.FAMILY].space(cfg)


def fresh_supernet(cfg: Config, space: SearchSpace) -> SuperNet:
    """Return a supernet of this space with fresh weights."""
    return _with_sync_bn(cfg, FAMILIES[cfg.SUPERNET.FAMILY].supernet(cfg, space))


def child_net(cfg: Config) -> tuple[ChildSpec, nn.Layer]:
    """Return the net that ``cfg.NET`` names, with fresh weights, ready to be trained or tested.

    Raises:
        ConfigError: there is no net of that name.
    """
    spec, build = net_of_settings(cfg)
    net = build()
    macs, _ = count_macs(net, paddle.zeros([1, 3, spec.resolution, spec.resolution]), net.cost_rules)
    _logger.info(
        "net %s: %.1f MFLOPs at %d pixels, %.3fM parameters, with its classifier",
        *(format_arch(spec.arch), macs / 1e6, spec.resolution, count_parameters(net) / 1e6),
    )
    return spec, net


def net_of_settings(cfg: Config) -> tuple[ChildSpec, Callable[[], nn.Layer]]:
    """Return the architecture and image size of the net that ``cfg.NET`` names, and what builds the net."""
    family = FAMILIES[cfg.SUPERNET.FAMILY]
    spec = family.spec(cfg)
    return spec, lambda: _with_sync_bn(cfg, family.net(cfg, spec))


def net_from_settings(path: str) -> tuple[Callable[[], nn.Layer], ChildSpec]:
    """Return what builds the net that a YAML file of settings names, and its architecture and image size."""
    spec, net = net_of_settings(load_config(path))
    return net, spec


def _with_sync_bn(cfg: Config, net: nn.Layer) -> nn.Layer:
    """Return the net; with SYNC_BN it normalises over the batches of all processes together."""
    return convert_sync_batchnorm(net) if cfg.BATCHNORM.SYNC_BN else net


# Cream's


def _mobile_space(cfg: Config) -> tuple[SearchSpace, int]:
    """Return the space and its image size, as the settings give them or as the FLOPs range implies them."""
    settings = cfg.SUPERNET
    depths, resolution = settings.STAGE_DEPTHS, settings.RESOLUTION
    if settings.SPACE is not None:
        resolution = resolution or cfg.DATASET.IMAGE_SIZE
    elif depths is None or resolution is None:
        fitted_depths, resolution = fit_to_flops(settings.FLOPS_MINIMUM, settings.FLOPS_MAXIMUM, resolution)
        depths = depths or fitted_depths
    if cfg.DATASET.IMAGE_SIZE not in (resolution, Config().DATASET.IMAGE_SIZE):
        _logger.warning(
            "DATASET.IMAGE_SIZE=%d is ignored: the search takes %d pixels from SUPERNET.RESOLUTION or its FLOPs range",
            *(cfg.DATASET.IMAGE_SIZE, resolution),
        )
    return given_space(cfg, depths), resolution


def _mobile_options(cfg: Config) -> dict:
    batch_norm = cfg.BATCHNORM
    norm_kwargs = resolve_bn_args(
        {"bn_tf": batch_norm.BN_TF, "bn_momentum": batch_norm.BN_MOMENTUM, "bn_eps": batch_norm.BN_EPS}
    )
    return {
        "num_classes": cfg.DATASET.NUM_CLASSES,
        "drop_rate": cfg.NET.DROPOUT_RATE,
        "global_pool": cfg.NET.GP,
        "norm_kwargs": norm_kwargs,
    }


def _mobile_supernet(cfg: Config, space: SearchSpace) -> SuperNet:
    net = MobileSuperNet(space, slice_size=cfg.SUPERNET.SLICE, **_mobile_options(cfg))
    if cfg.SUPERNET.ZERO_RESIDUAL:
        net.begin_with_identities()
    return net


def _mobile_spec(cfg: Config) -> ChildSpec:
    return child_spec(cfg.NET.SELECTION, cfg.NET.INPUT_ARCH, cfg.DATASET.IMAGE_SIZE)


def _mobile_net(cfg: Config, spec: ChildSpec) -> nn.Layer:
    """Return the net; NET.INPUT_ARCH is a path of the space that ``cfg.SUPERNET`` describes."""
    space = None if cfg.NET.INPUT_ARCH is None else given_space(cfg, [len(stage) for stage in spec.arch[1:-1]])
    return ChildNet(spec.arch, space=space, **_mobile_options(cfg))


# Single Path One-Shot's


def _shuffle_space(cfg: Config) -> tuple[SearchSpace, int]:
    shuffle = cfg.SUPERNET.SHUFFLE
    return shuffle_space(shuffle.RATIOS, shuffle.DEPTHS), cfg.SUPERNET.RESOLUTION or cfg.DATASET.IMAGE_SIZE


def _shuffle_options(cfg: Config) -> dict:
    shuffle = cfg.SUPERNET.SHUFFLE
    return {
        "num_classes": cfg.DATASET.NUM_CLASSES,
        "drop_rate": cfg.NET.DROPOUT_RATE,
        "ratios": shuffle.RATIOS,
        "depths": shuffle.DEPTHS,
        "channels": shuffle.CHANNELS,
    }


def _shuffle_supernet(cfg: Config, space: SearchSpace) -> SuperNet:
    return ShuffleSuperNet(**_shuffle_options(cfg))


def _shuffle_spec(cfg: Config) -> ChildSpec:
    if cfg.NET.INPUT_ARCH is None:
        raise ConfigError("SUPERNET.FAMILY is shuffle, but NET.SELECTION names nets of Cream: give NET.INPUT_ARCH")
    return ChildSpec(cfg.NET.INPUT_ARCH, cfg.DATASET.IMAGE_SIZE)


def _shuffle_net(cfg: Config, spec: ChildSpec) -> nn.Layer:
    return ShuffleNet(spec.arch, **_shuffle_options(cfg))


FAMILIES: Mapping[str, Family] = {
    "mobile": Family(_mobile_space, _mobile_supernet, _mobile_spec, _mobile_net),
    "shuffle": Family(_shuffle_space, _shuffle_supernet, _shuffle_spec, _shuffle_net),
}
