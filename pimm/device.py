"""Choose the device by its name, and answer what the jobs must know of it: all other modules ask here."""

from __future__ import annotations

import re
from dataclasses import dataclass

import paddle
from paddle import distributed as dist
from paddle.base import core

from pimm.errors import ConfigError
from pimm.messages import did_you_mean

_KINDS = {"cuda": "gpu", "dcu": "gpu"}  # other names of what Paddle calls gpu
_NAME = re.compile(r"(\w+)(?::(\d+))?")


@dataclass(frozen=True)
class Device:
    """Is a device of Paddle.

    Args:
        kind: ``cpu``, ``gpu``, ``xpu``, or the name under which a plug-in offers its devices, such as ``npu``.
        index: number among the devices of its kind.
    """

    kind: str
    index: int = 0

    @property
    def is_cpu(self) -> bool:
        """Whether the device is the CPU, which has run a kernel when the call returns."""
        return self.kind == "cpu"

    @property
    def is_gpu(self) -> bool:
        """Whether Paddle's own kernels for CUDA or ROCm run on the device."""
        return self.kind == "gpu"

    @property
    def is_plugin(self) -> bool:
        """Whether a plug-in offers the device to Paddle, as for Ascend's NPUs."""
        return self.kind not in ("cpu", "gpu", "xpu")

    @property
    def has_pinned_memory(self) -> bool:
        """Whether Paddle keeps pinned memory until a copy to the device has left it, so that nothing waits."""
        return self.is_gpu

    @property
    def has_amp(self) -> bool:
        """Whether mixed precision makes sense: a CPU has neither the kernels nor the gain."""
        return not self.is_cpu

    def __str__(self) -> str:
        return self.kind if self.is_cpu else f"{self.kind}:{self.index}"

    def described(self) -> str:
        """Return the name for logs and reports, with the model of a GPU."""
        return f"{self} {paddle.device.cuda.get_device_name(self.index)}" if self.is_gpu else str(self)


def counts() -> dict[str, int]:
    """Return how many devices of each kind Paddle finds on this machine."""
    found = {"cpu": 1, "gpu": paddle.device.cuda.device_count()}
    if paddle.device.is_compiled_with_xpu():
        found["xpu"] = paddle.device.xpu.device_count()
    found.update({kind: core.get_custom_device_count(kind) for kind in paddle.device.get_all_custom_device_type()})
    return {kind: count for kind, count in found.items() if count}


def current() -> Device:
    """Return the device that Paddle uses in this process."""
    return device_of(None)


def device_of(place, setting="the device") -> Device:
    """Return the device of a place.

    Args:
        place: Paddle's place, or the name of a device; None for the current device.
        setting: how the user calls a setting that holds the name.

    Raises:
        ConfigError: for a text that is no name of a device.
    """
    if place is None:
        place = paddle.get_device()
    if isinstance(place, str):
        name = _NAME.fullmatch(place)
        if not name:
            raise ConfigError(f"{setting} is {place!r:.80}; must be as cpu, gpu, gpu:1, npu or NAME:N")
        return Device(_KINDS.get(name[1], name[1]), int(name[2] or 0))
    if place.is_cpu_place() or place.is_cuda_pinned_place():
        return Device("cpu")
    if place.is_gpu_place():
        return Device("gpu", place.gpu_device_id())
    if place.is_xpu_place():
        return Device("xpu", place.xpu_device_id())
    return Device(place.custom_device_type(), place.custom_device_id())


def choose(name: str | None, setting: str) -> Device:
    """Let Paddle use a device in this process, and return the device.

    Each of several processes of a launch takes the device, of the kind of ``name``, that the launcher gave to it.

    Args:
        name: the name of a device, such as ``cpu``, ``gpu``, ``gpu:1``, ``npu``; None or an empty text for the device
            that Paddle prefers.
        setting: how the user calls the setting.

    Raises:
        ConfigError: if Paddle finds no such device on this machine.
    """
    device = device_of(name or None, setting)
    if not device.is_cpu and dist.get_world_size() > 1:
        device = Device(device.kind, dist.ParallelEnv().device_id)
    found = counts()
    if device.index >= found.get(device.kind, 0):
        names = [str(Device(kind, index)) for kind, count in found.items() for index in range(count)]
        raise ConfigError(
            f"{setting} is {name or device}, and Paddle finds no {device} here; must be one of "
            f"{', '.join(names)}{did_you_mean(device, names)}"
        )
    paddle.set_device(str(device))
    return device


def synchronize() -> None:
    """Wait until the current device has run all launched kernels; a CPU has run them already."""
    if not current().is_cpu:
        paddle.device.synchronize()


def has_onednn() -> bool:
    """Return whether this build of Paddle has oneDNN, by which Paddle Inference computes on a CPU."""
    return core.is_compiled_with_onednn()


def event_after(device: Device) -> core.CustomDeviceEvent:
    """Return an event of a plug-in device that comes once the device has run all that was launched so far."""
    event = core.CustomDeviceEvent(device.kind, device.index)
    event.record(core._get_current_custom_device_stream(device.kind, device.index))
    return event
