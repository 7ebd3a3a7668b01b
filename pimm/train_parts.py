"""What the options of a training become: its model, moving average, loss and learning rate."""

from __future__ import annotations

import logging
import math

import paddle

from pimm.data import FastCollateMixup, Mixup
from pimm.errors import ConfigError
from pimm.layers import convert_sync_batchnorm
from pimm.loss import create_classification_loss
from pimm.models import load_initial_weights
from pimm.scripts import build_model, find_checkpoint
from pimm.utils import ModelEmaV3, broadcast_parameters, freeze_matching

_logger = logging.getLogger("train")


def create_model_to_train(args):
    """Return the model with its first weights, the same in all processes."""
    args.pretrained = args.pretrained and not args.pretrained_path  # which says where they are
    model = build_model(
        args,
        drop_rate=args.drop,
        drop_path_rate=args.drop_path,
        drop_connect_rate=args.drop_connect,
        bn_momentum=args.bn_momentum,
    )
    _load_first_weights(args, model)
    if args.freeze:
        freeze_matching(model, args.freeze)
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


def _load_first_weights(args, model):
    """Load the weights that the options name; those of --pretrained-path without their classifier, as in timm.

    Raises:
        ConfigError: for two files of weights.
    """
    if args.initial_checkpoint and args.pretrained_path:
        raise ConfigError("--initial-checkpoint and --pretrained-path both name the first weights: give one of them")
    path = args.initial_checkpoint or args.pretrained_path
    if path:
        load_initial_weights(model, find_checkpoint(path), new_classifier=bool(args.pretrained_path))


def create_average(args, model):
    """Return the moving average of the weights that the options ask for, or None."""
    if not args.model_ema:
        return None
    device = "cpu" if args.model_ema_force_cpu else None
    return ModelEmaV3(model, device=device, decay=args.model_ema_decay, use_warmup=args.model_ema_warmup)


def create_loss(args):
    """Return the loss of a batch."""
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
    """Set ``args.lr``, where it is not given, from the rate of a batch of ``lr_base_size`` images."""
    if args.lr:
        return
    ratio = args.batch_size * args.world_size * args.grad_accum_steps / args.lr_base_size
    is_adaptive = any(name in args.opt.lower() for name in ("ada", "lamb"))
    scale = args.lr_base_scale or ("sqrt" if is_adaptive else "linear")
    args.lr = args.lr_base * (math.sqrt(ratio) if scale == "sqrt" else ratio)
    _logger.info(
        "learning rate %g, from %g at %d images by %s scaling", args.lr, args.lr_base, args.lr_base_size, scale
    )


def mixes(args):
    """Return whether batches are mixed by Mixup or CutMix."""
    return not (args.mixup <= 0 and args.cutmix <= 0) or args.cutmix_minmax is not None


def create_mixer(args):
    """Return what mixes batches as the options say, for the loader's workers or, with --no-prefetcher, for the loop."""
    if not mixes(args):
        return None
    make = Mixup if args.no_prefetcher else FastCollateMixup
    return make(
        mixup_alpha=args.mixup,
        cutmix_alpha=args.cutmix,
        cutmix_minmax=args.cutmix_minmax,
        prob=args.mixup_prob,
        switch_prob=args.mixup_switch_prob,
        mode=args.mixup_mode,
        label_smoothing=args.smoothing,
        num_classes=args.num_classes,
    )
