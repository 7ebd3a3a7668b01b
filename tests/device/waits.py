"""How often a training step and an evaluation wait for the device, by the counters of the test device."""

import numpy as np
import paddle
from paddle import nn
from recording import counts, total
from script_net import ScriptNet

from pimm.data.loader import PrefetchLoader
from pimm.data.mixup import Mixup
from pimm.engine import ClassifyStep, DistillStep, MeanMetrics, Teacher, Update, evaluate
from pimm.loss import LogitDistillationLoss, SoftTargetCrossEntropy
from pimm.optim import create_optimizer_v2
from pimm.utils import ModelEmaV3

CLASSES, STATISTICS = 5, ((0.5,) * 3, (0.25,) * 3)

# The arguments of a step, beside those of a plain one.
KINDS = {
    "plain": {},
    "momentum": {"opt": "momentum"},
    "adamw": {"opt": "adamw"},
    "rmsproptf": {"opt": "rmsproptf"},
    "lamb": {"opt": "lamb"},
    "clipped by norm": {"clip_grad": 1.0},
    "clipped by value": {"clip_grad": 1.0, "clip_mode": "value"},
    "clipped adaptively": {"clip_grad": 0.1, "clip_mode": "agc"},
    "accumulating": {"accumulate": 2},
    "averaged": {"average": {"decay": 0.5}},
    "averaged on the CPU": {"average": {"decay": 0.5, "device": "cpu"}},
    "mixed up": {"mixup": True},
    "distilled": {"distilled": True},
    "float16": {"amp": True},
    "float16, clipped and accumulating": {"amp": True, "clip_grad": 1.0, "accumulate": 2},
}


def make_step(opt="sgd", average=None, mixup=False, distilled=False, **update):
    paddle.seed(0)
    net = ScriptNet(CLASSES, 3, 0.0, True)
    mover = Update(create_optimizer_v2(net, opt=opt, lr=0.01), **update)
    options = {"ema": ModelEmaV3(net, **average)} if average is not None else {}
    loss, make = nn.CrossEntropyLoss(), ClassifyStep
    if mixup:
        loss, options["mix"] = SoftTargetCrossEntropy(), Mixup(num_classes=CLASSES)
    if distilled:
        teacher = Teacher(ScriptNet(CLASSES, 3, 0.0, True), STATISTICS, ((0.4,) * 3, (0.2,) * 3))
        make = DistillStep
        options.update(teacher=teacher, kd_loss=LogitDistillationLoss(1.0), weights=(0.5, 0.5))
    return make(net, loss, mover, topk=(1,), **options)


def moved(function):
    """Return what a function made the host wait for: reads, blocking copies to the device, and other waits."""
    before = counts()
    function()
    found = {name: count - before[name] for name, count in counts().items()}
    return [found["copies_out"] + found["copies_out_async"], found["copies_in"], found["waits"]]


class Images:
    """Batches of bytes, as `pimm.data.loader.Loader` gives them to the prefetcher."""

    seed = 0

    def __init__(self, batches):
        rng = np.random.default_rng(0)
        self.arrays = [
            (rng.integers(0, 256, (6, 3, 8, 8), np.uint8), rng.integers(0, CLASSES, 6)) for _ in range(batches)
        ]

    def batches(self):
        return (((0, number), images, labels) for number, (images, labels) in enumerate(self.arrays))


def of_steps(kinds=KINDS):
    """Return what each of four steady steps waits for, with its batch from the prefetcher and its metrics' sums."""
    found = {}
    for name, arguments in kinds.items():
        step, metrics = make_step(**arguments), MeanMetrics()
        batches = iter(PrefetchLoader(Images(8), *STATISTICS))

        def train(step=step, metrics=metrics, batches=batches):
            images, labels = next(batches)
            metrics.add(step(images, labels, 0), len(labels))

        for _ in range(4):
            train()
        found[name] = [moved(train) for _ in range(4)]
    return found


def of_averages():
    """Return the sums of absolute values of two averages after four steps: on the device, and on the CPU."""
    found = {}
    for name in ("averaged", "averaged on the CPU"):
        step = make_step(**KINDS[name])
        for images, labels in PrefetchLoader(Images(4), *STATISTICS):
            step(images, labels, 0)
        found[name] = total({key: value.numpy() for key, value in step.ema.module.state_dict().items()})
    return found


def of_evaluations():
    """Return what evaluations of three and of six batches wait for."""
    net = ScriptNet(CLASSES, 3, 0.0, True)
    net.eval()
    evaluate(net, PrefetchLoader(Images(1), *STATISTICS))
    return {
        count: moved(lambda count=count: evaluate(net, PrefetchLoader(Images(count), *STATISTICS))) for count in (3, 6)
    }


def of_mixed_precision(dtypes=("float32", "float16")):
    """Return, by precision, the losses of 9 batches and the loss scale after each; float16 starts with overflows."""
    rng = np.random.default_rng(0)
    images = paddle.to_tensor(rng.normal(size=(8, 3, 8, 8)).astype("float32"))
    labels = paddle.to_tensor(rng.integers(0, CLASSES, 8))
    found = {}
    for dtype in dtypes:
        step = make_step(clip_grad=1.0, **({} if dtype == "float32" else {"amp": True, "amp_dtype": dtype}))
        if dtype == "float16":
            state = step.update.state_dict()
            step.update.load_state_dict({**state, "scale": paddle.full([1], 2.0**24)})
        losses, scales = [], []
        for _ in range(9):
            losses.append(step(images, labels, 0)["loss"].item())
            scales.append(step.update.state_dict()["scale"].item() if dtype == "float16" else 1.0)
        found[dtype] = {"losses": losses, "scales": scales}
    return found
