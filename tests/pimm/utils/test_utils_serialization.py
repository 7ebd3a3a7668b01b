"""Files of arrays: what goes in comes out, damage is told, strangers' code does not run and costs little."""

import functools
import io
import os
import pickle
import time
import tracemalloc
import types
from pathlib import Path

import numpy as np
import paddle
import pytest
from array_trees import TREE, assert_same
from paddle import nn

from pimm.errors import CheckpointError
from pimm.utils import (
    load_arrays,
    save_arrays,
)


def test_data_round_trip(tmp_path):
    save_arrays(tmp_path / "a", TREE)
    found = load_arrays(tmp_path / "a")
    assert_same(found, TREE)
    found["float"] += 1  # what is read can be written to
    assert os.listdir(tmp_path) == ["a"]


def test_paddle_reads_ours_and_we_read_paddles(tmp_path):
    net = nn.Sequential(nn.Conv2D(3, 4, 3), nn.BatchNorm2D(4))
    expected = {name: tensor.numpy() for name, tensor in net.state_dict().items()}
    save_arrays(tmp_path / "ours.pdparams", net.state_dict())
    theirs = paddle.load(str(tmp_path / "ours.pdparams"))
    assert_same({name: tensor.numpy() for name, tensor in theirs.items()}, expected)
    assert net.set_state_dict(theirs) == ([], [])
    for protocol in (2, 3, 4):
        paddle.save(net.state_dict(), str(tmp_path / "theirs.pdparams"), protocol=protocol)
        assert_same(load_arrays(tmp_path / "theirs.pdparams"), expected)


def test_paddles_optimizer_state_and_nested_tensors(tmp_path):
    net = nn.Linear(2, 2)
    optimizer = paddle.optimizer.Adam(paddle.optimizer.lr.StepDecay(0.1, 3), parameters=net.parameters())
    net(paddle.ones([1, 2])).sum().backward()
    optimizer.step()
    paddle.save(optimizer.state_dict(), str(tmp_path / "a.pdopt"))
    found = load_arrays(tmp_path / "a.pdopt")
    assert found.pop("LR_Scheduler") == {"last_epoch": 0, "last_lr": 0.1}
    expected = {name: value.numpy() for name, value in optimizer.state_dict().items() if name != "LR_Scheduler"}
    assert_same(found, expected)
    paddle.save({"a": [paddle.ones([2]), 3]}, str(tmp_path / "nested"))
    assert_same(load_arrays(tmp_path / "nested"), {"a": [np.ones(2, np.float32), 3]})


def test_bfloat16_is_kept_as_bits(tmp_path):
    value = paddle.to_tensor([1.5, -2.25]).astype("bfloat16")
    paddle.save({"x": value}, str(tmp_path / "theirs"))
    save_arrays(tmp_path / "ours", {"x": value})
    bits = np.array([0x3FC0, 0xC010], np.uint16)
    assert_same(load_arrays(tmp_path / "theirs"), {"x": bits})
    assert_same(load_arrays(tmp_path / "ours"), {"x": bits})
    reread = paddle.load(str(tmp_path / "ours"))["x"]
    assert reread.dtype == paddle.bfloat16 and reread.astype("float32").tolist() == [1.5, -2.25]


@pytest.mark.parametrize(
    "value",
    [
        *(object(), print, np.array([None]), bytearray(2), types.SimpleNamespace(a=1)),
        *(np.zeros(2, [("a", "f4")]), np.array(["2020-01-01"], "M8[D]"), np.datetime64("2020-01-01")),
        *({2**100: 1}, {float("nan")}, dict.fromkeys(range(-6000, 0))),
    ],
)
def test_what_cannot_be_stored_is_refused_and_the_old_file_stays(tmp_path, value):
    save_arrays(tmp_path / "a", {"x": 1})
    with pytest.raises(CheckpointError, match="cannot be stored"):
        save_arrays(tmp_path / "a", {"deep": [{"y": value}]})
    assert load_arrays(tmp_path / "a") == {"x": 1}
    assert os.listdir(tmp_path) == ["a"]


class Call:
    """Pickles as the call of a function."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def contains_itself():
    value = []
    value.append(value)
    return value


HOSTILE = {
    "os.system": Call(os.system, "touch PWNED"),
    "eval": Call(eval, "open('PWNED', 'w')"),
    "getattr": Call(getattr, "x", "upper"),
    "open": Call(open, "PWNED", "w"),
    "bytearray": Call(bytearray, 10),
    "object array": np.array([Call(os.system, "touch PWNED")], dtype=object),
    "huge array": Call(np.empty, 10**15),
    "layer": types.SimpleNamespace(x=1),
    "partial": functools.partial(os.system, "touch PWNED"),
    "contains itself": contains_itself(),
    "structured array": np.zeros(2, [("a", "f4")]),
    "date": np.array(["2020-01-01"], "M8[D]"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_strangers_code_does_not_run(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    for protocol in (0, 2, 4, 5):
        Path("file").write_bytes(pickle.dumps({"x": [HOSTILE[name]]}, protocol=protocol))
        with pytest.raises(CheckpointError, match="file is damaged or not a file of arrays"):
            load_arrays("file")
    assert os.listdir() == ["file"]


OPCODES = {
    "a size beyond all memory": b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f",
    "an array with less data than its shape": (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x05\x85cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R\x89U\x04abcdtb."
    ),
    "a dtype alone": b"\x80\x02cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R.",
    "an array without data": b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R.",
    "state for a function": b"\x80\x02c_codecs\nencode\nN}U\x01aK\x01s\x86b.",
    "state for a plain list": b"\x80\x02]}U\x01aK\x01sb.",
    "a persistent reference": b"Pos\n.",
    "an extension": b"\x80\x02\x82\x01.",
    "nothing": b"",
    "text": b"hello",
    "a zip": b"PK\x03\x04",
    "a stop": b".",
}


@pytest.mark.parametrize("name", OPCODES)
def test_broken_pickles_are_one_clear_error(tmp_path, name):
    path = tmp_path / "broken"
    path.write_bytes(OPCODES[name])
    with pytest.raises(CheckpointError, match="broken is damaged or not a file of arrays"):
        load_arrays(path)


def test_claims_cost_no_memory(tmp_path):
    (tmp_path / "memo").write_bytes(b"\x80\x02]r\xff\xff\xff\x7f.")  # entry 2 ** 31 - 1 of the unpickler's memo
    tracemalloc.start()
    assert load_arrays(tmp_path / "memo") == []
    (tmp_path / "bytes").write_bytes(b"\x80\x02B\xff\xff\xff\x7f" + bytes(1000))  # 2 ** 31 - 1 bytes
    with pytest.raises(CheckpointError, match="cut short"):
        load_arrays(tmp_path / "bytes")
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()


DOUBLED = b"q\x00h\x00\x86" * 60  # a tuple of itself twice, sixty levels deep: 2 ** 60 parts to hash
EXPENSIVE = {
    "a key of doubled tuples": b"\x80\x02})" + DOUBLED + b"K\x01s.",
    "a key of doubled tuples in a list of pairs": b"\x80\x02}()" + DOUBLED + b"K\x01u.",
    "a set of doubled tuples": b"\x80\x04\x8f()" + DOUBLED + b"\x90.",
    "a frozen set of doubled tuples": b"\x80\x04()" + DOUBLED + b"\x91.",
    "an ordered dict of doubled tuples": b"\x80\x02ccollections\nOrderedDict\n])" + DOUBLED + b"K\x01\x86a\x85R.",
    "encoding the same text again and again": (
        b"\x80\x02c_codecs\nencode\nq\x00X\x00\x00\x10\x00"
        + (b"x" * (1 << 20) + b"q\x01U\x06latin1\x86q\x02](")
        + (b"h\x00h\x02R" * 7000 + b"e.")
    ),
    "a tuple of the same list again and again": (
        b"\x80\x02cbuiltins\ntuple\nq\x00](" + b"N" * 10_000 + b"e\x85q\x02](" + b"h\x00h\x02R" * 20_000 + b"e."
    ),
    "an array of the same bytes again and again": (
        b"\x80\x04cnumpy.core.numeric\n_frombuffer\nq\x00(\x96"
        + (1 << 20).to_bytes(8, "little")
        + bytes(1 << 20)
        + (b"cnumpy\ndtype\nX\x02\x00\x00\x00>f\x85RJ\x00\x00\x04\x00\x85X\x01\x00\x00\x00Ctq\x01](")
        + (b"h\x00h\x01R" * 7000 + b"e.")
    ),
    "integers as keys that collide": (
        b"\x80\x02}(" + b"".join(b"\x8a\x08" + (i << 44).to_bytes(8, "little") + b"N" for i in range(87_381)) + b"u."
    ),
    "more empty texts than can be counted": (
        b"\x80\x04cnumpy.core.numeric\n_frombuffer\n(C\x00cnumpy\ndtype\nX\x02\x00\x00\x00S0\x85R"
        b"\x8a\x08" + (2**61).to_bytes(8, "little") + b"\x85X\x01\x00\x00\x00CtR."
    ),
    "an integer of a megabyte": b"\x80\x02\x8b\x00\x00\x10\x00" + bytes(1 << 20) + b".",
    "two million sets": b"\x80\x04" + b"\x8f" * 2_000_000 + b".",
}


@pytest.mark.parametrize("name", EXPENSIVE)
def test_small_files_cost_little_time_and_memory(tmp_path, name):
    path = tmp_path / "a.pdparams"
    path.write_bytes(EXPENSIVE[name])
    tracemalloc.start()
    start = time.process_time()
    reasons = (
        "tuple as a key|more made than it holds|too many keys|neither an array nor|an integer of|1,000,000 operations"
    )
    with pytest.raises(
        CheckpointError, match=rf"a\.pdparams is damaged or not a file of arrays: .*({reasons})"
    ) as caught:
        load_arrays(path)
    assert time.process_time() - start < 10  # tracing memory makes it several times as slow
    assert tracemalloc.get_traced_memory()[1] < 400e6 and "MemoryError" not in str(caught.value)
    tracemalloc.stop()
    assert len(str(caught.value)) - len(str(path)) < 300


@pytest.mark.parametrize("data", [b"PK\3\4", b"hello", pickle.dumps({"a": 1}, 0), pickle.dumps({"a": 1}, 1)])
def test_what_is_no_pickle_of_this_kind_is_told(tmp_path, data):
    (tmp_path / "a.pdparams").write_bytes(data)
    with pytest.raises(CheckpointError, match="it is no pickle of protocols 2 to 5"):
        load_arrays(tmp_path / "a.pdparams")


def test_a_huge_place_in_the_memo_costs_nothing(tmp_path):
    (tmp_path / "map.pkl").write_bytes(b"\x80\x02}r\xff\xff\xff\x0f.")
    tracemalloc.start()
    assert load_arrays(tmp_path / "map.pkl") == {}
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_keys_that_are_not_text(tmp_path, protocol):
    """As the optimizer's numbered state, class maps, and the costs of operations by shape have them."""
    content = {
        "numbers": dict.fromkeys(range(40_000), 0.5),
        "shapes": {(16, i, 28, 28, 2): i for i in range(500)},
        "others": {None: 1, True: 2, 2.5: 3, -7: 4, 2**40: 5, ((1, "a"), 2): 6, b"x": 7, frozenset({1}): 8},
        "sets": [{("a", 1), 2}, frozenset({"a"})],
    }
    (tmp_path / "a").write_bytes(pickle.dumps(content, protocol))
    assert_same(load_arrays(tmp_path / "a"), content)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_what_numpy_pickles(tmp_path, protocol):
    arrays = {name: value for name, value in TREE.items() if isinstance(value, np.ndarray)}
    (tmp_path / "a").write_bytes(pickle.dumps(arrays, protocol))
    found = load_arrays(tmp_path / "a")
    assert_same(found, arrays)
    found["float"] += 1  # what is read can be written to
    scalars = {np.str_("a"): np.int64(3), "b": np.float32(2.5)}
    (tmp_path / "a").write_bytes(pickle.dumps(scalars, protocol))
    assert load_arrays(tmp_path / "a") == {"a": 3, "b": 2.5}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.pdparams")
    with pytest.raises(CheckpointError, match="it is a pipe or a device and not a file"):
        load_arrays(tmp_path / "a.pdparams")


def test_what_could_not_be_read_back_is_not_written(tmp_path):
    save_arrays(tmp_path / "a", {"numbers": np.zeros(2_000_000)})
    with pytest.raises(CheckpointError, match="more than 1,000,000 values; keep many numbers in an array"):
        save_arrays(tmp_path / "a", {"numbers": [0.0] * 1_000_001})
    assert len(load_arrays(tmp_path / "a")["numbers"]) == 2_000_000


def test_nested_beyond_measure(tmp_path):
    (tmp_path / "deep").write_bytes(b"\x80\x02" + b"]" * 100000 + b"a" * 99999 + b".")
    with pytest.raises(CheckpointError, match="deep is damaged"):
        load_arrays(tmp_path / "deep")
    laughs = []
    for _ in range(60):  # 2 ** 60 leaves if shared lists were not read once
        laughs = [laughs, laughs]
    (tmp_path / "laughs").write_bytes(pickle.dumps(laughs))
    assert len(load_arrays(tmp_path / "laughs")) == 2


def test_every_cut_and_most_flips_give_our_error_or_data(tmp_path):
    """Without a manifest a flip inside the numbers passes; whatever happens, it is no other error."""
    whole = io.BytesIO()
    pickle.dump({"a": np.arange(4, dtype=np.float32), "b": [1, "two"]}, whole, protocol=4)
    content = whole.getvalue()
    path = tmp_path / "a"
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match="damaged"):
            load_arrays(path)
    refused = 0
    for position in range(len(content)):
        path.write_bytes(content[:position] + bytes([content[position] ^ 0x10]) + content[position + 1 :])
        try:
            load_arrays(path)
        except CheckpointError:
            refused += 1
    assert refused > len(content) // 2


def test_a_missing_file():
    with pytest.raises(CheckpointError, match=r"cannot read nowhere\.pdparams: No such file"):
        load_arrays("nowhere.pdparams")
