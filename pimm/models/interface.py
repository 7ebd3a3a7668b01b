"""The interface of every image model, under the names of timm 1.x."""

from __future__ import annotations

import paddle.nn.functional as F
from paddle import nn

from pimm.errors import ConfigError
from pimm.layers import Linear, SelectAdaptivePool2d
from pimm.models.features import feature_take_indices
from pimm.models.recompute import checkpoint_seq


class ImageModel(nn.Layer):
    """A net of a stem, stages of blocks, final layers, pooling, head layers and a classifier.

    The stages, and the layers that are replaced by the identity when the net is cut short, are named by class
    attributes. A family sets the attributes below in ``__init__``, creates ``global_pool`` and the classifier by
    `create_head`, and defines `stem`; if it has such layers, `final` and `pre_logits` too.

    Attributes:
        num_classes: classes; 0 for a net that returns the pooled features.
        num_features: channels of what `forward_features` returns.
        head_hidden_size: numbers that the classifier takes for an image.
        drop_rate: dropout before the classifier.
        feature_info: description of the feature maps, as `pimm.models.features.stage_features` makes it.
        stages_name: name of the list of stages, or a tuple of the stages' names, which may lead into layers, such as
            ``features.conv0``. A stage with an attribute ``grad_checkpointing`` recomputes its own blocks.
        axes: order of the axes of what stages return: ``NCHW`` or ``NHWC``.
        classifier_name: name of the classifier.
        norm_name: name of the normalisation between the last stage and the final layers; ``""`` in nets without one.
        final_layers: names of the layers between the last stage and the pooling.
        head_layers: names of the layers between pooling and classifier; they fix the number of pooled channels.
    """

    stages_name: str | tuple = "blocks"
    axes = "NCHW"
    classifier_name = "classifier"
    norm_name = ""
    final_layers: tuple = ()
    head_layers: tuple = ()
    grad_checkpointing = False
    drop_rate = 0.0

    def stem(self, x):
        """Return the input of the first stage."""
        raise NotImplementedError

    def embed(self, x):
        """Return the input of the first stage, where the stages may begin with the stem's layers."""
        return self.stem(x)

    def final_norm(self, x):
        """Return the output of the last normalisation for that of the last stage."""
        return getattr(self, self.norm_name)(x) if self.norm_name else x

    def final(self, x):
        """Return the output of the last normalisation and the final layers for that of the last stage."""
        return self.final_norm(x)

    def pre_logits(self, x):
        """Return the output of the head layers for pooled feature maps, [N, channels, 1, 1]."""
        return x

    def feature_map(self, x, number):
        """Return the output of a stage as a feature map [N, channels, H, W].

        Args:
            x: the output.
            number: how many stages come before it.
        """
        return x

    def create_classifier(self, num_features, num_classes):
        """Return a new classifier."""
        return Linear(num_features, num_classes)

    def no_weight_decay(self):
        """Return the names of parameters that weight decay leaves alone, beside biases and those of normalisation."""
        return set()

    def set_grad_checkpointing(self, enable=True):
        """Compute the activations of blocks again in the backward pass, or keep them; the gradients are the same."""
        self.grad_checkpointing = enable
        for stage in self.stage_list():
            if hasattr(stage, "grad_checkpointing"):
                stage.grad_checkpointing = enable

    def get_classifier(self):
        """Return the last layer."""
        return getattr(self, self.classifier_name)

    def reset_classifier(self, num_classes, global_pool=None):
        """Replace pooling and classifier.

        Args:
            num_classes: classes; 0 for a net that returns the input of the classifier.
            global_pool: ``avg``, ``max``, ``avgmax``, ``catavgmax``, or without pooling ``""``, which needs 0 classes;
                None keeps it.

        Raises:
            ConfigError: if the head does not take what the pooling returns.
        """
        pool_type = self.global_pool.pool_type if global_pool is None else global_pool
        width = None
        if any(not isinstance(getattr(self, name), nn.Identity) for name in self.head_layers):
            width = self.head_hidden_size
            if SelectAdaptivePool2d(pool_type=pool_type).feat_mult() != self.global_pool.feat_mult():
                raise ConfigError(
                    f"the head cannot change from {self.global_pool.pool_type} to {pool_type} pooling: give "
                    "global_pool when the model is created"
                )
        self.create_head(num_classes, pool_type, width)
        for layer in (self.global_pool, getattr(self, self.classifier_name)):
            layer.train() if self.training else layer.eval()

    def drop_classifier(self):
        """Take out pooling and classifier of a net that is cut short."""
        self.reset_classifier(0, "")

    def create_head(self, num_classes, pool_type, width=None):
        """Set pooling and classifier.

        Args:
            num_classes: classes, or 0.
            pool_type: as in `reset_classifier`.
            width: numbers that the classifier takes for an image; None for the channels of the pooled features.

        Raises:
            ConfigError: for classes without pooling.
        """
        if num_classes and not pool_type:
            raise ConfigError("a net without pooling has no classifier: give global_pool, or num_classes=0")
        self.num_classes = num_classes
        self.global_pool = SelectAdaptivePool2d(pool_type=pool_type)
        self.head_hidden_size = width or self.num_features * self.global_pool.feat_mult()
        classifier = self.create_classifier(self.head_hidden_size, num_classes) if num_classes else nn.Identity()
        setattr(self, self.classifier_name, classifier)

    def stage_list(self):
        """Return the stages in forward order."""
        if isinstance(self.stages_name, str):
            return list(getattr(self, self.stages_name))
        return [_find(self, name)[2] for name in self.stages_name]

    def keep_stages(self, count):
        """Take out the stages after the first ``count``."""
        if isinstance(self.stages_name, str):
            stages = getattr(self, self.stages_name)
            kept = list(stages)[:count]
            kept = nn.LayerList(kept) if type(stages) is nn.LayerList else nn.Sequential(*kept)
            setattr(self, self.stages_name, kept)
            return
        for name in self.stages_name[count:]:
            owner, own_name, _ = _find(self, name)
            if owner is self:
                setattr(self, own_name, nn.Identity())
            else:
                del owner._sub_layers[own_name]
        self.stages_name = self.stages_name[:count]

    def _run(self, stage, x):
        recomputed = self.grad_checkpointing and not hasattr(stage, "grad_checkpointing")
        return checkpoint_seq(stage, x) if recomputed else stage(x)

    def forward_features(self, x):
        """Return the feature maps before pooling, [N, num_features, H / 32, W / 32], of images [N, in_chans, H, W]."""
        x = self.embed(x)
        for stage in self.stage_list():
            x = self._run(stage, x)
        return self.final(x)

    def forward_head(self, x, pre_logits=False):
        """Return the logits of feature maps, or with ``pre_logits`` the input of the classifier.

        Args:
            x: feature maps of `forward_features`, [N, num_features, H / 32, W / 32].
            pre_logits: whether to stop before the classifier.
        """
        x = self.pre_logits(self.global_pool(x))
        has_pooling = getattr(self.global_pool, "pool_type", True)  # QAT wraps the layer
        x = x.flatten(1) if has_pooling else x  # [N, head_hidden_size]
        x = F.dropout(x, self.drop_rate, training=self.training) if self.drop_rate else x
        return x if pre_logits else getattr(self, self.classifier_name)(x)  # [N, num_classes]

    def forward(self, x):
        return self.forward_head(self.forward_features(x))

    def forward_intermediates(
        self, x, indices=None, norm=False, stop_early=False, output_fmt="NCHW", intermediates_only=False
    ):
        """Return the output of `forward_features` and a list of feature maps, in forward order.

        Args:
            x: images, [N, in_chans, H, W].
            indices: which feature maps of ``feature_info``: None for all, a number n for the last n, or a list, in
                which -1 is the last.
            norm: whether the last normalisation is applied to the feature maps, in nets where it can be.
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
        stages = self.stage_list()
        run = stages[: self.feature_info[last]["stage"]] if stop_early else stages
        x = self.embed(x)
        found = [self.feature_map(x, 0)] if 0 in taken else []
        for number, stage in enumerate(run, start=1):
            x = self._run(stage, x)
            if number in taken:
                found.append(self.feature_map(self.final_norm(x) if norm and number == len(stages) else x, number))
        if output_fmt != self.axes:
            found = [x.transpose([0, 3, 1, 2]) for x in found]
        if intermediates_only:
            return found
        return (self.final(x) if len(run) == len(stages) else x), found

    def prune_intermediate_layers(self, indices=1, prune_norm=False, prune_head=True):
        """Take out the layers that feature maps do not need, and return the numbers of these feature maps.

        Args:
            indices: which feature maps, as in `forward_intermediates`.
            prune_norm: whether to take out the last normalisation, or else the final layers.
            prune_head: whether to take out final layers, head and classifier. They go too when stages go.

        Raises:
            ConfigError: if there is no such feature map.
        """
        taken, last = feature_take_indices(len(self.feature_info), indices)
        count = self.feature_info[last]["stage"]
        shortened = count < len(self.stage_list())
        if shortened:
            self.keep_stages(count)
        if self.norm_name and (prune_norm or shortened):
            setattr(self, self.norm_name, nn.Identity())
        without_final = shortened or prune_head or (prune_norm and self.final_layers)
        if without_final:
            for name in (*self.final_layers, *self.head_layers):
                setattr(self, name, nn.Identity())
            self.num_features = self.feature_info[last]["num_chs"]
            self.drop_classifier()
        return taken


class RowMixin:
    """Layers in a row, which ``stages_name`` names, in place of stem and stages; each counts as a stage."""

    def embed(self, x):
        """Return the input of the first layer."""
        return x


class RowModel(RowMixin, ImageModel):
    """A net of layers in a row, pooling, dropout and a classifier."""


def _find(model, name):
    """Return what holds a layer, the layer's name there, and the layer."""
    *path, own_name = name.split(".")
    owner = model
    for part in path:
        owner = owner._sub_layers[part]
    return owner, own_name, owner._sub_layers[own_name]
