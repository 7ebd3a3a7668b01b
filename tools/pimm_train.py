"""Train a model on images: ``python tools/pimm_train.py --data-dir DIR --model NAME ...``, with timm's options.

Runs from a clone that is not installed, and under ``python -m paddle.distributed.launch --nproc_per_node N``.
"""

import json
import logging
import math
import os
import sys
import time
from datetime import datetime
from functools import partial
from pathlib import Path

HERE = Path(__file__).resolve().parent  # must not be searched for modules: its select.py would hide Python's
sys.path = [str(HERE.parent), *(path for path in sys.path if Path(path).resolve() != HERE)]

import numpy as np

import pimm  # noqa: F401  (before Paddle, whose warning of ccache it silences)

# isort: split
import paddle

from pimm import preemption
from pimm.cli import Parser, at_least, run, share
from pimm.data import AugMixDataset, FastCollateMixup, Mixup, create_loader, resolve_data_config
from pimm.engine import evaluate
from pimm.errors import CheckpointError, ConfigError, TrainingError
from pimm.layers import convert_sync_batchnorm
from pimm.loss import create_classification_loss
from pimm.models import load_checkpoint, model_parameters, resume_checkpoint
from pimm.optim import create_optimizer_v2, group_lrs, optimizer_kwargs
from pimm.scheduler import create_scheduler_v2, scheduler_kwargs
from pimm.scripts import (
    add_data_options,
    add_device_options,
    add_model_options,
    as_yaml,
    autocast,
    build_model,
    class_list,
    create_evaluation_loader,
    find_checkpoint,
    open_dataset,
    same_images,
    start,
)
from pimm.train_options import add_augmentation_options, add_optimizer_options
from pimm.utils import (
    CheckpointSaver,
    ModelEmaV3,
    NativeScaler,
    all_reduce_gradients,
    all_reduce_sum,
    asked_to_end,
    barrier,
    broadcast_parameters,
    distribute_bn,
    gather_bn,
    get_outdir,
    is_primary,
    random_seed,
    scatter_bn,
    trim_summary,
    update_summary,
    write_text,
)
from pimm.utils.checkpoint import list_checkpoints

RESUME_HINT = "--resume with the folder of the training goes on from its last checkpoint, if there is one"

_logger = logging.getLogger("train")


def make_parser():
    parser = Parser(description="Train a model on images.")
    add_data_options(parser)
    group = parser.add_argument_group("Splits")
    group.add_argument("--train-split", default="train", metavar="NAME")
    group.add_argument("--val-split", default="validation", metavar="NAME", help="empty for no evaluation")
    group.add_argument("--train-num-samples", type=int, metavar="N", help="in wds shards that do not say")
    group.add_argument("--val-num-samples", type=int, metavar="N")
    group.add_argument("--epoch-repeats", type=float, default=0.0, metavar="N", help="of wds shards in an epoch")
    add_model_options(parser, model="mobilenetv3_large_100")
    group = parser.add_argument_group("Start")
    group.add_argument("--initial-checkpoint", default="", metavar="PATH", help="weights to begin with")
    group.add_argument(
        "--resume", default="", metavar="PATH", help="checkpoint, or folder of a training, to go on from"
    )
    group.add_argument("--no-resume-opt", action="store_true", help="resume weights and epoch alone")
    group.add_argument("--start-epoch", type=at_least(0), metavar="N", help="count on from this epoch")
    group.add_argument("--head-init-scale", type=float, metavar="X", help="times the classifier's first weights")
    group.add_argument("--head-init-bias", type=float, metavar="X", help="the classifier's first biases")
    add_device_options(parser)
    group = parser.add_argument_group("Batches")
    group.add_argument("-b", "--batch-size", type=at_least(1), default=128, metavar="N", help="images of one process")
    group.add_argument("-vb", "--validation-batch-size", type=at_least(1), metavar="N", help="(default: --batch-size)")
    group.add_argument("--grad-accum-steps", type=at_least(1), default=1, metavar="N", help="batches of one update")
    group.add_argument("--use-multi-epochs-loader", action="store_true", help="read ahead into the next epoch")
    group.add_argument("--worker-seeding", default="all", metavar="MODE", help="all or part, which are the same here")
    add_optimizer_options(parser)
    add_augmentation_options(parser)
    add_other_options(parser)
    return parser


def add_other_options(parser):
    group = parser.add_argument_group("Batch norm")
    group.add_argument("--bn-momentum", type=float, metavar="M", help="(default: the model's)")
    group.add_argument("--bn-eps", type=float, metavar="EPSILON", help="(default: the model's)")
    group.add_argument("--sync-bn", action="store_true", help="normalise by the batches of all processes together")
    group.add_argument("--dist-bn", default="reduce", choices=("reduce", "broadcast", ""), help="after each epoch")

    group = parser.add_argument_group("Moving average of the weights")
    group.add_argument("--model-ema", action="store_true", help="keep one; its results count")
    group.add_argument(
        "--model-ema-force-cpu", action="store_true", help="keep it on the CPU; it is not evaluated then"
    )
    group.add_argument("--model-ema-decay", type=share, default=0.9998, metavar="X")
    group.add_argument("--model-ema-warmup", action="store_true", help="begin with a smaller decay")

    group = parser.add_argument_group("Miscellaneous")
    group.add_argument("--seed", type=at_least(0), default=42, metavar="S")
    group.add_argument(
        "--recovery-interval", type=at_least(0), default=0, metavar="N", help="updates between checkpoints"
    )
    group.add_argument("--checkpoint-hist", type=at_least(1), default=10, metavar="N", help="best checkpoints to keep")
    group.add_argument("--output", default="", metavar="DIR", help="(default: output/train)")
    group.add_argument("--experiment", default="", metavar="NAME", help="folder in it (default: date, model and size)")
    group.add_argument(
        "--eval-metric", default="top1", choices=("top1", "top5", "loss"), help="which ranks checkpoints"
    )


def main(argv=None):
    args = make_parser().parse_args(argv)
    args_text = as_yaml(args)
    start(args)
    random_seed(args.seed, args.rank)
    model = create_model_to_train(args)
    data_config = resolve_data_config(vars(args), model=model, verbose=is_primary(args))
    loader_train, mixup_fn = create_training_loader(args, data_config)
    loader_eval = None
    if args.val_split:
        dataset = open_dataset(args, args.val_split, num_samples=args.val_num_samples)
        if same_images(dataset, loader_train.dataset):
            _logger.warning("%s: there is but one split, and the model is evaluated on what it trains on", dataset.root)
        loader_eval = create_evaluation_loader(
            args, dataset, data_config, args.validation_batch_size or args.batch_size
        )
    elif args.eval_metric != "loss":
        raise ConfigError(f"without --val-split there is no {args.eval_metric}: --eval-metric loss is the training's")
    output_dir = saver = None
    decreasing = args.eval_metric == "loss"
    if is_primary(args):
        now, size = datetime.now().strftime("%Y%m%d-%H%M%S"), data_config["input_size"][-1]
        output_dir = get_outdir(args.output or "output/train", args.experiment or f"{now}-{args.model}-{size}")
        if not args.resume and list_checkpoints(output_dir):
            raise ConfigError(
                f"{output_dir} holds a training already: --resume {output_dir} goes on with it, another --experiment "
                "begins anew"
            )
        write_text(Path(output_dir, "args.yaml"), args_text)
        saver = CheckpointSaver(checkpoint_dir=output_dir, decreasing=decreasing, max_history=args.checkpoint_hist)

    training = Training(args, model, loader_train, mixup_fn, saver)
    if args.resume:
        training.resume(find_checkpoint(args.resume))
    if args.start_epoch is not None:
        training.go_to(args.start_epoch)
    summary = output_dir and os.path.join(output_dir, "summary.csv")
    if summary:
        trim_summary(summary, training.epoch)
    with preemption.deferred():
        results, best = fit(training, loader_eval, summary, args.eval_metric)
    if is_primary(args):
        if best[0] is not None:
            _logger.info("*** Best metric: %s (epoch %d)", *best)
        results.sort(
            key=lambda entry: entry.get("validation", entry["train"])[args.eval_metric], reverse=not decreasing
        )
        print(f"--result\n{json.dumps(results[:10], indent=4)}")


def fit(training, loader_eval, summary, eval_metric):
    """Train the epochs that are left; returns what each of them gave, and the best metric and its epoch."""
    results, best = [], (None, None)
    if training.epoch >= training.epochs:
        _logger.warning("all of the %d epochs are done: with more --epochs it goes on", training.epochs)
    while training.epoch < training.epochs:
        epoch = training.epoch
        train_metrics = training.train_one_epoch()
        eval_metrics = training.evaluate_epoch(loader_eval) if loader_eval is not None else {}
        rates = group_lrs(training.optimizer)
        if summary:  # before the checkpoint: going on takes out a row too many, but misses one too few
            update_summary(epoch, train_metrics, eval_metrics, summary, lr=sum(rates) / len(rates))
        best = training.finish_epoch({**train_metrics, **eval_metrics}[eval_metric]) or best
        results.append(
            {"epoch": epoch, "train": train_metrics, **({"validation": eval_metrics} if eval_metrics else {})}
        )
        if asked_to_end() and training.epoch < training.epochs:
            raise training.preempted()
    return results, best


def create_model_to_train(args):
    model = build_model(
        args,
        drop_rate=args.drop,
        drop_path_rate=args.drop_path,
        drop_connect_rate=args.drop_connect,
        bn_momentum=args.bn_momentum,
        checkpoint_path=args.initial_checkpoint,
    )
    classifier = model.get_classifier()
    with paddle.no_grad():
        if args.head_init_scale is not None:
            classifier.weight.scale_(args.head_init_scale)
        if args.head_init_bias is not None:
            classifier.bias.fill_(args.head_init_bias)
    if args.sync_bn:
        args.dist_bn = ""  # they are the same everywhere anyway
        model = convert_sync_batchnorm(model)
    broadcast_parameters(model)
    return model


def create_training_loader(args, data_config):
    """The loader, and what mixes its batches if it does not do so itself."""
    mixup_fn = collate_fn = None
    if args.aa and args.in_chans not in (1, 3):
        raise ConfigError(f"--aa has no operations for images of {args.in_chans} channels")
    if args.aug_splits and (args.aug_splits < 2 or args.no_prefetcher or mixes(args)):
        raise ConfigError("--aug-splits is 2 or more, and goes neither with --mixup and --cutmix nor --no-prefetcher")
    if mixes(args):
        make = Mixup if args.no_prefetcher else FastCollateMixup
        mixup_fn = make(
            mixup_alpha=args.mixup,
            cutmix_alpha=args.cutmix,
            cutmix_minmax=args.cutmix_minmax,
            prob=args.mixup_prob,
            switch_prob=args.mixup_switch_prob,
            mode=args.mixup_mode,
            label_smoothing=args.smoothing,
            num_classes=args.num_classes,
        )
        if not args.no_prefetcher:
            mixup_fn, collate_fn = None, mixup_fn
    options = {"num_samples": args.train_num_samples, "repeats": args.epoch_repeats, "seed": args.seed}
    dataset = open_dataset(args, args.train_split, is_training=True, batch_size=args.batch_size, **options)
    args.classes = class_list(dataset)  # a checkpoint knows what it can tell apart
    if len(args.classes) != args.num_classes:
        counts = len(args.classes), args.num_classes
        _logger.warning("there are %d classes of images, and the model tells %d apart: see --num-classes", *counts)
    if args.aug_splits:
        dataset = AugMixDataset(dataset, num_splits=args.aug_splits)
    loader = create_loader(
        dataset,
        data_config["input_size"],
        args.batch_size,
        is_training=True,
        no_aug=args.no_aug,
        re_prob=args.reprob,
        re_mode=args.remode,
        re_count=args.recount,
        re_split=args.resplit,
        train_crop_mode=args.train_crop_mode,
        scale=args.scale,
        ratio=args.ratio,
        hflip=args.hflip,
        vflip=args.vflip,
        color_jitter=args.color_jitter,
        color_jitter_prob=args.color_jitter_prob,
        grayscale_prob=args.grayscale_prob,
        gaussian_blur_prob=args.gaussian_blur_prob,
        auto_augment=args.aa,
        num_aug_repeats=args.aug_repeats,
        num_aug_splits=args.aug_splits,
        interpolation=data_config["interpolation"] if args.no_aug else args.train_interpolation,
        mean=data_config["mean"],
        std=data_config["std"],
        num_workers=args.workers,
        distributed=args.distributed,
        collate_fn=collate_fn,
        pin_memory=args.pin_mem,
        use_prefetcher=not args.no_prefetcher,
        use_multi_epochs_loader=args.use_multi_epochs_loader,
        worker_seeding=args.worker_seeding,
        seed=args.seed,
    )
    return loader, mixup_fn


def mixes(args):
    return args.mixup > 0 or args.cutmix > 0 or args.cutmix_minmax is not None


def create_loss(args):
    return create_classification_loss(
        "jsd" if args.jsd_loss else "bce" if args.bce_loss else "ce",
        smoothing=args.smoothing,
        soft_targets=mixes(args),
        bce_sum=args.bce_sum,
        bce_target_thresh=args.bce_target_thresh,
        pos_weight=args.bce_pos_weight,
        jsd_splits=args.aug_splits,
    )


def set_learning_rate(args):
    """``args.lr``, from the rate of a batch of ``lr_base_size`` where it is not given."""
    if args.lr:
        return
    ratio = args.batch_size * args.world_size * args.grad_accum_steps / args.lr_base_size
    is_adaptive = any(name in args.opt.lower() for name in ("ada", "lamb"))
    scale = args.lr_base_scale or ("sqrt" if is_adaptive else "linear")
    args.lr = args.lr_base * (math.sqrt(ratio) if scale == "sqrt" else ratio)
    _logger.info(
        "learning rate %g, from %g at %d images by %s scaling", args.lr, args.lr_base, args.lr_base_size, scale
    )


class Training:
    """A model on its way, and all that the next batch depends on."""

    def __init__(self, args, model, loader, mixup_fn, saver):
        self.args, self.model, self.loader, self.mixup_fn, self.saver = args, model, loader, mixup_fn, saver
        self.loss_fn = create_loss(args)
        set_learning_rate(args)
        self.optimizer = create_optimizer_v2(model, **{**optimizer_kwargs(cfg=args), **args.opt_kwargs})
        self.parameters = [param for param in model.parameters() if not param.stop_gradient]
        self.to_clip = list(model_parameters(model, exclude_head=args.clip_mode == "agc"))
        self.scaler = NativeScaler(args.device if args.amp and args.amp_dtype == "float16" else "cpu")
        self.model_ema = None
        if args.model_ema:
            device = "cpu" if args.model_ema_force_cpu else None
            decay = {"decay": args.model_ema_decay, "use_warmup": args.model_ema_warmup}
            self.model_ema = ModelEmaV3(model, device=device, **decay)
        self.updates_per_epoch = math.ceil(len(loader) / args.grad_accum_steps)
        kwargs = scheduler_kwargs(args)
        self.scheduler, self.epochs = create_scheduler_v2(
            self.optimizer, **kwargs, updates_per_epoch=self.updates_per_epoch
        )
        self.first_rate = self.optimizer.get_lr()
        self.unstepped = self.scheduler.state_dict() if self.scheduler is not None else None
        self.epoch = self.batch = self.updates = 0  # of the next batch, and those done
        self.totals = paddle.zeros([2], "float64")  # loss and images of the epoch, of this process

    @property
    def nets(self):
        """The nets whose running statistics the processes share."""
        has_ema = self.model_ema is not None and not self.args.model_ema_force_cpu
        return [self.model, self.model_ema.module] if has_ema else [self.model]

    def train_one_epoch(self):
        """The batches that are left of the epoch; returns its mean loss. After SIGTERM saves, and raises Preempted."""
        args, batches, began = self.args, len(self.loader), time.perf_counter()
        if args.mixup_off_epoch and self.epoch >= args.mixup_off_epoch:
            self.loader.mixup_enabled = False
            if self.mixup_fn is not None:
                self.mixup_fn.mixup_enabled = False
        self.model.train()
        self.loader.set_epoch(self.epoch, self.batch)
        seen = 0
        for images, labels in self.loader:
            # Dropout and mixing draw from streams whose state cannot be saved: begin them anew for every batch.
            drawn = np.random.SeedSequence([args.seed, self.epoch, self.batch]).generate_state(1)[0]
            random_seed(int(drawn) // 2, args.rank)
            if self.mixup_fn is not None:
                images, labels = self.mixup_fn(images, labels)
            seen += len(labels) * args.world_size
            self.batch += 1
            if not self.train_batch(images, labels):
                continue
            update = math.ceil(self.batch / args.grad_accum_steps)
            logs = update % args.log_interval == 0 or self.batch == batches
            if logs:
                self.report(seen / (time.perf_counter() - began))
            if args.recovery_interval and update % args.recovery_interval == 0 and self.batch < batches:
                self.save_recovery()
            if asked_to_end(waiting=logs):
                self.stop()
        if args.dist_bn:
            for net in self.nets:
                distribute_bn(net, reduce=args.dist_bn == "reduce")
        return {"loss": self.mean_loss()}

    def train_batch(self, images, labels):
        """Forward and backward; and an update, if the batch is the last of one: returns whether it is."""
        args, batches = self.args, len(self.loader)
        first = (self.batch - 1) // args.grad_accum_steps * args.grad_accum_steps
        together = min(args.grad_accum_steps, batches - first)
        with autocast(args):
            loss = self.loss_fn(self.model(images), labels)
        self.totals += paddle.stack([loss.detach().astype("float64"), paddle.ones([], "float64")]) * len(labels)
        self.scaler(loss / together, self.optimizer, need_update=False)
        if self.batch - first < together:
            return False
        all_reduce_gradients(self.parameters)
        self.scaler.step(self.optimizer, args.clip_grad, args.clip_mode, self.to_clip)
        self.optimizer.clear_grad(set_to_zero=False)
        self.updates += 1
        if self.model_ema is not None:
            self.model_ema.update(self.model, step=self.updates)
        if self.scheduler is not None:
            self.scheduler.step_update(self.updates)
        return True

    def report(self, images_per_second):
        """Log the epoch's mean loss so far; TrainingError, in all processes, if it is not finite."""
        loss, done, batches = self.mean_loss(), self.batch, len(self.loader)
        if not math.isfinite(loss):
            raise self.broken(f"the loss became {loss}")
        _logger.info(
            "Train: %d [%d/%d (%.0f%%)]  Loss: %.4g  LR: %.3e  %.0f images/s",
            *(self.epoch, done, batches, 100 * done / batches, loss, group_lrs(self.optimizer)[0], images_per_second),
        )

    def mean_loss(self):
        """Of the epoch so far and all processes."""
        total, images = all_reduce_sum(self.totals).tolist()
        return total / images

    def stop(self):
        """Save, and raise Preempted."""
        self.save_recovery()
        raise self.preempted()

    def preempted(self):
        """What tells that the training ended, saved as it is."""
        place = f" in {self.saver.checkpoint_dir}" if self.saver is not None else ""
        text = f"ended by SIGTERM and saved{place} at epoch {self.epoch}, batch {self.batch}"
        return preemption.Preempted(text, saved=True)

    def broken(self, what):
        return TrainingError(
            f"{what} at epoch {self.epoch}, batch {self.batch}: try a lower --lr or set --clip-grad; "
            "the checkpoints before it are as they were"
        )

    def evaluate_epoch(self, loader):
        """What ``evaluate`` finds; SIGTERM breaks it off, where no other process waits for this one's part."""
        if self.args.distributed:
            return self.evaluate(loader)
        try:
            with preemption.acting():
                return self.evaluate(loader)
        except preemption.Preempted:
            self.stop()

    def evaluate(self, loader):
        """Metrics of the model, or of its moving average if there is one."""
        for net in self.nets:
            net.eval()
            with autocast(self.args):
                metrics = evaluate(net, loader, self.args.tta)
            name = "Test" if net is self.model else "Test (EMA)"
            text = "  ".join(f"{key}: {value:.4g}" for key, value in metrics.items())
            _logger.info("%s: %d  %s", name, self.epoch, text)
        return metrics

    def finish_epoch(self, metric):
        """Go to the next epoch and save it; returns the best metric and its epoch in the process that saves."""
        finished = self.epoch
        if self.scheduler is not None:
            self.scheduler.step(finished + 1, metric)
        self.epoch, self.batch, self.totals = finished + 1, 0, paddle.zeros([2], "float64")
        return self.save(partial(CheckpointSaver.save_checkpoint, metric=metric), finished)

    def save_recovery(self):
        """Write a checkpoint inside the epoch."""
        self.save(partial(CheckpointSaver.save_recovery, batch_idx=self.batch), self.epoch)

    def save(self, write, epoch):
        """Write a checkpoint with all that the next batch depends on; never of weights that are not finite."""
        values = self.model.state_dict().values()
        bad = all_reduce_sum(paddle.stack([(~value.isfinite()).any() for value in values]).astype("int32").sum())
        if bad.item():
            raise self.broken("the weights are no longer finite")
        state = {
            "epoch": self.epoch,
            "batch": self.batch,
            "updates": self.updates,
            "totals": all_reduce_sum(self.totals).tolist(),
            "shape": self.shape,
            "scheduler": self.scheduler.state_dict() if self.scheduler is not None else None,
            self.scaler.state_dict_key: self.scaler.state_dict(),
            "statistics": [gather_bn(net) for net in self.nets],  # inside an epoch each process has its own
        }
        best = None
        if self.saver is not None:
            best = write(
                self.saver, self.model, self.optimizer, self.args, epoch, model_ema=self.model_ema, state=state
            )
        barrier()
        return best

    @property
    def shape(self):
        """What the place inside an epoch means something for."""
        return [self.args.world_size, self.args.batch_size, self.args.grad_accum_steps]

    def go_to(self, epoch):
        """Set the clocks, and the rates by them, to the beginning of an epoch."""
        self.epoch, self.batch, self.updates = epoch, 0, epoch * self.updates_per_epoch
        self.totals = paddle.zeros([2], "float64")
        self.set_rates()

    def set_rates(self):
        """The rates of these options at the clocks, not those of a checkpoint: --lr or --epochs may have changed."""
        if self.scheduler is None:
            self.optimizer.set_lr(self.first_rate)
            return
        if self.epoch == 0:
            self.scheduler.load_state_dict(self.unstepped)
        else:  # a plateau schedule goes on from what it has seen, which needs no metric again
            self.scheduler.step(self.epoch)
        if self.updates > 0:
            self.scheduler.step_update(self.updates)

    def resume(self, path):
        """Go on from a checkpoint, as if there had been no break, or from a file of PyTorch's, at an epoch's start."""
        optimizer = None if self.args.no_resume_opt else self.optimizer
        other, epoch = resume_checkpoint(self.model, path, optimizer)
        if self.model_ema is not None:
            self.resume_average(path)
        self.go_to(epoch or 0)
        state = other.get("state")
        if optimizer is None or state is None:
            return
        if state["batch"] and state["shape"] != self.shape:
            raise CheckpointError(
                f"{path} is from inside an epoch of {state['shape'][0]} processes with batches of {state['shape'][1]} "
                f"and {state['shape'][2]} of them an update; go on alike, or from the end of an epoch"
            )
        self.epoch, self.batch, self.updates = state["epoch"], state["batch"], state["updates"]
        if self.args.rank == 0:
            self.totals = paddle.to_tensor(state["totals"], "float64")
        if state["shape"][0] == self.args.world_size:
            for net, rows in zip(self.nets, state["statistics"]):
                scatter_bn(net, rows)
        if state[self.scaler.state_dict_key]:
            self.scaler.load_state_dict(state[self.scaler.state_dict_key])
        if self.scheduler is not None and state["scheduler"] is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        self.set_rates()
        _logger.info("going on from %s: epoch %d, batch %d", path, self.epoch, self.batch)

    def resume_average(self, path):
        """Go on with the average of a checkpoint that the model has been read from, or as timm begin one there."""
        try:
            load_checkpoint(self.model_ema.module, path, use_ema=True)
        except CheckpointError as error:  # the rest of it is sound, so that it was saved without one
            _logger.warning("%s: the average begins with the model's own weights", error)
            self.model_ema.set(self.model)


if __name__ == "__main__":
    sys.exit(run(main, RESUME_HINT))
