"""The nets that SUPERNET.FAMILY names: the space of a search, its supernet, and a single net of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Callable, NamedTuple

from paddle import nn

from cream.config.rules import given_space
from cream.config.schema import Config
from cream.mobile.depths import fit_to_flops
from cream.mobile.nets import ChildNet, MobileSuperNet
from cream.mobile.published import child_spec
from cream.shuffle.nets import ShuffleNet, ShuffleSuperNet, shuffle_space
from cream.space import ChildSpec, SearchSpace
from cream.supernet import SuperNet
from cream.train.runlog import log
from pimm.errors import ConfigError
from pimm.models.efficientnet_blocks import resolve_bn_args


class Family(NamedTuple):
    """``space(cfg)`` with its image size, ``supernet(cfg, space)``, ``spec(cfg)`` of a net and ``net(cfg, spec)``."""

    space: Callable[[Config], tuple[SearchSpace, int]]
    supernet: Callable[[Config, SearchSpace], SuperNet]
    spec: Callable[[Config], ChildSpec]
    net: Callable[[Config, ChildSpec], nn.Layer]


def search_space(cfg: Config) -> tuple[SearchSpace, int]:
    """The space of these settings, and its image size."""
    return FAMILIES[cfg.SUPERNET.FAMILY].space(cfg)


def fresh_supernet(cfg: Config, space: SearchSpace) -> SuperNet:
    """A supernet of this space."""
    return FAMILIES[cfg.SUPERNET.FAMILY].supernet(cfg, space)


def given_spec(cfg: Config) -> ChildSpec:
    """The net that ``cfg.NET`` names, and its image size; ConfigError where there is none of that name."""
    return FAMILIES[cfg.SUPERNET.FAMILY].spec(cfg)


def named_net(cfg: Config, spec: ChildSpec) -> nn.Layer:
    """This net with fresh weights."""
    return FAMILIES[cfg.SUPERNET.FAMILY].net(cfg, spec)


# Cream's


def _mobile_space(cfg: Config) -> tuple[SearchSpace, int]:
    """The space and its image size: as given, or as the FLOPs range implies."""
    limits = cfg.SUPERNET
    depths, resolution = limits.STAGE_DEPTHS, limits.RESOLUTION
    if limits.SPACE is not None:
        resolution = resolution or cfg.DATASET.IMAGE_SIZE
    elif depths is None or resolution is None:
        fitted_depths, resolution = fit_to_flops(limits.FLOPS_MINIMUM, limits.FLOPS_MAXIMUM, resolution)
        depths = depths or fitted_depths
    if cfg.DATASET.IMAGE_SIZE not in (resolution, Config().DATASET.IMAGE_SIZE):
        log.warning(
            "DATASET.IMAGE_SIZE=%d is passed over: the search takes %d pixels, as SUPERNET.RESOLUTION or its FLOPs say",
            cfg.DATASET.IMAGE_SIZE, resolution,
        )  # fmt: skip
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
    return MobileSuperNet(space, slice_size=cfg.SUPERNET.SLICE, **_mobile_options(cfg))


def _mobile_spec(cfg: Config) -> ChildSpec:
    return child_spec(cfg.NET.SELECTION, cfg.NET.INPUT_ARCH, cfg.DATASET.IMAGE_SIZE)


def _mobile_net(cfg: Config, spec: ChildSpec) -> nn.Layer:
    """An INPUT_ARCH is a path of the space that ``cfg.SUPERNET`` gives."""
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
        raise ConfigError("SUPERNET.FAMILY is shuffle, of which NET.SELECTION names none: NET.INPUT_ARCH must be given")
    return ChildSpec(cfg.NET.INPUT_ARCH, cfg.DATASET.IMAGE_SIZE)


def _shuffle_net(cfg: Config, spec: ChildSpec) -> nn.Layer:
    return ShuffleNet(spec.arch, **_shuffle_options(cfg))


FAMILIES: Mapping[str, Family] = {
    "mobile": Family(_mobile_space, _mobile_supernet, _mobile_spec, _mobile_net),
    "shuffle": Family(_shuffle_space, _shuffle_supernet, _shuffle_spec, _shuffle_net),
}
