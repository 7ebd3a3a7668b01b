"""A net of two layers for the scripts' tests, which under the launcher is registered in every process."""

import importlib.util
import sys
from pathlib import Path

import paddle.nn.functional as F
from paddle import nn

from pimm.commands.lines import train
from pimm.layers import BatchNorm2d
from pimm.models import register_model


def load_script(path):
    """A script of the repository as a module."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, Path(__file__).parents[1] / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class ScriptNet(nn.Layer):
    default_cfg = {"input_size": (3, 8, 8), "crop_pct": 1.0, "interpolation": "bilinear"}

    def __init__(self, num_classes, in_chans, drop_rate, norm):
        super().__init__()
        self.num_classes, self.drop_rate = num_classes, drop_rate
        self.conv = nn.Conv2D(in_chans, 4, 3, stride=2)
        self.bn1 = BatchNorm2d(4) if norm else nn.Identity()
        self.fc = nn.Linear(4, num_classes)

    def get_classifier(self):
        return self.fc

    def forward(self, x):
        x = F.relu(self.bn1(self.conv(x))).mean([2, 3])
        return self.fc(F.dropout(x, self.drop_rate, training=self.training))


def script_net(pretrained=False, num_classes=1000, in_chans=3, drop_rate=0.0, norm=True):
    return ScriptNet(num_classes, in_chans, drop_rate, norm)


if __name__ == "__main__":
    register_model(script_net)
    sys.exit(train())
