"""Measure one of Cream's nets in PyTorch for benchmarks/run.py, which starts this script with an interpreter of torch.

    PYTHON benchmarks/torch_rival.py WEIGHTS.npz ...

WEIGHTS holds the weights of the net by their names in PyTorch's files, and the stride of each block. Each line on the
standard input is a question in JSON, answered by one line: the logits of given images, or the images per second of
training or evaluation for some seconds. Several files are paths of a supernet, which are trained in turn.
"""

import json
import sys
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

MODES = {  # channels last, compiler, bfloat16
    "eager": (False, "", False),
    "channels_last": (True, "", False),
    "compile": (False, "inductor", False),
    "compile channels_last": (True, "inductor", False),
    "compile frozen": (True, "frozen", False),
    "TorchScript frozen": (True, "script", False),
    "bf16 channels_last": (True, "", True),
    "bf16 compile": (True, "inductor", True),
}
COMPILERS = {  # those that freeze the weights fold batch norm into convolutions, and can only evaluate
    "": lambda net, images: net,
    "inductor": lambda net, images: torch.compile(net),
    "frozen": lambda net, images: torch.compile(net, options={"freezing": True}),
    "script": lambda net, images: torch.jit.freeze(torch.jit.trace(net, images)),
}


class ConvNorm(nn.Module):
    """A convolution without bias, and batch norm."""

    def __init__(self, shape, stride=1):
        super().__init__()
        out_chs, in_chs, kernel, _ = shape
        groups = out_chs if in_chs == 1 else 1
        self.conv = nn.Conv2d(in_chs * groups, out_chs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(out_chs)

    def forward(self, x):
        return self.norm(self.conv(x))


class Gate(nn.Module):
    """Squeeze-and-excitation with a hard sigmoid."""

    def __init__(self, shape):
        super().__init__()
        self.conv_reduce, self.conv_expand = nn.Conv2d(shape[1], shape[0], 1), nn.Conv2d(shape[0], shape[1], 1)

    def forward(self, x):
        gate = self.conv_expand(F.relu(self.conv_reduce(x.mean((2, 3), keepdim=True))))
        return x * F.hardsigmoid(gate)


class Block(nn.Module):
    """An inverted residual, or without the first convolution a depthwise separable one."""

    def __init__(self, shapes, stride):
        super().__init__()
        is_inverted = "conv_pwl.weight" in shapes
        last = "conv_pwl.weight" if is_inverted else "conv_pw.weight"
        self.expand = ConvNorm(shapes["conv_pw.weight"]) if is_inverted else None
        self.depthwise = ConvNorm(shapes["conv_dw.weight"], stride)
        self.se = Gate(shapes["se.conv_reduce.weight"])
        self.project = ConvNorm(shapes[last])
        first = self.expand or self.depthwise
        self.residual = stride == 1 and self.project.conv.out_channels == first.conv.in_channels

    def forward(self, x):
        y = x if self.expand is None else F.silu(self.expand(x))
        y = self.project(self.se(F.silu(self.depthwise(y))))
        return x + y if self.residual else y


class Activated(nn.Module):
    """A convolution, batch norm and swish."""

    def __init__(self, shapes, stride):
        super().__init__()
        self.conv = ConvNorm(shapes["conv.weight"], stride)

    def forward(self, x):
        return F.silu(self.conv(x))


class Net(nn.Module):
    """A net of Cream's space, as its weights describe it."""

    def __init__(self, weights, strides):
        super().__init__()
        shapes = {name: value.shape for name, value in weights.items()}
        self.stem = ConvNorm(shapes["conv_stem.weight"], 2)
        self.blocks = nn.Sequential()
        for name, stride in strides.items():
            start = f"blocks.{name}."
            own = {key[len(start) :]: shape for key, shape in shapes.items() if key.startswith(start)}
            self.blocks.append((Activated if "conv.weight" in own else Block)(own, stride))
        self.conv_head = nn.Conv2d(*shapes["conv_head.weight"][1::-1], 1)
        self.classifier = nn.Linear(*shapes["classifier.weight"][::-1])

    def forward(self, x):
        x = self.blocks(F.silu(self.stem(x)))
        x = F.silu(self.conv_head(x.mean((2, 3), keepdim=True)))
        return self.classifier(x.flatten(1))


def load(path):
    """Return the net; weights come in the order in which the net has them."""
    with np.load(path) as file:
        content = {name: file[name] for name in file.files}
    strides = json.loads(str(content.pop("strides")))
    net = Net(content, strides)
    state = [name for name in net.state_dict() if not name.endswith("num_batches_tracked")]
    given = [name for name in content if not name.endswith("num_batches_tracked")]
    net.load_state_dict({own: torch.from_numpy(content[name]) for own, name in zip(state, given)}, strict=False)
    return net


def layout_of(mode):
    """Return the memory format of a mode's weights and images."""
    return torch.channels_last if MODES[mode][0] else torch.contiguous_format


def run_of(net, mode, images):
    """Return what computes logits in a mode, of a net in its final state; ``images`` have the shape of a batch."""
    net.to(memory_format=layout_of(mode))
    return COMPILERS[MODES[mode][1]](net, images.contiguous(memory_format=layout_of(mode)))


def make_step(net, work, batch, side, mode):
    """Return a callable that trains or evaluates one batch."""
    bf16 = MODES[mode][2]
    classes = torch.randint(0, net.classifier.out_features, (batch,))
    images = torch.randn(batch, 3, side, side).contiguous(memory_format=layout_of(mode))
    run = run_of(net.train(work == "train"), mode, images)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)

    def train():
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = F.cross_entropy(run(images), classes, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    @torch.inference_mode()
    def evaluate():
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            run(images)

    return train if work == "train" else evaluate


def make_supernet_step(nets, work, batch, side, mode):
    """Return a callable that trains each path of a supernet once, alone or taught as in the official code.

    To be taught, a path computes logits for the four images of each of ten entries of the board, which a linear layer
    compares with the entry's; another path computes the logits that teach; the loss is ``(rho KD + (2 - rho) CE) / 2``.
    """
    images, classes = torch.randn(batch, 3, side, side), torch.randint(0, nets[0].classifier.out_features, (batch,))
    layout = layout_of(mode)
    images = images.contiguous(memory_format=layout)
    for net in nets:
        net.train().to(memory_format=layout)
    optimizers = [torch.optim.SGD(net.parameters(), lr=0.01) for net in nets]
    matching = nn.Linear(nets[0].classifier.out_features, 1)
    with torch.no_grad():
        entries = [F.softmax(nets[i % len(nets)](images[:4]), 1) for i in range(10)]

    @torch.no_grad()
    def teach(net, teacher):
        weights = [matching(F.softmax(net(images[:4]), 1) - entry).mean().sigmoid().item() for entry in entries]
        return max(weights), F.softmax(teacher(images), 1)

    def train():
        for net, teacher, optimizer in zip(nets, nets[1:] + nets[:1], optimizers):
            logits = net(images)
            loss = F.cross_entropy(logits, classes, label_smoothing=0.1)
            if work == "distillation":
                rho, soft = teach(net, teacher)
                loss = (rho * F.cross_entropy(logits, soft) + (2 - rho) * loss) / 2
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return train


@torch.inference_mode()
def evaluate_folder(run, mode, folder, batch, side, workers):
    """Return the images per second of an evaluation of a folder of photographs, with timm's loader."""
    from timm.data import ImageDataset, create_loader
    from timm.utils import accuracy

    dataset = ImageDataset(folder)
    loader = create_loader(dataset, (3, side, side), batch, num_workers=workers, device=torch.device("cpu"))
    started, right = time.perf_counter(), 0
    for images, labels in loader:
        logits = run(images.contiguous(memory_format=layout_of(mode)))
        right += accuracy(logits, labels, topk=(1, 5))[0].item() * len(labels)
    return len(dataset) / (time.perf_counter() - started)


def answer(paths, steps, question):
    """Return logits of ``images``, or images per second of a ``folder``, or of ``work`` for ``seconds``."""
    path = paths[0]
    if "images" in question:
        with torch.inference_mode():
            return load(path).eval()(torch.tensor(question["images"])).tolist()
    if "folder" in question:
        if "run" not in steps:  # compiled once
            images = torch.zeros(question["batch"], 3, question["side"], question["side"])
            steps["run"] = run_of(load(path).eval(), question["mode"], images)
        return evaluate_folder(steps["run"], **question)
    case = tuple(question[name] for name in ("work", "batch", "side", "mode"))
    is_supernets = case[0] in ("plain", "distillation")
    if case not in steps:
        steps[case] = (
            make_supernet_step(list(map(load, paths)), *case) if is_supernets else make_step(load(path), *case)
        )
        steps[case]()
    started, count = time.perf_counter(), 0
    while not count or time.perf_counter() - started < question["seconds"]:
        steps[case]()
        count += 1
    return count * question["batch"] * (len(paths) if is_supernets else 1) / (time.perf_counter() - started)


def main():
    steps = {}
    for line in sys.stdin:
        try:
            found = {"value": answer(sys.argv[1:], steps, json.loads(line))}
        except Exception as error:  # such as a compiler that torch.compile does not find
            found = {"error": f"{type(error).__name__}: {error}"[:300]}
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
