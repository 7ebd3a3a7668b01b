"""Register the published nets as models of pimm: ``cream_14`` to ``cream_604``, and ``spos``."""

from __future__ import annotations

from paddle import nn

from cream.mobile.nets import ChildNet
from cream.mobile.published import CHILD_NETS
from cream.shuffle.nets import ShuffleNet
from cream.space import ChildSpec, parse_arch
from pimm.models.efficientnet_blocks import resolve_bn_args
from pimm.models.registry import default_cfg, register_variants


def _create_cream(spec: ChildSpec, arch=None, **kwargs) -> nn.Layer:
    norm_kwargs = resolve_bn_args(kwargs)
    model = ChildNet(spec.arch if arch is None else parse_arch(arch), norm_kwargs=norm_kwargs, **kwargs)
    model.default_cfg = default_cfg(spec.resolution)
    return model


def _create_spos(_, arch=None, **kwargs) -> nn.Layer:
    model = ShuffleNet(**({} if arch is None else {"arch": parse_arch(arch)}), **kwargs)
    model.default_cfg = {**default_cfg(), "first_conv": "first_conv.0", "classifier": "classifier.0"}
    return model


register_variants({f"cream_{mflops}": spec for mflops, spec in CHILD_NETS.items()}, _create_cream)
register_variants({"spos": None}, _create_spos)
