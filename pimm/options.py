"""Options of the scripts by timm's names; nothing here imports Paddle, which --help need not wait for."""

from __future__ import annotations

from pimm.cli import Parser, at_least, share
from pimm.parse_kwargs import ParseKwargs, add_model_kwargs

RESULT_FORMATS = ("csv", "json", "json-record")
LABEL_TYPES = ("none", "name", "description", "detailed")


def make_train_parser():
    """Return the parser of pimm-train."""
    parser = Parser(description="Train a model on images.")
    add_data_options(parser)
    add_split_options(parser)
    add_model_options(parser, model="mobilenetv3_large_100")
    add_start_options(parser)
    add_device_options(parser)
    add_batch_options(parser)
    add_optimizer_options(parser)
    add_augmentation_options(parser)
    add_distillation_options(parser)
    add_output_options(parser)
    return parser


def make_validate_parser():
    """Return the parser of pimm-validate."""
    parser = Parser(description="Evaluate models on images.")
    add_data_options(parser)
    parser.add_argument("--split", default="validation", metavar="NAME", help="(default: validation)")
    parser.add_argument("--num-samples", type=int, metavar="N", help="images in wds shards without a count")
    add_model_options(parser)
    group = parser.add_argument_group("Weights")
    group.add_argument(
        "--checkpoint",
        default="",
        metavar="PATH",
        help="checkpoint, or a folder of them; {model} in it is replaced by the model's name where --model names "
        "several: a wildcard, a text file of names, or all",
    )
    group.add_argument("--use-ema", action="store_true", help="use the averaged weights")
    group.add_argument(
        "--use-train-size", action="store_true", help="use the image size of training, not that of evaluation"
    )
    add_device_options(parser)
    add_engine_options(parser)
    parser.add_argument(
        "-b", "--batch-size", type=at_least(1), default=256, metavar="N", help="images in a batch of one process"
    )
    parser.add_argument("--retry", action="store_true", help="try smaller batches if the memory is too small")
    parser.add_argument("--results-file", default="", metavar="FILE", help="file for the results")
    parser.add_argument("--results-format", choices=("csv", "json"), help="(default: by the file's name, or csv)")
    return parser


def make_inference_parser():
    """Return the parser of pimm-inference."""
    parser = Parser(description="Classify images.")
    add_data_options(parser)
    parser.add_argument("--split", default="validation", metavar="NAME", help="(default: validation)")
    add_model_options(parser)
    parser.add_argument("--checkpoint", default="", metavar="PATH", help="weights, or the folder of a training")
    parser.add_argument("--use-ema", action="store_true", help="use the averaged weights")
    parser.add_argument(
        "--use-train-size", action="store_true", help="use the image size of training, not that of evaluation"
    )
    add_device_options(parser)
    add_engine_options(parser)
    parser.add_argument(
        "-b", "--batch-size", type=at_least(1), default=256, metavar="N", help="images in a batch of one process"
    )
    group = parser.add_argument_group("Results")
    group.add_argument("--results-dir", "--output-dir", default=".", metavar="DIR", help="(default: this folder)")
    group.add_argument("--results-file", metavar="NAME", help="name without ending (default: model and image size)")
    group.add_argument("--results-format", nargs="+", default=["csv"], choices=RESULT_FORMATS, help="(default: csv)")
    group.add_argument("--results-separate-col", action="store_true", help="one column for each of the top classes")
    group.add_argument(
        "--topk",
        type=at_least(0),
        default=1,
        metavar="N",
        help="number of most likely classes; 0 for all, in their order",
    )
    group.add_argument("--fullname", action="store_true", help="write whole paths of the images, not only file names")
    group.add_argument("--filename-col", default="filename", metavar="NAME")
    group.add_argument("--index-col", default="index", metavar="NAME")
    group.add_argument("--label-col", default="label", metavar="NAME")
    group.add_argument("--output-col", metavar="NAME", help="(default: prob or logit)")
    group.add_argument("--output-type", default="prob", choices=("prob", "logit"))
    group.add_argument(
        "--label-type",
        default="description",
        choices=LABEL_TYPES,
        help="kind of label of ImageNet's classes",
    )
    group.add_argument("--include-index", action="store_true", help="write the index of the class beside its label")
    group.add_argument("--exclude-output", action="store_true", help="leave out the probabilities")
    group.add_argument(
        *("--no-console-results", "--no-console-output"),
        action="store_true",
        dest="no_console_output",
        help="do not print the results",
    )
    return parser


def make_average_parser():
    """Return the parser of pimm-avg-checkpoints."""
    parser = Parser(description="Average the weights of checkpoints, by default the best ones of a training.")
    parser.add_argument("--input", required=True, metavar="DIR", help="folder of the checkpoints")
    parser.add_argument("--filter", default="checkpoint-*", metavar="*", help="names (default: checkpoint-*)")
    parser.add_argument(
        "--output",
        default="averaged.pdparams",
        metavar="FILE",
        help=".pdparams or .safetensors (default: averaged.pdparams)",
    )
    parser.add_argument(
        "-n", type=int, default=10, metavar="N", help="number of checkpoints, the best ones (default: 10)"
    )
    parser.add_argument("--no-sort", action="store_true", help="average all checkpoints, also those without a metric")
    parser.add_argument("--no-use-ema", action="store_true", help="ignore averaged weights in the checkpoints")
    return parser


def add_data_options(parser):
    """Add the options of a data set to a parser."""
    parser.add_argument("data", nargs="?", metavar="DIR", help="folder, tar file or list file with the images")
    group = parser.add_argument_group("Dataset")
    group.add_argument("--data-dir", metavar="DIR", help="the same, as an option")
    group.add_argument("-d", "--dataset", metavar="NAME", default="", help="type: folder, tar, list, wds, paddle/NAME")
    group.add_argument("--dataset-download", action="store_true", help="let Paddle fetch its own data sets")
    group.add_argument("--class-map", metavar="FILE", help="names of the classes, in the order of their indices")
    group.add_argument("--input-img-mode", metavar="MODE", help="Pillow's mode of the images (default: by --in-chans)")
    group.add_argument("--img-extensions", nargs="+", metavar=".EXT", help="more endings of images, such as .tif .gif")
    group.add_argument("--target-key", metavar="KEY", help="key of the class in the JSON files of tar samples")


def add_model_options(parser, model=None):
    """Add the options of a model and of its images to a parser; ``model`` is the default model."""
    group = parser.add_argument_group("Model")
    group.add_argument(
        "-m",
        "--model",
        default=model,
        metavar="NAME",
        help="one of pimm.list_models(), hf-hub:ORG/NAME or local-dir:PATH",
    )
    group.add_argument(
        "--pretrained", action="store_true", help="load the model's pretrained weights, from the Hugging Face Hub"
    )
    group.add_argument("--num-classes", type=at_least(1), metavar="N", help="(default: the model's)")
    group.add_argument("--in-chans", type=at_least(1), metavar="N", help="image channels (default: the model's)")
    group.add_argument("--gp", metavar="POOL", help="global pooling: avg, max, avgmax, catavgmax")
    group.add_argument("--img-size", type=at_least(1), metavar="N", help="side of the images in pixels")
    group.add_argument(
        "--input-size",
        type=at_least(1),
        nargs=3,
        metavar=("C", "H", "W"),
        help="channels, height and width of the images",
    )
    group.add_argument("--crop-pct", type=float, metavar="PCT", help="share of the resized image that evaluation keeps")
    group.add_argument("--crop-mode", metavar="NAME", help="center, border or squash")
    group.add_argument("--mean", type=float, nargs="+", metavar="MEAN", help="of the pixels, from 0 to 1")
    group.add_argument("--std", type=float, nargs="+", metavar="STD", help="of the pixels")
    group.add_argument("--interpolation", metavar="NAME", help="bilinear, bicubic, ...")
    group.add_argument("--tta", type=int, default=0, metavar="N", help="views of each image in evaluation, up to 10")
    add_model_kwargs(group)


def add_device_options(parser):
    """Add the options of the device and of the loader's processes to a parser."""
    group = parser.add_argument_group("Device")
    group.add_argument("--device", help="cpu, gpu, gpu:1, npu, xpu, NAME[:N] (default: no CPU where Paddle finds more)")
    group.add_argument("--amp", action="store_true", help="mixed precision, on a GPU or another accelerator")
    group.add_argument("--amp-dtype", default="float16", choices=("float16", "bfloat16"))
    group.add_argument("-j", "--workers", type=at_least(0), default=4, metavar="N", help="processes that read images")
    group.add_argument("--no-prefetcher", action="store_true", help="normalise images in the workers")
    group.add_argument("--pin-mem", action="store_true", help="has no effect: pinned memory is always used")
    group.add_argument(
        "--log-interval", "--log-freq", type=at_least(1), default=50, metavar="N", help="batches between log lines"
    )


def add_engine_options(parser, precision="fp32"):
    """Add the options of the engine that evaluates a net to a parser; ``precision`` is the default precision."""
    group = parser.add_argument_group("Engine")
    group.add_argument(
        "--engine",
        default="auto",
        choices=("auto", "eager", "inference"),
        help="eager runs the net's layers one by one; inference exports the net once and runs the program by Paddle "
        "Inference with oneDNN, on a CPU; auto takes inference where it can be had and is worth its export",
    )
    group.add_argument(
        "--precision",
        default=precision,
        choices=("fp32", "bf16"),
        help="of Paddle Inference; bf16 needs a CPU with AVX-512 (default: fp32)",
    )


def add_optimizer_options(parser):
    """Add the options that ``optimizer_kwargs`` and ``scheduler_kwargs`` read to a parser."""
    group = parser.add_argument_group("Optimizer")
    group.add_argument("--opt", default="sgd", metavar="NAME", help="one of pimm.optim.list_optimizers()")
    group.add_argument("--opt-eps", type=float, metavar="EPSILON", help="(default: the optimizer's)")
    group.add_argument("--opt-betas", type=float, nargs="+", metavar="BETA", help="(default: the optimizer's)")
    group.add_argument("--momentum", type=float, default=0.9, metavar="M")
    group.add_argument("--weight-decay", type=float, default=2e-5)
    group.add_argument("--clip-grad", type=float, metavar="X", help="limit of the gradients (default: none)")
    group.add_argument("--clip-mode", default="norm", choices=("norm", "value", "agc"))
    group.add_argument(
        "--layer-decay", type=float, metavar="X", help="rate of a layer relative to that of the next layer"
    )
    group.add_argument("--layer-decay-min-scale", type=float, default=0.0, metavar="X")
    group.add_argument(
        "--layer-decay-no-opt-scale", type=float, metavar="X", help="relative rate below which layers are frozen"
    )
    group.add_argument(
        "--backbone-lr-scale", type=share, metavar="X", help="rate of all but the classifier, times --lr"
    )
    group.add_argument("--opt-kwargs", nargs="*", default={}, action=ParseKwargs, metavar="KEY=VALUE")
    _add_schedule_options(parser)


def _add_schedule_options(parser):
    group = parser.add_argument_group("Learning rate")
    group.add_argument("--sched", default="cosine", metavar="NAME", help="schedule")
    group.add_argument("--sched-on-updates", action="store_true", help="change the rate with every update")
    group.add_argument("--lr", type=float, help="(default: computed from --lr-base and the batch size)")
    group.add_argument(
        "--lr-base", type=float, default=0.1, metavar="LR", help="learning rate for updates of --lr-base-size images"
    )
    group.add_argument(
        "--lr-base-size", type=at_least(1), default=256, metavar="N", help="images in an update, for --lr-base"
    )
    group.add_argument("--lr-base-scale", default="", choices=("", "linear", "sqrt"), help="(default: by optimizer)")
    group.add_argument(
        "--lr-noise",
        type=float,
        nargs="+",
        metavar="PCT",
        help="share of the training at which noise begins, and at which it ends",
    )
    group.add_argument("--lr-noise-pct", type=float, default=0.67, metavar="PCT", help="limit of the noise")
    group.add_argument("--lr-noise-std", type=float, default=1.0, metavar="STD")
    group.add_argument(
        "--lr-cycle-mul", type=float, default=1.0, metavar="X", help="length of a cycle relative to the cycle before it"
    )
    group.add_argument(
        "--lr-cycle-decay",
        type=float,
        default=0.5,
        metavar="X",
        help="peak rate of a cycle relative to the cycle before it",
    )
    group.add_argument("--lr-cycle-limit", type=int, default=1, metavar="N", help="number of cycles")
    group.add_argument(
        "--lr-k-decay", type=float, default=1.0, metavar="K", help="power of the clock of cosine and poly"
    )
    group.add_argument("--warmup-lr", type=float, default=1e-5, metavar="LR", help="first rate of the warm-up")
    group.add_argument("--min-lr", type=float, default=0.0, metavar="LR", help="last rate")
    group.add_argument("--epochs", type=at_least(1), default=300, metavar="N")
    group.add_argument("--decay-milestones", type=int, nargs="+", default=[90, 180, 270], metavar="N")
    group.add_argument("--decay-epochs", type=float, default=90, metavar="N", help="interval of step")
    group.add_argument("--warmup-epochs", type=int, default=5, metavar="N")
    group.add_argument("--warmup-prefix", action="store_true", help="warm up before the schedule, not inside it")
    group.add_argument(
        "--cooldown-epochs", type=int, default=0, metavar="N", help="epochs at the last rate after a cyclic schedule"
    )
    group.add_argument(
        "--patience-epochs",
        type=int,
        default=10,
        metavar="N",
        help="epochs without an improvement that plateau accepts",
    )
    group.add_argument("--decay-rate", "--dr", type=float, default=0.1, metavar="X")


def add_augmentation_options(parser):
    """Add the options of transforms, mixing, erasing, labels and dropout to a parser."""
    group = parser.add_argument_group("Augmentation and regularization")
    group.add_argument("--no-aug", action="store_true", help="only resize and crop the training images")
    group.add_argument("--train-crop-mode", metavar="NAME", help="rrc, rkrc or rkrr")
    group.add_argument(
        "--scale", type=float, nargs=2, default=[0.08, 1.0], metavar="PCT", help="share of the image that a crop covers"
    )
    group.add_argument(
        "--ratio", type=float, nargs=2, default=[3 / 4, 4 / 3], metavar="X", help="ratio of width and height of a crop"
    )
    group.add_argument("--hflip", type=share, default=0.5, metavar="P")
    group.add_argument("--vflip", type=share, default=0.0, metavar="P")
    group.add_argument("--color-jitter", type=float, default=0.4, metavar="X")
    group.add_argument("--color-jitter-prob", type=share, metavar="P", help="(default: always)")
    group.add_argument("--grayscale-prob", type=share, default=0.0, metavar="P")
    group.add_argument("--gaussian-blur-prob", type=share, default=0.0, metavar="P")
    group.add_argument("--aa", metavar="POLICY", help="original, v0, rand-m9-mstd0.5, augmix-m5-w4-d2, ...")
    group.add_argument("--aug-repeats", type=float, default=0, metavar="N", help="times that each image is repeated")
    group.add_argument(
        "--aug-splits",
        type=int,
        default=0,
        metavar="N",
        help="versions of each image in a batch, the first without --aa",
    )
    group.add_argument("--jsd-loss", action="store_true", help="Jensen-Shannon divergence, with --aug-splits")
    group.add_argument("--bce-loss", action="store_true", help="binary cross-entropy")
    group.add_argument("--bce-sum", action="store_true", help="sum the binary cross-entropy over classes")
    group.add_argument(
        "--bce-target-thresh", type=float, metavar="X", help="targets above it become 1 and the others 0"
    )
    group.add_argument("--bce-pos-weight", type=float, metavar="X")
    _add_regularization_options(group)


def _add_regularization_options(group):
    group.add_argument("--reprob", type=share, default=0.0, metavar="P", help="probability of random erasing")
    group.add_argument("--remode", default="pixel", choices=("const", "rand", "pixel"))
    group.add_argument("--recount", type=at_least(1), default=1, metavar="N")
    group.add_argument("--resplit", action="store_true", help="do not erase in the first version of --aug-splits")
    group.add_argument("--mixup", type=float, default=0.0, metavar="ALPHA")
    group.add_argument("--cutmix", type=float, default=0.0, metavar="ALPHA")
    group.add_argument(
        "--cutmix-minmax",
        type=float,
        nargs=2,
        metavar="PCT",
        help="range of the sides of the patch, relative to the image",
    )
    group.add_argument("--mixup-prob", type=share, default=1.0, metavar="P", help="probability of Mixup or CutMix")
    group.add_argument(
        "--mixup-switch-prob", type=share, default=0.5, metavar="P", help="probability of CutMix where both are on"
    )
    group.add_argument("--mixup-mode", default="batch", choices=("batch", "pair", "elem", "half"))
    group.add_argument(
        "--mixup-off-epoch", type=int, default=0, metavar="N", help="first epoch without mixing; 0 for none"
    )
    group.add_argument("--smoothing", type=share, default=0.1, metavar="X", help="label smoothing")
    group.add_argument("--train-interpolation", default="random", metavar="NAME")
    group.add_argument("--drop", type=share, default=0.0, metavar="P", help="dropout before the classifier")
    group.add_argument("--drop-connect", type=share, metavar="P", help="an old name of --drop-path")
    group.add_argument(
        "--drop-path", type=share, metavar="P", help="stochastic depth: probability of leaving out the last block"
    )


def add_distillation_options(parser):
    """Add the options of a teacher, by the names of timm's train.py; ``--kd-checkpoint`` is pimm's own."""
    group = parser.add_argument_group("Distillation")
    group.add_argument(
        "--kd-model-name",
        metavar="NAME",
        help="teacher, with its pretrained weights, or those of --kd-checkpoint, which may name the teacher",
    )
    group.add_argument("--kd-checkpoint", default="", metavar="PATH", help="the teacher's weights, or its training")
    group.add_argument(
        "--kd-model-kwargs", nargs="*", default={}, action=ParseKwargs, metavar="KEY=VALUE", help="of the teacher"
    )
    group.add_argument("--kd-distill-type", default="logit", choices=("logit",), help="what the net learns to match")
    group.add_argument("--kd-loss-type", default="kl", choices=("kl",), help="KL divergence of the probabilities")
    group.add_argument("--kd-temperature", type=float, default=4.0, metavar="T", help="(default: 4)")
    group.add_argument(
        "--distill-loss-weight",
        type=float,
        metavar="X",
        help="weight of the divergence (default: 1, or 1 minus --task-loss-weight)",
    )
    group.add_argument(
        "--task-loss-weight", type=float, metavar="X", help="weight of the loss of the labels (default: 1)"
    )


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
    group.add_argument(
        "--initial-checkpoint",
        default="",
        metavar="PATH",
        help="weights to start with; a classifier of other classes begins anew, a stem of other channels is adapted",
    )
    group.add_argument(
        "--pretrained-path", default="", metavar="PATH", help="the same, with a new classifier even if it fits"
    )
    group.add_argument(
        "--freeze", nargs="+", default=[], metavar="PATTERN", help="layers or parameters that stay: 'blocks.[0-3]'"
    )
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
    group.add_argument("--amp-level", default="O1", choices=("O1", "O2"), help="O2: --amp casts the weights too")
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
