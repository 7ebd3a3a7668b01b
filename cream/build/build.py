"""What the jobs share: settings turn into loaders, nets, optimizers and steps."""

from __future__ import annotations

import copy
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import paddle
from paddle import nn

from cream.build.families import fresh_supernet, given_spec, named_net, search_space
from cream.build.held_out import Part, hold_out
from cream.config.dump import dump
from cream.config.keys import resume_settings
from cream.config.load import load_config
from cream.config.rules import check_selectable
from cream.config.schema import Config
from cream.counting import count_macs, count_parameters
from cream.flops import CostTable, cost_tables
from cream.selection.candidates import Candidate
from cream.space import Arch, ChildSpec, SearchSpace, format_arch
from cream.supernet import SuperNet
from cream.train.board import PrioritizedBoard
from cream.train.runlog import RunLog, log
from cream.train.sampler import Sampler
from cream.train.steps import CreamStep, SinglePathStep, Update
from pimm.data import Dataset, FastCollateMixup, create_loader
from pimm.data.loader import Loader
from pimm.data.transforms import Compose
from pimm.errors import CheckpointError, ConfigError, DataError
from pimm.layers import convert_sync_batchnorm
from pimm.loss import LabelSmoothingCrossEntropy
from pimm.models import load_state_dict_strictly
from pimm.models.helpers import is_torch_file
from pimm.ops import reuse_freed_memory
from pimm.optim import create_optimizer, param_groups_weight_decay
from pimm.scheduler import LinearLRScheduler, create_scheduler
from pimm.utils import (
    CheckpointSaver,
    all_reduce_sum,
    barrier,
    broadcast_values,
    init_distributed,
    is_main_process,
    latest_checkpoint,
    random_seed,
    read_checkpoint,
    watch_processes,
    world_size,
    write_text,
)
from pimm.utils.checkpoint import EMA, MANIFEST, MODEL, STATE, clear_leftovers, read_manifest
from pimm.utils.checkpoint_saver import BEST

SPOS_MEAN, SPOS_STD = (0.0,) * 3, (1 / 255,) * 3  # values from 0 to 255, of pixels from 0 to 1
PAPER_RECIPE = (
    *("OPT=rmsproptf", "OPT_EPS=1e-3", "LR=0.064", "WEIGHT_DECAY=1e-5", "SCHED=cosine", "EPOCHS=500"),
    *("WARMUP_EPOCHS=3", "WARMUP_LR=1e-6", "NET.DROPOUT_RATE=0.2", "NET.EMA.DECAY=0.9999"),
    *("DATASET.BATCH_SIZE=128", "DATASET.INTERPOLATION=bicubic", "AUGMENTATION.AA=rand-m9-mstd0.5"),
)


def start_processes(cfg: Config) -> None:
    """Chooses the device, connects the processes and seeds the global streams, alike on all of them.

    Raises ConfigError if DEVICE asks for a GPU and there is none.
    """
    if cfg.DEVICE == "gpu" and not paddle.device.cuda.device_count():
        raise ConfigError("DEVICE is gpu, but Paddle finds none; must be cpu, or empty for a GPU if there is one")
    if cfg.DEVICE:
        paddle.set_device(cfg.DEVICE)
    if paddle.get_device() == "cpu":
        reuse_freed_memory()
    init_distributed()
    watch_processes()
    random_seed(cfg.SEED)


def run_folder(cfg: Config) -> Path:
    """Where a run of these settings writes."""
    return Path(cfg.SAVE_PATH) / cfg.MODEL


def start_run(cfg: Config) -> RunLog:
    """The run's folder ``SAVE_PATH/MODEL`` and its logs.

    Raises ConfigError if the folder cannot be written, a run is going on in it, or one is in it already and AUTO_RESUME
    does not ask to go on.
    """
    start_processes(cfg)
    folder = run_folder(cfg)
    if latest_checkpoint(folder) and not cfg.AUTO_RESUME:
        raise ConfigError(
            f"{folder} holds a run already: AUTO_RESUME=True goes on with it, another MODEL or SAVE_PATH begins anew"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot write into {folder}, the place that SAVE_PATH names: {error.strerror}") from error
    run = RunLog(folder, exclusive=True)
    if is_main_process():
        clear_leftovers(folder)
    barrier()
    return run


def checkpoint_to_resume(cfg: Config, folder: Path) -> Path | None:
    """With AUTO_RESUME, the run's furthest checkpoint; if it has none, RESUME_PATH or the furthest one of that run.

    RESUME_PATH may also be a file of PyTorch's. Raises CheckpointError if it names none of these.
    """
    named = Path(cfg.RESUME_PATH) if cfg.RESUME_PATH not in ("", Config.RESUME_PATH) else None
    if not cfg.AUTO_RESUME:
        if named and named.exists():
            log.warning("RESUME_PATH=%s is passed over: AUTO_RESUME is False", named)
        return None
    own = latest_checkpoint(folder)
    if own or named is None:
        return own
    if is_torch_file(named) and named.is_file():
        return named
    if not named.is_dir():
        raise CheckpointError(
            f"RESUME_PATH={named}: no such folder or .pth.tar file; "
            "must be a run's or a checkpoint's, or empty to begin anew"
        )
    return latest_checkpoint(named) or named


def check_same_checkpoint(checkpoint: Path | None, folder: Path) -> Path | None:
    """The checkpoint, if all processes chose it; CheckpointError on all of them where one does not see it."""
    seen = zlib.crc32(checkpoint.name.encode()) if checkpoint else 0
    barrier()
    (first,) = broadcast_values(paddle.to_tensor([seen], "int64"))
    differing = all_reduce_sum(paddle.to_tensor([int(seen != first)], "int64"))
    if differing.item():
        raise CheckpointError(
            f"{folder}: the processes do not see the same checkpoints there; "
            "SAVE_PATH must be on storage that all machines share"
        )
    return checkpoint


def write_config(cfg: Config, folder: Path) -> None:
    """``config.yaml``: the run's settings, all that differ from the defaults."""
    if is_main_process():
        write_text(folder / "config.yaml", dump(cfg))


@dataclass(frozen=True)
class SearchNet:
    """A supernet and what is known of its paths; costs are in millions, of images of ``resolution`` pixels."""

    net: SuperNet
    resolution: int
    mflops: CostTable
    mparams: CostTable
    sampler: Sampler

    @property
    def space(self) -> SearchSpace:
        return self.net.space

    @property
    def tables(self) -> tuple[CostTable, CostTable]:
        return self.mflops, self.mparams


def search_net(cfg: Config) -> SearchNet:
    """The supernet that ``cfg.SUPERNET`` describes, with fresh weights."""
    limits = cfg.SUPERNET
    space, resolution = search_space(cfg)
    net = with_sync_bn(cfg, fresh_supernet(cfg, space))
    mflops, mparams = cost_tables(net, resolution)
    sampler = Sampler(
        space,
        mflops,
        limits.FLOPS_MINIMUM,
        limits.FLOPS_MAXIMUM,
        limits.HOW_TO_PROB,
        limits.PRE_PROB,
        limits.FLOPS_BINS,
    )
    log.info(
        "supernet of %d paths, %.1f to %.1f MFLOPs at %d pixels, %.1fM parameters",
        space.size, mflops.least, mflops.most, resolution, count_parameters(net) / 1e6,
    )  # fmt: skip
    return SearchNet(net, resolution, mflops, mparams, sampler)


def supernet_step(cfg: Config, searched: SearchNet, optimizer: paddle.optimizer.Optimizer) -> SinglePathStep:
    """What one batch of the search does, as SUPERNET.METHOD says."""
    limits = cfg.SUPERNET
    common = (
        searched.net,
        LabelSmoothingCrossEntropy(cfg.AUGMENTATION.SMOOTHING),
        Update(optimizer, cfg.AMP, cfg.CLIP_GRAD),
        searched.sampler,
        np.random.default_rng([cfg.SEED, 1]),
    )
    if limits.METHOD == "single_path":
        return SinglePathStep(*common)
    return CreamStep(
        *common,
        board=PrioritizedBoard(limits.POOL_SIZE, cfg.ACC_GAP),
        flops=searched.mflops,
        pick_method=limits.PICK_METHOD,
        start_epoch=limits.META_STA_EPOCH,
        update_interval=limits.UPDATE_ITER,
        slice_size=limits.SLICE,
    )


def settings_of_search(folder: Path, overrides: Sequence[str] = ()) -> tuple[Config, Config]:
    """A search's settings, and what the ``overrides`` make of them.

    They may change how paths are chosen and read, not the supernet: ConfigError. Raises CheckpointError if the folder
    holds no search.
    """
    settings, newest = folder / "config.yaml", latest_checkpoint(folder)
    if newest is None or not settings.is_file() or not holds_supernet(newest):
        raise CheckpointError(
            f"{folder} holds no search; must be its SAVE_PATH/MODEL, with config.yaml and checkpoints"
        )
    recorded, cfg = load_config(settings), load_config(settings, overrides)
    check_selectable(recorded, cfg)
    return recorded, cfg


def holds_supernet(checkpoint: Path) -> bool:
    """Whether a checkpoint is of a search; CheckpointError for a damaged one."""
    return read_manifest(checkpoint)["arch"].endswith(SuperNet.__name__)


def trained_search(folder: Path, overrides: Sequence[str] = ()) -> tuple[Config, SearchNet, SinglePathStep]:
    """A search's settings, its supernet with the weights of the newest checkpoint, and its step with the board.

    Raises as ``settings_of_search`` does.
    """
    recorded, cfg = settings_of_search(folder, overrides)
    start_processes(cfg)
    searched = search_net(recorded)  # the FLOPs range that it was trained in may have shaped its space
    newest = latest_checkpoint(folder)
    checkpoint = read_checkpoint(newest)
    load_state_dict_strictly(searched.net, checkpoint.files[MODEL], str(newest))
    done = checkpoint.files[STATE]["epoch"]
    if done < recorded.EPOCHS:
        log.warning("the supernet in %s is not ready: it has %d of %d epochs behind it", folder, done, recorded.EPOCHS)
    step = supernet_step(recorded, searched, supernet_optimizer(recorded, searched.net))
    step.load_state_dict(checkpoint.files[STATE]["step"])
    return cfg, searched, step


def with_sync_bn(cfg: Config, net: nn.Layer) -> nn.Layer:
    """The net, normalising over the batches of all processes together where SYNC_BN says so."""
    return convert_sync_batchnorm(net) if cfg.BATCHNORM.SYNC_BN else net


def child_net(cfg: Config) -> tuple[ChildSpec, nn.Layer]:
    """The net that ``cfg.NET`` names, ready to be trained or tested."""
    spec = given_spec(cfg)
    net = with_sync_bn(cfg, named_net(cfg, spec))
    macs, _ = count_macs(net, paddle.zeros([1, 3, spec.resolution, spec.resolution]), net.cost_rules)
    log.info(
        "net %s: %.1f MFLOPs at %d pixels, %.3fM parameters, with its classifier",
        format_arch(spec.arch), macs / 1e6, spec.resolution, count_parameters(net) / 1e6,
    )  # fmt: skip
    return spec, net


def weights_to_test(cfg: Config) -> tuple[Path, bool | None]:
    """The checkpoint or file that RESUME_PATH names, and whether to take the moving average from it (None: if any)."""
    path = Path(cfg.RESUME_PATH)
    if cfg.RESUME_PATH in ("", Config.RESUME_PATH) and not path.is_file():
        raise ConfigError(
            "RESUME_PATH is needed, which says what to test: a run's folder, a checkpoint's folder, a .pdparams file "
            "or PyTorch's .pth.tar file"
        )
    if not path.exists():
        raise CheckpointError(
            f"RESUME_PATH={path}: nothing is there; must be a run's folder, a checkpoint's folder, a .pdparams file "
            "or PyTorch's .pth.tar file"
        )
    if is_torch_file(path):
        return path, None if cfg.NET.EMA.USE else False
    if (path / BEST).is_dir():
        path = path / BEST
    if (path / MANIFEST).is_file() and holds_supernet(path):
        raise CheckpointError(
            f"RESUME_PATH={cfg.RESUME_PATH} is a search; must be the training of the net that it found, which "
            "tools/retrain.py leaves beside it"
        )
    return path, cfg.NET.EMA.USE and (path / EMA).is_file()


def open_split(cfg: Config, names: tuple[str, ...]) -> Dataset:
    """The images below ``DATA_DIR``, in a folder or tar file of one of these names.

    Raises DataError where there is none, or its classes are not ``DATASET.NUM_CLASSES``.
    """
    folder = Path(cfg.DATA_DIR)
    candidates = [folder / f"{name}{ending}" for name in names for ending in ("", ".tar")]
    found = [path for path in candidates if path.exists()]
    if not found:
        problem = "does not hold images" if folder.is_dir() else "is not a folder"
        raise DataError(f"DATA_DIR={folder} {problem}; must hold {' or '.join(path.name for path in candidates)}")
    dataset = Dataset(str(found[0]))
    classes = len(dataset.class_to_idx)
    if classes != cfg.DATASET.NUM_CLASSES:
        raise DataError(f"{found[0]} has {classes} classes, but DATASET.NUM_CLASSES is {cfg.DATASET.NUM_CLASSES}")
    return dataset


def check_same_classes(train: Dataset, val: Dataset) -> None:
    """Raises DataError where the splits have other classes, whose numbers would then mean different things."""
    differing = sorted(train.class_to_idx.keys() ^ val.class_to_idx.keys())
    if differing:
        raise DataError(f"{train.root} and {val.root} must hold the same classes; {differing[0]} is in one of them")


def make_loader(cfg: Config, images: Dataset | Part, **options) -> Loader:
    """The loader of these images, as SPOS's authors show them to a net where SPOS_PREPROCESSING says so."""
    loader = create_loader(images, **options)
    if cfg.DATASET.SPOS_PREPROCESSING:
        images.transform = Compose([images.transform, blue_first])
    return loader


def blue_first(image: np.ndarray) -> np.ndarray:
    """An image [3, H, W] with its channels in the order blue, green, red."""
    return image[::-1]


def loader_options(cfg: Config, resolution: int) -> dict:
    """What training and validation loaders have in common."""
    spos = cfg.DATASET.SPOS_PREPROCESSING
    return {
        "input_size": (3, resolution, resolution),
        "use_prefetcher": not cfg.DATASET.NO_PREFECHTER,
        "mean": SPOS_MEAN if spos else cfg.DATASET.MEAN,
        "std": SPOS_STD if spos else cfg.DATASET.STD,
        "crop_pct": cfg.DATASET.CROP_PCT,
        "num_workers": cfg.WORKERS,
        "distributed": True,
        "seed": cfg.SEED,
    }


def training_loader(cfg: Config, resolution: int, auto_augment: str | None = None, mixup: float = 0.0) -> Loader:
    """Shuffled, augmented batches of ``DATA_DIR/train``, in a search without the images that it holds out."""
    augmentation = cfg.AUGMENTATION
    return make_loader(
        cfg,
        training_images(cfg)[0],
        batch_size=cfg.DATASET.BATCH_SIZE,
        is_training=True,
        scale=cfg.DATASET.SCALE,
        hflip=cfg.DATASET.HFLIP,
        color_jitter=augmentation.COLOR_JITTER,
        auto_augment=auto_augment,
        re_prob=augmentation.RE_PROB,
        re_mode=augmentation.RE_MODE,
        interpolation="random",
        collate_fn=FastCollateMixup(mixup, augmentation.SMOOTHING, cfg.DATASET.NUM_CLASSES) if mixup else None,
        **loader_options(cfg, resolution),
    )


def training_images(cfg: Config) -> tuple[Dataset | Part, Part | None]:
    """The images of ``DATA_DIR/train`` to train on, and those that SUPERNET.SELECT_ON=held_out keeps for the choice."""
    dataset = open_split(cfg, ("train",))
    if cfg.SUPERNET.SELECT_ON == "val":
        return dataset, None
    labels = [label for _, label in dataset.samples]
    train, held = hold_out(labels, cfg.SUPERNET.HELD_OUT, cfg.SEED)
    return Part(dataset, train), Part(dataset, held)


def selection_loader(cfg: Config, resolution: int) -> tuple[Loader, str]:
    """The images that decide which path a search chooses, each once, and what they are in words."""
    if cfg.SUPERNET.SELECT_ON == "val":
        return validation_loader(cfg, resolution), "validation images"
    held = training_images(cfg)[1]
    return evaluation_loader(cfg, held, resolution), f"{len(held)} held-out training images"


def validation_loader(cfg: Config, resolution: int) -> Loader:
    """Every image of ``DATA_DIR/val`` once, in order."""
    return evaluation_loader(cfg, open_split(cfg, ("val", "validation")), resolution)


def evaluation_loader(cfg: Config, dataset: Dataset | Part, resolution: int) -> Loader:
    """Every image once, in order."""
    return make_loader(
        cfg,
        dataset,
        batch_size=cfg.DATASET.VAL_BATCH_MUL * cfg.DATASET.BATCH_SIZE,
        interpolation=cfg.DATASET.INTERPOLATION,
        **loader_options(cfg, resolution),
    )


def timm_args(cfg: Config) -> SimpleNamespace:
    """The settings as timm's factories of optimizers and schedulers read them."""
    args = SimpleNamespace(**{name.lower(): value for name, value in vars(cfg).items()})
    args.plateau_mode = "min" if cfg.EVAL_METRICS == "loss" else "max"
    return args


def supernet_optimizer(cfg: Config, net: SuperNet) -> paddle.optimizer.Optimizer:
    """The optimizer of the shared weights; a matching network learns at its own rate META_LR and without decay."""
    matching = net.meta_layer.parameters() if hasattr(net, "meta_layer") else []
    names = {parameter.name for parameter in matching}
    groups = [
        {**group, "params": [parameter for parameter in group["params"] if parameter.name not in names]}
        for group in param_groups_weight_decay(net, cfg.WEIGHT_DECAY)
    ]
    if matching:
        groups.append({"params": matching, "lr": cfg.META_LR, "weight_decay": 0.0})
    return create_optimizer(timm_args(cfg), groups)


def supernet_scheduler(cfg: Config, optimizer: paddle.optimizer.Optimizer, batches: int) -> tuple:
    """The schedule that SCHED names; its default "sgd" is the official search's: linear to 0 over all batches."""
    if cfg.SCHED == "sgd":
        return LinearLRScheduler(optimizer, cfg.EPOCHS * batches), cfg.EPOCHS
    return create_scheduler(timm_args(cfg), optimizer, batches)


def trainer_options(cfg: Config, run: RunLog, epochs: int, scheduler) -> dict:
    """What both trainings hand to the loop."""
    lower_is_better = cfg.EVAL_METRICS == "loss"
    return {
        "epochs": epochs,
        "scheduler": scheduler,
        "saver": CheckpointSaver(
            checkpoint_dir=str(run.folder),
            recovery_dir=str(run.folder),
            decreasing=lower_is_better,
            max_history=cfg.CHECKPOINT_HISTORY,
            max_recoveries=cfg.RECOVERY_HISTORY,
        ),
        "run": run,
        "seed": cfg.SEED,
        # A checkpoint inside an epoch counts batches, which other processes would share out otherwise.
        "settings": {**resume_settings(cfg), "number of processes": world_size()},
        "metric": cfg.EVAL_METRICS,
        "log_interval": cfg.LOG_INTERVAL,
        "recovery_interval": cfg.RECOVERY_INTERVAL,
    }


def retrain_recipe(cfg: Config) -> Config:
    """The settings of RETRAIN_CFG, or the paper's."""
    return load_config(cfg.RETRAIN_CFG, () if cfg.RETRAIN_CFG else PAPER_RECIPE)


def retrain_config_for(recipe: Config, cfg: Config, arch: Arch, resolution: int) -> Config:
    """The recipe for one net of a search: its architecture, space, pooling and image size, and the search's data.

    The data are shown to it as they were to the supernet, whose weights it may start from.
    """
    recipe = copy.deepcopy(recipe)
    recipe.NET.SELECTION, recipe.NET.INPUT_ARCH = -1, arch
    recipe.DATA_DIR, recipe.DATASET.NUM_CLASSES = cfg.DATA_DIR, cfg.DATASET.NUM_CLASSES
    recipe.DATASET.IMAGE_SIZE, recipe.NET.GP = resolution, cfg.NET.GP
    for name in ("MEAN", "STD", "SPOS_PREPROCESSING"):
        setattr(recipe.DATASET, name, getattr(cfg.DATASET, name))
    for name in ("FAMILY", "SHUFFLE", "SPACE", "RESUNIT", "DIL_CONV"):  # what the choices of the architecture mean
        setattr(recipe.SUPERNET, name, getattr(cfg.SUPERNET, name))
    recipe.SUPERNET.SELECT_ON = "val"  # there is nothing left to choose: no training image is held out
    return recipe


def write_retrain_config(cfg: Config, folder: Path, found: Candidate, resolution: int) -> Path:
    """``retrain.yaml``: the recipe for the found net; returns its path."""
    recipe = retrain_config_for(retrain_recipe(cfg), cfg, found.arch, resolution)
    recipe.SAVE_PATH, recipe.MODEL = cfg.SAVE_PATH, f"{cfg.MODEL}_retrain"
    path = folder / "retrain.yaml"
    write_text(path, dump(recipe))
    return path
