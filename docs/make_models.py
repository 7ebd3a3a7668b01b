"""Write ``models.md``: the size of every model, and how far its exports differ from it.

``python docs/make_models.py`` measures the models that the page does not have yet, smallest first, and writes the page
after each; ``--anew NAME ...`` measures models again. It needs paddle2onnx and onnxruntime.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import cream  # noqa: F401  (registers models)
import pimm  # before Paddle, which changes OMP_NUM_THREADS

# isort: split

import numpy as np
import paddle
from paddle import nn

from cream.convert.names import find_net
from cream.counting import CONVOLUTION_RULES, count_macs, count_parameters
from cream.deploy.backends import EagerNet, OnnxNet, PaddleNet
from cream.deploy.export import TOLERANCE, save_paddle
from cream.deploy.fold import fold_batch_norms
from cream.deploy.onnx_file import save_onnx
from pimm.data import resolve_data_config
from pimm.layers import CondConv2d

PAGE = ROOT / "docs" / "models.md"
SMALL = 64  # pixels
AT_OWN_SIZE = 150e6  # multiply-adds up to which a net is compared at its own size too
BATCHES = (1, 3)
RULES = {
    **CONVOLUTION_RULES,
    CondConv2d: lambda layer, x, y: int(np.prod(y.shape)) * int(np.prod(layer.weight_shape[1:])),
}

HEAD = f"""# Models

<!-- made by make_models.py -->

Every model of `pimm.list_models()`; `cream_...` and `spos` are registered by `cream`. Multiply-adds are those of
convolutions and linear layers, on one image of the model's own size.

The last columns say how far the logits of the exported model differ from the model's own, relative to the largest
logit: the largest difference on {BATCHES[0]} and on {BATCHES[1]} random images of each size in the column before.
`tools/export.py`, which makes these exports, refuses more than {TOLERANCE:g}. Weights are random, with the batch-norm
statistics of random images, so that no signal vanishes. One thread of a CPU, Paddle {paddle.__version__}.

Blocks with random weights amplify rounding: some nets move further than that when their input moves by a millionth of
itself. Where an export did, the last batch norm of each block with a shortcut has a fifth of its weight, as the
branches of trained nets are small; the row then says *damped*.

| model | parameters | multiply-adds | image | compared at | Paddle Inference | ONNX |
|---|--:|--:|--:|--:|--:|--:|
"""


def names() -> list[str]:
    """List the names of all models."""
    return pimm.list_models()


def measure(name: str) -> str:
    """Return the row of a model."""
    paddle.seed(0)
    found = find_net(name, {"classifier.bias": (1000,)})
    net = found.build()
    size = resolve_data_config({"img_size": found.resolution}, model=net, verbose=False)["input_size"][-1]
    net.eval()
    macs, _ = count_macs(net, paddle.zeros([1, 3, size, size]), RULES)
    sizes = (SMALL, size) if macs <= AT_OWN_SIZE and size != SMALL else (SMALL,)
    at = " and ".join(map(str, sizes))
    exports = compare(net, sizes)
    if not max(exports) <= TOLERANCE:
        print(f"{name}: the exports differ by {exports}, and the net by {sensitivity(net):.1e} from itself", flush=True)
        damp(net)
        exports, at = compare(net, sizes), f"{at}, damped"
    if not max(exports) <= TOLERANCE:
        raise SystemExit(f"{name}: the exports differ by {exports}")
    cells = [f"{count_parameters(net) / 1e6:.2f}M", f"{macs / 1e6:,.0f}M", size, at, *(f"{d:.1e}" for d in exports)]
    return f"| {name} | {' | '.join(map(str, cells))} |"


def compare(net: nn.Layer, sizes: tuple[int, ...]) -> list[float]:
    """Return how far the two exports of a net differ from it, on images of these sizes."""
    give_statistics(net)
    with tempfile.TemporaryDirectory() as folder:
        save_paddle(fold_batch_norms(net, paddle.zeros([1, 3, SMALL, SMALL])), 3, Path(folder))
        save_onnx(Path(folder))
        return [difference(net, backend(Path(folder)), sizes) for backend in (PaddleNet, OnnxNet)]


def sensitivity(net: nn.Layer) -> float:
    """Return how far the logits move, relative to the largest, where an image moves by a millionth of itself."""
    draw = np.random.default_rng(0)
    images, noise = (draw.standard_normal((3, 3, SMALL, SMALL)).astype("float32") for _ in range(2))
    logits, moved = EagerNet(net)(images), EagerNet(net)(images * (1 + 1e-6 * noise))
    return float(np.abs(logits - moved).max() / np.abs(logits).max())


def damp(net: nn.Layer) -> None:
    """Give the last batch norm of each block with a shortcut a fifth of its weight."""
    for block in net.sublayers():
        if getattr(block, "has_residual", False):
            norm = [layer for layer in block.sublayers() if isinstance(layer, nn.BatchNorm2D)][-1]
            norm.weight.set_value(norm.weight * 0.2)


@paddle.no_grad()
def give_statistics(net: nn.Layer) -> None:
    """Set the statistics of the batch norms to those of random images."""
    net.train()
    for layer in net.sublayers():
        if isinstance(layer, nn.BatchNorm2D):
            layer._momentum = 0.0  # Paddle's: the share of the old value
    net(paddle.randn([16, 3, SMALL, SMALL]))
    net.eval()


def difference(net: nn.Layer, exported, sizes: tuple[int, ...]) -> float:
    """Return the largest difference of a logit, relative to the largest logit, on images of these sizes."""
    draw, eager, found = np.random.default_rng(0), EagerNet(net), []
    for size in sizes:
        for count in BATCHES:
            images = draw.standard_normal((count, 3, size, size)).astype("float32")
            logits = eager(images)
            found.append(np.abs(logits - exported(images)).max() / np.abs(logits).max())
    return float(np.max(found))


def rows_of_page() -> dict[str, str]:
    """Return the rows of the page by model."""
    lines = PAGE.read_text().splitlines() if PAGE.is_file() else []
    return {line.split(" | ")[0][2:]: line for line in lines if re.match(r"\| [a-z]+\S* \| [\d.]+M \|", line)}


def main() -> None:
    """Measure what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--anew", nargs="*", default=[], metavar="NAME", help="models to measure again")
    args = parser.parse_args()
    every = names()
    rows = {name: row for name, row in rows_of_page().items() if name in every and name not in args.anew}
    with paddle.LazyGuard():
        sizes = {n: count_parameters(find_net(n, {"classifier.bias": (1000,)}).build()) for n in every if n not in rows}
    for name in sorted(sizes, key=sizes.get):
        started = time.process_time()
        rows[name] = measure(name)
        PAGE.write_text(HEAD + "".join(f"{rows[each]}\n" for each in every if each in rows))
        print(f"{rows[name]} {time.process_time() - started:.0f}s", flush=True)


if __name__ == "__main__":
    main()
