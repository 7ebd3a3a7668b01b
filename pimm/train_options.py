"""Options of a training, under timm's names: the optimizer and its rate, and what is done to images and labels."""

from __future__ import annotations

from pimm.cli import at_least, share
from pimm.utils import ParseKwargs


def add_optimizer_options(parser):
    """Give the parser the options that ``optimizer_kwargs`` and ``scheduler_kwargs`` read."""
    group = parser.add_argument_group("Optimizer")
    group.add_argument("--opt", default="sgd", metavar="NAME", help="one of pimm.optim.list_optimizers()")
    group.add_argument("--opt-eps", type=float, metavar="EPSILON", help="(default: the optimizer's)")
    group.add_argument("--opt-betas", type=float, nargs="+", metavar="BETA", help="(default: the optimizer's)")
    group.add_argument("--momentum", type=float, default=0.9, metavar="M")
    group.add_argument("--weight-decay", type=float, default=2e-5)
    group.add_argument("--clip-grad", type=float, metavar="X", help="limit of the gradients (default: none)")
    group.add_argument("--clip-mode", default="norm", choices=("norm", "value", "agc"))
    group.add_argument("--layer-decay", type=float, metavar="X", help="ratio of the rates of neighbouring layers")
    group.add_argument("--layer-decay-min-scale", type=float, default=0.0, metavar="X")
    group.add_argument("--layer-decay-no-opt-scale", type=float, metavar="X", help="below it layers do not learn")
    group.add_argument("--opt-kwargs", nargs="*", default={}, action=ParseKwargs, metavar="KEY=VALUE")

    group = parser.add_argument_group("Learning rate")
    group.add_argument("--sched", default="cosine", metavar="NAME", help="schedule")
    group.add_argument("--sched-on-updates", action="store_true", help="change the rate with every update")
    group.add_argument("--lr", type=float, help="(default: from --lr-base and the batch size)")
    group.add_argument("--lr-base", type=float, default=0.1, metavar="LR", help="rate at --lr-base-size")
    group.add_argument("--lr-base-size", type=at_least(1), default=256, metavar="N", help="images of an update")
    group.add_argument("--lr-base-scale", default="", choices=("", "linear", "sqrt"), help="(default: by optimizer)")
    group.add_argument("--lr-noise", type=float, nargs="+", metavar="PCT", help="parts of the training with noise")
    group.add_argument("--lr-noise-pct", type=float, default=0.67, metavar="PCT", help="limit of the noise")
    group.add_argument("--lr-noise-std", type=float, default=1.0, metavar="STD")
    group.add_argument(
        "--lr-cycle-mul", type=float, default=1.0, metavar="X", help="length of a cycle to the one before"
    )
    group.add_argument(
        "--lr-cycle-decay", type=float, default=0.5, metavar="X", help="rate of a cycle to the one before"
    )
    group.add_argument("--lr-cycle-limit", type=int, default=1, metavar="N", help="cycles")
    group.add_argument("--lr-k-decay", type=float, default=1.0, metavar="K", help="of cosine and poly")
    group.add_argument("--warmup-lr", type=float, default=1e-5, metavar="LR", help="first rate")
    group.add_argument("--min-lr", type=float, default=0.0, metavar="LR", help="last rate")
    group.add_argument("--epochs", type=at_least(1), default=300, metavar="N")
    group.add_argument("--decay-milestones", type=int, nargs="+", default=[90, 180, 270], metavar="N")
    group.add_argument("--decay-epochs", type=float, default=90, metavar="N", help="between the steps")
    group.add_argument("--warmup-epochs", type=int, default=5, metavar="N")
    group.add_argument("--warmup-prefix", action="store_true", help="warm up before the schedule, not inside it")
    group.add_argument("--cooldown-epochs", type=int, default=0, metavar="N", help="at the last rate")
    group.add_argument("--patience-epochs", type=int, default=10, metavar="N", help="of plateau")
    group.add_argument("--decay-rate", "--dr", type=float, default=0.1, metavar="X")


def add_augmentation_options(parser):
    """Give the parser the options of transforms, mixing, erasing, labels and dropout."""
    group = parser.add_argument_group("Augmentation and regularization")
    group.add_argument("--no-aug", action="store_true", help="train on images that are only scaled")
    group.add_argument("--train-crop-mode", metavar="NAME", help="rrc, rkrc or rkrr")
    group.add_argument("--scale", type=float, nargs=2, default=[0.08, 1.0], metavar="PCT", help="area of a crop")
    group.add_argument("--ratio", type=float, nargs=2, default=[3 / 4, 4 / 3], metavar="X", help="its width to height")
    group.add_argument("--hflip", type=share, default=0.5, metavar="P")
    group.add_argument("--vflip", type=share, default=0.0, metavar="P")
    group.add_argument("--color-jitter", type=float, default=0.4, metavar="X")
    group.add_argument("--color-jitter-prob", type=share, metavar="P", help="(default: always)")
    group.add_argument("--grayscale-prob", type=share, default=0.0, metavar="P")
    group.add_argument("--gaussian-blur-prob", type=share, default=0.0, metavar="P")
    group.add_argument("--aa", metavar="POLICY", help="original, v0, rand-m9-mstd0.5, augmix-m5-w4-d2, ...")
    group.add_argument("--aug-repeats", type=float, default=0, metavar="N", help="times that each image comes in a row")
    group.add_argument("--aug-splits", type=int, default=0, metavar="N", help="versions of each image in a batch")
    group.add_argument("--jsd-loss", action="store_true", help="Jensen-Shannon divergence, with --aug-splits")
    group.add_argument("--bce-loss", action="store_true", help="binary cross-entropy")
    group.add_argument("--bce-sum", action="store_true", help="sum over classes, not their mean")
    group.add_argument("--bce-target-thresh", type=float, metavar="X", help="makes soft targets 0 or 1")
    group.add_argument("--bce-pos-weight", type=float, metavar="X")
    group.add_argument("--reprob", type=share, default=0.0, metavar="P", help="of random erasing")
    group.add_argument("--remode", default="pixel", choices=("const", "rand", "pixel"))
    group.add_argument("--recount", type=at_least(1), default=1, metavar="N")
    group.add_argument("--resplit", action="store_true", help="do not erase in the clean split")
    group.add_argument("--mixup", type=float, default=0.0, metavar="ALPHA")
    group.add_argument("--cutmix", type=float, default=0.0, metavar="ALPHA")
    group.add_argument("--cutmix-minmax", type=float, nargs=2, metavar="PCT", help="range of the patch's sides")
    group.add_argument("--mixup-prob", type=share, default=1.0, metavar="P", help="of mixing at all")
    group.add_argument("--mixup-switch-prob", type=share, default=0.5, metavar="P", help="of CutMix, where both are on")
    group.add_argument("--mixup-mode", default="batch", choices=("batch", "pair", "elem", "half"))
    group.add_argument("--mixup-off-epoch", type=int, default=0, metavar="N", help="no mixing from here on")
    group.add_argument("--smoothing", type=share, default=0.1, metavar="X", help="of labels")
    group.add_argument("--train-interpolation", default="random", metavar="NAME")
    group.add_argument("--drop", type=share, default=0.0, metavar="P", help="dropout")
    group.add_argument("--drop-connect", type=share, metavar="P", help="an old name of --drop-path")
    group.add_argument("--drop-path", type=share, metavar="P", help="of leaving out a block")


def add_split_options(parser):
    """Add the options that name the parts of a data set."""
    group = parser.add_argument_group("Splits")
    group.add_argument("--train-split", default="train", metavar="NAME")
    group.add_argument("--val-split", default="validation", metavar="NAME", help="empty for no evaluation")
    group.add_argument("--train-num-samples", type=int, metavar="N", help="in wds shards that do not say")
    group.add_argument("--val-num-samples", type=int, metavar="N")
    group.add_argument("--epoch-repeats", type=float, default=0.0, metavar="N", help="of wds shards in an epoch")


def add_start_options(parser):
    """Add the options of what a training starts or resumes from."""
    group = parser.add_argument_group("Start")
    group.add_argument("--initial-checkpoint", default="", metavar="PATH", help="weights to start with")
    group.add_argument("--resume", default="", metavar="PATH", help="checkpoint, or folder of a training, to resume")
    group.add_argument("--no-resume-opt", action="store_true", help="resume weights and epoch alone")
    group.add_argument("--start-epoch", type=at_least(0), metavar="N", help="count on from this epoch")
    group.add_argument("--head-init-scale", type=float, metavar="X", help="times the classifier's first weights")
    group.add_argument("--head-init-bias", type=float, metavar="X", help="the classifier's first biases")


def add_batch_options(parser):
    """Add the options of batches and of batch norm."""
    group = parser.add_argument_group("Batches")
    group.add_argument("-b", "--batch-size", type=at_least(1), default=128, metavar="N", help="images of one process")
    group.add_argument("-vb", "--validation-batch-size", type=at_least(1), metavar="N", help="(default: --batch-size)")
    group.add_argument("--grad-accum-steps", type=at_least(1), default=1, metavar="N", help="batches of one update")
    group.add_argument("--use-multi-epochs-loader", action="store_true", help="read ahead into the next epoch")
    group.add_argument("--worker-seeding", default="all", metavar="MODE", help="all or part, which are the same here")

    group = parser.add_argument_group("Batch norm")
    group.add_argument("--bn-momentum", type=float, metavar="M", help="(default: the model's)")
    group.add_argument("--bn-eps", type=float, metavar="EPSILON", help="(default: the model's)")
    group.add_argument("--sync-bn", action="store_true", help="normalise by the batches of all processes together")
    group.add_argument("--dist-bn", default="reduce", choices=("reduce", "broadcast", ""), help="after each epoch")


def add_output_options(parser):
    """Add the options of the moving average, the checkpoints and where results go."""
    group = parser.add_argument_group("Moving average of the weights")
    group.add_argument("--model-ema", action="store_true", help="keep one; its results count")
    group.add_argument("--model-ema-force-cpu", action="store_true", help="keep it on the CPU, without evaluating it")
    group.add_argument("--model-ema-decay", type=share, default=0.9998, metavar="X")
    group.add_argument("--model-ema-warmup", action="store_true", help="begin with a smaller decay")

    group = parser.add_argument_group("Miscellaneous")
    group.add_argument("--seed", type=at_least(0), default=42, metavar="S")
    group.add_argument("--recovery-interval", type=at_least(0), default=0, metavar="N", help="updates of a checkpoint")
    group.add_argument("--checkpoint-hist", type=at_least(1), default=10, metavar="N", help="best checkpoints to keep")
    group.add_argument("--output", default="", metavar="DIR", help="(default: output/train)")
    group.add_argument("--experiment", default="", metavar="NAME", help="folder in it (default: date, model and size)")
    metrics = ("top1", "top5", "loss")
    group.add_argument("--eval-metric", default="top1", choices=metrics, help="which ranks checkpoints")
