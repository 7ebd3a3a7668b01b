"""Train a model on images: ``pimm-train --data-dir DIR --model NAME ...``, with timm's options."""

import json
import logging
import math
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import partial
from pathlib import Path

import numpy as np

from pimm.data import AugMixDataset, class_names, create_loader, resolve_data_config
from pimm.engine import ClassifyStep, DistillStep, RunLog, Trainer, Update, evaluate, train_mode
from pimm.errors import ConfigError
from pimm.loss import LogitDistillationLoss, distillation_weights
from pimm.models import model_parameters, safe_model_name
from pimm.optim import create_optimizer_v2, optimizer_kwargs
from pimm.options import make_train_parser as make_parser
from pimm.scheduler import create_scheduler_v2, scheduler_kwargs
from pimm.scripts import (
    as_yaml,
    autocast,
    create_evaluation_loader,
    find_checkpoint,
    open_dataset,
    same_images,
    start,
)
from pimm.train_parts import (
    create_average,
    create_loss,
    create_mixer,
    create_model_to_train,
    mixes,
    set_learning_rate,
)
from pimm.train_teacher import create_teacher
from pimm.utils import (
    CheckpointSaver,
    get_outdir,
    is_primary,
    random_seed,
    write_text,
)
from pimm.utils.checkpoint import list_checkpoints

_logger = logging.getLogger("train")


def main(argv=None):
    """Train a model as the options say, and print the best epochs as JSON."""
    args = make_parser().parse_args(argv)
    args_text = as_yaml(args)
    start(args, args.train_split, args.val_split)
    random_seed(args.seed, args.rank)
    model = create_model_to_train(args)
    data_config = resolve_data_config(vars(args), model=model, verbose=is_primary(args))
    loader_train, mixup_fn = create_training_loader(args, data_config)
    loader_eval = create_validation_loader(args, data_config, loader_train.dataset)
    teacher = create_teacher(args, data_config)
    checkpoint = find_checkpoint(args.resume) if args.resume else None
    folder = create_output_folder(args, data_config["input_size"][-1])
    results = []
    with RunLog(folder, curves=False, rates=True) as run:
        with removed_if_empty(folder):
            step = create_step(args, model, mixup_fn, teacher)
            trainer = create_trainer(args, step, loader_train, loader_eval, run, results)
            trainer.resume_or_start(checkpoint, with_optimizer=not args.no_resume_opt, strict=False)
        if folder is not None:
            write_text(folder / "args.yaml", args_text)  # only now: a training that cannot resume keeps its own
        if args.start_epoch is not None:
            trainer.start_at(args.start_epoch)
        if trainer.epoch >= trainer.epochs:
            _logger.warning("all of the %d epochs are done: more --epochs continue the training", trainer.epochs)
        trainer.fit()
    if is_primary(args):
        if trainer.saver.best_metric is not None:
            _logger.info("*** Best metric: %s (epoch %d)", trainer.saver.best_metric, trainer.saver.best_epoch)
        lower_is_better = args.eval_metric == "loss"
        results.sort(
            key=lambda entry: entry.get("validation", entry["train"])[args.eval_metric], reverse=not lower_is_better
        )
        print(f"--result\n{json.dumps(results[:10], indent=4)}")


def create_output_folder(args, size):
    """Create the training's folder, and return it; None in all processes but the first."""
    if not is_primary(args):
        return None
    name = f"{datetime.now().strftime('%Y%m%d-%H%M%S')}-{safe_model_name(args.model)}-{size}"
    folder = Path(get_outdir(args.output or "output/train", args.experiment or name))
    if not args.resume and list_checkpoints(folder):
        raise ConfigError(
            f"{folder} holds a training already: --resume {folder} resumes it, another --experiment starts anew"
        )
    return folder


@contextmanager
def removed_if_empty(folder):
    """Remove the folder of a training that fails inside the context, if nothing is in it."""
    try:
        yield
    except BaseException:
        if folder is not None:
            with suppress(OSError):
                folder.rmdir()
        raise


def create_step(args, model, mixup_fn, teacher=None):
    """Return what one batch does: forward, backward, update, moving average; with a teacher, distillation."""
    set_learning_rate(args)
    optimizer = create_optimizer_v2(model, **{**optimizer_kwargs(cfg=args), **args.opt_kwargs})
    update = Update(
        optimizer,
        args.amp,
        args.clip_grad,
        clip_mode=args.clip_mode,
        to_clip=list(model_parameters(model, exclude_head=args.clip_mode == "agc")),
        accumulate=args.grad_accum_steps,
        amp_dtype=args.amp_dtype,
        amp_level=args.amp_level,
    )
    make, options = ClassifyStep, {}
    if teacher is not None:
        weights = distillation_weights(args.task_loss_weight, args.distill_loss_weight)
        kd_loss = LogitDistillationLoss(args.kd_temperature)
        make, options = DistillStep, {"teacher": teacher, "kd_loss": kd_loss, "weights": weights}
    average = create_average(args, model)  # of float32: before the weights are cast
    update.cast_weights(model)
    return make(model, create_loss(args), update, average, topk=(), mix=mixup_fn, **options)


def create_trainer(args, step, loader, loader_eval, run, results):
    """Return the training loop; ``results`` collects the metrics of each epoch."""
    scheduler, epochs = create_scheduler_v2(
        step.update.optimizer,
        **scheduler_kwargs(args),
        updates_per_epoch=math.ceil(len(loader) / args.grad_accum_steps),
    )
    saver = None
    if run.folder is not None:
        history = {"decreasing": args.eval_metric == "loss", "max_history": args.checkpoint_hist}
        saver = CheckpointSaver(checkpoint_dir=str(run.folder), **history)

    def switch_mixing(epoch):
        for mixer in filter(None, (loader, step.mix)):
            mixer.mixup_enabled = not args.mixup_off_epoch or epoch < args.mixup_off_epoch

    def collect(epoch, train, evaluated):
        results.append({"epoch": epoch, "train": train, **({"validation": evaluated} if evaluated else {})})

    return Trainer(
        step,
        loader,
        [] if loader_eval is None else [partial(evaluate_nets, args, step, loader_eval)],
        epochs=epochs,
        scheduler=scheduler,
        saver=saver,
        run=run,
        seed_batch=partial(seed_streams, args),
        settings={"eval_metric": args.eval_metric},  # one ranking of the checkpoints in a folder
        layout={
            "processes": args.world_size,
            "batch size": args.batch_size,
            "batches of an update": args.grad_accum_steps,
        },
        recorded=vars(args),
        metric=args.eval_metric,
        before_epoch=[switch_mixing],
        after_epoch=[collect],
        share_statistics=args.dist_bn,
        log_interval=args.log_interval,
        recovery_interval=args.recovery_interval,
        remedy="try a lower --lr or set --clip-grad",
    )


def seed_streams(args, epoch, batch):
    """Start the streams of dropout and mixing anew for a batch: their state cannot be saved."""
    drawn = np.random.SeedSequence([args.seed, epoch, batch]).generate_state(1)[0]
    random_seed(int(drawn) // 2, args.rank)


def evaluate_nets(args, step, loader):
    """Return the metrics of the model, or of its moving average if there is one on this device."""
    for net in step.nets:
        with train_mode(net, training=False), autocast(args):
            metrics = evaluate(net, loader, args.tta)
        text = "  ".join(f"{key}: {value:.4g}" for key, value in metrics.items())
        _logger.info("%s: %s", "Test" if net is step.net else "Test (EMA)", text)
    return metrics


def create_validation_loader(args, data_config, trained_on):
    """Return the loader of the validation images, or None where --val-split is empty."""
    if not args.val_split:
        if args.eval_metric != "loss":
            raise ConfigError(
                f"without --val-split there is no {args.eval_metric}: --eval-metric loss is the training's"
            )
        return None
    dataset = open_dataset(args, args.val_split, num_samples=args.val_num_samples)
    if same_images(dataset, trained_on):
        _logger.warning("%s: there is but one split, and the model is evaluated on what it trains on", dataset.root)
    return create_evaluation_loader(args, dataset, data_config, args.validation_batch_size or args.batch_size)


def create_training_loader(args, data_config):
    """Return the loader, and what mixes its batches if the loader does not do so itself."""
    if args.aa and args.in_chans not in (1, 3):
        raise ConfigError(f"--aa has no operations for images of {args.in_chans} channels")
    if args.aug_splits and (args.aug_splits < 2 or args.no_prefetcher or mixes(args)):
        raise ConfigError("--aug-splits is 2 or more, and goes neither with --mixup and --cutmix nor --no-prefetcher")
    options = {"num_samples": args.train_num_samples, "repeats": args.epoch_repeats, "seed": args.seed}
    dataset = open_dataset(args, args.train_split, is_training=True, batch_size=args.batch_size, **options)
    args.classes = class_names(dataset)  # a checkpoint knows what it can tell apart
    if len(args.classes) != args.num_classes:
        counts = len(args.classes), args.num_classes
        _logger.warning("there are %d classes of images, and the model tells %d apart: see --num-classes", *counts)
    if args.aug_splits:
        dataset = AugMixDataset(dataset, num_splits=args.aug_splits)
    mixer = create_mixer(args)
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
        collate_fn=None if args.no_prefetcher else mixer,
        pin_memory=args.pin_mem,
        use_prefetcher=not args.no_prefetcher,
        use_multi_epochs_loader=args.use_multi_epochs_loader,
        worker_seeding=args.worker_seeding,
        seed=args.seed,
    )
    return loader, mixer if args.no_prefetcher else None
