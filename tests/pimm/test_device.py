"""Names of devices, and that no other module of the packages decides by the text of a name."""

import re
from types import SimpleNamespace

import numpy as np
import paddle
import pytest
from paths import ROOT

from pimm import device
from pimm.data.device import to_device
from pimm.device import Device, device_of
from pimm.errors import ConfigError

NAMES = {
    "cpu": Device("cpu"),
    "gpu": Device("gpu"),
    "gpu:1": Device("gpu", 1),
    "cuda:3": Device("gpu", 3),
    "dcu": Device("gpu"),
    "npu": Device("npu"),
    "xpu:2": Device("xpu", 2),
    "cpu_like_gpu:1": Device("cpu_like_gpu", 1),
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_a_kind_and_a_number(name):
    assert device_of(name) == NAMES[name]


@pytest.mark.parametrize("name", ["", ":1", "gpu:", "gpu:x", "gpu:1:2", "gpu 1", "gpu:-1"])
def test_what_is_no_name(name):
    with pytest.raises(ConfigError, match=r"the device is '.*'; must be as cpu, gpu, gpu:1, npu or NAME:N"):
        device_of(name)


@pytest.mark.parametrize(
    ("name", "is_cpu", "is_gpu", "pinned", "amp"),
    [
        ("cpu", True, False, False, False),
        ("gpu:1", False, True, True, True),
        ("mygpu", False, False, False, True),
        ("cpu_like", False, False, False, True),
    ],
)
def test_what_devices_can_do(name, is_cpu, is_gpu, pinned, amp):
    known = device_of(name)
    assert (known.is_cpu, known.is_gpu, known.has_pinned_memory, known.has_amp) == (is_cpu, is_gpu, pinned, amp)


@pytest.mark.parametrize(("name", "by_plugin"), [("cpu", False), ("cuda:1", False), ("xpu", False), ("npu:1", True)])
def test_which_devices_are_those_of_plugins(name, by_plugin):
    assert device_of(name).is_plugin == by_plugin


def place(kind, **numbers):
    kinds = ("cpu", "cuda_pinned", "gpu", "xpu", "custom")
    questions = {f"is_{each}_place": lambda each=each: each == kind for each in kinds}
    return SimpleNamespace(**questions, **{name: lambda value=value: value for name, value in numbers.items()})


def test_devices_of_places():
    """Compares the places of Paddle that this build has, and what the others answer."""
    assert device_of(paddle.CPUPlace()) == device_of(paddle.zeros([1]).cpu().place) == Device("cpu")
    assert device_of(place("cuda_pinned")) == Device("cpu")
    assert device_of(place("gpu", gpu_device_id=1)) == Device("gpu", 1)
    assert device_of(place("xpu", xpu_device_id=2)) == Device("xpu", 2)
    assert device_of(place("custom", custom_device_type="npu", custom_device_id=3)) == Device("npu", 3)


def test_names_for_people(monkeypatch):
    monkeypatch.setattr(paddle.device.cuda, "get_device_name", lambda index: f"Model {index}")
    assert [device_of(name).described() for name in ("cpu", "gpu:1", "npu")] == ["cpu", "gpu:1 Model 1", "npu:0"]


def test_choosing(monkeypatch):
    monkeypatch.setattr(device, "counts", lambda: {"cpu": 1, "gpu": 2, "npu": 1})
    chosen = []
    monkeypatch.setattr(paddle, "set_device", chosen.append)
    assert [str(device.choose(name, "DEVICE")) for name in ("cpu", "gpu:1", "cuda", "npu")] == chosen
    assert chosen == ["cpu", "gpu:1", "gpu:0", "npu:0"]
    with pytest.raises(ConfigError) as error:
        device.choose("gpu:2", "DEVICE")
    assert str(error.value).startswith("DEVICE is gpu:2, and Paddle finds no gpu:2 here; must be one of cpu, gpu:0, ")
    with pytest.raises(ConfigError, match=r"--device is npv, .* must be one of .*; did you mean npu:0"):
        device.choose("npv", "--device")
    assert len(chosen) == 4


def test_processes_of_a_launch_take_the_devices_of_the_launcher(monkeypatch):
    monkeypatch.setattr(device, "counts", lambda: {"cpu": 1, "gpu": 8})
    monkeypatch.setattr(device, "dist", SimpleNamespace(get_world_size=lambda: 8, ParallelEnv=lambda: LAUNCHED))
    monkeypatch.setattr(paddle, "set_device", lambda name: None)
    assert [str(device.choose(name, "DEVICE")) for name in ("gpu", "gpu:1", "cpu")] == ["gpu:5", "gpu:5", "cpu"]


LAUNCHED = SimpleNamespace(device_id=5)


def test_an_array_goes_to_the_current_device():
    sent = to_device(np.arange(3))
    assert (device_of(sent.place), sent.tolist()) == (device.current(), [0, 1, 2])


TEXT = {
    "the name of the device as text": r"get_device\(\)",
    "a place as text": r"(in|==) str\([^)]*(place|device)|str\([^)]*(place|device)[^)]*\)(\.| in| ==)",
    "CUDA's own functions": r"device\.cuda|paddle\.cuda|is_compiled_with|CUDAPlace",
}


@pytest.mark.parametrize("pattern", TEXT.values(), ids=TEXT)
def test_no_other_module_has_a_notion_of_its_own(pattern):
    own = [
        f"{path.relative_to(ROOT)}:{number}"
        for folder in ("pimm", "cream", "tools")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if path != ROOT / "pimm/device.py"
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(pattern, line)
    ]
    assert own == []
