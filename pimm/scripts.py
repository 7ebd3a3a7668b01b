"""Shared parts of the scripts for training, validation and inference: options, models and images."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from pathlib import Path

import paddle
import yaml

from pimm.cli import use_cores
from pimm.data import add_img_extensions, check_class_names, create_dataset, create_loader
from pimm.data.img_extensions import is_img_extension
from pimm.data.readers import READERS, check_root
from pimm.device import current
from pimm.engine.inference import open_engine
from pimm.errors import ConfigError
from pimm.models import create_model, get_pretrained_cfg, is_model
from pimm.ops import reuse_freed_memory
from pimm.output_paths import check_output_paths
from pimm.utils import (
    init_distributed_device,
    is_primary,
    setup_default_logging,
    watch_processes,
    world_size,
    write_csv,
    write_text,
)
from pimm.utils.checkpoint import MANIFEST, latest_checkpoint, recorded_classes
from pimm.utils.model_record import read_record

_logger = logging.getLogger(__name__)

# Number of channels: Pillow's mode of images.
IMAGE_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}

# Options that come from the checkpoint of a training where the command line does not give them.
RECORDED = (
    *("model", "num_classes", "in_chans", "gp", "model_kwargs", "img_size", "input_size", "crop_pct", "crop_mode"),
    *("mean", "std", "interpolation", "class_map", "input_img_mode", "bn_eps"),
)


def start(args, *splits):
    """Connect the processes, choose the device and start logging; complete ``args``.

    Args:
        args: the options of the script.
        splits: names of the splits that the script will open; a wrong folder is told before a model is built.

    Raises:
        ConfigError: if no images are given.
        DataError: if the images are not there, or without one of the splits.
    """
    use_cores()
    reuse_freed_memory()
    init_distributed_device(args)
    watch_processes()
    setup_default_logging(logging.INFO if is_primary(args) else logging.WARNING)
    if args.amp and not current().has_amp:
        _logger.warning("a CPU has no mixed precision: --amp has no effect")
        args.amp = False
    args.data_dir = args.data_dir or args.data
    if not args.data_dir and not args.dataset:
        raise ConfigError("the images are missing: --data-dir DIR, or --dataset paddle/NAME")
    kind = args.dataset.partition("/")[0].lower()
    if kind in ("", *READERS):
        for split in splits:
            check_root(args.data_dir, "" if kind == "list" else split)


def autocast(args):
    """Return a context in which models compute in mixed precision if ``--amp`` is given."""
    return paddle.amp.auto_cast(dtype=args.amp_dtype) if args.amp else contextlib.nullcontext()


def find_checkpoint(path):
    """Return the path of a checkpoint, or of the latest checkpoint in the folder of a training.

    Raises:
        ConfigError: if there is none.
    """
    path = Path(path)
    if not path.exists():
        raise ConfigError(f"{path}: there is no checkpoint here")
    if not path.is_dir() or (path / MANIFEST).exists():
        return path
    found = latest_checkpoint(path)
    if found is None:
        raise ConfigError(f"{path}: there is no checkpoint in this folder")
    return found


def check_weights_are_named(args):
    """Raise `ConfigError` if the options of a script name neither a checkpoint nor a model with pretrained weights."""
    if not args.checkpoint and not args.pretrained:
        raise ConfigError("--checkpoint PATH is missing, or --model NAME with --pretrained")
    if not args.checkpoint and args.model is None:
        raise ConfigError("--pretrained needs the name of a model: --model NAME is missing")


def answer_from_checkpoint(args, checkpoint):
    """Set the options of model and images that are not given to those of the training that wrote a checkpoint.

    Args:
        args: the options; ``args.classes`` become the names of the training's classes, or None if unknown.
        checkpoint: the checkpoint; None or "" for a model with pretrained weights.

    Raises:
        ConfigError: if neither the options nor the checkpoint name the model.
    """
    args.classes = None
    recorded = read_record(checkpoint).get("args") if checkpoint else None
    if recorded:
        args.classes = recorded.get("classes")
        # These two options have one meaning: giving one of them overrides the recorded value of the other.
        given = {name for name in RECORDED if getattr(args, name, None) is not None}
        sizes = {"img_size", "input_size"} if given & {"img_size", "input_size"} else set()
        for name in RECORDED:
            if name not in given | sizes:
                setattr(args, name, recorded.get(name))
    if args.model is None:
        raise ConfigError(f"{checkpoint} does not name its model: --model NAME is missing")


def build_model(args, **options):
    """Create the model that the options name and complete ``in_chans`` and ``num_classes`` of ``args``.

    Args:
        args: the options of the script. A net that is made for one size of images is made for theirs.
        options: arguments of the model; ``--model-kwargs`` override them.

    Raises:
        ConfigError: for contradicting options and for an argument that the model does not take.
    """
    if args.in_chans is None and args.input_size:
        args.in_chans = args.input_size[0]
    if args.input_size and args.input_size[0] != args.in_chans:
        raise ConfigError(f"--in-chans {args.in_chans} contradicts --input-size {args.input_size}")
    if args.num_classes is not None:
        options["num_classes"] = args.num_classes
    options.update(in_chans=args.in_chans, global_pool=args.gp, bn_eps=vars(args).get("bn_eps"))
    cfg = get_pretrained_cfg(args.model) if is_model(args.model) else None
    if cfg and cfg.fixed_input_size and (args.img_size or args.input_size):
        options["img_size"] = args.img_size or tuple(args.input_size[1:])
    model = create_with(args.model_kwargs, args.model, pretrained=args.pretrained, **options)
    args.num_classes, args.in_chans = model.num_classes, model.model_args["in_chans"]
    size = sum(param.size for param in model.parameters() if not param.stop_gradient)
    _logger.info("%s created, %.2f million parameters", args.model, size / 1e6)
    return model


def create_with(model_kwargs, name, **options):
    """Create the model of a name.

    Args:
        model_kwargs: the arguments of ``--model-kwargs``, which override the others; None for none.
        name: the name.
        options: other arguments of `create_model`.

    Raises:
        ConfigError: as `create_model`, and for an argument that the model does not take.
    """
    try:
        return create_model(name, **{**options, **(model_kwargs or {})})
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise ConfigError(f"--model {name} has no such option: {error}") from error


def open_dataset(args, split, labelled=True, **options):
    """Return the images of a split, with the model's number of channels.

    Args:
        args: the options of a script, with ``num_classes`` of the model; ``classes`` are the names that it was trained
            on, if known, or else those of the checkpoint ``resume``.
        split: name of the split.
        labelled: whether images have classes; False ignores the names of their folders.
        options: further arguments of ``create_dataset``.

    Raises:
        ConfigError: for more classes than the model has, and for wrong ``img_extensions``.
        DataError: for classes that are not those of the model.
    """
    mode = args.input_img_mode or IMAGE_MODES.get(args.in_chans)
    if mode is None:
        raise ConfigError(
            f"no image file has {args.in_chans} channels; --in-chans can be {', '.join(map(str, IMAGE_MODES))}"
        )
    if not labelled and args.dataset.partition("/")[0].lower() in ("", *READERS):
        options["labelled"] = False
    add_img_extensions(args.img_extensions or ())
    dataset = create_dataset(
        args.dataset,
        root=args.data_dir,
        split=split,
        class_map=args.class_map if labelled else None,
        download=args.dataset_download,
        input_img_mode=mode,
        target_key=args.target_key,
        **options,
    )
    if labelled:
        trained = getattr(args, "classes", None) or recorded_classes(getattr(args, "resume", ""))
        _check_classes(dataset, args.num_classes, trained, complete=not options.get("is_training"))
    return dataset


def _check_classes(dataset, num_classes, trained, complete):
    highest = max(getattr(dataset, "class_to_idx", {}).values(), default=0)
    if highest >= num_classes:
        raise ConfigError(
            f"{dataset.root} has classes up to number {highest}, the model only {num_classes}: "
            "--num-classes must be larger"
        )
    check_class_names(trained or num_classes, dataset, complete, "--class-map FILE numbers both alike")


def same_images(dataset, other):
    """Return whether two data sets have the same root, number of images, and first and last file name."""
    first, second = ((each.root, len(each), each.filename(0), each.filename(-1)) for each in (dataset, other))
    return first == second


def create_evaluation_loader(args, dataset, data_config, batch_size):
    """Return a loader that reads each image once, in one of the processes.

    Args:
        args: the options of the script.
        dataset: the images.
        data_config: result of `resolve_data_config`.
        batch_size: images in a batch of one process.
    """
    return create_loader(
        dataset,
        batch_size=batch_size,
        num_workers=args.workers,
        distributed=args.distributed,
        pin_memory=args.pin_mem,
        use_prefetcher=not args.no_prefetcher,
        tta=args.tta,
        **data_config,
    )


def open_engine_for(args, model, input_size, loader):
    """Return what computes the logits of a loader's images, as ``--engine`` and ``--precision`` say."""
    images = len(loader) * args.batch_size * max(1, args.tta)
    return open_engine(model, input_size, args.engine, args.precision, images)


def with_progress(loader, interval, what):
    """Yield the batches of a loader; log progress and speed after every ``interval`` batches."""
    started, images = time.perf_counter(), 0
    for number, batch in enumerate(loader, 1):
        yield batch
        images += len(batch[1]) * world_size()
        if number % interval == 0:
            rate = images / (time.perf_counter() - started)
            _logger.info("%s: [%d/%d] %.0f images/s", what, number, len(loader), rate)


def check_results(args, outputs, checkpoints):
    """Refuse files of results that would replace what a command reads.

    Args:
        args: the options of the script.
        outputs: the files to write, by the option that names them.
        checkpoints: the checkpoints to read.

    Raises:
        ConfigError: as `check_output_paths`, and for the name of an image.
    """
    inputs = {"--config": args.config or None, "--class-map": args.class_map or None, "--data-dir": args.data_dir}
    for checkpoint in map(Path, checkpoints):
        files = sorted(checkpoint.iterdir()) if checkpoint.is_dir() else [checkpoint]
        inputs.update({f"{file.name} of --checkpoint {checkpoint}": file for file in files})
    check_output_paths(outputs, inputs)
    for name, path in outputs.items():
        if is_img_extension(Path(path).suffix):
            raise ConfigError(f"{name} {path} has the name of an image; results are text, .csv or .json")


def write_rows(path, rows, form):
    """Write dicts with equal keys to a file, as ``csv`` or as ``json`` (a list of objects)."""
    if form == "csv":
        write_csv(path, rows)
    else:
        write_text(path, json.dumps(rows, indent=4))


def as_yaml(args):
    """Return the options as the text of a file for ``--config``."""
    return yaml.safe_dump(vars(args), sort_keys=False)
