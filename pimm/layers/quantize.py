"""Make Paddle's `QAT` and `PTQ` quantize the layers of `pimm.layers`, as they do Paddle's own.

Paddle looks the exact type of a layer up in a table. This module enters every convolution and `Linear` of ours there.
"""

from paddle.nn.quant.format import ConvertibleQuantedLayer
from paddle.nn.quant.qat import QuantedConv2D, QuantedLinear
from paddle.quantization.config import DEFAULT_QAT_LAYER_MAPPINGS

from pimm.layers.conv import CondConv2d, Conv2d, Conv2dSame, conv2d, conv2d_same
from pimm.layers.linear import Linear


class QuantedConv2d(QuantedConv2D):
    """`Conv2d` with its input and its weight rounded by quanters, where the configuration names some."""

    def __init__(self, layer, q_config):
        super().__init__(layer, q_config)
        self.stride, self.padding, self.dilation, self.groups = (
            layer.stride,
            layer.padding,
            layer.dilation,
            layer.groups,
        )

    def _conv_forward(self, inputs, weights):
        return conv2d(inputs, weights, self.bias, self.stride, self.padding, self.dilation, self.groups)


class QuantedConv2dSame(QuantedConv2d):
    """`Conv2dSame` with its input and its weight rounded by quanters; the padding still follows the input's size."""

    def _conv_forward(self, inputs, weights):
        return conv2d_same(inputs, weights, self.bias, self.stride, self.dilation, self.groups)


class QuantedCondConv2d(ConvertibleQuantedLayer):
    """`CondConv2d` with its input and the experts' kernels rounded by quanters."""

    convolve = CondConv2d.convolve

    def __init__(self, layer, q_config):
        super().__init__()
        self.weight_shape, self.kernel_size = layer.weight_shape, layer.kernel_size
        self.stride, self.dilation, self.groups = layer.stride, layer.dilation, layer.groups
        self.padding, self.dynamic_padding = layer.padding, layer.dynamic_padding
        self.weight, self.bias = layer.weight, layer.bias
        self.weight_quanter = q_config.weight and q_config.weight._instance(layer)
        self.activation_quanter = q_config.activation and q_config.activation._instance(layer)

    def forward(self, x, routing_weights):
        x = self.activation_quanter(x) if self.activation_quanter else x
        weight = self.weight_quanter(self.weight) if self.weight_quanter else self.weight
        return self.convolve(x, routing_weights, weight)

    def weights_to_quanters(self):
        """Name the weight and the attribute of its quanter, for Paddle's conversion."""
        return [("weight", "weight_quanter")]

    def activation_quanters(self):
        """Name the attribute of the input's quanter, for Paddle's conversion."""
        return ["activation_quanter"]


QUANTED_LAYERS = {
    CondConv2d: QuantedCondConv2d,
    Conv2d: QuantedConv2d,
    Conv2dSame: QuantedConv2dSame,
    Linear: QuantedLinear,
}
DEFAULT_QAT_LAYER_MAPPINGS.update(QUANTED_LAYERS)
