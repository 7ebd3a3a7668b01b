"""PyTorch's files without PyTorch: values of every kind, read and written."""

import os
import pickle
import pickletools
import tracemalloc
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
from torch_bytes import (
    PROTO,
    STOP,
    STORAGES,
    Call,
    Name,
    Reference,
    Tensor,
    ordered_dict,
    save_legacy,
    save_zip,
)

from pimm.errors import CheckpointError
from pimm.torch_file import BFLOAT16, Inert, is_bfloat16, load_torch, save_torch


def assert_same(found, expected):
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        for key in expected:
            assert_same(found[key], expected[key])
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected)
        for item, other in zip(found, expected):
            assert_same(item, other)
    elif isinstance(expected, np.ndarray):
        assert found.dtype == expected.dtype and is_bfloat16(found) == is_bfloat16(expected)
        np.testing.assert_array_equal(found, expected)
    else:
        assert found == expected


# Values

BITS = np.array([0x3FC0, 0xC010, 0x7F80], np.uint16)  # 1.5, -2.25 and infinity in bfloat16
NUMBERS = np.array([[0, 1, 2], [3, 100, 127]])
TYPES = {
    **{name: NUMBERS.astype(name) for name in STORAGES if name != "bfloat16"},
    "bool": NUMBERS > 2,
    "complex64": (NUMBERS * (1 - 2j)).astype(np.complex64),
    **{name: NUMBERS.astype(name) for name in ("uint16", "uint32", "uint64")},
}


@pytest.mark.parametrize("name", TYPES)
def test_every_type(save, name, tmp_path):
    save(tmp_path / "a.pth", {"x": TYPES[name]})
    assert_same(load_torch(tmp_path / "a.pth"), {"x": TYPES[name]})


def test_bfloat16_comes_as_marked_bits(save, tmp_path):
    save(tmp_path / "a.pth", {"x": Tensor(BITS, dtype="bfloat16"), "y": Tensor(BITS.copy(), dtype="uint16")})
    found = load_torch(tmp_path / "a.pth")
    assert_same(found, {"x": BITS.view(BFLOAT16), "y": BITS})
    assert is_bfloat16(found["x"][1:]) and not is_bfloat16(found["y"])


BASE = np.arange(24, dtype=np.float32)
VIEWS = {
    "whole": (Tensor(BASE), BASE),
    "transposed": (Tensor(BASE, 0, (4, 6), (1, 4)), BASE.reshape(6, 4).T),
    "every third, from the second": (Tensor(BASE, 1, (7,), (3,)), BASE[1:22:3]),
    "block": (Tensor(BASE, 7, (2, 3), (6, 1)), BASE.reshape(4, 6)[1:3, 1:4]),
    "expanded": (Tensor(BASE, 5, (3, 4), (0, 0)), np.full((3, 4), 5, np.float32)),
    "overlapping": (Tensor(BASE, 0, (3, 3), (1, 1)), np.array([[0, 1, 2], [1, 2, 3], [2, 3, 4]], np.float32)),
    "no dimension": (Tensor(BASE, 23, (), ()), np.array(23, np.float32)),
    "nothing": (Tensor(BASE, 24, (2, 0), (5, 1)), np.zeros((2, 0), np.float32)),
    "one, with the stride of many": (Tensor(BASE, 3, (1, 2), (1000, 1)), BASE[None, 3:5]),
}


def test_views_of_one_storage(save, tmp_path):
    save(tmp_path / "a.pth", {name: tensor for name, (tensor, _) in VIEWS.items()})
    assert_same(load_torch(tmp_path / "a.pth"), {name: expected for name, (_, expected) in VIEWS.items()})


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1, 1, 1), (2, 3)])
def test_shapes(save, shape, tmp_path):
    array = np.arange(np.prod(shape, dtype=int), dtype=np.int16).reshape(shape)
    save(tmp_path / "a.pth", {"x": array})
    assert_same(load_torch(tmp_path / "a.pth"), {"x": array})


@pytest.mark.parametrize("name", ["float32", "int16", "complex128", "bool", "bfloat16"])
def test_a_zip_of_a_big_endian_machine(name, tmp_path):
    expected = BITS.view(BFLOAT16) if name == "bfloat16" else TYPES[name]
    stored = expected.byteswap().view(expected.dtype)
    save_zip(tmp_path / "a.pth", {"x": Tensor(stored, dtype=name)}, byteorder="big")
    assert_same(load_torch(tmp_path / "a.pth"), {"x": expected})


def test_a_legacy_file_of_a_big_endian_machine_is_little_endian(tmp_path):
    save_legacy(tmp_path / "a.pth", {"x": BASE}, little_endian=False)
    assert_same(load_torch(tmp_path / "a.pth"), {"x": BASE})


def test_conjugate_and_negative_views(save, tmp_path):
    array = np.array([1 + 2j, 3 - 4j])
    marks = {"conj": {"conj": True}, "neg": {"neg": True}, "both": {"conj": True, "neg": True}, "none": {}}
    save(tmp_path / "a.pth", {name: Tensor(array, metadata=metadata) for name, metadata in marks.items()})
    expected = {"conj": array.conj(), "neg": -array, "both": -array.conj(), "none": array}
    assert_same(load_torch(tmp_path / "a.pth"), expected)


def test_parts_of_legacy_storages(tmp_path):
    part = Tensor(BASE, offset=1, size=(2,), stride=(3,), view=(10, 6))
    save_legacy(tmp_path / "a.pth", {"part": part, "whole": BASE})
    assert_same(load_torch(tmp_path / "a.pth"), {"part": BASE[11:16:3], "whole": BASE})
    save_legacy(tmp_path / "a.pth", {"part": Tensor(BASE, size=(1,), stride=(1,), view=(20, 5))})
    with pytest.raises(CheckpointError, match="reaches beyond"):
        load_torch(tmp_path / "a.pth")


def test_parameters_and_tensors_with_attributes(save, tmp_path):
    hooks = ordered_dict()
    parameter = Call(Name("torch._utils", "_rebuild_parameter"), (Tensor(BASE), True, hooks))
    stateful = Call(Name("torch._utils", "_rebuild_parameter_with_state"), (Tensor(BASE), True, hooks, {"tag": 1}))
    of_type = Call(
        Name("torch._tensor", "_rebuild_from_type_v2"),
        (
            Name("torch._utils", "_rebuild_parameter"),
            Name("torch.nn.parameter", "Parameter"),
            (Tensor(BASE), True, hooks),
            {},
        ),
    )
    save(tmp_path / "a.pth", {"a": parameter, "b": stateful, "c": of_type})
    assert_same(load_torch(tmp_path / "a.pth"), dict.fromkeys("abc", BASE))


PLAIN = {
    "numbers": [0, -1, 255, 256, 65536, -(2**31), 2**31, 2**63, -(2**100), 1.5, float("inf"), True, False, None],
    "text": ["", "é", "x" * 300, "\n"],
    "bytes": [b"", b"\x00\xff" * 200, bytearray(b"ab")],
    "nested": {1: {"a": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)]}, None: {2.5: b"x"}},
    "sets": [{1, 2}, frozenset({"a"}), set()],
    "complex": 1 - 2j,
    "ordered": OrderedDict(b=1, a=[2]),
}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_data_of_every_protocol(save, protocol, tmp_path):
    save(tmp_path / "a.pth", pickle.dumps(PLAIN, protocol))
    assert_same(load_torch(tmp_path / "a.pth"), {**PLAIN, "ordered": dict(PLAIN["ordered"])})


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_numpy_values(save, protocol, tmp_path):
    arrays = {
        "array": np.arange(6.0).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6, dtype=np.int32).reshape(2, 3)),
        "big endian": np.arange(3, dtype=">i4"),
        "empty": np.zeros((0, 2), np.float32),
        "text": np.array(["cat", "dog"]),
        "bytes": np.array([b"cat", b"d"]),
        "scalar": np.float32(2.5),
        "bool": np.bool_(True),
    }
    save(tmp_path / "a.pth", pickle.dumps(arrays, protocol))
    found = load_torch(tmp_path / "a.pth")
    assert_same(found, {**arrays, "big endian": np.arange(3, dtype=np.int32)})


ODD_ARRAYS = {
    "objects": np.array(["cat", None, {"a": 1}], dtype=object),
    "dates": np.array(["2020-01-01"], "M8[D]"),
    "durations": np.array([3], "m8[s]"),
    "structured": np.zeros(2, [("a", "f4"), ("b", "i8")]),
    "records": np.rec.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f4")]),
    "raw": np.zeros(2, "V3"),
    "date": np.datetime64("2020-01-01"),
}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("name", ODD_ARRAYS)
def test_arrays_of_other_things_are_inert_beside_good_weights(save, name, protocol, tmp_path):
    save(tmp_path / "a.pth", pickle.dumps({"odd": [ODD_ARRAYS[name]], "good": np.ones(2)}, protocol))
    found = load_torch(tmp_path / "a.pth")
    np.testing.assert_array_equal(found["good"], np.ones(2))
    assert isinstance(found["odd"][0], Inert) and found["odd"][0].name.startswith("numpy array of type ")


def test_keys_of_every_kind_are_read_beside_good_weights(save, tmp_path):
    content = {
        "confusion": {(0, 1): 3, ("a", (2, None)): 4},
        "groups": {frozenset({1, 2}): "x"},
        "types": {Name("torch", "float32"): 1, Call(Name("colours", "Colour"), (2,)): 2},
        "of tensors": {Tensor(BASE): 5},
        "classes": Call(Name("builtins", "set"), ([Name("a", "B"), ("c", 1)],)),
        "state_dict": {"w": BASE},
    }
    save(tmp_path / "a.pth", content)
    found = load_torch(tmp_path / "a.pth")
    np.testing.assert_array_equal(found["state_dict"]["w"], BASE)
    assert found["confusion"] == content["confusion"] and found["groups"] == content["groups"]
    assert {key.name: value for key, value in found["types"].items()} == {"torch.float32": 1, "colours.Colour": 2}
    assert [(key.name, value) for key, value in found["of tensors"].items()] == [("an array as a key", 5)]
    assert {item if isinstance(item, tuple) else item.name for item in found["classes"]} == {"a.B", ("c", 1)}


def test_text_of_python_2(save, tmp_path):
    save(tmp_path / "a.pth", PROTO + b"}(U\x01aU\x02\xc3\xa9T\x01\x00\x00\x00bU\x01\xffu" + STOP)
    assert load_torch(tmp_path / "a.pth") == {"a": "é", "b": "\udcff"}


def test_what_is_not_data_is_inert(save, tmp_path):
    def inert(module, name, *args, **given):
        return Call(Name(module, name), args, **given)

    content = {
        "args": inert("argparse", "Namespace", state={"model": "Childnet", "lr": 0.1, "w": BASE}, new=True),
        "cfg": inert("yacs.config", "CfgNode", state={"_immutable": True}, items={"LR": 0.1}, new=True),
        "path": inert("pathlib", "PosixPath", "a", "b"),
        "member": inert("builtins", "getattr", Name("enum_module", "Colour"), "RED"),
        "queue": inert("collections", "deque", [], 3, items=[1, 2]),
        "class": Name("torchvision.models", "ResNet"),
        "dtype": Name("torch", "float32"),
        "factory": inert("collections", "defaultdict", Name("builtins", "list"), items={"a": 1}),
        "count": inert("collections", "Counter", {"a": 2}),
        "size": inert("torch", "Size", (2, 3)),
        "device": inert("torch", "device", "cuda", 0),
        "quantized": inert("torch._utils", "_rebuild_qtensor", BASE, 1),
        "raw": inert("_codecs", "encode", "\x00\xff", "latin1"),
    }
    save(tmp_path / "a.pth", content)
    found = load_torch(tmp_path / "a.pth")
    assert found["args"].name == "argparse.Namespace" and found["args"].args == ()
    assert_same(found["args"].state, {"model": "Childnet", "lr": 0.1, "w": BASE})
    assert (found["cfg"].items, found["cfg"].state) == ({"LR": 0.1}, {"_immutable": True})
    assert (found["path"].name, found["path"].args) == ("pathlib.PosixPath", ("a", "b"))
    assert found["member"].name == "builtins.getattr" and found["member"].args[0].name == "enum_module.Colour"
    assert (found["queue"].args, found["queue"].items) == (([], 3), [1, 2])
    assert repr(found["class"]) == "<inert 'torchvision.models.ResNet'>" and found["class"].args is None
    assert found["dtype"].name == "torch.float32"
    assert (found["factory"], found["count"], found["size"]) == ({"a": 1}, {"a": 2}, (2, 3))
    assert found["device"].args == ("cuda", 0)
    assert isinstance(found["quantized"], Inert)
    assert found["raw"] == b"\x00\xff"


def test_tensors_of_types_that_numpy_lacks_are_inert(tmp_path):
    storage = Reference(("storage", Name("torch", "QInt8Storage"), "0", "cpu", 4))
    odd = Call(Name("torch._utils", "_rebuild_tensor_v2"), (storage, 0, (4,), (1,), False, ordered_dict()))
    raw = Reference(("storage", Name("torch.storage", "UntypedStorage"), "1", "cpu", 4))
    eighth = Call(
        Name("torch._utils", "_rebuild_tensor_v3"),
        (raw, 0, (4,), (1,), False, ordered_dict(), Name("torch", "float8_e4m3fn")),
    )
    save_zip(tmp_path / "a.pth", {"a": odd, "b": eighth, "c": 1})
    found = load_torch(tmp_path / "a.pth")
    assert repr(found["a"]) == "<inert 'tensor of torch.QInt8Storage'>"
    assert repr(found["b"]) == "<inert 'tensor of torch.float8_e4m3fn'>"


def test_a_module_pickled_whole_says_so(tmp_path):
    source = Reference(("module", Name("models", "Net"), "models.py", "class Net: ..."))
    save_legacy(tmp_path / "a.pth", Call(source, (), new=True, state={"training": True}))
    with pytest.raises(CheckpointError, match=r"holds a whole models\.Net and not a dict; save the state_dict\(\)"):
        load_torch(tmp_path / "a.pth")


def test_shared_values_stay_shared_and_an_object_may_hold_itself(tmp_path):
    shared = Call(Name("collections", "OrderedDict"), (), items={"x": 1})
    save_zip(tmp_path / "a.pth", {"a": shared, "b": [shared]})
    found = load_torch(tmp_path / "a.pth")
    assert found["a"] is found["b"][0]
    save_zip(tmp_path / "a.pth", PROTO + b"}(U\x01aca\nB\n)\x81q\x00}U\x04selfh\x00sbu" + STOP)
    found = load_torch(tmp_path / "a.pth")["a"]
    assert found.state["self"] is found


def test_arrays_are_read_only_views_of_the_file(save, tmp_path):
    big = np.arange(2_000_000, dtype=np.float32)
    save(tmp_path / "a.pth", {"x": big, "y": Tensor(big, 5, (100, 100), (1, 100))})
    tracemalloc.start()
    found = load_torch(tmp_path / "a.pth")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.05 * big.nbytes
    assert not found["x"].flags.writeable and not found["x"].flags.owndata
    np.testing.assert_array_equal(found["x"], big)
    np.testing.assert_array_equal(found["y"], big[5:10005].reshape(100, 100).T)


def test_random_content(save, tmp_path):
    rng = np.random.default_rng(3)

    def value(depth):
        kind = rng.integers(0, 9 if depth else 6)
        if kind < 3:
            shape = tuple(rng.integers(0, 4, rng.integers(0, 4)).tolist())
            return np.asarray(100 * rng.standard_normal(shape)).astype(
                rng.choice(["float32", "float16", "int64", "uint8", "bool"])
            )
        if kind < 6:
            return [int(rng.integers(-(2**40), 2**40)), float(rng.standard_normal()), f"text {rng.integers(99)}"][
                kind - 3
            ]
        items = [value(depth - 1) for _ in range(rng.integers(0, 5))]
        return [items, tuple(items), {f"key {i}": item for i, item in enumerate(items)}][kind - 6]

    for round_ in range(40):
        content = {f"{round_}.{i}": value(4) for i in range(5)}
        save(tmp_path / "a.pth", content)
        assert_same(load_torch(tmp_path / "a.pth"), content)
        save_torch(tmp_path / "b.pth.tar", content)
        assert_same(load_torch(tmp_path / "b.pth.tar"), content)


# Writing

# What torch.load(weights_only=True) reads, operations and names.
READ_THERE = {
    *("PROTO", "STOP", "GLOBAL", "REDUCE", "BINPERSID", "MARK", "SETITEMS", "APPENDS", "TUPLE"),
    *("EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "NONE", "NEWTRUE", "NEWFALSE"),
    *("BININT", "LONG1", "BINFLOAT", "BINUNICODE"),
}
NAMED_THERE = {
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_tensor_v3",
    "torch.storage UntypedStorage",
    "collections OrderedDict",
    *(f"torch {storage}" for storage in STORAGES.values()),
    *(f"torch uint{bits}" for bits in (16, 32, 64)),
}
WRITTEN = {
    **TYPES,
    "bfloat16": BITS.view(BFLOAT16),
    "transposed": NUMBERS.T,
    "strided": BASE[::5],
    "big endian": np.arange(4, dtype=">f4"),
    "no dimension": np.array(2.5),
    "empty": np.zeros((0, 3), np.int8),
    "plain": {"epoch": 3, "big": 2**40, "lr": 0.5, "list": [None, True, ("é", {})], 7: "seven"},
}


def test_what_is_written_is_read_by_us_and_restricted_to_what_pytorch_reads(tmp_path):
    path = tmp_path / "net.pth.tar"
    save_torch(path, WRITTEN)
    expected = {**WRITTEN, "big endian": np.arange(4, dtype=np.float32)}
    assert_same(load_torch(path), expected)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.read("net/version") == b"3\n" and archive.read("net/byteorder") == b"little"
        operations = [(code.name, value) for code, value, _ in pickletools.genops(archive.read("net/data.pkl"))]
        assert archive.read("net/data/0") == TYPES["float64"].tobytes()
    assert {name for name, _ in operations} <= READ_THERE
    assert {value for name, value in operations if name == "GLOBAL"} <= NAMED_THERE
    assert all(array.flags.aligned for array in load_torch(path).values() if isinstance(array, np.ndarray))


def test_equal_content_makes_equal_files(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        save_torch(tmp_path / name / "net.pth.tar", WRITTEN)
    first, second = ((tmp_path / name / "net.pth.tar").read_bytes() for name in ("a", "b"))
    assert first == second


@pytest.mark.parametrize("value", [object(), {1}, b"x", np.array(["a"]), np.array([None]), np.zeros(2, "M8[D]")])
def test_what_cannot_be_written_is_refused_and_the_old_file_stays(tmp_path, value):
    save_torch(tmp_path / "a.pth.tar", {"x": 1})
    with pytest.raises(CheckpointError, match="cannot be written for PyTorch"):
        save_torch(tmp_path / "a.pth.tar", {"deep": [{"y": value}]})
    assert load_torch(tmp_path / "a.pth.tar") == {"x": 1}
    assert os.listdir(tmp_path) == ["a.pth.tar"]
