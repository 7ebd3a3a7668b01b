"""What tests of exported nets share: settings, nets whose logits mean something, and images."""

import numpy as np
from paddle import nn
from paddle.nn import functional as F

from cream.deploy.settings import InferenceSettings
from pimm.data.imagenet import imagenet_classes

IMAGES = InferenceSettings(
    model="a-net",
    input_size=(3, 64, 64),
    interpolation="bicubic",
    mean=(0.5, 0.25, 0.75),
    std=(0.5, 0.25, 0.125),
    crop_pct=1.0,
    crop_mode="center",
    channel_order="rgb",
    class_names=tuple(imagenet_classes()),
    source="net.pdparams",
    sha256="0" * 64,
)


class OwnFilters(nn.Layer):
    """Makes filters from each batch; Paddle Inference keeps those of the first with the same number of images."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2D(3, 6, 3)

    def forward(self, x):
        filters = self.conv(x)[:1].mean([2, 3], keepdim=True).reshape([2, 3, 1, 1])
        return F.conv2d(x, filters).mean([2, 3])


def awakened(net, seed=0):
    """Return the net with statistics of batch norm that no longer are 0 and 1, and weights that give large logits."""
    draw = np.random.default_rng(seed)
    for name, value in net.state_dict().items():
        if name.endswith("_mean"):
            value.set_value(draw.normal(0, 0.1, value.shape).astype("float32"))
        elif name.endswith("_variance"):
            value.set_value(draw.uniform(0.5, 1.5, value.shape).astype("float32"))
    net.eval()
    return net


def draw_images(count, size, seed=1):
    return np.random.default_rng(seed).standard_normal((count, 3, size, size)).astype("float32")
