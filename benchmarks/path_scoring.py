"""What scoring paths of a supernet costs: one path after the other by its own layers, and all together.

    python benchmarks/path_scoring.py [--cfg CFG] [--data FOLDER] [--paths 100] [--eager 100] [--train 100] [KEY=VALUE]

Both ways recalibrate batch norm for each path and score the same paths on the same images. The paths are drawn as the
search draws them, from a supernet that was trained for a few steps. Beside the seconds of the clock stand those of the
processor, which other work on the machine does not change.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import paddle

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cream import build
from cream.config import load_config
from cream.selection.candidates import score
from cream.train.sampler import Sampler
from pimm.ops import reuse_freed_memory

ROOT = Path(__file__).resolve().parents[1]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cfg", default=ROOT / "configs/cifar10/search.yaml", help="settings of a search")
    parser.add_argument("--data", default=str(ROOT / "data/cifar10"), help="folder with train/ and val/")
    parser.add_argument("--paths", type=int, default=100, help="paths that are scored together")
    parser.add_argument("--eager", type=int, default=100, help="the first paths, which are scored one by one as well")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--train", type=int, default=100, help="steps of training before")
    parser.add_argument("overrides", nargs="*", default=[], help="KEY=VALUE")
    return parser.parse_args()


def trained(cfg, steps):
    """Return a supernet trained for some steps of single paths, and its selection."""
    searched = build.search_net(cfg)
    selection = build.selection_of(cfg, searched)
    optimizer = paddle.optimizer.Momentum(0.02, parameters=searched.net.parameters(), weight_decay=1e-4)
    rng, done = np.random.default_rng(1), 0
    while done < steps:
        selection.train.set_epoch(done)
        for images, labels in selection.train:
            if done == steps:
                break
            loss = paddle.nn.functional.cross_entropy(searched.net(images, selection.sampler(rng)), labels)
            loss.backward()
            optimizer.step()
            optimizer.clear_grad(set_to_zero=False)
            done += 1
    return searched, selection


def measure(selection, archs, engine):
    """Score the paths; return the candidates by path, and seconds of the clock and of the processor."""
    searched = selection.searched
    clock, processor = time.perf_counter(), time.process_time()
    images = selection.train, selection.loader
    found = score(searched.net, archs, searched.tables, *images, selection.batches, selection.by, engine)
    return found, time.perf_counter() - clock, time.process_time() - processor


def rank(candidates, archs):
    known = {candidate.arch: candidate for candidate in candidates}
    return sorted(archs, key=lambda arch: known[arch].loss)


def main(args):
    overrides = [f"DATA_DIR={args.data}", "WORKERS=0", "DEVICE=cpu", *args.overrides]
    cfg = load_config(Path(args.cfg), overrides)
    searched, selection = trained(cfg, args.train)
    settings = cfg.SUPERNET
    sampler = Sampler(searched.space, searched.mflops, settings.FLOPS_MINIMUM, settings.FLOPS_MAXIMUM)
    rng, drawn = np.random.default_rng(0), {}
    while len(drawn) < args.paths:
        drawn[sampler(rng)] = None
    archs = list(drawn)
    few = archs[: args.eager]
    eager, *seconds = measure(selection, few, "eager")
    each = [value / len(few) for value in seconds]
    print(f"eager: {len(few)} paths, {each[0]:.2f} s of the clock and {each[1]:.2f} s of the processor for a path")
    auto, *seconds = measure(selection, archs, "auto")
    fast = [value / len(archs) for value in seconds]
    print(f"auto: {len(archs)} paths, {fast[0]:.2f} s of the clock and {fast[1]:.2f} s of the processor for a path")
    print(f"times as fast: {each[0] / fast[0]:.2f} by the clock, {each[1] / fast[1]:.2f} by the processor")
    pairs = [(one, next(two for two in auto if two.arch == one.arch)) for one in eager]
    losses = max(abs(one.loss / two.loss - 1) for one, two in pairs)
    accuracies = max(abs(one.prec1 - two.prec1) for one, two in pairs)
    same = rank(eager, few) == rank(auto, few)
    print(f"largest difference: {losses:.1e} of the loss, {accuracies:.3f}% top-1; same order of paths: {same}")


if __name__ == "__main__":
    options = arguments()
    paddle.base.core.set_num_threads(options.threads)
    reuse_freed_memory()
    main(options)
