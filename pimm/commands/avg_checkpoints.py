"""Average the weights of checkpoints: ``pimm-avg-checkpoints --input DIR --output FILE.pdparams``."""

import logging
from pathlib import Path

from pimm.errors import CheckpointError, ConfigError
from pimm.models import average_checkpoints
from pimm.options import make_average_parser as make_parser
from pimm.output_paths import check_output_paths
from pimm.utils import natural_key, setup_default_logging
from pimm.utils.checkpoint import EMA, read_manifest
from pimm.utils.model_record import read_record, save_with_record

_logger = logging.getLogger("average")


def main(argv=None):
    """Average checkpoints as the options say."""
    args = make_parser().parse_args(argv)
    setup_default_logging()
    if Path(args.output).exists():
        raise ConfigError(f"{args.output} exists already")
    check_output_paths({"--output": args.output}, {"--input": args.input})
    if args.n < 1:
        raise ConfigError(f"-n is at least 1, not {args.n}")
    found = sorted(Path(args.input).glob(args.filter), key=lambda path: natural_key(path.name))
    if not found:
        raise ConfigError(f"nothing in {args.input} has a name like {args.filter}")
    chosen = found if args.no_sort else choose_best(found, args.n)
    use_ema = not args.no_use_ema and all(path.is_dir() and EMA in read_manifest(path)["files"] for path in chosen)
    for path in chosen:
        _logger.info("%s", path)
    save_with_record(args.output, average_checkpoints(chosen, use_ema), read_record(chosen[0]))
    _logger.info("the mean of %d%s is %s", len(chosen), " moving averages" if use_ema else "", args.output)


def choose_best(paths, count):
    """Return the checkpoints with the highest metrics, or with the lowest if the metric is a loss, the best first.

    Raises:
        CheckpointError: for a checkpoint without a metric.
    """
    manifests = {path: read_manifest(path) for path in paths}
    unranked = [str(path) for path in paths if manifests[path].get("metric") is None]
    if unranked:
        raise CheckpointError(f"{unranked[0]} has no metric; --no-sort averages all checkpoints")
    args = manifests[paths[0]]["args"]
    is_loss = args.get("eval_metric", args.get("EVAL_METRICS")) == "loss"  # of pimm-train, or of a search
    return sorted(paths, key=lambda path: manifests[path]["metric"], reverse=not is_loss)[:count]
