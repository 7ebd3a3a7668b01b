"""Makes the embedded part of Fashion-MNIST: a small balanced choice of its images, as tar files of PNGs.

Usage: ``python data/make_fashion_mnist.py SOURCE OUTPUT``. SOURCE holds the four ``*-ubyte.gz`` files of
https://github.com/zalandoresearch/fashion-mnist; Debian's package ``dataset-fashion-mnist`` installs them in
``/usr/share/datasets/fashion-mnist``.
"""

import argparse
import gzip
import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

# In the order of the labels.
CLASSES = (
    *("t-shirt_top", "trouser", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "ankle_boot"),
)
# Tar file -> prefix of the original files and images of each class.
PARTS = {"train.tar": ("train", 100), "val.tar": ("t10k", 30)}
SEED = 0


def read_idx(path):
    """Array of an IDX file: four bytes of type and rank, the sizes as big-endian integers, then the values."""
    content = gzip.decompress(path.read_bytes())
    rank = content[3]
    shape = np.frombuffer(content, ">u4", count=rank, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)


def choose(source, prefix, per_class):
    """``(name, image)`` of equally many images of every class, drawn without replacement."""
    images = read_idx(source / f"{prefix}-images-idx3-ubyte.gz")
    labels = read_idx(source / f"{prefix}-labels-idx1-ubyte.gz")
    rng = np.random.default_rng(SEED)
    for label, name in enumerate(CLASSES):
        chosen = rng.choice(np.flatnonzero(labels == label), per_class, replace=False)
        for number, index in enumerate(np.sort(chosen)):
            yield f"{name}/{number:04d}.png", images[index]


def png(image):
    """Bytes of a grey image as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def write_tar(path, files):
    """Writes ``(name, bytes)`` pairs by name, without times and owners, so that it comes out the same each time."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in sorted(files):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def main():
    parser = argparse.ArgumentParser(description="Make the embedded part of Fashion-MNIST.")
    parser.add_argument("source", type=Path, help="folder of the original *-ubyte.gz files")
    parser.add_argument("output", type=Path, help="folder for train.tar and val.tar")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    for name, (prefix, per_class) in PARTS.items():
        write_tar(args.output / name, [(file, png(image)) for file, image in choose(args.source, prefix, per_class)])


if __name__ == "__main__":
    main()
