"""Strides and dilations of stages, whose blocks after the first keep the size."""

from pimm.models.features import limit_strides


def stage_strides(strides, output_stride, reduction=2):
    """Yield the stride, the dilations of the first and of the other blocks, and the reduction of each stage.

    Args:
        strides: the strides of the stages, in forward order.
        output_stride: the largest product of all strides, beyond which strides become dilations: 8, 16 or 32.
        reduction: the stride of what comes before the stages.

    Raises:
        ConfigError: for another ``output_stride``.
    """
    for wanted, (stride, first_dilation, reached) in zip(strides, limit_strides(strides, output_stride, reduction)):
        yield stride, (first_dilation, first_dilation * wanted // stride), reached
