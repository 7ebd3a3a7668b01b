"""Evaluate models on images: ``pimm-validate --data-dir DIR --checkpoint PATH``, with timm's options.

Each image counts once, whatever the number of processes.
"""

import argparse
import glob
import json
import logging
from pathlib import Path

from pimm import list_models
from pimm.data import resolve_data_config
from pimm.engine import evaluate
from pimm.errors import ConfigError
from pimm.models import load_checkpoint
from pimm.options import make_validate_parser as make_parser
from pimm.scripts import (
    answer_from_checkpoint,
    autocast,
    build_model,
    check_results,
    check_weights_are_named,
    create_evaluation_loader,
    open_dataset,
    open_engine_for,
    start,
    with_progress,
    write_rows,
)
from pimm.utils import check_batch_size_retry, decay_batch_step, is_primary
from pimm.utils.checkpoint import MANIFEST, list_checkpoints

_logger = logging.getLogger("validate")


def main(argv=None):
    """Validate models as the options say."""
    args = make_parser().parse_args(argv)
    start(args, args.split)
    check_weights_are_named(args)
    weights = find_weights(args)
    if args.results_file:
        check_results(args, {"--results-file": args.results_file}, [path for _, path in weights if path])
    results = [
        validate_with_retries(argparse.Namespace(**{**vars(args), "model": model, "checkpoint": checkpoint}))
        for model, checkpoint in weights
    ]
    results.sort(key=lambda result: result["top1"], reverse=True)
    if not is_primary(args):
        return
    if args.results_file:
        form = args.results_format or ("json" if args.results_file.endswith(".json") else "csv")
        write_rows(args.results_file, results, form)
    print(f"--result\n{json.dumps(results if len(results) > 1 else results[0], indent=4)}")


def find_weights(args):
    """Return pairs of a model's name, None where the checkpoint names its model, and a checkpoint."""
    return [
        (model, checkpoint)
        for model in find_models(args.model, pretrained=not args.checkpoint)
        for checkpoint in find_checkpoints(args.checkpoint.replace("{model}", model or ""))
    ]


def find_models(text, pretrained=False):
    """Return the models that ``--model`` names.

    Args:
        text: a name, a wildcard, ``all``, or a text file of names; None if it is not given.
        pretrained: whether a wildcard means models with pretrained weights alone, each with its tag.

    Raises:
        ConfigError: for a wildcard that matches no model.
    """
    if text is None:
        return [None]
    if text == "all" or any(letter in text for letter in "*?["):
        names = list_models("" if text == "all" else text, pretrained=pretrained)
        if not names:
            with_weights = " and pretrained weights" if pretrained else ""
            raise ConfigError(f"no model has a name like {text}{with_weights}; pimm.list_models() names them all")
        return names
    if Path(text).is_file():
        return [line.strip() for line in Path(text).read_text().splitlines() if line.strip()]
    return [text]


def find_checkpoints(path):
    """Return the checkpoints that a path, a wildcard or a folder means; for no path, one that is "".

    Raises:
        ConfigError: if there is none.
    """
    if not path:
        return [path]
    if glob.has_magic(path):
        found = sorted(glob.glob(path))
    elif Path(path).is_dir() and not Path(path, MANIFEST).exists():
        found = list_checkpoints(path, "checkpoint") or sorted(Path(path).glob("*.pdparams"))
        found = [str(each) for each in found or list_checkpoints(path)]  # in the first epoch there are recoveries alone
    else:
        found = [path] if Path(path).exists() else []
    if not found:
        raise ConfigError(f"{path}: there is no checkpoint here")
    return found


def validate_with_retries(args):
    """Evaluate a model; with ``--retry`` try smaller batches if the memory is too small."""
    while True:
        try:
            return validate(args)
        except (RuntimeError, MemoryError) as error:
            smaller = decay_batch_step(args.batch_size)
            out_of_memory = isinstance(error, MemoryError) or "memory" in str(error).lower()
            if not (args.retry and out_of_memory and smaller and check_batch_size_retry(str(error))):
                raise
            _logger.warning("batches of %d images do not fit into the memory; trying %d", args.batch_size, smaller)
            args.batch_size = smaller


def validate(args):
    """Evaluate a model with the weights of a checkpoint and return a row of results."""
    answer_from_checkpoint(args, args.checkpoint)
    args.pretrained = args.pretrained and not args.checkpoint  # which replaces the weights
    model = build_model(args)
    if args.checkpoint:
        load_checkpoint(model, args.checkpoint, use_ema=args.use_ema)
    model.eval()
    config = resolve_data_config(vars(args), model=model, use_test_size=not args.use_train_size, verbose=True)
    dataset = open_dataset(args, args.split, num_samples=args.num_samples)
    loader = create_evaluation_loader(args, dataset, config, args.batch_size)
    engine = open_engine_for(args, model, config["input_size"], loader)
    with autocast(args):
        found = evaluate(engine, with_progress(loader, args.log_interval, "Test"), args.tta)
    parameters = sum(param.size for param in model.parameters() if not param.stop_gradient)
    return {
        "model": args.model,
        "checkpoint": args.checkpoint,
        "top1": round(found["top1"], 4),
        "top1_err": round(100 - found["top1"], 4),
        "top5": round(found["top5"], 4),
        "top5_err": round(100 - found["top5"], 4),
        "loss": found["loss"],
        "param_count": round(parameters / 1e6, 2),
        "img_size": config["input_size"][-1],
        "crop_pct": config["crop_pct"],
        "interpolation": config["interpolation"],
    }
