"""Fully connected layer."""

import math

from paddle import nn


class Linear(nn.Linear):
    """`paddle.nn.Linear` with PyTorch's arguments and initial values, U(-1/sqrt(in), 1/sqrt(in)).

    The weight is [in_features, out_features], as Paddle has it: the transpose of PyTorch's.
    """

    def __init__(self, in_features, out_features, bias=True):
        bound = 1 / math.sqrt(in_features)
        init = nn.initializer.Uniform(-bound, bound)
        super().__init__(in_features, out_features, weight_attr=init, bias_attr=init if bias else False)
        self.in_features = in_features
        self.out_features = out_features
