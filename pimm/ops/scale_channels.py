"""What gates need: means of channels, and factors for channels. Paddle computes both in several passes."""

from __future__ import annotations

from paddle import Tensor
from paddle.nn import functional as F

from .backend import backend_for, run_operator


def scale_channels(x: Tensor, factors: Tensor) -> Tensor:
    """Multiply every channel of every image by its factor: ``x * factors``.

    An operator of ours computes float32 and float64 on the CPU, and Paddle's operator everything else.

    Args:
        x: images, [N, C, H, W].
        factors: [N, C, 1, 1]; factors of another shape are multiplied as Paddle does it.
    """
    backend = backend_for(x, factors)
    if backend == "paddle" or x.ndim != 4 or 0 in x.shape or factors.shape != [*x.shape[:2], 1, 1]:
        return x * factors
    return run_operator("pimm_scale_channels", (x, factors), backend)[0]


def global_avg_pool2d(x: Tensor) -> Tensor:
    """Return the mean of all pixels of each channel: [N, C, H, W] becomes [N, C, 1, 1].

    An operator of ours computes float32 and float64 on the CPU, and Paddle's operator everything else.
    """
    backend = backend_for(x)
    if backend == "paddle" or x.ndim != 4 or 0 in x.shape:
        return F.adaptive_avg_pool2d(x, 1)
    return run_operator("pimm_map_means", (x,), backend)[0]
