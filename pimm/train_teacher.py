"""The teacher that the options of a training name."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

from pimm.data import resolve_data_config
from pimm.engine import Teacher
from pimm.errors import CheckpointError, ConfigError, DataError
from pimm.models import load_checkpoint
from pimm.scripts import RECORDED, answer_from_checkpoint, build_model, find_checkpoint
from pimm.utils.checkpoint import EMA, read_manifest

_logger = logging.getLogger("train")


def create_teacher(args, data_config):
    """Return the teacher, with its weights, or None if the options name none.

    Args:
        args: the options of the training, with ``classes``, ``num_classes`` and ``in_chans`` of the net.
        data_config: settings by which the images of the net are normalised.

    Raises:
        ConfigError: for a teacher without weights, and for one of another number of classes.
        CheckpointError: if the weights are not those of the teacher.
        DataError: if the teacher was trained on other classes.
    """
    if not args.kd_checkpoint:
        if args.kd_model_name:
            raise ConfigError(f"the teacher {args.kd_model_name} has no weights: --kd-checkpoint PATH is missing")
        return None
    checkpoint = find_checkpoint(args.kd_checkpoint)
    options = _options_of_teacher(args, checkpoint)
    net = build_model(options)
    averaged = checkpoint.is_dir() and EMA in read_manifest(checkpoint)["files"]
    try:
        load_checkpoint(net, checkpoint, use_ema=averaged or None)
    except CheckpointError as error:
        raise CheckpointError(f"--kd-checkpoint is no {options.model} of {args.num_classes} classes: {error}") from None
    config = resolve_data_config(vars(options), model=net)
    _logger.info("the teacher is %s, with %s", options.model, checkpoint)
    return Teacher(net, *((each["mean"], each["std"]) for each in (config, data_config)))


def _options_of_teacher(args, checkpoint: Path):
    """Return the options that create the teacher, completed from its training and by the net's classes and channels."""
    options = SimpleNamespace(**dict.fromkeys(RECORDED), pretrained=False)
    options.model, options.model_kwargs = args.kd_model_name, args.kd_model_kwargs or None
    if checkpoint.is_dir() and options.model is None:
        options.model = read_manifest(checkpoint)["args"].get("model")
    if options.model is None:
        raise ConfigError(f"{checkpoint} does not name the model of the teacher: --kd-model-name NAME is missing")
    answer_from_checkpoint(options, checkpoint)
    for name, net in (("num_classes", args.num_classes), ("in_chans", args.in_chans)):
        recorded = getattr(options, name)
        if recorded not in (None, net):
            raise ConfigError(f"{name} of the teacher in {checkpoint} is {recorded}, and that of the net {net}")
        setattr(options, name, net)
    if options.classes and args.classes and list(options.classes) != list(args.classes):
        pairs = zip(options.classes, args.classes)
        theirs, ours = next((pair for pair in pairs if pair[0] != pair[1]), (options.classes[-1], args.classes[-1]))
        raise DataError(
            f"the teacher in {checkpoint} was trained on other classes: {theirs!r:.80} where the net has {ours!r:.80}"
        )
    return options
