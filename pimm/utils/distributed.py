"""Exchange values between the processes of ``paddle.distributed.launch``; with one process nothing is exchanged."""

from __future__ import annotations

import contextlib
import os
import signal
import time
import zlib

import paddle
from paddle import distributed as dist
from paddle.base import core

from pimm import device, preemption
from pimm.utils.model import unwrap_model

_ARRIVALS = "pimm/barrier"  # where the processes count how often they arrived at a barrier
_barriers = 0
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.0005, 0.02  # seconds between two looks at the store
_single = False


@contextlib.contextmanager
def single_process():
    """Let this process act inside the block as the only process there is: number 0 of 1, which waits for no other.

    The block is for processes of one launch that have different things to do, such as nets of their own to train.
    """
    global _single
    before, _single = _single, True
    try:
        yield
    finally:
        _single = before


def rank():
    """Return the rank of this process; a rank that the environment names without a launch does not count."""
    return dist.get_rank() if world_size() > 1 else 0


def world_size():
    """Return the number of processes."""
    return 1 if _single else dist.get_world_size()


def is_main_process():
    """Tell whether this is the process that writes files and logs, which has rank 0."""
    return rank() == 0


def init_distributed():
    """Connect the processes, if there is more than one: Gloo between CPUs, else by what the devices bring."""
    if world_size() > 1 and not dist.is_initialized():
        if device.current().is_cpu:  # Paddle and its launcher would take accelerators that there are, asked for or not
            os.environ["PADDLE_DISTRI_BACKEND"] = "gloo"
        dist.init_parallel_env()


def world_info_from_env():
    """Return this process's rank on its machine, its rank among all, and the number of processes, from the launcher."""
    names = ("PADDLE_LOCAL_RANK", "PADDLE_TRAINER_ID", "PADDLE_TRAINERS_NUM")
    local, everywhere, processes = (os.environ.get(name) for name in names)
    if int(processes or 1) < 2:  # a rank without a launch was left over in the environment
        return 0, 0, 1
    return int(local or 0), int(everywhere or 0), int(processes)


def is_distributed_env():
    """Tell whether the launcher has started more than one process."""
    return world_info_from_env()[2] > 1


def is_primary(args, local=False):
    """Tell whether ``args`` of `init_distributed_device` belong to rank 0; with ``local``, to rank 0 of the machine."""
    return (args.local_rank if local else args.rank) == 0


def init_distributed_device(args):
    """Connect the processes, choose the device of this process, note both in ``args``, and return the device.

    Args:
        args: ``args.device`` is a name as `pimm.device.choose` takes it, by default the device that Paddle prefers;
            the function sets ``device, local_rank, rank, world_size, distributed``.

    Raises:
        ConfigError: for a device that does not exist.
    """
    args.local_rank, args.rank, args.world_size = world_info_from_env()
    args.distributed = args.world_size > 1
    args.device = str(device.choose(getattr(args, "device", None), "the device"))
    init_distributed()
    return args.device


def barrier():
    """Wait for all processes, for as long as it takes.

    Between CPUs, the operations of Gloo give up after half a minute: a barrier belongs before an operation wherever one
    process may have had more to do than another.
    """
    global _barriers
    if world_size() == 1:
        return
    if not device.current().is_cpu:
        dist.barrier()
        return
    _barriers += 1
    arrived, pause = _count_arrivals(1), _SHORTEST_PAUSE
    while arrived < _barriers * world_size():
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
        arrived = _count_arrivals(0)


def wait_for_late_processes():
    """Wait for all processes between CPUs, where one may be late by more than Gloo's patience, and nowhere else."""
    if device.current().is_cpu:
        barrier()


def _count_arrivals(n):
    """Add ``n`` to the count in Paddle's store, and return the count; a signal, which would break this, waits."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    try:
        return core.create_or_get_global_tcp_store().add(_ARRIVALS, n)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def asked_to_end(waiting=True):
    """Return whether SIGTERM has come to any process: all of them must ask together, and all get the same answer.

    Args:
        waiting: whether the processes wait for the device here anyway. On several GPUs the question makes them wait;
            without ``waiting`` the answer there is False.
    """
    if world_size() == 1:
        return preemption.came()
    if not waiting and not device.current().is_cpu:
        return False
    wait_for_late_processes()
    return bool(all_reduce_sum(paddle.to_tensor([int(preemption.came())], "int64")).item())


@paddle.no_grad()
def all_reduce_sum(tensor):
    """Return the sum of ``tensor`` over all processes; the tensor itself stays as it is."""
    if world_size() == 1 or not tensor.size:  # Gloo refuses empty tensors, such as the statistics of a net without any
        return tensor
    total = tensor.clone()
    dist.all_reduce(total)
    return total


def reduce_tensor(tensor, n):
    """Return the sum of ``tensor`` over all processes divided by ``n``: timm's mean over ``n`` processes."""
    return all_reduce_sum(tensor) / n


@paddle.no_grad()
def all_reduce_mean(tensors):
    """Return the means of tensors over all processes, in one message for each data type."""
    if world_size() == 1:
        return list(tensors)
    return in_one_message(tensors, lambda flat: all_reduce_sum(flat) / world_size())


@paddle.no_grad()
def all_reduce_gradients(parameters):
    """Average the gradients that exist over all processes, in place.

    Every process must have gradients for the same parameters, as processes have that train the same path.
    """
    if world_size() == 1:
        return
    wait_for_late_processes()
    gradients = [param.grad for param in parameters if param.grad is not None]
    for gradient, mean in zip(gradients, all_reduce_mean(gradients)):
        paddle.assign(mean, output=gradient)


@paddle.no_grad()
def broadcast_tensors(tensors):
    """Return the values that tensors have on rank 0; the shapes must be the same on all ranks."""
    if world_size() == 1:
        return list(tensors)
    return in_one_message(tensors, _broadcast)


def broadcast_values(tensor):
    """Return the values that a tensor has on rank 0, as Python numbers, after one wait for the device."""
    return broadcast_tensors([tensor])[0].tolist()


def is_same_everywhere(text):
    """Return whether all processes have the same text: all of them must ask together, and all get the same answer."""
    if world_size() == 1:
        return True
    seen = zlib.crc32(text.encode())
    barrier()
    (first,) = broadcast_values(paddle.to_tensor([seen], "int64"))
    return not all_reduce_sum(paddle.to_tensor([int(seen != first)], "int64")).item()


@paddle.no_grad()
def broadcast_parameters(model):
    """Give all processes the weights and running statistics of rank 0."""
    _overwrite(list(unwrap_model(model).state_dict().values()), broadcast_tensors)


@paddle.no_grad()
def distribute_bn(model, world_size=None, reduce=False):
    """Give all processes the same running statistics: those of rank 0, or with ``reduce`` the mean.

    ``world_size`` is timm's argument and has no effect: the number of processes is known.
    """
    _overwrite(_running_statistics(model), all_reduce_mean if reduce else broadcast_tensors)


@paddle.no_grad()
def gather_bn(model):
    """Return the running statistics of each process, [processes, values], which `distribute_bn` would make equal."""
    flat = paddle.concat([tensor.reshape([-1]) for tensor in _running_statistics(model)] or [paddle.zeros([0])])
    rows = paddle.zeros([world_size(), flat.size], flat.dtype)
    rows[rank()] = flat
    return all_reduce_sum(rows)


@paddle.no_grad()
def scatter_bn(model, rows):
    """Give every process the row that it had in what `gather_bn` returned."""
    running = _running_statistics(model)
    pieces = paddle.to_tensor(rows)[rank()].split([tensor.size for tensor in running]) if running else ()
    for tensor, piece in zip(running, pieces):
        paddle.assign(piece.reshape(tensor.shape), output=tensor)


def _running_statistics(model):
    state = unwrap_model(model).state_dict()
    return [tensor for name, tensor in state.items() if name.endswith(("._mean", "._variance"))]


def _overwrite(tensors, exchange):
    if world_size() > 1:
        for tensor, value in zip(tensors, exchange(tensors)):
            paddle.assign(value, output=tensor)


def _broadcast(flat):
    dist.broadcast(flat, src=0)
    return flat


def in_one_message(tensors, exchange):
    """Pass tensors through ``exchange`` as one flat copy for each data type, and return them in their shapes."""
    results = [None] * len(tensors)
    by_dtype = {}
    for index, tensor in enumerate(tensors):
        by_dtype.setdefault(tensor.dtype, []).append(index)
    for indices in by_dtype.values():
        flat = exchange(paddle.concat([tensors[index].reshape([-1]) for index in indices]))
        pieces = flat.split([tensors[index].size for index in indices])
        for index, piece in zip(indices, pieces):
            results[index] = piece.reshape(tensors[index].shape)
    return results
