"""A small detector and a data set of plain colours, which the detector learns in seconds."""

import paddle
from paddle import nn
from PIL import Image

from pimm.models.features import FeatureInfo

COLORS = {"blue": (20, 30, 230), "green": (30, 220, 40), "red": (230, 30, 20)}


class TinyBody(nn.Layer):
    """Four convolutions, whose last three outputs are the feature maps."""

    def __init__(self, channels=(16, 24, 24, 24)):
        super().__init__()
        self.stem = nn.Conv2D(3, channels[0], 4, stride=4)
        self.stages = nn.LayerList(
            [
                nn.Sequential(nn.Conv2D(before, after, 3, stride=2, padding=1), nn.BatchNorm2D(after), nn.ReLU())
                for before, after in zip(channels, channels[1:])
            ]
        )
        maps = [{"num_chs": count, "reduction": 8 << level} for level, count in enumerate(channels[1:])]
        self.feature_info = FeatureInfo(maps, None)

    def forward(self, x):
        x, maps = nn.functional.relu(self.stem(x)), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


def write_colors(folder, split, count=2):
    """Write ``count`` images of each colour into the class folders of a split."""
    for name, color in COLORS.items():
        (folder / split / name).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (32, 32), color).save(folder / split / name / f"{number}.png")


def fixed_net(logits, offsets):
    """Return what acts as a net in evaluation mode and predicts the same for every batch."""

    def net(images):
        return tuple(paddle.to_tensor(each, "float32").expand([len(images), -1, -1]) for each in (logits, offsets))

    return net
