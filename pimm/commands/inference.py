"""Classify images: ``pimm-inference --data-dir DIR --checkpoint PATH ...``, with timm's options."""

import json
import logging
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import paddle
from paddle.nn import functional as F

from pimm.data import resolve_data_config
from pimm.data.class_map import load_class_map
from pimm.data.class_names import moved_classes
from pimm.data.imagenet import imagenet_classes
from pimm.data.tta import reduce_tta
from pimm.errors import ConfigError
from pimm.models import load_checkpoint, safe_model_name
from pimm.options import make_inference_parser as make_parser
from pimm.scripts import (
    answer_from_checkpoint,
    autocast,
    build_model,
    check_results,
    check_weights_are_named,
    create_evaluation_loader,
    find_checkpoint,
    open_dataset,
    open_engine_for,
    start,
    with_progress,
    write_rows,
)
from pimm.utils import all_reduce_sum, barrier, is_primary

_logger = logging.getLogger("inference")

ENDINGS = {"csv": ".csv", "json": ".json", "json-record": "-record.json"}

# Parts of a line such as "n01440764 tench, Tinca tinca".
IMAGENET_LABELS = {
    "name": lambda line: line.partition(" ")[0],
    "description": lambda line: line.partition(" ")[2].partition(",")[0],
    "detailed": lambda line: line.partition(" ")[2],
}


def main(argv=None):
    """Classify images as the options say."""
    args = make_parser().parse_args(argv)
    start(args, args.split)
    check_weights_are_named(args)
    checkpoint = find_checkpoint(args.checkpoint) if args.checkpoint else None
    args.pretrained = checkpoint is None  # a checkpoint replaces the weights
    answer_from_checkpoint(args, checkpoint)
    model = build_model(args)
    if checkpoint:
        load_checkpoint(model, checkpoint, use_ema=args.use_ema)
    model.eval()
    config = resolve_data_config(vars(args), model=model, use_test_size=not args.use_train_size, verbose=True)
    dataset = open_dataset(args, args.split, labelled=False)
    files = result_files(args, config)
    if Path(args.results_dir).is_dir():
        outputs = {f"--results-format {form}:": path for form, path in files.items()}
        check_results(args, outputs, [checkpoint] if checkpoint else [])
    names = dataset.filenames(basename=not args.fullname)
    if len(set(names)) < len(names):
        raise ConfigError(
            f"several images are called {Counter(names).most_common(1)[0][0]}: --fullname writes whole paths"
        )
    loader = create_evaluation_loader(args, dataset, config, args.batch_size)
    found = classify(args, open_engine_for(args, model, config["input_size"], loader), loader)
    if not is_primary(args):
        return
    labels = class_names(args)
    outputs, indices, are_read = (values.tolist() for values in found)
    rows = [make_row(args, *row, labels) for row, is_read in zip(zip(names, outputs, indices), are_read) if is_read]
    if len(rows) < len(names):
        _logger.warning("%d of %d images could not be read and have no result", len(names) - len(rows), len(names))
    Path(args.results_dir).mkdir(parents=True, exist_ok=True)
    for form, path in files.items():
        write_rows(path, keyed(args, rows) if form == "json" else rows, form)
    if not args.no_console_output:
        print(f"--result\n{json.dumps(keyed(args, rows), indent=4)}")


def result_files(args, config):
    """Return the path of the results in each of the formats that the options name."""
    stem = args.results_file or f"{safe_model_name(args.model)}-{config['input_size'][-1]}"
    return {form: Path(args.results_dir, f"{stem}{ENDINGS[form]}") for form in args.results_format}


def predictions(args, logits_of, loader, count):
    """Yield, for each batch, the outputs and the indices of its ``count`` likeliest classes, both [images, count].

    Without ``topk`` of the arguments, yield the outputs of all classes alone.
    """
    for images, labels in with_progress(loader, args.log_interval, "Inference"):
        with autocast(args):
            logits, _ = reduce_tta(logits_of(images), labels, args.tta)
        output = logits.astype("float32")
        output = F.softmax(output, axis=1) if args.output_type == "prob" else output
        yield output.topk(count, axis=1) if args.topk else (output,)


@paddle.no_grad()
def classify(args, logits_of, loader):
    """Classify images in all processes; ``logits_of`` maps images to logits.

    Returns probabilities or logits [images, k] of the ``topk`` most likely classes, the indices of these classes
    [images, k], and whether each image could be read [images].
    """
    width, dataset = min(args.topk or args.num_classes, args.num_classes), loader.dataset
    batches, found = predictions(args, logits_of, loader, width), []
    while part := list(islice(batches, args.log_interval)):  # one read for many batches: each waits for the device
        found.append([paddle.concat(column).numpy() for column in zip(*part)])
    outputs, indices = ([columns[place] for columns in found] for place in (0, -1))
    places = np.concatenate(loader.sampler.batches_of(0) or [np.zeros(0, int)])
    are_read = [[dataset.filename(place, absolute=True) not in dataset.broken] for place in places.tolist()]
    everywhere = np.arange(width)[None].repeat(len(dataset), 0)
    if args.topk:
        everywhere = gather(indices, places, np.zeros((len(dataset), width), np.int64))
    outputs = gather(outputs, places, np.zeros((len(dataset), width), np.float32))
    return outputs, everywhere, gather([are_read], places, np.zeros((len(dataset), 1), np.int64))[:, 0] > 0


def gather(batches, places, rows):
    """Return ``rows`` filled by all processes: each has the batches of the images at its ``places``."""
    if len(places):
        rows[places] = np.concatenate(batches)
    barrier()
    return all_reduce_sum(paddle.to_tensor(rows)).numpy()


def class_names(args):
    """Return the names of the classes by index: those of the class map, of the checkpoint's training, or ImageNet's.

    Raises:
        ConfigError: if the class map gives a class of the training another number.
    """
    if args.label_type == "none":
        return None
    if args.class_map:
        classes = load_class_map(args.class_map, args.data_dir)
        moved = moved_classes(args.classes or (), classes)
        if moved:
            raise ConfigError(f"{args.class_map}: {moved[0]} in the training of the model")
        return {index: name for name, index in classes.items()}
    lines = {line.partition(" ")[0]: line for line in imagenet_classes()}  # by synset
    if args.classes and not lines.keys() >= set(args.classes):
        return dict(enumerate(args.classes))
    if args.classes or args.num_classes == 1000:
        return {i: IMAGENET_LABELS[args.label_type](lines[name]) for i, name in enumerate(args.classes or lines)}
    return None


def make_row(args, name, outputs, indices, labels):
    """Return the columns of an image; with ``--results-separate-col`` each class has columns of its own."""
    columns = {}
    if args.topk and (args.include_index or not labels):
        columns[args.index_col] = indices
    if args.topk and labels:
        columns[args.label_col] = [labels.get(index, str(index)) for index in indices]
    if not args.exclude_output:
        columns[args.output_col or args.output_type] = outputs
    row = {args.filename_col: name}
    for column, values in columns.items():
        if len(values) == 1:
            row[column] = values[0]
        elif args.results_separate_col:
            row.update({f"{column}_{number}": value for number, value in enumerate(values)})
        else:
            row[column] = values
    return row


def keyed(args, rows):
    """Return the columns of each row by the name of its image."""
    return {row[args.filename_col]: {key: row[key] for key in row if key != args.filename_col} for row in rows}
