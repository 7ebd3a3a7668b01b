"""The interface of image models with layers ``stem`` and ``head``, under the names of timm 1.x."""

from __future__ import annotations

import numpy as np
from paddle import nn

from pimm.errors import ConfigError
from pimm.layers import Linear
from pimm.models.interface import ImageModel
from pimm.models.torch_names import torch_names


class StemModel(ImageModel):
    """A net of a layer ``stem``, stages, pooling and a classifier ``head``."""

    stages_name = "stages"
    classifier_name = "head"

    @property
    def stem(self):
        """Return the layer before the stages."""
        return self._sub_layers["stem"]

    @stem.setter
    def stem(self, layer):
        self.add_sublayer("stem", layer)


class HeadedModel(StemModel):
    """A net of a stem, stages, final layers and a layer ``head``, such as `pimm.layers.ClassifierHead`.

    A family sets ``head``, ``head_hidden_size`` and what `ImageModel` asks for, except ``global_pool`` and the
    classifier.
    """

    def get_classifier(self):
        """Return the last layer."""
        return self.head.fc

    def reset_classifier(self, num_classes, global_pool=None):
        """Replace pooling and classifier.

        Args:
            num_classes: classes; 0 for a net that returns the input of the classifier.
            global_pool: the pooling, as the head takes it; None keeps it.
        """
        self.num_classes = num_classes
        self.head.reset(num_classes, global_pool, in_features=self.num_features)
        self.head_hidden_size = self.head.num_features

    def forward_head(self, x, pre_logits=False):
        """Return the logits of feature maps, or with ``pre_logits`` the input of the classifier."""
        return self.head(x, pre_logits=pre_logits)


class StagedModel(HeadedModel):
    """A net of a stem, stages, a last normalisation and a layer ``head``, whose other layers can be taken out too.

    Attributes:
        pool_when_pruned: the pooling of a net that is cut short.
    """

    norm_name = "norm"
    pool_when_pruned = ""

    def reset_classifier(self, num_classes, global_pool=None, reset_other=False):
        """Replace pooling and classifier.

        Args:
            num_classes: classes; 0 for a net that returns the input of the classifier.
            global_pool: the pooling, as the head takes it; None keeps it.
            reset_other: whether to take out the layers of the head before the classifier.

        Raises:
            ConfigError: if the head does not take what the pooling returns.
        """
        self.num_classes = num_classes
        self.head.reset(num_classes, global_pool, reset_other=reset_other, in_features=self.num_features)
        self.head_hidden_size = self.head.num_features

    def drop_classifier(self):
        """Take out pooling and head of a net that is cut short."""
        self.reset_classifier(0, self.pool_when_pruned, reset_other=True)


class LinearHeadModel(StagedModel):
    """A `StagedModel` whose ``head`` is a linear layer, after a mean over all pixels, or without one.

    Attributes:
        pooled_axes: the axes of pixels in what `forward_features` returns.
    """

    pooled_axes = (2, 3)

    def _create_head(self, num_classes, global_pool, drop_rate):
        """Set pooling and classifier.

        Args:
            num_classes: classes; 0 for a net without a classifier.
            global_pool: ``avg`` or "".
            drop_rate: dropout before the classifier.

        Raises:
            ConfigError: for another ``global_pool``, and for classes without pooling in a net that pools axes 2 and 3.
        """
        self.head_drop = nn.Dropout(drop_rate)
        self.reset_classifier(num_classes, global_pool)

    def get_classifier(self):
        """Return the last layer."""
        return self.head

    def reset_classifier(self, num_classes, global_pool=None, reset_other=False):
        """Replace pooling, ``avg`` or "", and classifier; see `StagedModel.reset_classifier`."""
        if global_pool is not None:
            if global_pool not in ("avg", ""):
                raise ConfigError(f"global_pool is {global_pool!r:.80}; valid are avg, and '' for none")
            self.global_pool = global_pool
        if num_classes and not self.global_pool and self.pooled_axes == (2, 3):  # channels are not the last axis
            raise ConfigError("a net without pooling has no classifier: give global_pool, or num_classes=0")
        self.num_classes, self.head_hidden_size = num_classes, self.num_features
        self.head = Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def forward_head(self, x, pre_logits=False):
        """Return the logits of feature maps, or with ``pre_logits`` the input of the classifier."""
        x = self.head_drop(x.mean(self.pooled_axes) if self.global_pool else x)
        return x if pre_logits else self.head(x)


def with_head_norm(arrays, model):
    """Return arrays by PyTorch's names with the values that ``head.norm`` begins with, if it is in the net alone.

    Weights of image towers and of masked autoencoders come without the last normalisation.
    """
    shapes, fill = dict(torch_names(model)), {"head.norm.weight": np.ones, "head.norm.bias": np.zeros}
    fresh = {name: fill[name](shapes[name], np.float32) for name in fill if name in shapes and name not in arrays}
    return {**arrays, **fresh}
