"""The start of a run: its processes, its folder, its log, and the checkpoint to resume from."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cream import typed
from cream.config import Config, dump
from cream.supernet import SuperNet
from pimm import device
from pimm.data import Dataset, check_class_names
from pimm.engine import RunLog
from pimm.errors import CheckpointError, ConfigError
from pimm.models.helpers import is_torch_file
from pimm.ops import reuse_freed_memory
from pimm.output_paths import is_same_file
from pimm.utils import (
    barrier,
    init_distributed,
    is_main_process,
    is_same_everywhere,
    latest_checkpoint,
    random_seed,
    watch_processes,
    write_text,
)
from pimm.utils.checkpoint import EMA, MANIFEST, clear_leftovers, read_manifest, recorded_classes
from pimm.utils.checkpoint_saver import BEST

_logger = logging.getLogger(__name__)

LOGGERS = ("cream", "pimm")
RESULTS = ("candidates.csv", "architecture.json", "architecture.pdparams", "retrain.yaml", "config.yaml")


@contextmanager
def running(cfg: Config) -> Iterator[RunLog]:
    """Connect the processes and start the log of a job; ``open_run`` names its folder once the job can start."""
    start_processes(cfg)
    with RunLog(loggers=LOGGERS) as run:
        yield run


def start_processes(cfg: Config) -> None:
    """Choose the device, connect the processes and seed the global random streams, alike in all processes.

    Raises:
        ConfigError: Paddle does not find the device that DEVICE names.
    """
    if device.choose(cfg.DEVICE, "DEVICE").is_cpu:
        reuse_freed_memory()
    init_distributed()
    watch_processes()
    random_seed(cfg.SEED)


def run_folder(cfg: Config) -> Path:
    """Return the folder where a run with these settings writes."""
    return Path(cfg.SAVE_PATH) / cfg.MODEL


def open_run(cfg: Config, run: RunLog, images: Dataset) -> Path | None:
    """Open the run's folder ``SAVE_PATH/MODEL`` for this run alone, and return the checkpoint to resume from, or None.

    Args:
        cfg: the settings.
        run: the log of the run.
        images: the training images, whose classes must be those of the checkpoint.

    Raises:
        ConfigError: the folder cannot be written, another process is at work in the folder, or the folder holds a run
            and AUTO_RESUME is False.
        CheckpointError: RESUME_PATH names no checkpoint, or the processes see different ones.
        DataError: the checkpoint was trained on other classes, or on the same ones in another order.
    """
    folder = run_folder(cfg)
    latest = latest_checkpoint(folder)
    if latest and not cfg.AUTO_RESUME:
        raise ConfigError(
            f"{folder} holds a run already: AUTO_RESUME=True resumes it, another MODEL or SAVE_PATH starts anew"
        )
    if latest is None:
        given_checkpoint(cfg)  # a wrong RESUME_PATH must not leave a folder behind
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot write into {folder}, the place that SAVE_PATH names: {error.strerror}") from error
    run.open(folder, exclusive=True)
    if is_main_process():
        clear_leftovers(folder)
    barrier()
    checkpoint = check_same_checkpoint(checkpoint_to_resume(cfg, folder), folder)
    check_trained_classes(checkpoint, images)
    return checkpoint


def check_trained_classes(checkpoint: Path | None, images: Dataset) -> None:
    """Raise DataError if the images have other classes than a checkpoint was trained on, or another order of them."""
    classes = recorded_classes(checkpoint) if checkpoint else None
    if classes:
        check_class_names(classes, images)


def checkpoint_to_resume(cfg: Config, folder: Path) -> Path | None:
    """Return the run's latest checkpoint; without one, the checkpoint RESUME_PATH or the latest one of a run there.

    RESUME_PATH may also be a file of PyTorch's. Without AUTO_RESUME there is nothing to resume.

    Raises:
        CheckpointError: RESUME_PATH names none of these.
    """
    if cfg.AUTO_RESUME:
        return latest_checkpoint(folder) or given_checkpoint(cfg)
    if given_checkpoint(cfg):
        _logger.warning("RESUME_PATH=%s is ignored: AUTO_RESUME is False", cfg.RESUME_PATH)
    return None


def given_checkpoint(cfg: Config) -> Path | None:
    """Return the checkpoint or file that RESUME_PATH names, None where it is not set.

    Raises:
        CheckpointError: RESUME_PATH names neither, although AUTO_RESUME asks for it.
    """
    if cfg.RESUME_PATH in ("", Config.RESUME_PATH):
        return None
    named = Path(cfg.RESUME_PATH)
    if named.is_dir():
        return latest_checkpoint(named) or named
    if is_torch_file(named) and named.is_file():
        return named
    if not cfg.AUTO_RESUME:
        return None
    raise CheckpointError(
        f"RESUME_PATH={named}: no such folder or .pth.tar file; "
        "must be a run's or a checkpoint's, or empty to start anew"
    )


def check_same_checkpoint(checkpoint: Path | None, folder: Path) -> Path | None:
    """Return the checkpoint if all processes chose it; raise CheckpointError in all of them otherwise."""
    if not is_same_everywhere(checkpoint.name if checkpoint else ""):
        raise CheckpointError(
            f"{folder}: the processes do not see the same checkpoints there; "
            "SAVE_PATH must be on storage that all machines share"
        )
    return checkpoint


def check_results_spare(cfg: Config, folder: Path) -> None:
    """Check that no file of a selection in ``folder`` would replace a file that the settings name.

    Raises:
        ConfigError: one would.
    """
    read = {
        "RETRAIN_CFG": cfg.RETRAIN_CFG,
        "NET.INITIAL_WEIGHTS": cfg.NET.INITIAL_WEIGHTS,
        "SUPERNET.LATENCY_TABLE": cfg.SUPERNET.LATENCY_TABLE,
    }
    for name, path in read.items():
        if path and any(is_same_file(folder / result, Path(path)) for result in RESULTS):
            raise ConfigError(f"{name}={path} would be replaced by the results in {folder}; name a copy elsewhere")


def open_output(output: Path) -> Path:
    """Create the folder of results; raise ConfigError for the folder of a training or checkpoint, which must stay."""
    if latest_checkpoint(output) or (output / MANIFEST).is_file():
        what = "a checkpoint" if (output / MANIFEST).is_file() else "the folder of a training"
        raise ConfigError(f"--output {output} is {what}; must be another folder")
    output.mkdir(parents=True, exist_ok=True)
    return output


def write_config(cfg: Config, folder: Path, note: str = "") -> None:
    """Write ``config.yaml``: a note, and the settings of the run as ``dump`` selects them."""
    if is_main_process():
        write_text(folder / "config.yaml", note + dump(cfg))


def weights_to_test(cfg: Config) -> tuple[Path, bool | None]:
    """Return the checkpoint or file that RESUME_PATH names, and whether to test its moving average (None: if any).

    Raises:
        ConfigError: RESUME_PATH is not given.
        CheckpointError: RESUME_PATH does not exist, or is a search.
    """
    path = Path(cfg.RESUME_PATH)
    forms = "a run's folder, a checkpoint's folder, a .pdparams file or PyTorch's .pth.tar file"
    if cfg.RESUME_PATH in ("", Config.RESUME_PATH) and not path.is_file():
        raise ConfigError(f"RESUME_PATH must say what to test: {forms}")
    if not path.exists():
        raise CheckpointError(f"RESUME_PATH={path}: nothing is there; must be {forms}")
    if is_torch_file(path):
        return path, None if cfg.NET.EMA.USE else False
    if (path / BEST).is_dir():
        path = path / BEST
    if (path / MANIFEST).is_file() and holds_supernet(path):
        raise CheckpointError(
            f"RESUME_PATH={cfg.RESUME_PATH} is a search; must be the training of the net that the search found, which "
            f"{typed.script('retrain')} writes beside the search"
        )
    return path, cfg.NET.EMA.USE and (path / EMA).is_file()


def holds_supernet(checkpoint: Path) -> bool:
    """Return whether a checkpoint belongs to a search; raise CheckpointError for a damaged one."""
    return read_manifest(checkpoint)["arch"].endswith(SuperNet.__name__)
