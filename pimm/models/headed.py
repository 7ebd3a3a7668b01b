"""The interface of image models with layers ``stem`` and ``head``, under the names of timm 1.x."""

from __future__ import annotations

from paddle import nn

from pimm.models.interface import ImageModel


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
    classifier. The stages are the layers that ``stages_name`` names: a list, or the names of single layers.
    """

    def stage_list(self):
        """Return the stages in forward order."""
        if isinstance(self.stages_name, str):
            return ImageModel.stage_list(self)  # an export cannot resolve super()
        stages = [getattr(self, name) for name in self.stages_name]
        return [stage for stage in stages if not isinstance(stage, nn.Identity)]

    def keep_stages(self, count):
        """Take out the stages after the first ``count``."""
        if isinstance(self.stages_name, str):
            ImageModel.keep_stages(self, count)
        else:
            for name in self.stages_name[count:]:
                setattr(self, name, nn.Identity())

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
