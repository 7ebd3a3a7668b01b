"""The interface of nets that are a stem, stages, a last normalisation and a head layer, under the names of timm 1.x."""

from __future__ import annotations

import math

import numpy as np
from paddle import nn

from pimm.errors import ConfigError
from pimm.layers import Linear, normal_, trunc_normal_, zeros_
from pimm.models.features import feature_take_indices
from pimm.models.torch_names import torch_names


class StagedModel(nn.Layer):
    """A net of a stem, stages, a last normalisation and a layer ``head`` with pooling and the classifier ``head.fc``.

    A family sets the attributes below in ``__init__``; the class attributes name its layers. Each stage has an
    attribute ``grad_checkpointing``, and recomputes activations in the backward pass where it is true.

    Attributes:
        num_classes: classes; 0 for a net that returns the input of the classifier.
        num_features: channels of what `forward_features` returns.
        head_hidden_size: numbers that the classifier takes for an image.
        feature_info: description of the feature maps, as `feature_map` makes them.
        stages_name: name of the list of stages.
        norm_name: name of the last normalisation; None in nets without one.
        axes: order of the axes between stem and head: ``NCHW`` or ``NHWC``.
        pool_when_pruned: the pooling of a net that is cut short.
    """

    stages_name = "stages"
    norm_name: str | None = "norm"
    axes = "NCHW"
    pool_when_pruned = ""

    def embed(self, x):
        """Return the input of the first stage for images [N, in_chans, H, W]."""
        return self.stem(x)

    def run_stage(self, index, x):
        """Return the output of a stage for its input."""
        return getattr(self, self.stages_name)[index](x)

    def keep_stages(self, count):
        """Take out all stages but the first ``count``."""
        stages = getattr(self, self.stages_name)
        setattr(self, self.stages_name, nn.Sequential(*list(stages)[:count]))

    def final_norm(self, x):
        """Return the output of the last normalisation for that of the last stage."""
        return getattr(self, self.norm_name)(x) if self.norm_name else x

    def no_weight_decay(self):
        """Return the names of parameters that weight decay leaves alone, beside biases and those of normalisation."""
        return set()

    def set_grad_checkpointing(self, enable=True):
        """Compute the activations of blocks again in the backward pass, or keep them; the gradients are the same."""
        for stage in getattr(self, self.stages_name):
            stage.grad_checkpointing = enable

    def get_classifier(self):
        """Return the last layer."""
        return self.head.fc

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

    def forward_features(self, x):
        """Return the feature maps before pooling, with axes as ``axes`` says, of images [N, in_chans, H, W]."""
        x = self.embed(x)
        for index in range(len(getattr(self, self.stages_name))):
            x = self.run_stage(index, x)
        return self.final_norm(x)

    def forward_head(self, x, pre_logits=False):
        """Return the logits of feature maps, or with ``pre_logits`` the input of the classifier.

        Args:
            x: feature maps of `forward_features`.
            pre_logits: whether to stop before the classifier.
        """
        return self.head(x, pre_logits=pre_logits)

    def forward(self, x):  # [N, in_chans, H, W]
        return self.forward_head(self.forward_features(x))  # [N, num_classes]

    def forward_intermediates(
        self, x, indices=None, norm=False, stop_early=False, output_fmt="NCHW", intermediates_only=False
    ):
        """Return the output of `forward_features` and a list of feature maps, in forward order.

        Args:
            x: images, [N, in_chans, H, W].
            indices: which feature maps of ``feature_info``: None for all, a number n for the last n, or a list, in
                which -1 is the last.
            norm: whether the last normalisation is applied to the last feature map.
            stop_early: whether to stop after the last of these feature maps, whose stage's output is then the first
                of the results.
            output_fmt: order of the axes of the feature maps: ``NCHW``, or the net's own.
            intermediates_only: whether to return the list alone.

        Raises:
            ConfigError: if there is no such feature map, and for another ``output_fmt``.
        """
        valid = sorted({"NCHW", self.axes})
        if output_fmt not in valid:
            raise ConfigError(f"output_fmt is {output_fmt!r:.80}; valid is {' or '.join(valid)}, for this net")
        taken, last = feature_take_indices(len(self.feature_info), indices)
        taken = {self.feature_info[index]["stage"] for index in taken}
        count = len(getattr(self, self.stages_name))
        run = self.feature_info[last]["stage"] if stop_early else count
        x = self.embed(x)
        found = [x] if 0 in taken else []
        for index in range(run):
            x = self.run_stage(index, x)
            if index + 1 in taken:
                found.append(self.final_norm(x) if norm and index + 1 == count else x)
        if output_fmt != self.axes:
            found = [feature_map.transpose([0, 3, 1, 2]) for feature_map in found]
        if intermediates_only:
            return found
        return (self.final_norm(x) if run == count else x), found

    def prune_intermediate_layers(self, indices=1, prune_norm=False, prune_head=True):
        """Take out the layers that feature maps do not need, and return the numbers of these feature maps.

        Args:
            indices: which feature maps, as in `forward_intermediates`.
            prune_norm: whether to take out the last normalisation. It goes too when stages go.
            prune_head: whether to take out pooling, head and classifier. They go too when stages go.

        Raises:
            ConfigError: if there is no such feature map.
        """
        taken, last = feature_take_indices(len(self.feature_info), indices)
        count = self.feature_info[last]["stage"]
        shortened = count < len(getattr(self, self.stages_name))
        if shortened:
            self.keep_stages(count)
            self.num_features = self.feature_info[last]["num_chs"]
        if self.norm_name and (prune_norm or shortened):
            setattr(self, self.norm_name, nn.Identity())
        if prune_head or shortened:
            self.reset_classifier(0, self.pool_when_pruned, reset_other=True)
        return taken


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


def feature_map(module, stage, num_chs, reduction):
    """Return the description of a feature map, for ``feature_info``.

    Args:
        module: name of the layer that returns the feature map.
        stage: how many stages come before the feature map.
        num_chs: channels.
        reduction: by how much an image is larger.
    """
    return {"num_chs": num_chs, "reduction": reduction, "module": module, "stage": stage}


def init_truncated(model, layers=(nn.Linear,), std=0.02, head_scale=1.0, draw=trunc_normal_):
    """Draw weights from a normal distribution without its tails, and set biases to 0.

    Args:
        model: the net.
        layers: the classes of layers.
        std: standard deviation.
        head_scale: factor of the standard deviation in linear layers whose name begins with ``head.``.
        draw: `trunc_normal_` or `trunc_normal_tf_`.
    """
    for name, layer in model.named_sublayers():
        if isinstance(layer, layers):
            of_head = isinstance(layer, nn.Linear) and name.startswith("head.")
            draw(layer.weight, std=std * head_scale if of_head else std)
            if layer.bias is not None:
                zeros_(layer.bias)


def init_fan_out(model):
    """Draw weights of convolutions from N(0, sqrt(2 / fan_out)), with fan_out of one group, and set biases to 0."""
    for layer in model.sublayers():
        if isinstance(layer, nn.Conv2D):
            fan_out = math.prod(layer.kernel_size) * layer.out_channels // layer.groups
            normal_(layer.weight, std=math.sqrt(2 / fan_out))
            if layer.bias is not None:
                zeros_(layer.bias)


def with_head_norm(arrays, model):
    """Return arrays by PyTorch's names with the values that ``head.norm`` begins with, if it is in the net alone.

    Weights of image towers and of masked autoencoders come without the last normalisation.
    """
    shapes, fill = dict(torch_names(model)), {"head.norm.weight": np.ones, "head.norm.bias": np.zeros}
    fresh = {name: fill[name](shapes[name], np.float32) for name in fill if name in shapes and name not in arrays}
    return {**arrays, **fresh}
