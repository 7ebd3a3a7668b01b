"""Offer meters, averages of weights, checkpoints, logs, and exchange between processes."""

from pimm.parse_kwargs import ParseKwargs
from pimm.utils.agc import adaptive_clip_grad
from pimm.utils.checkpoint import Checkpoint, latest_checkpoint, read_checkpoint, write_checkpoint
from pimm.utils.checkpoint_saver import CheckpointSaver
from pimm.utils.clip_grad import dispatch_clip_grad
from pimm.utils.cuda import NativeScaler
from pimm.utils.decay_batch import check_batch_size_retry, decay_batch_step
from pimm.utils.distributed import (
    all_reduce_gradients,
    all_reduce_mean,
    all_reduce_sum,
    asked_to_end,
    barrier,
    broadcast_parameters,
    broadcast_tensors,
    broadcast_values,
    distribute_bn,
    gather_bn,
    init_distributed,
    init_distributed_device,
    is_distributed_env,
    is_main_process,
    is_primary,
    is_same_everywhere,
    rank,
    reduce_tensor,
    scatter_bn,
    single_process,
    world_info_from_env,
    world_size,
)
from pimm.utils.log import FormatterNoInfo, setup_default_logging
from pimm.utils.metrics import AverageMeter, accuracy
from pimm.utils.misc import add_bool_arg, natural_key
from pimm.utils.model import freeze, freeze_matching, get_state_dict, unfreeze, unwrap_model
from pimm.utils.model_ema import ModelEma, ModelEmaV2, ModelEmaV3
from pimm.utils.random import random_seed
from pimm.utils.serialization import atomic_file, file_sha256, load_arrays, save_arrays, write_text
from pimm.utils.summary import get_outdir, trim_summary, update_summary, write_csv
from pimm.utils.watch import watch_processes

__all__ = [
    "AverageMeter",
    "Checkpoint",
    "CheckpointSaver",
    "FormatterNoInfo",
    "ModelEma",
    "ModelEmaV2",
    "ModelEmaV3",
    "NativeScaler",
    "ParseKwargs",
    "accuracy",
    "adaptive_clip_grad",
    "add_bool_arg",
    "all_reduce_gradients",
    "all_reduce_mean",
    "all_reduce_sum",
    "asked_to_end",
    "atomic_file",
    "barrier",
    "broadcast_parameters",
    "broadcast_tensors",
    "broadcast_values",
    "check_batch_size_retry",
    "decay_batch_step",
    "dispatch_clip_grad",
    "distribute_bn",
    "file_sha256",
    "freeze",
    "freeze_matching",
    "gather_bn",
    "get_outdir",
    "get_state_dict",
    "init_distributed",
    "init_distributed_device",
    "is_distributed_env",
    "is_main_process",
    "is_primary",
    "is_same_everywhere",
    "latest_checkpoint",
    "load_arrays",
    "natural_key",
    "random_seed",
    "rank",
    "read_checkpoint",
    "reduce_tensor",
    "save_arrays",
    "scatter_bn",
    "setup_default_logging",
    "single_process",
    "trim_summary",
    "unfreeze",
    "unwrap_model",
    "update_summary",
    "watch_processes",
    "world_info_from_env",
    "world_size",
    "write_checkpoint",
    "write_csv",
    "write_text",
]
