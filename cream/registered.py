"""Register the published nets as models of pimm: ``cream_14`` to ``cream_604``, and ``spos``.

``create_model("spos", arch=[[...], ...])`` creates another path of the same space, and so do Cream's names.
"""

from __future__ import annotations

from collections.abc import Sequence

from paddle import nn

from cream.mobile.nets import ChildNet
from cream.mobile.published import CHILD_NETS
from cream.shuffle.nets import SPOS_ARCH, ShuffleNet
from cream.space import ChildSpec, parse_arch
from pimm.models.efficientnet_blocks import resolve_bn_args
from pimm.models.pretrained_cfg import PretrainedCfg, default_cfg
from pimm.models.registry import register_variants


def _create_cream(spec: ChildSpec, arch: str | Sequence[Sequence[int]] | None = None, **kwargs) -> nn.Layer:
    norm_kwargs = resolve_bn_args(kwargs)
    return ChildNet(spec.arch if arch is None else parse_arch(arch), norm_kwargs=norm_kwargs, **kwargs)


def _create_spos(spec: ChildSpec, arch: str | Sequence[Sequence[int]] | None = None, **kwargs) -> nn.Layer:
    return ShuffleNet(spec.arch if arch is None else parse_arch(arch), **kwargs)


def _cfg_of_cream(spec: ChildSpec) -> PretrainedCfg:
    return default_cfg(spec.resolution)


def _cfg_of_spos(spec: ChildSpec) -> PretrainedCfg:
    return default_cfg(spec.resolution, first_conv="first_conv.0", classifier="classifier.0")


register_variants({f"cream_{mflops}": spec for mflops, spec in CHILD_NETS.items()}, _create_cream, _cfg_of_cream)
register_variants({"spos": ChildSpec(SPOS_ARCH, 224)}, _create_spos, _cfg_of_spos)
