"""Pooling and a classifier in one layer, plain or with normalisation and a hidden layer before the classifier."""

from functools import partial

import paddle
from paddle import nn

from pimm.errors import ConfigError
from pimm.layers.conv import Conv2d
from pimm.layers.create_act import get_act_layer
from pimm.layers.layer_norm import get_norm_layer
from pimm.layers.linear import Linear
from pimm.layers.pool import SelectAdaptivePool2d

_Conv1x1 = partial(Conv2d, kernel_size=1)


def create_fc(num_features, num_classes, use_conv=False):
    """Create a classifier: a linear layer, or with ``use_conv`` a convolution; the identity for 0 classes."""
    if num_classes <= 0:
        return nn.Identity()
    return (_Conv1x1 if use_conv else Linear)(num_features, num_classes)


def create_classifier(num_features, num_classes, pool_type="avg", use_conv=False, input_fmt="NCHW", drop_rate=None):
    """Create the pooling and the classifier, and between them a dropout if ``drop_rate`` is given.

    Args:
        num_features: channels of the feature maps.
        num_classes: classes; 0 for none.
        pool_type: as in `SelectAdaptivePool2d`.
        use_conv: whether the classifier is a convolution.
        input_fmt: order of axes of the feature maps, ``NCHW`` or ``NHWC``.
        drop_rate: rate of the dropout.

    Raises:
        ConfigError: for an unknown pooling, and for a linear classifier of feature maps [N, C, H, W].
    """
    pool = SelectAdaptivePool2d(pool_type=pool_type, flatten=bool(pool_type) and not use_conv, input_fmt=input_fmt)
    if num_classes and not pool_type and not use_conv and input_fmt == "NCHW":
        raise ConfigError("a net without pooling has no classifier: give global_pool, or num_classes=0")
    fc = create_fc(num_features * pool.feat_mult(), num_classes, use_conv)
    return (pool, fc) if drop_rate is None else (pool, nn.Dropout(drop_rate), fc)


def _like(head, layer):
    """Put a new layer into the mode of its head: training or evaluation."""
    layer.train() if head.training else layer.eval()
    return layer


class ClassifierHead(nn.Layer):
    """Pooling, dropout and a classifier.

    Args:
        in_features: channels of the feature maps.
        num_classes: classes; 0 for none.
        pool_type: as in `SelectAdaptivePool2d`.
        drop_rate: dropout before the classifier.
        use_conv: whether the classifier is a convolution.
        input_fmt: order of axes of the feature maps, ``NCHW`` or ``NHWC``.

    Attributes:
        num_features: numbers that the classifier takes for an image.

    Raises:
        ConfigError: as `create_classifier`.
    """

    def __init__(self, in_features, num_classes, pool_type="avg", drop_rate=0.0, use_conv=False, input_fmt="NCHW"):
        super().__init__()
        self.in_features, self.use_conv, self.input_fmt = in_features, use_conv, input_fmt
        self.drop = nn.Dropout(drop_rate)
        self._create(num_classes, pool_type)

    def _create(self, num_classes, pool_type):
        pool, fc = create_classifier(self.in_features, num_classes, pool_type, self.use_conv, self.input_fmt)
        self.global_pool, self.fc = _like(self, pool), _like(self, fc)
        self.flatten = _like(self, nn.Flatten(1) if self.use_conv and pool_type else nn.Identity())
        self.num_features = self.in_features * pool.feat_mult()

    def reset(self, num_classes, pool_type=None, reset_other=False, in_features=None):
        """Replace pooling and classifier.

        Args:
            num_classes: classes; 0 for none.
            pool_type: as in `SelectAdaptivePool2d`; None keeps it.
            reset_other: ignored: there are no other layers.
            in_features: channels of the feature maps; None keeps them.

        Raises:
            ConfigError: as `create_classifier`.
        """
        self.in_features = in_features or self.in_features
        self._create(num_classes, self.global_pool.pool_type if pool_type is None else pool_type)

    def forward(self, x, pre_logits=False):
        """Return the logits of feature maps, or with ``pre_logits`` the input of the classifier."""
        x = self.drop(self.global_pool(x))
        return self.flatten(x if pre_logits else self.fc(x))


class NormMlpClassifierHead(nn.Layer):
    """Pooling, normalisation, a hidden layer, dropout and a classifier, for feature maps [N, C, H, W].

    Args:
        in_features: channels of the feature maps.
        num_classes: classes; 0 for none.
        hidden_size: width of the hidden layer; None for none.
        pool_type: as in `SelectAdaptivePool2d`; without pooling the layers are convolutions.
        drop_rate: dropout before the classifier.
        norm_layer: class or name of the normalisation.
        act_layer: class or name of the activation after the hidden layer.

    Attributes:
        num_features: numbers that the classifier takes for an image.

    Raises:
        ConfigError: for pooling that changes the number of channels.
    """

    def __init__(
        self,
        in_features,
        num_classes,
        hidden_size=None,
        pool_type="avg",
        drop_rate=0.0,
        norm_layer="layernorm2d",
        act_layer="tanh",
    ):
        super().__init__()
        self.in_features, self.hidden_size = in_features, hidden_size
        self.num_features = hidden_size or in_features
        self._set_pool(pool_type)
        self.norm = get_norm_layer(norm_layer)(in_features)
        self.pre_logits = nn.Identity()
        if hidden_size:
            hidden = (_Conv1x1 if self.use_conv else Linear)(in_features, hidden_size)
            self.pre_logits = nn.Sequential(("fc", hidden), ("act", get_act_layer(act_layer)()))
        self.drop = nn.Dropout(drop_rate)
        self.fc = create_fc(self.num_features, num_classes, self.use_conv)

    def _set_pool(self, pool_type):
        pool = SelectAdaptivePool2d(pool_type=pool_type)
        if pool.feat_mult() != 1:
            raise ConfigError(f"pooling {pool_type} changes the channels, which the head's normalisation does not take")
        self.global_pool, self.use_conv = _like(self, pool), not pool_type
        self.flatten = _like(self, nn.Flatten(1) if pool_type else nn.Identity())

    def reset(self, num_classes, pool_type=None, reset_other=False, in_features=None):
        """Replace pooling and classifier.

        Args:
            num_classes: classes; 0 for none.
            pool_type: as in `SelectAdaptivePool2d`; None keeps it. The hidden layer keeps its values.
            reset_other: whether to take out normalisation and hidden layer.
            in_features: channels of the feature maps, which can change if there is no normalisation.

        Raises:
            ConfigError: for pooling that changes the number of channels, and for channels that the normalisation does
                not take.
        """
        if pool_type is not None:
            self._set_pool(pool_type)
        if reset_other:
            _take_out(self)
        _set_in_features(self, in_features)
        if self.hidden_size:
            self._match_hidden()
        self.fc = _like(self, create_fc(self.num_features, num_classes, self.use_conv))

    def _match_hidden(self):
        """Exchange the hidden layer for one of the same values, if pooling or its absence asks for the other kind."""
        old = self.pre_logits.fc
        if isinstance(old, nn.Conv2D) == self.use_conv:
            return
        new = (_Conv1x1 if self.use_conv else Linear)(self.in_features, self.hidden_size)
        if old.weight._is_initialized() and new.weight._is_initialized():
            with paddle.no_grad():
                # a linear layer's weight is the transpose of a convolution's
                weight = old.weight.t().unsqueeze([2, 3]) if self.use_conv else old.weight.flatten(1).t()
                new.weight.set_value(weight)
                new.bias.set_value(old.bias)
        for name in ("weight", "bias"):
            getattr(new, name).stop_gradient = getattr(old, name).stop_gradient
        self.pre_logits.fc = _like(self, new)

    def forward(self, x, pre_logits=False):
        """Return the logits of feature maps, or with ``pre_logits`` the input of the classifier."""
        x = self.flatten(self.norm(self.global_pool(x)))
        x = self.drop(self.pre_logits(x))
        return x if pre_logits else self.fc(x)


def _take_out(head):
    head.norm, head.pre_logits = _like(head, nn.Identity()), _like(head, nn.Identity())
    head.hidden_size, head.num_features = None, head.in_features


def _set_in_features(head, in_features):
    if in_features is None or in_features == head.in_features:
        return
    if not isinstance(head.norm, nn.Identity):
        raise ConfigError(
            f"the head normalises {head.in_features} channels, not {in_features}: reset_other=True takes that out"
        )
    head.in_features = in_features
    if not head.hidden_size:
        head.num_features = in_features


_CHANNELS_LAST_POOLS = {
    "": lambda x, axes: x,
    "avg": lambda x, axes: x.mean(axes),
    "max": lambda x, axes: x.amax(axes),
    "avgmax": lambda x, axes: 0.5 * (x.amax(axes) + x.mean(axes)),
}


class ClNormMlpClassifierHead(nn.Layer):
    """Pooling, normalisation, a hidden layer, dropout and a classifier, for feature maps with the channels last.

    Args:
        in_features: channels of the feature maps.
        num_classes: classes; 0 for none.
        hidden_size: width of the hidden layer; None for none.
        pool_type: ``avg``, ``max``, ``avgmax`` or ``""`` for none.
        drop_rate: dropout before the classifier.
        norm_layer: class or name of the normalisation.
        act_layer: class or name of the activation after the hidden layer.
        input_fmt: order of axes, ``NHWC`` or ``NLC``.

    Attributes:
        num_features: numbers that the classifier takes for an image.

    Raises:
        ConfigError: for another pooling or another order of axes.
    """

    def __init__(
        self,
        in_features,
        num_classes,
        hidden_size=None,
        pool_type="avg",
        drop_rate=0.0,
        norm_layer="layernorm",
        act_layer="gelu",
        input_fmt="NHWC",
    ):
        super().__init__()
        if input_fmt not in ("NHWC", "NLC"):
            raise ConfigError(f"input_fmt is {input_fmt!r:.60}; valid are NHWC and NLC")
        self.in_features, self.hidden_size = in_features, hidden_size
        self.num_features = hidden_size or in_features
        self.pool_dim = 1 if input_fmt == "NLC" else (1, 2)
        self._set_pool(pool_type)
        self.norm = get_norm_layer(norm_layer)(in_features)
        self.pre_logits = nn.Identity()
        if hidden_size:
            hidden = Linear(in_features, hidden_size)
            self.pre_logits = nn.Sequential(("fc", hidden), ("act", get_act_layer(act_layer)()))
        self.drop = nn.Dropout(drop_rate)
        self.fc = create_fc(self.num_features, num_classes)

    def _set_pool(self, pool_type):
        if pool_type not in _CHANNELS_LAST_POOLS:
            raise ConfigError(f"unknown pooling {pool_type!r:.60}; valid are avg, max, avgmax, and '' for none")
        self.pool_type = pool_type

    def reset(self, num_classes, pool_type=None, reset_other=False, in_features=None):
        """Replace pooling and classifier.

        Args:
            num_classes: classes; 0 for none.
            pool_type: as in the class; None keeps it.
            reset_other: whether to take out normalisation and hidden layer.
            in_features: channels of the feature maps, which can change if there is no normalisation.

        Raises:
            ConfigError: for another pooling, and for channels that the normalisation does not take.
        """
        if pool_type is not None:
            self._set_pool(pool_type)
        if reset_other:
            _take_out(self)
        _set_in_features(self, in_features)
        self.fc = _like(self, create_fc(self.num_features, num_classes))

    def forward(self, x, pre_logits=False):
        """Return the logits of feature maps, or with ``pre_logits`` the input of the classifier."""
        x = _CHANNELS_LAST_POOLS[self.pool_type](x, self.pool_dim)
        x = self.drop(self.pre_logits(self.norm(x)))
        return x if pre_logits else self.fc(x)
