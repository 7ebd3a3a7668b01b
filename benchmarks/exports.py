"""Compare a net with its exports on labelled images: top-1, time of an image, size of the files.

python benchmarks/exports.py SOURCE IMAGES [--model NAME]

SOURCE is what tools/export.py takes, IMAGES a folder or a tar file whose folders are called after the classes. INT8 is
calibrated on one half of the images and measured on the other, in both ways. Where the CPU has no bfloat16, BF16 is
simulated: inputs, weights and outputs of convolutions and linear layers are rounded to it. Needs paddle2onnx and
onnxruntime.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cream

# isort: split

import numpy as np
import onnxruntime
import paddle
from paddle import nn
from paddle.quantization import PTQ, QuantConfig
from paddle.quantization.observers import AbsmaxObserver

from cream.deploy.backends import Backend, EagerNet, OnnxNet
from cream.deploy.export import export
from cream.deploy.photographs import Photographs, draw_photographs
from cream.deploy.settings import InferenceSettings
from cream.deploy.source import open_source
from pimm.engine.fold import fold_batch_norms
from pimm.layers import QUANTED_LAYERS

BATCH, RUNS = 10, 15


def main() -> None:
    """Print a row for each form of the net."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source")
    parser.add_argument("images")
    parser.add_argument("--model", default="auto")
    parser.add_argument("--count", type=int, default=50, help="images in each half")
    args = parser.parse_args()
    net, settings = cream.load(args.source, args.model)
    halves = draw_photographs(args.images, settings, args.count)
    both = [*halves[0].images, *halves[1].images]
    labels = np.array([*halves[0].labels, *halves[1].labels])
    expected = logits_of(EagerNet(net), both)
    print(
        f"{settings.model}: {len(both)} images\n| form | top-1 | as eager | ms an image | MB |\n|---|--:|--:|--:|--:|"
    )

    def row(form: str, logits: np.ndarray, time_of: float | None, size: float | None) -> None:
        top1, same = (100 * float((logits.argmax(1) == wanted).mean()) for wanted in (labels, expected.argmax(1)))
        cells = [f"{time_of:.1f}" if time_of else "", f"{size:.1f}" if size else ""]
        print(f"| {form} | {top1:.1f}% | {same:.1f}% | {' | '.join(cells)} |", flush=True)

    row("eager", expected, milliseconds(EagerNet(net), both), None)
    with tempfile.TemporaryDirectory() as folder:
        measure_exports(net, settings, halves, Path(folder), row)
    logits = [logits_of(paddles_ptq(net, other), half.images) for half, other in zip(halves, reversed(halves))]
    row("INT8 by Paddle's PTQ, simulated", np.concatenate(logits), None, None)


def measure_exports(
    net: nn.Layer, settings: InferenceSettings, halves: Sequence[Photographs], folder: Path, row
) -> None:
    """Export the net in every precision, and print a row for each."""
    both = [*halves[0].images, *halves[1].images]
    export(net, settings, folder / "full", onnx=True)
    export(net, replace(settings, precision="fp16"), folder / "half")
    forms = {"Paddle Inference": ("full", False), "ONNX": ("full", True), "ONNX, FP16": ("half", True)}
    if paddle.base.core.supports_bfloat16():
        export(net, replace(settings, precision="bf16"), folder / "bf16")
        forms["Paddle Inference, BF16"] = ("bf16", False)
    else:
        row("BF16, simulated", logits_of(bf16(net, settings), both), None, None)
    for form, (name, onnx) in forms.items():
        backend = on_one_thread(folder / name) if onnx else open_source(folder / name)[0]
        pattern = "*.onnx" if onnx else "model.[jp]*"
        row(form, logits_of(backend, both), milliseconds(backend, both), megabytes(folder / name, pattern))
    logits = []
    for half, other in zip(halves, reversed(halves)):
        export(net, replace(settings, precision="int8"), folder / "int8", calibration=other.images)
        backend = on_one_thread(folder / "int8")
        logits.append(logits_of(backend, half.images))
    row("ONNX, INT8", np.concatenate(logits), milliseconds(backend, both), megabytes(folder / "int8", "*.onnx"))


def logits_of(backend: Backend, images: Sequence[np.ndarray]) -> np.ndarray:
    """Return the logits of all images."""
    return np.concatenate([backend(np.stack(images[i : i + BATCH])) for i in range(0, len(images), BATCH)])


def milliseconds(backend: Backend, images: Sequence[np.ndarray]) -> float:
    """Return the shortest time of an image alone, in milliseconds."""
    times = []
    for image in images[:RUNS]:
        started = time.perf_counter()
        backend(image[None])
        times.append(time.perf_counter() - started)
    return 1000 * min(times)


def megabytes(folder: Path, pattern: str) -> float:
    """Return the size of files, in megabytes."""
    return sum(path.stat().st_size for path in folder.glob(pattern)) / 1e6


def on_one_thread(folder: Path) -> OnnxNet:
    """Return the ONNX net of a folder, on one thread as the other forms are."""
    net, options = OnnxNet(folder), onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    net.session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options)
    return net


def bf16(net: nn.Layer, settings: InferenceSettings) -> Backend:
    """Return the net with folded batch norms, and with the numbers around its convolutions rounded to bfloat16."""
    net = fold_batch_norms(net, paddle.zeros([1, *settings.input_size]))

    def rounded(x: paddle.Tensor) -> paddle.Tensor:
        return x.astype("bfloat16").astype("float32")

    for layer in net.sublayers():
        if isinstance(layer, (nn.Conv2D, nn.Linear)):
            layer.weight.set_value(rounded(layer.weight))
            layer.register_forward_pre_hook(lambda _, inputs: tuple(map(rounded, inputs)))
            layer.register_forward_post_hook(lambda _, inputs, output: rounded(output))
    return EagerNet(net)


def paddles_ptq(net: nn.Layer, calibration: Photographs) -> Backend:
    """Return the net that Paddle's PTQ makes, whose batch norms are folded before, in eager mode."""
    net = fold_batch_norms(net, paddle.to_tensor(calibration.images[0][None]))
    config = QuantConfig(activation=None, weight=None)
    config.add_type_config(list(QUANTED_LAYERS), activation=AbsmaxObserver(), weight=AbsmaxObserver())
    quantizer = PTQ(config)
    observed = quantizer.quantize(net)
    logits_of(EagerNet(observed), calibration.images)
    return EagerNet(quantizer.convert(observed))


if __name__ == "__main__":
    main()
