"""A net of two blocks in timm's notation, for tests of what any model can do."""

import golden

from pimm import models
from pimm.models.efficientnet import EfficientNet
from pimm.models.efficientnet_builder import decode_arch_def

TINY = [["ds_r1_k3_s2_c8"], ["ir_r1_k3_s2_e2_c8_se0.25"]]


def tiny(model_class=EfficientNet, seed=0, **kwargs):
    """Return the net with drawn weights, in evaluation mode."""
    model = model_class(decode_arch_def(TINY), num_classes=5, num_features=16, stem_size=8, **kwargs)
    models.load_torch_arrays(model, golden.state(models.torch_names(model), seed=seed))
    model.eval()
    return model
