"""Compare the reader and writer of PyTorch files with PyTorch; skipped where torch is not installed."""

from collections import OrderedDict

import numpy as np
import pytest

from pimm.torch_file import BFLOAT16, is_bfloat16, load_torch, save_torch

torch = pytest.importorskip("torch")

ROUNDS = 200
DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8),
    *(torch.uint8, torch.bool, torch.complex64, torch.complex128),
    *(getattr(torch, name) for name in ("uint16", "uint32", "uint64") if hasattr(torch, name)),
]
LEGACY_DTYPES = DTYPES[:12]  # the wider unsigned ones PyTorch itself cannot read back from its old format
PLAIN = [1, -(2**40), 2**70, 1.5, True, None, "text", "é", b"\x00\xff", 1 - 2j]
VIEWS = [
    lambda t: t,
    lambda t: t[::2] if t.dim() else t,
    lambda t: t[1:] if t.dim() else t,
    lambda t: t.t() if t.dim() == 2 else t,
    lambda t: t.unsqueeze(0).expand(3, *t.shape),
    lambda t: t.flatten()[:1].reshape(()) if t.numel() else t,
    lambda t: t.flatten()[:0],
    lambda t: t.conj() if t.is_complex() else t,
    lambda t: t.conj().imag if t.is_complex() else t,
    lambda t: torch.nn.Parameter(t, requires_grad=False),
]


def random_content(rng, dtypes=DTYPES, depth=3):
    """Return nested containers of tensors, some of which share a storage, and of plain data."""
    kind = rng.integers(0, 10 if depth else 6)
    if kind < 4:
        return random_tensor(rng, dtypes)
    if kind < 6:
        return PLAIN[rng.integers(len(PLAIN))]
    items = [random_content(rng, dtypes, depth - 1) for _ in range(rng.integers(0, 5))]
    if items and rng.random() < 0.3:
        items.append(items[0])
    keyed = {f"key {i}": item for i, item in enumerate(items)}
    return [items, tuple(items), keyed, OrderedDict(keyed)][kind - 6]


def random_tensor(rng, dtypes):
    dtype = dtypes[rng.integers(len(dtypes))]
    shape = rng.integers(1, 5, rng.integers(0, 4)).tolist()
    tensor = torch.from_numpy(np.asarray(100 * rng.random([2, *shape]))).to(dtype)
    return VIEWS[rng.integers(len(VIEWS))](tensor[rng.integers(2)])


def assert_same(found, expected):
    """Check that pimm's content is that of PyTorch, with arrays equal bit by bit."""
    if isinstance(expected, torch.Tensor):
        expected = expected.detach().resolve_conj().resolve_neg().contiguous()
        if expected.dtype == torch.bfloat16:
            assert is_bfloat16(found)
            expected = expected.view(torch.int16)
            found = found.view(np.int16)
        expected = expected.numpy()
        assert isinstance(found, np.ndarray)
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        assert found.tobytes() == expected.tobytes()
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for key in expected:
            assert_same(found[key], expected[key])
    elif isinstance(expected, (list, tuple)):
        assert type(found) is type(expected) and len(found) == len(expected)
        for item, other in zip(found, expected):
            assert_same(item, other)
    else:
        assert type(found) is type(expected) and found == expected


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("is_zip", [True, False])
def test_what_pytorch_writes_is_read_equal(is_zip, protocol, tmp_path):
    rng = np.random.default_rng([protocol, is_zip])
    for round_ in range(ROUNDS // 4):
        content = {f"{round_}.{i}": random_content(rng, DTYPES if is_zip else LEGACY_DTYPES) for i in range(4)}
        torch.save(content, tmp_path / "a", pickle_protocol=protocol, _use_new_zipfile_serialization=is_zip)
        assert_same(load_torch(tmp_path / "a"), torch.load(tmp_path / "a", weights_only=False))


def as_array(value):
    """Return a tensor as pimm's array, and other values unchanged."""
    if isinstance(value, torch.Tensor):
        value = value.detach().resolve_conj().resolve_neg().contiguous()
        return value.view(torch.uint16).numpy().view(BFLOAT16) if value.dtype == torch.bfloat16 else value.numpy()
    if isinstance(value, dict):
        return {key: as_array(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(as_array(item) for item in value)
    return None if isinstance(value, (bytes, complex)) else value


@pytest.mark.parametrize("options", [{}, {"mmap": True}])
def test_what_we_write_is_read_equal_there(options, tmp_path):
    rng = np.random.default_rng(7)
    for round_ in range(ROUNDS):
        content = {f"{round_}.{i}": as_array(random_content(rng)) for i in range(4)}
        save_torch(tmp_path / "a.pth.tar", content)
        assert_same(content, torch.load(tmp_path / "a.pth.tar", weights_only=True, **options))


class Settings:
    def __init__(self, rate):
        self.rate = rate


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_training_checkpoint(is_zip, tmp_path):
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten(), torch.nn.Linear(4, 2)
    )
    optimizer = torch.optim.RMSprop(net.parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    for _ in range(2):
        net(torch.randn(2, 3, 3, 3)).sum().backward()
        optimizer.step()
        scheduler.step()
    content = {
        "state_dict": net.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "rng": torch.get_rng_state(),
        "metric": np.float64(1.5),
        "shape": torch.Size((1, 2)),
        "args": Settings(0.1),
        "dtype": torch.float32,
    }
    torch.save(content, tmp_path / "a", _use_new_zipfile_serialization=is_zip)
    found = load_torch(tmp_path / "a")
    for key in ("state_dict", "optimizer", "scheduler", "rng", "metric"):
        assert_same(found[key], content[key])
    assert found["shape"] == (1, 2)
    assert found["args"].name.endswith("Settings") and found["args"].state == {"rate": 0.1}
    assert found["dtype"].name == "torch.float32"


def test_a_pickled_module_is_told(tmp_path):
    torch.save({"model": torch.nn.Linear(2, 2)}, tmp_path / "a")
    found = load_torch(tmp_path / "a")["model"]
    assert found.name == "torch.nn.modules.linear.Linear"
    weight = torch.load(tmp_path / "a", weights_only=False)["model"].weight
    assert_same(found.state["_parameters"]["weight"], weight)


def test_a_state_dict_of_ours_loads_strictly_there(tmp_path):
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    state = {name: as_array(value) for name, value in net.state_dict().items()}
    save_torch(tmp_path / "a.pth.tar", {"arch": "tiny", "state_dict": state})
    loaded = torch.load(tmp_path / "a.pth.tar", weights_only=True)["state_dict"]
    net.load_state_dict(loaded, strict=True)
