"""Measure the evaluation of Cream's nets: images per second of net alone and from JPEG to top-1, beside PyTorch.

python benchmarks/evaluation.py [IMAGES] [--torch-python PYTHON] [--nets 14 287] [--rounds 5] [--json FILE]

IMAGES holds class folders of photographs, which are repeated to --count of them. PYTHON is an interpreter with torch
and timm, whose nets get the same weights; without it, this project is measured alone. All forms of a net take turns,
and the table has the medians. A form that a machine lacks, such as bf16, is left out. OMP_NUM_THREADS sets the threads.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve()
BATCH, SECONDS = 32, 1.5
TORCH_FORMS = ["eager", "channels_last", "TorchScript", "compile"]
KEYS = ("net", "what", "form", "images_per_second")


def weights_for_torch(net):
    """Return the weights by PyTorch's names, and the strings of timm's builder that make the net."""
    renamed = {"_mean": "running_mean", "_variance": "running_var"}
    weights = {}
    for name, value in net.state_dict().items():
        stem, _, last = name.rpartition(".")
        value = value.numpy()
        weights[f"{stem}.{renamed.get(last, last)}"] = value.T if name == "classifier.weight" else value
    blocks = [[block_string(block) for block in stage] for stage in net.blocks]
    return weights, blocks


def block_string(block):
    """Return the string that makes a block in timm."""
    if not hasattr(block, "conv_dw"):
        return f"cn_r1_k1_s1_c{block.conv.weight.shape[0]}"
    kernel, stride = block.conv_dw.weight.shape[-1], block.conv_dw._stride[0]
    if not hasattr(block, "conv_pwl"):
        return f"ds_r1_k{kernel}_s{stride}_c{block.conv_pw.weight.shape[0]}_se0.25"
    wide, narrow = block.conv_pw.weight.shape[:2]
    return f"ir_r1_k{kernel}_s{stride}_e{wide // narrow}_c{block.conv_pwl.weight.shape[0]}_se0.25"


class Ours:
    """Runs a net of this project in each of its forms."""

    def __init__(self, name, folder):
        import numpy as np
        import paddle

        import cream  # noqa: F401  (registers models)
        import pimm
        from pimm.engine import open_engine
        from pimm.engine.program import has_bf16

        draw = np.random.default_rng(0)
        self.net = pimm.create_model(f"cream_{name}")
        self.net.eval()
        for key, value in self.net.state_dict().items():
            if key.endswith("_variance"):
                value.set_value(draw.uniform(0.5, 1.5, value.shape).astype("float32"))
        self.side = self.net.default_cfg["input_size"][-1]
        self.images = paddle.to_tensor(draw.standard_normal((BATCH, 3, self.side, self.side)).astype("float32"))
        weights, blocks = weights_for_torch(self.net)
        self.logits = self.net(self.images).numpy()
        np.savez(folder / f"{name}.npz", images=self.images.numpy(), logits=self.logits, **weights)
        (folder / f"{name}.json").write_text(json.dumps(blocks))
        started = time.perf_counter()
        self.forms = {"eager": self.net, "inference": open_engine(self.net, (3, self.side, self.side), "inference")}
        self.opened = time.perf_counter() - started
        if has_bf16():
            size = (3, self.side, self.side)
            self.forms["inference bf16"] = open_engine(self.net, size, "inference", "bf16")

    def net_alone(self, form):
        """Return images per second of the net."""
        import paddle

        run = self.forms[form]
        with paddle.no_grad():
            return rate(lambda: run(self.images).numpy())

    def from_jpeg(self, form, folder, workers):
        """Return images per second of an evaluation."""
        from pimm.data import Dataset, create_loader
        from pimm.engine import evaluate

        loader = create_loader(Dataset(folder), (3, self.side, self.side), BATCH, num_workers=workers)
        started = time.perf_counter()
        evaluate(self.forms[form], loader)
        return len(loader.dataset) / (time.perf_counter() - started)


class Theirs:
    """Runs the same net of timm in each of PyTorch's forms, in a process of its own."""

    def __init__(self, python, name, folder, threads, forms):
        command = [python, str(HERE), "--torch-server", str(folder / name), "--threads", str(threads)]
        command += ["--torch-forms", *forms]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.forms = json.loads(self.process.stdout.readline() or "[]")

    def ask(self, *question):
        """Return the rate that the process measured."""
        print(json.dumps(question), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def net_alone(self, form):
        return self.ask("net_alone", form)

    def from_jpeg(self, form, folder, workers):
        return self.ask("from_jpeg", form, str(folder), workers)


class TorchServer:
    """Answers questions of `Theirs` line by line."""

    def __init__(self, stem, threads, forms):
        import numpy as np
        import torch
        from timm.models._efficientnet_builder import decode_arch_def, round_channels
        from timm.models.efficientnet import SqueezeExcite
        from timm.models.mobilenetv3 import MobileNetV3

        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        stored = {name: torch.tensor(value) for name, value in np.load(f"{stem}.npz").items()}
        self.images, logits = stored.pop("images"), stored.pop("logits")

        def squeeze_excite(channels, act_layer=None, rd_ratio=0.25, **_):
            rounded = lambda value: round_channels(value, divisor=8)  # noqa: E731
            return SqueezeExcite(
                channels, rd_ratio, act_layer=torch.nn.ReLU, gate_layer=torch.nn.Hardsigmoid, rd_round_fn=rounded
            )

        net = MobileNetV3(
            decode_arch_def(json.loads(Path(f"{stem}.json").read_text())),
            stem_size=16,
            fix_stem=True,
            num_features=1280,
            act_layer=torch.nn.SiLU,
            se_layer=squeeze_excite,
        ).eval()
        missing, unexpected = net.load_state_dict(stored, strict=False)
        assert not unexpected and all(name.endswith("num_batches_tracked") for name in missing), (missing, unexpected)
        assert (net(self.images) - logits).abs().max() < 1e-4 * logits.abs().max()
        last = copy.deepcopy(net).to(memory_format=torch.channels_last)
        makers = {
            "eager": lambda: net,
            "channels_last": lambda: last,
            "TorchScript": lambda: torch.jit.optimize_for_inference(
                torch.jit.freeze(torch.jit.trace(net, self.images))
            ),
            "compile": lambda: torch.compile(last),
        }
        self.made = {form: makers[form]() for form in forms}
        self.forms = [form for form in forms if self.works(form)]

    def works(self, form):
        """Return whether a form of the net runs here."""
        try:
            self.run(form, self.images)
        except Exception as error:
            print(f"{form}: {error}", file=sys.stderr)
            return False
        return True

    def run(self, form, images):
        """Return the logits of images."""
        import torch

        last = form in ("channels_last", "compile")
        return self.made[form](images.contiguous(memory_format=torch.channels_last) if last else images)

    def net_alone(self, form):
        return rate(lambda: self.run(form, self.images))

    def from_jpeg(self, form, folder, workers):
        import torch
        from timm.data import ImageDataset, create_loader
        from timm.utils import accuracy

        device = torch.device("cpu")
        side = self.images.shape[-1]
        dataset = ImageDataset(folder)
        loader = create_loader(dataset, (3, side, side), BATCH, num_workers=workers, device=device)
        started, right = time.perf_counter(), 0
        for images, labels in loader:
            right += accuracy(self.run(form, images), labels, topk=(1, 5))[0].item() * len(labels)
        return len(dataset) / (time.perf_counter() - started)

    def serve(self):
        """Answer until the input ends."""
        print(json.dumps(self.forms), flush=True)
        for line in sys.stdin:
            what, *args = json.loads(line)
            print(json.dumps(getattr(self, what)(*args)), flush=True)


def rate(run):
    """Return the images per second of the median run of a batch."""
    run()
    times, ends = [], time.perf_counter() + SECONDS
    while time.perf_counter() < ends or len(times) < 3:
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return BATCH / median(times)


def repeat_photographs(folder, target, images):
    """Link the photographs of class folders into ``target`` until there are ``images`` of them."""
    paths = sorted(path for path in Path(folder).resolve().glob("*/*") if path.is_file())
    if not paths:
        raise SystemExit(f"{folder} has no class folders with photographs")
    for number in range(images):
        path = paths[number % len(paths)]
        link = Path(target, path.parent.name, f"{number}{path.suffix.lower()}")
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(path)


def measure(name, args, folder, photographs, threads):
    """Return the rows of a net: medians over rounds in which all forms take turns."""
    ours = Ours(name, folder)
    print(f"cream_{name}: the program was opened in {ours.opened:.1f} s", file=sys.stderr)
    runners = {"here": ours}
    if args.torch_python:
        runners["PyTorch"] = Theirs(args.torch_python, name, folder, threads, args.torch_forms)
    found = {}
    for _ in range(args.rounds):
        for who, runner in runners.items():
            for form in runner.forms:
                found.setdefault(("net alone", f"{who}, {form}"), []).append(runner.net_alone(form))
    if photographs:
        jpeg = {"here": list(ours.forms)}
        if "PyTorch" in runners and runners["PyTorch"].forms:
            best = max(runners["PyTorch"].forms, key=lambda form: median(found["net alone", f"PyTorch, {form}"]))
            jpeg["PyTorch"] = [best]
        for _ in range(args.rounds):
            for who, forms in jpeg.items():
                for form in forms:
                    rates = found.setdefault(("from JPEG", f"{who}, {form}"), [])
                    rates.append(runners[who].from_jpeg(form, photographs, args.workers))
    return [dict(zip(KEYS, (f"cream_{name}", *what, round(median(rates), 1)))) for what, rates in found.items()]


def main():
    """Print a table, and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", nargs="?", help="folder of class folders of photographs")
    parser.add_argument("--torch-python", help="interpreter with torch and timm")
    parser.add_argument("--torch-forms", nargs="+", default=TORCH_FORMS, choices=TORCH_FORMS)
    parser.add_argument("--nets", nargs="+", default=["14", "287"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json")
    parser.add_argument("--torch-server", help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.torch_server:
        return TorchServer(args.torch_server, args.threads, args.torch_forms).serve()
    sys.path.insert(0, str(HERE.parents[1]))
    from pimm.cli import use_cores

    threads, rows = use_cores(), []
    with tempfile.TemporaryDirectory() as folder:
        photographs = None
        if args.images:
            photographs = Path(folder, "photographs")
            photographs.mkdir()
            repeat_photographs(args.images, photographs, args.count)
        for name in args.nets:
            rows += measure(name, args, Path(folder), photographs, threads)
    print(f"batches of {BATCH}, {threads} threads\n\n| {' | '.join(KEYS)} |\n|---|---|---|--:|")
    for row in rows:
        print(f"| {' | '.join(map(str, row.values()))} |")
    if args.json:
        Path(args.json).write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
