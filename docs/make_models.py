"""Measure every model, and write ``models.md`` from the measurements in ``models.json``.

    python docs/make_models.py             size and speed of the models that the file does not have yet, smallest first
    python docs/make_models.py --exports   their exports too, up to the multiply-adds that --largest names
    python docs/make_models.py --page      the page alone

Whatever is measured is kept when the script is interrupted. ONNX needs paddle2onnx and onnxruntime.
"""

from __future__ import annotations

import argparse
import json
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
from paddle.static import InputSpec

from cream.counting import CONVOLUTION_RULES, count_parameters, counting
from cream.deploy.backends import EagerNet, OnnxNet
from cream.deploy.export import TOLERANCE
from cream.deploy.onnx_file import save_onnx
from pimm.engine.fold import fold_batch_norms
from pimm.engine.program import PADDLE_STEM, PaddleNet
from pimm.layers import CondConv2d
from pimm.models import get_arch_pretrained_cfgs, model_entrypoint

PAGE = ROOT / "docs" / "models.md"
FACTS = PAGE.with_suffix(".json")
TURNS = 3  # of a measurement of speed, of which the fastest counts
PATIENCE = 20  # seconds after which no further turn begins
LARGEST = 1.2e9  # parameters up to which a net is run
SMALL = 64  # pixels, of the images that batch-norm statistics come from
RULES = {
    **CONVOLUTION_RULES,
    nn.Linear: lambda layer, x, y: int(np.prod(y.shape)) * layer.weight.shape[0],
    CondConv2d: lambda layer, x, y: int(np.prod(y.shape)) * int(np.prod(layer.weight_shape[1:])),
}

HEAD = f"""# Models

<!-- made by make_models.py -->

Every model of `pimm.list_models()`, by the module of `pimm.models` that has it; `registered` are those of `cream`. Tags
are timm's names of sets of weights, [pretrained.md](pretrained.md); the image is that of the first tag.
Multiply-adds are those of convolutions and linear layers on one image, without the products inside attention.

Images per second: one image at a time, one thread, the fastest of {TURNS} turns, on a CPU with two cores that did other
work at the same time: the speeds are lower bounds, and compare models only roughly. *Exported* is the program of Paddle
Inference that `tools/export.py` writes; it was measured at another time. The last
columns say how far the logits of the exports differ, relative to the largest logit; `tools/export.py` refuses more
than {TOLERANCE:g}. Weights are random, with the batch-norm statistics of random images. Images of these and of the
comparison have {SMALL} pixels where the net takes any size. *Damped* nets have a fifth of the weight in the last batch
norm of each block with a shortcut: with random weights, their own logits move further than the limit when an image
moves by a millionth of itself. A dash says that it was not measured: large nets were not run here, and few of the
others were exported.
"""
COLUMNS = "| model | parameters | multiply-adds | image | images/s | exported | difference | of ONNX | tags |"
RULER = "|---|--:|--:|--:|--:|--:|--:|--:|---|"


def facts() -> dict[str, dict]:
    """Return what was measured, by model."""
    return json.loads(FACTS.read_text()) if FACTS.is_file() else {}


def keep(found: dict[str, dict]) -> None:
    """Write the measurements, a model a line, in the order of `pimm.list_models`, and the page."""
    rows = [f"{json.dumps(name)}: {json.dumps(found[name])}" for name in pimm.list_models() if name in found]
    FACTS.write_text("{\n" + ",\n".join(rows) + "\n}\n")
    PAGE.write_text(page(found))


def page(found: dict[str, dict]) -> str:
    """Return the page."""
    modules: dict[str, list[str]] = {}
    for name in pimm.list_models():
        modules.setdefault(model_entrypoint(name).__module__.rpartition(".")[2], []).append(name)
    counts = ", ".join(f"[{module}](#{module}) {len(names)}" for module, names in sorted(modules.items()))
    parts = [HEAD, f"{sum(map(len, modules.values()))} models: {counts}.\n"]
    for module, names in sorted(modules.items()):
        rows = [row(name, found[name]) for name in names if name in found]
        parts.append("\n".join([f"## {module}\n", COLUMNS, RULER, *rows]) + "\n")
    return "\n".join(parts)


def row(name: str, of: dict) -> str:
    """Return the row of a model."""
    tags = ", ".join(tagged.partition(".")[2] for tagged in get_arch_pretrained_cfgs(name) if "." in tagged)
    speeds = [f"{of[key]:.3g}" if key in of else "-" for key in ("eager", "exported")]
    differences = [f"{of[key]:.1e}" if key in of else "-" for key in ("difference", "onnx")]
    differences[0] += ", damped" if of.get("damped") else ""
    macs = f"{of['macs'] / 1e6:,.0f}M" if "macs" in of else "-"
    cells = [name, f"{of['parameters'] / 1e6:.2f}M", macs, of["image"], *speeds, *differences, tags]
    return f"| {' | '.join(map(str, cells))} |"


def size(name: str) -> dict:
    """Return the parameters and the side of the image of a model, which is built without values."""
    with paddle.LazyGuard():
        net = pimm.create_model(name)
    return {"parameters": count_parameters(net), "image": net.default_cfg["input_size"][-1]}


def macs_and_speed(name: str, image: int) -> dict:
    """Return the multiply-adds of a model, and its images per second."""
    paddle.seed(0)
    net = pimm.create_model(name)
    net.eval()
    images = np.random.default_rng(0).standard_normal((1, 3, image, image)).astype("float32")
    with counting([net], RULES) as count:
        net(paddle.to_tensor(images))
    return {"macs": count.macs, "eager": speed(EagerNet(net), images)}


def speed(backend, images) -> float:
    """Return images per second of the fastest turn."""
    begun, seconds = time.perf_counter(), []
    while len(seconds) < TURNS and time.perf_counter() - begun < PATIENCE:
        started = time.perf_counter()
        backend(images)
        seconds.append(time.perf_counter() - started)
    return float(f"{len(images) / min(seconds):.4g}")


def exports(name: str, image: int, onnx: bool) -> dict:
    """Return images per second of the exported model, and how far the logits of the exports differ."""
    paddle.seed(0)
    net = pimm.create_model(name)
    sides = (image, image) if net.default_cfg["fixed_input_size"] else (min(SMALL, image), None)
    give_statistics(net, sides[0])
    found = compare(net, image, sides, onnx)
    if not max(found["difference"], found.get("onnx", 0)) <= TOLERANCE:
        damp(net)
        found = {**compare(net, image, sides, onnx), "damped": True}
    return found


def compare(net: nn.Layer, image: int, sides: tuple, onnx: bool) -> dict:
    """Export a net, and return what `exports` does.

    Args:
        net: the net.
        image: the side of the images whose speed is measured.
        sides: the side of the images whose logits are compared, and that of the program: None for any.
        onnx: whether to compare the ONNX file, too.
    """
    net.eval()
    draw = np.random.default_rng(0)
    images = draw.standard_normal((3, 3, sides[0], sides[0])).astype("float32")
    with tempfile.TemporaryDirectory() as folder:
        folded = fold_batch_norms(net, paddle.to_tensor(images[:1]))
        spec = InputSpec([None, 3, sides[1], sides[1]], "float32", "images")
        program = paddle.jit.to_static(folded, input_spec=[spec], full_graph=True)
        paddle.jit.save(program, str(Path(folder) / PADDLE_STEM))
        exported = PaddleNet(Path(folder))
        found = {"exported": speed(exported, draw.standard_normal((1, 3, image, image)).astype("float32"))}
        found["difference"] = difference(net, exported, images)
        if onnx:
            save_onnx(Path(folder))
            found["onnx"] = difference(net, OnnxNet(Path(folder)), images)
    return found


def difference(net: nn.Layer, exported, images) -> float:
    """Return the largest difference of a logit on one and on three images, relative to the largest logit."""
    eager, found = EagerNet(net), []
    for count in (1, 3):
        logits = eager(images[:count])
        found.append(np.abs(logits - exported(images[:count])).max() / np.abs(logits).max())
    return float(f"{np.max(found):.2g}")


def damp(net: nn.Layer) -> None:
    """Give the last batch norm of each block with a shortcut a fifth of its weight."""
    for block in net.sublayers():
        if getattr(block, "has_residual", False):
            norm = [layer for layer in block.sublayers() if isinstance(layer, nn.BatchNorm2D)][-1]
            norm.weight.set_value(norm.weight * 0.2)


@paddle.no_grad()
def give_statistics(net: nn.Layer, side: int) -> None:
    """Set the statistics of the batch norms, if there are any, to those of random images."""
    norms = [layer for layer in net.sublayers() if isinstance(layer, nn.BatchNorm2D)]
    for norm in norms:
        norm._momentum = 0.0  # Paddle's: the share of the old value
    if norms:
        net.train()
        net(paddle.randn([16, 3, side, side]))
    net.eval()


def main() -> None:
    """Measure what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--exports", action="store_true", help="export models, too")
    parser.add_argument("--onnx", action="store_true", help="compare exports as ONNX, too")
    parser.add_argument("--largest", type=float, default=5e9, metavar="N", help="multiply-adds of exported models")
    parser.add_argument("--parameters", type=float, default=LARGEST, metavar="N", help="of models that are run")
    parser.add_argument("--anew", nargs="*", default=[], metavar="NAME", help="models to measure again")
    parser.add_argument("--page", action="store_true", help="measure nothing")
    args = parser.parse_args()
    found = {name: of for name, of in facts().items() if name in pimm.list_models() and name not in args.anew}
    if not args.page:
        found.update({name: size(name) for name in pimm.list_models() if name not in found})
        keep(found)
        for name in unmeasured(found, "eager", "parameters", args.parameters):
            found[name].update(told(name, macs_and_speed, name, found[name]["image"]))
            keep(found)
    for name in unmeasured(found, "exported", "macs", args.largest) if args.exports else []:
        found[name].update(told(name, exports, name, found[name]["image"], args.onnx))
        keep(found)
    keep(found)


def unmeasured(found: dict[str, dict], key: str, cost: str, largest: float) -> list[str]:
    """Return the models without a measurement, up to a cost, in the order of this cost."""
    names = [name for name, of in found.items() if key not in of and of.get(cost, np.inf) <= largest]
    return sorted(names, key=lambda name: found[name][cost])


def told(name: str, measure, *arguments) -> dict:
    """Return what ``measure`` does and print it; print why, if it fails."""
    started = time.process_time()
    try:
        found = measure(*arguments)
    except Exception as error:  # of one model, which says nothing of the others
        found = {}
        print(f"{name}: {type(error).__name__}: {error}"[:400], flush=True)
    print(f"{name}: {found}, {time.process_time() - started:.0f}s", flush=True)
    return found


if __name__ == "__main__":
    main()
