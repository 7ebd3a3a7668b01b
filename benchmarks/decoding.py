"""Measure JPEG files becoming the arrays of a batch: by Pillow, and by simplejpeg and the operator that scales images.

    python benchmarks/decoding.py [FOLDER] [--seconds 30]

FOLDER holds class folders of photographs; without it, images are drawn. The arrays are compared, too. Needs simplejpeg.
"""

import argparse
import io
import random
import sys
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from measuring import Options, figures_of, images_per_second, in_turns

from pimm.data import create_transform
from pimm.data.jpeg import decode_for_resize, fast_decoder
from pimm.data.pixels import decode

SIDES = (224, 64)
KINDS = {
    "evaluation, bicubic": {"interpolation": "bicubic"},
    "evaluation, bilinear": {"interpolation": "bilinear"},
    "training, bicubic, no jitter": {"interpolation": "bicubic", "is_training": True, "color_jitter": None},
    "training, bicubic": {"interpolation": "bicubic", "is_training": True},
}


def jpegs(folder, count):
    """Return the contents of JPEG files: of the first photographs, or of as many images drawn at 500x375."""
    paths = (
        sorted(path for path in Path(folder).glob("*/*") if path.suffix.lower() in (".jpg", ".jpeg")) if folder else ()
    )
    if paths:
        return [path.read_bytes() for path in paths[:count]]
    contents, draw = [], np.random.default_rng(0)
    for _ in range(count):
        coarse = Image.fromarray(draw.integers(0, 256, (24, 32, 3)).astype(np.uint8)).resize((500, 375), Image.BICUBIC)
        noise = draw.integers(-20, 21, (375, 500, 3))
        file = io.BytesIO()
        Image.fromarray((np.asarray(coarse) + noise).clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
        contents.append(file.getvalue())
    return contents


def arrays(read, transform, contents):
    """Return the arrays of files; what the transform draws is the same each time."""
    random.seed(0)
    np.random.seed(0)
    return [transform(read(io.BytesIO(content))) for content in contents]


def measure(options):
    """Yield the images per second of each kind of transform, on one thread.

    Raises:
        RuntimeError: simplejpeg is missing or not taken, or an array differs from Pillow's.
    """
    if fast_decoder() is None:
        raise RuntimeError("simplejpeg is not installed or not taken: pip install simplejpeg")
    contents = jpegs(options.photographs, 3 if options.small else 40)
    sides = SIDES[-1:] if options.small else SIDES
    for side in sides:
        for kind, settings in KINDS.items():
            transform = create_transform(side, use_prefetcher=True, **settings)
            found, expected = (arrays(read, transform, contents) for read in (decode_for_resize, decode))
            if any((one != other).any() for one, other in zip(found, expected)):
                raise RuntimeError(f"{kind} at {side}: the arrays differ from Pillow's")
            runners = {
                name: images_per_second(
                    lambda read=read, transform=transform: arrays(read, transform, contents), len(contents)
                )
                for name, read in (("here", decode_for_resize), ("Pillow", decode))
            }
            turns = in_turns(runners, options.seconds / len(sides) / len(KINDS))
            yield from figures_of(f"JPEG to array, {kind}, {side} pixels", turns)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", default="", metavar="FOLDER")
    parser.add_argument("--seconds", type=float, default=30.0, help="of all turns")
    args = parser.parse_args()
    for figure in measure(Options(args.seconds, photographs=args.folder)):
        print(f"{figure.what:50} {figure.by:8} {figure.value:8.0f} {figure.unit}", flush=True)


if __name__ == "__main__":
    main()
