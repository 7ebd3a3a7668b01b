"""The teacher that the options of a training name."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

from pimm.data import resolve_data_config
from pimm.data.imagenet import describe_classes
from pimm.engine import Teacher
from pimm.errors import CheckpointError, ConfigError, DataError
from pimm.model_packages import net_loader
from pimm.models import is_model, is_model_pretrained, load_checkpoint, parse_model_name
from pimm.scripts import RECORDED, answer_from_checkpoint, build_model, find_checkpoint
from pimm.utils.checkpoint import EMA, MANIFEST, latest_checkpoint, read_manifest
from pimm.utils.checkpoint_saver import BEST
from pimm.utils.model_record import read_record

_logger = logging.getLogger("train")


def create_teacher(args, data_config):
    """Return the teacher, with its weights, or None if the options name none.

    Weights that do not note their model are left to the package that loads nets by their paths, such as cream. A model
    that is named without a file of weights gets its pretrained ones.

    Args:
        args: the options of the training, with ``classes``, ``num_classes`` and ``in_chans`` of the net.
        data_config: settings by which the images of the net are normalised.

    Raises:
        ConfigError: for a teacher without weights, for one of another number of classes or channels, and for weights of
            its loss without a teacher.
        CheckpointError: if the weights are not those of the teacher.
        DataError: if the teacher was trained on other classes.
    """
    if not args.kd_checkpoint:
        if args.kd_model_name:
            return _pretrained_teacher(args, data_config)
        if args.distill_loss_weight is not None or args.task_loss_weight is not None:
            raise ConfigError("--distill-loss-weight and --task-loss-weight need a teacher: --kd-checkpoint is missing")
        return None
    path = Path(args.kd_checkpoint)
    load = net_loader()
    if args.kd_model_name is None and load and path.exists() and not _notes_model(path):
        given = {**data_config, "channel_order": "rgb"}
        return teach(*_load_by_path(load, path), given, args.num_classes, args.classes, path)
    checkpoint = find_checkpoint(path / BEST if (path / BEST).is_dir() else path)
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


def _pretrained_teacher(args, data_config):
    name = args.kd_model_name
    if not parse_model_name(name)[0] and is_model(name) and not is_model_pretrained(name):
        raise ConfigError(f"the teacher {name} has no pretrained weights: --kd-checkpoint PATH is missing")
    options = SimpleNamespace(**{**dict.fromkeys(RECORDED), "pretrained": True, "in_chans": args.in_chans})
    options.model, options.model_kwargs = name, args.kd_model_kwargs or None
    net = build_model(options)
    if net.num_classes != args.num_classes:
        raise ConfigError(
            f"num_classes of the teacher {name} is {net.num_classes}, and that of the net {args.num_classes}"
        )
    names = (getattr(net, "default_cfg", None) or {}).get("label_names")
    if isinstance(names, tuple) and args.classes:
        _check_names(names, args.classes, name)
    config = resolve_data_config(vars(options), model=net)
    _logger.info("the teacher is %s, with its pretrained weights", name)
    return Teacher(net, *((each["mean"], each["std"]) for each in (config, data_config)))


def _notes_model(path: Path):
    """Tell whether a checkpoint, file of weights or folder of a training notes a model of pimm."""
    if path.is_dir() and not (path / MANIFEST).exists():
        path = latest_checkpoint(path)
    return path is not None and bool(read_record(path).get("args", {}).get("model"))


def _load_by_path(load, path: Path):
    try:
        return load(path)
    except ConfigError as error:
        raise ConfigError(
            f"{path} does not name the model of the teacher: --kd-model-name NAME is missing ({error!s:.200})"
        ) from None


def teach(net, settings, given, num_classes, classes, source):
    """Return a net that was loaded by its path as the teacher of another net.

    Args:
        net: the teacher's net.
        settings: what the loader of `pimm.model_packages` says of its images.
        given: ``mean``, ``std``, ``channel_order`` and ``input_size`` of the other net's images.
        num_classes: classes of the other net.
        classes: names of the classes of its images, in their order.
        source: where the teacher is from, for errors.

    Raises:
        ConfigError: for another number of classes or channels.
        DataError: for other classes.
    """
    pairs = {
        "num_classes": (net.num_classes, num_classes),
        "in_chans": (settings.input_size[0], given["input_size"][0]),
    }
    for name, (theirs, ours) in pairs.items():
        if theirs != ours:
            raise ConfigError(f"{name} of the teacher in {source} is {theirs}, and that of the net {ours}")
    theirs, ours, unknown = settings.class_names, *(describe_classes(each, num_classes) for each in (classes, None))
    if unknown not in (theirs, ours):
        _check_names(theirs, ours, source)
    _logger.info("the teacher is %s, with %s", settings.model, settings.source)
    statistics = ((each["mean"], each["std"]) for each in (vars(settings), given))
    return Teacher(net, *statistics, reverse=settings.channel_order != given["channel_order"])


def _options_of_teacher(args, checkpoint: Path):
    """Return the options that create the teacher, completed from its training and by the net's classes and channels."""
    options = SimpleNamespace(**dict.fromkeys(RECORDED), pretrained=False)
    options.model, options.model_kwargs = args.kd_model_name, args.kd_model_kwargs or None
    if options.model is None:
        options.model = read_record(checkpoint).get("args", {}).get("model")
    if options.model is None:
        raise ConfigError(f"{checkpoint} does not name the model of the teacher: --kd-model-name NAME is missing")
    answer_from_checkpoint(options, checkpoint)
    for name, net in (("num_classes", args.num_classes), ("in_chans", args.in_chans)):
        recorded = getattr(options, name)
        if recorded not in (None, net):
            raise ConfigError(f"{name} of the teacher in {checkpoint} is {recorded}, and that of the net {net}")
        setattr(options, name, net)
    if options.classes and args.classes:
        _check_names(options.classes, args.classes, checkpoint)
    return options


def _check_names(theirs, ours, source):
    """Raise DataError if the classes of a teacher are others than those of the net, or in another order."""
    if list(theirs) != list(ours):
        first = next((pair for pair in zip(theirs, ours) if pair[0] != pair[1]), (theirs[-1], ours[-1]))
        raise DataError(
            f"the teacher in {source} was trained on other classes: {first[0]!r:.80} where the net has {first[1]!r:.80}"
        )
