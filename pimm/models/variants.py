"""Tell whether weights are of TensorFlow's variant of a model (``tf_...``) or of PyTorch's, where a file says so.

Both variants have weights of the same names and shapes. They pad differently, their batch norms add another epsilon,
and most prepare images in another way: the wrong variant loads the weights and loses accuracy. The values do not tell;
the names of efficientnet_pytorch, whose nets are all TensorFlow's, and the ``arch`` in a checkpoint do.
"""

import logging

from pimm.layers.conv import Conv2dSame
from pimm.models.torch_names import torch_names
from pimm.models.torch_weights import is_foreign

_logger = logging.getLogger(__name__)
_TF = "tf_"


def warn_of_variant(model, arrays, arch, source):
    """Log a warning if the weights in a file of PyTorch's are those of the other variant of the model.

    Args:
        model: the net that takes the weights.
        arrays: ``{name: array}`` under the names of the file.
        arch: the name of the model in the file, if any.
        source: the file, for the message.
    """
    given = arch.startswith(_TF) if isinstance(arch, str) else is_foreign(arrays) or None
    is_tf = any(isinstance(layer, Conv2dSame) for layer in model.sublayers())
    if given is None or given == is_tf:
        return
    from pimm.models.fingerprints import models_with  # late: creates models, which load weights

    names = models_with(dict(torch_names(model)))
    if isinstance(arch, str) and arch not in names:
        return
    trained = [name for name in names if name.startswith(_TF) == given]
    taken = [name for name in names if name.startswith(_TF) == is_tf]
    if len(trained) == len(taken) == 1:
        _logger.warning(
            "%s: its weights are of %s, which pads and prepares images differently; %s loses accuracy with them",
            *(source, trained[0], taken[0]),
        )
