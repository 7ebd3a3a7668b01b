"""The jobs of benchmarks/run.py that are no curves: each yields figures, and reuses other scripts to measure them."""

import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import paddle
from measuring import ENVIRONMENT, HERE, Figure, Rival, figures_of, images_per_second, imports, in_turns

import pimm
from cream.mobile.nets import ChildNet, MobileNet
from pimm.models.torch_names import to_torch_arrays

NETS = {"cream_14": (64, 32), "cream_287": (224, 16)}  # side of the images, images of a step
TORCH_MODES = {
    "train": ("eager", "channels_last", "compile", "compile channels_last"),
    "evaluate": (
        *("eager", "channels_last", "compile", "compile channels_last", "compile frozen", "TorchScript frozen"),
        *("bf16 channels_last", "bf16 compile"),
    ),
}
SAME_LOGITS = 1e-3


def operators(options):
    """Yield the milliseconds of each operator, forward and backward, on all layers of Cream-287; the least of turns."""
    import ops

    inputs, repeats = (((2, 32),), 1) if options.small else (ops.INPUTS, 5)
    for name, cases in ops.CASES.items():
        for batch, pixels in inputs:
            sums = {"Paddle": 0.0, "here": 0.0}
            for _, theirs, ours, tensors in cases(batch, pixels):
                for by, times in zip(sums, ops.least_times((theirs, ours), tensors, repeats)):
                    sums[by] += sum(times)
            yield from (
                Figure(f"{name}, forward and backward, batch {batch}, {pixels} pixels", by, value, "ms")
                for by, value in sums.items()
            )


def path_scoring(options):
    """Yield the seconds of scoring a path of a supernet with recalibration: one by one, and all together."""
    paths, few, steps = (4, 2, 2) if options.small else (100, 10, 100)
    data = ["--data", options.cifar10] if options.cifar10 else []
    text = run_script("path_scoring.py", "--paths", paths, "--eager", few, "--train", steps, *data)
    found = re.findall(r"^(\w+): \d+ paths, ([\d.]+) s of the clock", text, flags=re.MULTILINE)
    for way, seconds in found:
        yield Figure("scoring a path, of CIFAR-10's supernet", f"here, {way}", float(seconds), "s")


def training(options):
    """Yield the images per second of training Cream's nets, here and by PyTorch in each of its modes."""
    import gpu

    nets = dict(list(NETS.items())[:1]) if options.small else NETS
    for name, (side, batch) in nets.items():
        batch = 2 if options.small else batch
        runners = {"here": images_per_second(gpu.training(name, False, batch), batch)}
        with tempfile.TemporaryDirectory() as folder:
            rival = torch_net(options.rival_python, pimm.create_model(name), side, Path(folder))
            if rival:
                modes = TORCH_MODES["train"][:1] if options.small else TORCH_MODES["train"]
                runners.update(torch_runners(rival, modes, work="train", batch=batch, side=side))
            turns = in_turns(runners, options.seconds / len(nets))
            if rival:
                rival.close()
        yield from figures_of(f"train {name} at {side}, batch {batch}", turns)


def torch_runners(rival, modes, **case):
    """Return a runner for each mode of PyTorch that works here; what others say is printed."""
    runners = {}
    for mode in modes:
        try:
            rival.ask(**case, mode=mode, seconds=0)
        except RuntimeError as error:
            print(f"PyTorch {mode}: {error}", file=sys.stderr)
            continue
        runners[f"PyTorch {mode}"] = lambda seconds, mode=mode: rival.ask(**case, mode=mode, seconds=seconds)
    return runners


def torch_net(python, net, side, folder):
    """Return a `Rival` that holds the same net in PyTorch; None without torch.

    Raises:
        RuntimeError: its logits differ.
    """
    if not imports(python, "torch"):
        return None
    rival = Rival(python, HERE / "torch_rival.py", write_for_torch(net, folder / "net.npz"))
    images = np.random.default_rng(0).standard_normal((1, 3, side, side)).astype("float32")
    net.eval()
    with paddle.no_grad():
        expected = net(paddle.to_tensor(images)).numpy()
    found = np.array(rival.ask(images=images.tolist()))
    if np.abs(found - expected).max() > SAME_LOGITS * np.abs(expected).max():
        rival.close()
        raise RuntimeError("the net in PyTorch has other logits")
    return rival


def write_for_torch(net, path):
    """Write what torch_rival.py needs of a net, and return the path."""
    state = to_torch_arrays(net, {name: value.numpy() for name, value in net.state_dict().items()})
    np.savez(path, strides=json.dumps(strides(net)), **state)
    return path


def strides(net: MobileNet):
    """Return the stride of each block, ``{"STAGE.BLOCK": stride}``."""
    return {
        f"{i}.{j}": max(layer._stride[0] for layer in block.sublayers() if hasattr(layer, "_stride"))
        for i, stage in enumerate(net.blocks)
        for j, block in enumerate(stage)
    }


def supernet(options):
    """Yield the images per second of a supernet's step, plain and with a full board of ten, here and by PyTorch.

    All train the same paths. PyTorch has a net for each, whose steps lack what a supernet costs beside its paths.
    """
    import distillation

    step = distillation.make_step((0, 60) if options.small else (0, 600))
    batch, count = (8, 1) if options.small else (32, 6)
    if options.small:
        step.board.size = 2
    images, labels = distillation.full_board(step, batch)
    paths = [step.sampler(step.rng) for _ in range(count)]
    with tempfile.TemporaryDirectory() as folder:
        rival = torch_paths(options.rival_python, step.net, paths, Path(folder))
        for kind in distillation.KINDS:

            def train_paths(kind=kind):
                for arch in paths:
                    distillation.train(step, arch, images, labels, kind)

            runners = {"here": images_per_second(train_paths, batch * count)}
            if rival:
                case = {"work": kind, "batch": batch, "side": distillation.SIDE}
                runners.update(torch_runners(rival, ("eager", "channels_last"), **case))
            turns = in_turns(runners, options.seconds / len(distillation.KINDS))
            yield from figures_of(f"supernet step at 64, batch {batch}, {kind}", turns)
        if rival:
            rival.close()


def torch_paths(python, net, paths, folder):
    """Return a `Rival` that holds a net for each path of a supernet, with its weights; None without torch."""
    if not imports(python, "torch"):
        return None
    files = []
    for number, arch in enumerate(paths):
        child = ChildNet(arch, net.num_classes, net.space)
        child.inherit(net)
        files.append(write_for_torch(child, folder / f"{number}.npz"))
    return Rival(python, HERE / "torch_rival.py", *files)


def steps_that_fit(step, batch, seconds):
    """Return how many timed steps of each kind fit into a time, after three that warm up."""
    import distillation

    started = time.perf_counter()
    distillation.measure(step, batch, 1)  # with the steps that warm up and those that fill the board
    return max(1, int(seconds / (time.perf_counter() - started) * 4) - 3)


def loaders(options):
    """Yield the images per second of pimm's loader, without and with drafts, and of timm's."""
    import loader

    sizes, count = ((64,), 60) if options.small else ((224, 96), 300)
    with tempfile.TemporaryDirectory() as folder:
        source = options.photographs or draw_photographs(Path(folder, "drawn"), 8)
        target = Path(folder, "repeated")
        target.mkdir()
        loader.repeat_photographs(source, target, count)
        workers = 2
        runners = {"here": loader.Library("pimm", sys.executable, target, workers)}
        if imports(options.rival_python, "torch", "timm"):
            runners["timm"] = loader.Library("timm", options.rival_python, target, workers)
        for is_training in (True, False):
            for size in sizes:
                calls = {
                    by: lambda _, library=library, size=size, is_training=is_training: library.images_per_second(
                        size, is_training
                    )
                    for by, library in runners.items()
                }
                turns = in_turns(calls, options.seconds / 2 / len(sizes))
                what = f"loader, {'training' if is_training else 'evaluation'} at {size}, {workers} workers"
                yield from figures_of(what, turns)
        for library in runners.values():
            library.close()


def draw_photographs(folder, count):
    """Write JPEG files into a class folder, and return the folder above."""
    import decoding

    (folder / "drawn").mkdir(parents=True)
    for number, content in enumerate(decoding.jpegs("", count)):
        (folder / "drawn" / f"{number}.jpg").write_bytes(content)
    return folder


def folder_index(options):
    """Yield the seconds to index class folders, new and from the kept index."""
    import folder_index

    files = 2000 if options.small else 130_000
    with tempfile.TemporaryDirectory() as folder:
        row = folder_index.measure_all(Path(folder), files)
    for kind in ("new", "kept"):
        yield Figure(f"index of {files} files", f"here, {kind}", row[f"{kind}, s"], "s")


def conversion(options):
    """Yield the seconds to convert Cream-604's checkpoint, or the smallest net's."""
    text = run_script("convert_checkpoint.py", "--selection", 14 if options.small else 604, "--repeats", 1)
    for form, size, seconds in re.findall(r"^(\w+) +(\d+) MB: first ([\d.]+) s", text, flags=re.MULTILINE):
        yield Figure(f"checkpoint of {size} MB, form {form}, converted", "here", float(seconds), "s")


def reduction(options):
    """Yield the images per second of two processes that reduce the path's gradients, or all."""
    batch = 4 if options.small else 32
    for kind, _, seconds in reduced(2, batch, steps_for(options)):
        yield Figure(
            f"two processes, batch {batch} each", f"here, gradients of {kind}", 2 * batch / seconds, "images/s"
        )


def steps_for(options):
    """Return how many timed steps a launch of two processes does: about a second each and kind."""
    return 1 if options.small else max(2, int(options.seconds / 6))


def reduced(processes, batch, steps):
    """Return (kind, megabytes of a step, seconds of a step) from benchmarks/reduction.py."""
    launch = ["-m", "paddle.distributed.launch", "--nproc_per_node", processes] if processes > 1 else []
    with tempfile.TemporaryDirectory() as folder:
        launch += ["--log_dir", folder] if launch else []
        text = run_script("reduction.py", "--batch", batch, "--steps", steps, launch=launch)
    found = re.findall(r"(path|all): ([\d.]+) MB a step, ([\d.]+) s", text)
    if not found:
        raise RuntimeError(f"reduction.py printed no figures: {text[-300:]}")
    return [(kind, float(size), float(seconds)) for kind, size, seconds in found]


def run_script(name, *args, launch=()):
    """Return what a script of this folder prints.

    Raises:
        RuntimeError: it fails; the message is the end of what it says.
    """
    command = [sys.executable, *map(str, launch), str(HERE / name), *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
    if done.returncode:
        raise RuntimeError(f"{name} failed: {(done.stderr or done.stdout)[-300:]}")
    return done.stdout
