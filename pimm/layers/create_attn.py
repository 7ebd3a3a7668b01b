"""Layers of attention for convolutional blocks, by name."""

import functools

from pimm.errors import ConfigError
from pimm.layers.cbam import CbamModule, LightCbamModule
from pimm.layers.coord_attn import CoordAttn, EfficientLocalAttn, SimpleCoordAttn, StripAttn
from pimm.layers.eca import CecaModule, EcaModule
from pimm.layers.global_context import GatherExcite, GlobalContext
from pimm.layers.non_local_attn import BatNonLocalAttn, NonLocalAttn
from pimm.layers.se_module import EffectiveSEModule, SEModule
from pimm.layers.selective_kernel import SelectiveKernel
from pimm.layers.split_attn import SplitAttn
from pimm.messages import did_you_mean

ATTENTIONS = {
    "se": SEModule,
    "ese": EffectiveSEModule,
    "eca": EcaModule,
    "ecam": functools.partial(EcaModule, use_mlp=True),
    "ceca": CecaModule,
    "ge": GatherExcite,
    "gc": GlobalContext,
    "gca": functools.partial(GlobalContext, fuse_add=True, fuse_scale=False),
    "cbam": CbamModule,
    "lcbam": LightCbamModule,
    "coord": CoordAttn,
    "scoord": SimpleCoordAttn,
    "ela": EfficientLocalAttn,
    "strip": StripAttn,
    "sk": SelectiveKernel,
    "splat": SplitAttn,
    "nl": NonLocalAttn,
    "bat": BatNonLocalAttn,
}


def get_attn(attn_type):
    """Return what creates the attention, ``create(channels, **kwargs)``, or None.

    Args:
        attn_type: a name of ``ATTENTIONS``, True for ``se``, what creates layers itself, or a false value for None.

    Raises:
        ConfigError: for an unknown name.
    """
    if not attn_type:
        return None
    if attn_type is True:
        return SEModule
    if not isinstance(attn_type, str):
        return attn_type
    key = attn_type.lower()
    if key not in ATTENTIONS:
        hint = did_you_mean(key, ATTENTIONS) or f"; valid are {', '.join(ATTENTIONS)}"
        raise ConfigError(f"unknown attention {attn_type!r:.60}{hint}")
    return ATTENTIONS[key]


def create_attn(attn_type, channels, **kwargs):
    """Create the attention that `get_attn` finds, for images of ``channels``, or return None if it finds none."""
    create = get_attn(attn_type)
    return None if create is None else create(channels, **kwargs)
