"""Train a small RetinaNet on a pimm model and measure it: ``python examples/detection/train.py --data-dir DIR``.

The images are canvases with photographs of ``DIR/train/CLASS`` for training and of ``DIR/val/CLASS`` for the test.
Runs from a clone that is not installed, as one process.
"""

import json
import sys
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import pimm

# isort: split

import numpy as np
import paddle

import cream  # noqa: F401  (registers the published nets of the paper)
from examples.detection.boxes import STRIDES, make_anchors, make_targets
from examples.detection.data import CanvasLoader, Photos
from examples.detection.draw import draw_detections
from examples.detection.evaluate import CocoEvaluator, require_pycocotools
from examples.detection.model import RetinaNet, detection_loss
from pimm import cli
from pimm.engine import RunLog, Trainer, Update
from pimm.errors import ConfigError
from pimm.ops import reuse_freed_memory
from pimm.optim import create_optimizer_v2
from pimm.scheduler import CosineLRScheduler
from pimm.scripts import find_checkpoint
from pimm.utils import CheckpointSaver, ModelEmaV3, random_seed
from pimm.utils.checkpoint import list_checkpoints

CLASSES = ("airplane", "automobile", "frog")
TEST_SEED = 0  # of the canvases of all tests; those of the training count from the next one
OUT_INDICES = (2, 3, 4)  # of the body's feature maps: those with strides 8, 16 and 32
WARMUP = 0.05  # of the updates
EMA_DECAY = 0.99
BOX_WEIGHT = 0.5  # classes are harder to learn here than boxes
CLIP_GRAD = 10.0  # norm of all gradients
RESULT, PICTURE = "result.json", "detections.webp"
RESUME_HINT = "--resume continues from the latest checkpoint in --output"


def make_parser():
    """Return the parser of the command line."""
    parser = cli.Parser(
        config_file=False, description="Train a small RetinaNet on a pimm model, and measure it by COCO's metrics."
    )
    add = partial(parser.add_argument, metavar="N")
    add("--data-dir", required=True, metavar="DIR", help="holds train/CLASS/NAME and val/CLASS/NAME, such as CIFAR-10")
    add("--output", default="output/detection", metavar="DIR", help="folder of the run (default: %(default)s)")
    add("--body", default="cream_287", metavar="NAME", help="model below the detector (default: %(default)s)")
    add("--body-weights", default="", metavar="FILE", help="checkpoint of the body as a classifier (default: none)")
    add("--classes", nargs="+", default=CLASSES, metavar="NAME", help=f"(default: {' '.join(CLASSES)})")
    add("--size", type=cli.at_least(64), default=128, help="pixels, height and width (default: %(default)s)")
    add("--epochs", type=cli.at_least(1), default=4, help="(default: %(default)s)")
    add("--canvases", type=cli.at_least(1), default=960, help="in an epoch (default: %(default)s)")
    add("--test-canvases", type=cli.at_least(1), default=200, help="(default: %(default)s)")
    add("--batch-size", type=cli.at_least(1), default=8, help="(default: %(default)s)")
    add("--lr", type=float, default=2e-3, metavar="RATE", help="highest rate of AdamW (default: %(default)s)")
    add("--weight-decay", type=float, default=0.02, metavar="RATE", help="(default: %(default)s)")
    add("--seed", type=cli.at_least(0), default=0, help="of weights and canvases (default: %(default)s)")
    parser.add_argument("--resume", action="store_true", help="continue from the latest checkpoint in --output")
    return parser


class DetectStep:
    """Trains a detector on one batch, with a moving average of its weights; a `pimm.engine.Step`.

    The metrics are ``loss`` and its parts ``focal`` and ``box``.

    Args:
        net: a `RetinaNet`.
        update: moves the net's parameters.
        ema: the moving average.
        size: height and width of the images in pixels.
    """

    def __init__(self, net, update, ema, size):
        self.net, self.update, self.ema = net, update, ema
        self.nets = [net, ema.module]
        self.parameters = [parameter for parameter in net.parameters() if not parameter.stop_gradient]
        self.anchors = make_anchors(size)

    def __call__(self, images, canvases, epoch):
        """Train on one batch and return its metrics."""
        targets = [make_targets(self.anchors, canvas.boxes, canvas.classes) for canvas in canvases]
        classes, offsets = (paddle.to_tensor(np.stack(each)) for each in zip(*targets))
        focal, box = detection_loss(*self.net(images), classes, offsets)
        loss = focal + BOX_WEIGHT * box
        self.update(loss, self.parameters)
        self.ema.update(self.net, step=self.update.count)
        return {"loss": loss.detach(), "focal": focal.detach(), "box": box.detach()}

    def state_dict(self):
        """Return the state of the update."""
        return {"update": self.update.state_dict()}

    def load_state_dict(self, state):
        """Restore what ``state_dict`` returned."""
        self.update.load_state_dict(state["update"])


def create_loaders(args):
    """Return the canvases of the training and those of the test."""
    training, test = (Photos(args.data_dir, split, args.classes) for split in ("train", "val"))
    return (
        CanvasLoader(training, args.size, args.batch_size, args.canvases, args.seed + TEST_SEED + 1),
        CanvasLoader(test, args.size, args.batch_size, args.test_canvases, TEST_SEED),
    )


def create_step(args):
    """Return the detector of the options, and what a batch does with it."""
    random_seed(args.seed)
    body = pimm.create_model(args.body, features_only=True, out_indices=OUT_INDICES, checkpoint_path=args.body_weights)
    net = RetinaNet(body, len(args.classes))
    optimizer = create_optimizer_v2(net, "adamw", lr=args.lr, weight_decay=args.weight_decay)
    average = ModelEmaV3(net, EMA_DECAY, use_warmup=True)
    return DetectStep(net, Update(optimizer, clip_grad=CLIP_GRAD), average, args.size)


def create_trainer(args, folder, step, loader, evaluator, run):
    """Return the training loop."""
    updates = args.epochs * len(loader)
    scheduler = CosineLRScheduler(
        step.update.optimizer,
        t_initial=updates,
        warmup_t=round(WARMUP * updates),
        warmup_lr_init=args.lr / 100,
        t_in_epochs=False,
    )
    settings = {name: value for name, value in vars(args).items() if name not in ("resume", "output", "data_dir")}
    return Trainer(
        step,
        loader,
        [evaluator],
        epochs=args.epochs,
        scheduler=scheduler,
        saver=CheckpointSaver(checkpoint_dir=str(folder), max_history=1),
        run=run,
        seed_batch=lambda epoch, batch: None,  # a step draws nothing at random
        settings=settings,
        metric="map50",
        log_interval=20,
        remedy="try a lower --lr",
    )


def main(argv=None):
    """Train and measure a detector as the options say; write and print the result."""
    args = make_parser().parse_args(argv)
    require_pycocotools()
    cli.use_cores()
    reuse_freed_memory()
    if args.size % STRIDES[-1]:
        raise ConfigError(f"--size is {args.size}; must be a multiple of {STRIDES[-1]}")
    folder = Path(args.output)
    if list_checkpoints(folder) and not args.resume:
        raise ConfigError(f"{folder} holds a training already: --resume continues it, another --output starts anew")
    started = time.perf_counter()
    training, test = create_loaders(args)
    step = create_step(args)
    folder.mkdir(parents=True, exist_ok=True)
    evaluator = CocoEvaluator(step.ema.module, test, args.classes, folder)
    with RunLog(folder, loggers=["pimm"], curves=False, rates=True) as run:
        trainer = create_trainer(args, folder, step, training, evaluator, run)
        trainer.resume_or_start(find_checkpoint(folder) if args.resume else None)
        found = trainer.fit()
    draw_detections(step.ema.module, test, args.classes, folder / PICTURE)
    result = {
        "body": args.body,
        "seed": args.seed,
        **{name: round(value, 4) for name, value in found.items()},
        "minutes": round((time.perf_counter() - started) / 60, 2),
        "processor_minutes": round(time.process_time() / 60, 2),
    }
    (folder / RESULT).write_text(json.dumps(result))
    print(json.dumps(result))


if __name__ == "__main__":
    sys.exit(cli.run(main, RESUME_HINT))
