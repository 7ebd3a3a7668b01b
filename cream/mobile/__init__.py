"""Cream's mobile nets: blocks, search spaces, supernet, single nets, and the published six."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "depths": ["fit_to_flops"],
        "nets": ["ChildNet", "MobileSuperNet"],
        "published": ["CHILD_NETS"],
        "space": ["MobileSpace", "load_space", "mobile_space"],
    },
)
