"""PyTorch's files without PyTorch: values of every kind, and files that are damaged or mean harm."""

import io
import os
import pickle
import pickletools
import resource
import struct
import time
import tracemalloc
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from torch_bytes import FORMATS, STORAGES, Call, Name, Raw, Reference, Tensor, ordered_dict, save_legacy, save_zip

from pimm.errors import CheckpointError
from pimm.torch_file import BFLOAT16, Inert, is_bfloat16, load_torch, read_torch, save_torch

PROTO, STOP = b"\x80\x02", b"."


@pytest.fixture(params=FORMATS)
def save(request):
    return FORMATS[request.param]


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


@pytest.mark.parametrize("protocol", [2, 4])
def test_numpy_values(save, protocol, tmp_path):
    arrays = {
        "array": np.arange(6.0).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6, dtype=np.int32).reshape(2, 3)),
        "big endian": np.arange(3, dtype=">i4"),
        "scalar": np.float32(2.5),
        "bool": np.bool_(True),
    }
    save(tmp_path / "a.pth", pickle.dumps(arrays, protocol))
    found = load_torch(tmp_path / "a.pth")
    assert_same(found, {**arrays, "big endian": np.arange(3, dtype=np.int32)})


def test_text_of_python_2(save, tmp_path):
    save(tmp_path / "a.pth", PROTO + b"}(U\x01aU\x02\xc3\xa9T\x01\x00\x00\x00bU\x01\xffu" + STOP)
    assert load_torch(tmp_path / "a.pth") == {"a": "é", "b": "\udcff"}


class Settings(dict):
    """A dict with a class, like yacs' CfgNode."""


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


# Other files


def zipped(entries, method=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return buffer.getvalue()


EMPTY_PICKLE = PROTO + b"}" + STOP
OTHER_FILES = {
    "nothing": (b"", "it is empty"),
    "text": (b"hello, this is text", "begins as none of PyTorch's formats does"),
    "a plain pickle": (pickle.dumps({"a": 1}, 2), "begins as none of PyTorch's formats does"),
    "tar": (b"\0" * 257 + b"ustar\x0000" + b"\0" * 248, "tar archive, as PyTorch's first releases wrote"),
    "another zip": (zipped([("readme.txt", b"hello")]), "a zip archive, but not one that torch.save writes"),
    "TorchScript": (
        zipped([("net/data.pkl", EMPTY_PICKLE), ("net/constants.pkl", EMPTY_PICKLE)]),
        "a TorchScript archive",
    ),
    "compressed": (zipped([("a/data.pkl", EMPTY_PICKLE * 99)], zipfile.ZIP_DEFLATED), "is compressed or encrypted"),
    "an empty zip": (zipped([]), "PyTorch file"),
    "half a zip": (zipped([("a/data.pkl", EMPTY_PICKLE)])[:40], "a zip archive that breaks off"),
    "byte order": (zipped([("a/data.pkl", EMPTY_PICKLE), ("a/byteorder", b"middle")]), "its byte order is b'middle'"),
}


@pytest.mark.parametrize("name", OTHER_FILES)
def test_other_files_are_named(name, tmp_path):
    data, says = OTHER_FILES[name]
    (tmp_path / "a.pth").write_bytes(data)
    with pytest.raises(CheckpointError, match=rf"a\.pth.*{says}"):
        load_torch(tmp_path / "a.pth")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_entry_listed_twice(tmp_path):
    (tmp_path / "a.pth").write_bytes(zipped([("a/data.pkl", EMPTY_PICKLE), ("a/data.pkl", EMPTY_PICKLE)]))
    with pytest.raises(CheckpointError, match=r"lists 'a/data\.pkl' twice"):
        load_torch(tmp_path / "a.pth")


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(CheckpointError, match=r"cannot read .*nowhere\.pth: No such file"):
        load_torch(tmp_path / "nowhere.pth")
    with pytest.raises(CheckpointError, match=r"cannot read .*: Is a directory"):
        load_torch(tmp_path)


def test_formats_are_told(tmp_path):
    for name, save in FORMATS.items():
        save(tmp_path / "a.pth", {"x": BASE})
        assert read_torch(tmp_path / "a.pth").format == name


# Harm

TENSOR = (Name("torch._utils", "_rebuild_tensor_v2"), Name("torch", "FloatStorage"))


def tensor(key="0", numel=24, offset=0, size=(24,), stride=(1,)):
    """A tensor that says of itself what it likes; there is a storage "0" of 24 numbers."""
    parts = ("storage", TENSOR[1], key, "cpu", numel)
    return lambda legacy: Call(
        TENSOR[0],
        (Reference(parts + (None,) * legacy), offset, size, stride, False, ordered_dict()),
    )


def nested(times):
    return PROTO + b"]" * times + b"a" * (times - 1) + STOP


def laughs(times):
    """Lists of two, each twice the one before: two to the power of ``times`` leaves."""
    lists = b"".join(b"](h%ch%ceq%c" % (i, i, i + 1) for i in range(times))
    return PROTO + b"]q\x00" + lists + b"}U\x01ah%cs" % times + STOP


def run(module, name, *args):
    return {"a": Call(Name(module, name), args)}


REFUSED = {
    "os.system": run("os", "system", "touch PWNED"),
    "posix.system": run("posix", "system", "touch PWNED"),
    "nt.system": run("nt", "system", "touch PWNED"),
    "subprocess.Popen": run("subprocess", "Popen", ["touch", "PWNED"]),
    "eval": run("builtins", "eval", "open('PWNED', 'w')"),
    "exec of Python 2": run("__builtin__", "exec", "open('PWNED', 'w')"),
    "open": run("builtins", "open", "PWNED", "w"),
    "compile": run("builtins", "compile", "1", "x", "eval"),
    "__import__": run("builtins", "__import__", "os"),
    "importlib": run("importlib", "import_module", "os"),
    "runpy": run("runpy", "run_path", "x.py"),
    "a dotted name": PROTO + b"}U\x01a\x8c\x08builtins\x8c\x04eval\x93U\x011\x85Rs" + STOP,
    "bytearray beyond all memory": run("builtins", "bytearray", 10**15),
    "a list of a number": run("builtins", "list", 10**9),
    "a copy again and again": PROTO
    + b"c_codecs\nencode\nq\x00X\x00\x00\x01\x00"
    + b"x" * 65536
    + b"q\x01\x85q\x02]("
    + b"h\x00h\x02R" * 5000
    + b"e"
    + STOP,
    "a set again and again": PROTO
    + b"cbuiltins\nset\nq\x00]("
    + b"K\x01" * 5000
    + b"eq\x01\x85q\x02]("
    + b"h\x00h\x02R" * 5000
    + b"e"
    + STOP,
    "an ndarray of nothing": run("numpy.core.multiarray", "_reconstruct", Name("numpy", "ndarray"), (0,), "b"),
    "an ndarray of objects": run("numpy", "dtype", "O8", 0, 1),
    "an ndarray with less data than its shape": PROTO
    + b"}U\x01acnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    + b"(K\x01\x8a\x05\x00\x00\x00\x00\x7f\x85cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R\x89U\x04abcdtbs"
    + STOP,
    "state for a list": PROTO + b"}U\x01a]}U\x01xK\x01sbs" + STOP,
    "state for a name": PROTO + b"}U\x01acos_path\nx\n}U\x01xK\x01sbs" + STOP,
    "an item for a tuple": PROTO + b"}U\x01a)K\x01as" + STOP,
    "a call of a number": PROTO + b"}U\x01aK\x01)Rs" + STOP,
    "a call of a result": PROTO + b"}U\x01aca\nb\n)R)Rs" + STOP,
    "an unhashable key": PROTO + b"}]K\x01s" + STOP,
    "a tuple as key, nested beyond hashing": PROTO + b"})" + b"q\x00h\x00\x86" * 60 + b"K\x01s" + STOP,
    "not a number as key": PROTO + b"}G\x7f\xf8\x00\x00\x00\x00\x00\x00K\x01s" + STOP,
    "text that is not there": PROTO + b"}X\xff\xff\xff\x7fabc" + STOP,
    "bytes beyond all memory": b"\x80\x04}\x8e\xff\xff\xff\xff\xff\xff\xff\x7f" + STOP,
    "an integer of a megabyte": PROTO + b"}\x8b\x00\x00\x10\x00" + b"\x01" * (1 << 20) + STOP,
    "a memo that is not there": PROTO + b"}U\x01aj\xff\xff\xff\xffs" + STOP,
    "a huge place in the memo": PROTO + b"}r\xff\xff\xff\xffU\x01aK\x01s",
    "a mark that is not there": PROTO + b"}u" + STOP,
    "an empty stack": PROTO + STOP,
    "no end": PROTO + b"}",
    "an extension code": PROTO + b"}U\x01a\x82\x01s" + STOP,
    "an instance of protocol 0": b"(ios\nsystem\np0\n.",
    "a buffer out of band": b"\x80\x05}U\x01a\x97s" + STOP,
    "a reference to elsewhere": {"a": Reference(("file", "/etc/passwd"))},
    "a reference that is text": PROTO + b"}U\x01aU\x01xQs" + STOP,
    "a list in itself": PROTO + b"}U\x01a]q\x00h\x00as" + STOP,
    "a dict in itself": PROTO + b"}q\x00U\x01ah\x00s" + STOP,
    "nested a hundred thousand deep": nested(100_000),
    "two million operations": PROTO + b"}" + b"N" * 2_000_000 + STOP,
    "two million sets": b"\x80\x04" + b"\x8f" * 2_000_000 + STOP,
    "two hundred thousand tensors": None,
    "beyond the storage": tensor(offset=1),
    "a stride beyond the storage": tensor(size=(2, 12), stride=(13, 1)),
    "a negative stride": tensor(stride=(-1,), offset=23),
    "a negative offset": tensor(offset=-1),
    "a size beyond 64 bits": tensor(size=(2**64,)),
    "sizes whose product is beyond 64 bits": tensor(size=(2**40, 2**40), stride=(0, 0)),
    "a petabyte of one number": tensor(size=(2**48,), stride=(0,)),
    "a lie about the storage": tensor(numel=2**40, size=(2**40,)),
    "a storage smaller than it is": tensor(numel=10, size=(10,)),
    "a storage that is not there": tensor(key="1"),
    "a storage of another folder": tensor(key="../data.pkl"),
    "as many sizes as bytes": tensor(size=(1,) * 1000, stride=(1,) * 1000),
    "a size that is text": tensor(size=("24",)),
    "a bool as size": tensor(size=(True,)),
    "fewer strides than sizes": tensor(size=(4, 6)),
}
REFUSED["two hundred thousand tensors"] = lambda legacy: {
    "a": Raw(
        (b"ctorch._utils\n_rebuild_tensor\nq\x00(" + b"(U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x18")
        + (b"N" if legacy else b"")
        + b"tQK\x00K\x18\x85K\x01\x85tq\x01]("
        + b"h\x00h\x01R" * 200_000
        + b"e"
    )
}
HARMLESS = {
    "getattr of getattr": run("builtins", "getattr", Call(Name("builtins", "getattr"), (1, "__class__")), "__bases__"),
    "copyreg": run("copyreg", "_reconstructor", Name("builtins", "object"), Name("builtins", "object"), None),
    "operator.attrgetter": run("operator", "attrgetter", "__class__"),
    "a class's own state": {"a": Call(Name("x", "y"), (), state={"__class__": 1, "__reduce__": 2})},
    "functools.partial": run("functools", "partial", Name("builtins", "print"), "x"),
    "state of a dict": {"a": Call(Name("collections", "OrderedDict"), (), state={"__class__": 1, "pop": 2})},
    "numpy's loader of files": run("numpy", "load", "PWNED"),
    "a billion laughs": laughs(60),
    "pickles in pickles": {"a": Call(Name("pickle", "loads"), ("cos\nsystem\n",))},
}


@pytest.fixture
def bounded_memory():
    """Fails what would take more than a gigabyte beyond what there is."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, limits)


def write_hostile(save, path, content):
    legacy = save is save_legacy
    content = content(legacy) if callable(content) else content
    if isinstance(content, Call):
        content = {"fine": BASE, "a": content}
    elif isinstance(content, dict) and isinstance(content.get("a"), Raw):
        content = {"fine": BASE, **content}
    save(path, content)


@pytest.mark.parametrize("name", REFUSED)
def test_harm_is_refused_soon_and_in_little_memory(save, name, tmp_path, monkeypatch, bounded_memory):
    monkeypatch.chdir(tmp_path)
    write_hostile(save, "a.pth", REFUSED[name])
    start = time.process_time()
    with pytest.raises(CheckpointError, match=r"a\.pth") as caught:
        load_torch("a.pth")
    assert time.process_time() - start < 3  # a second on a machine that is not busy
    assert "MemoryError" not in str(caught.value)
    assert len(str(caught.value)) < 400
    assert os.listdir() == ["a.pth"]


@pytest.mark.parametrize("name", HARMLESS)
def test_harm_that_is_read_does_nothing(save, name, tmp_path, monkeypatch, bounded_memory):
    monkeypatch.chdir(tmp_path)
    write_hostile(save, "a.pth", HARMLESS[name])
    found = load_torch("a.pth")
    assert type(found["a"]) in (Inert, list, dict)
    assert os.listdir() == ["a.pth"]


@pytest.mark.parametrize("name", ["os.system", "eval", "importlib"])
def test_an_attack_is_called_one(name, tmp_path):
    save_zip(tmp_path / "a.pth", REFUSED[name])
    with pytest.raises(CheckpointError, match="which no checkpoint needs; do not trust where it comes from"):
        load_torch(tmp_path / "a.pth")


# Damage


@pytest.fixture
def small(save, tmp_path):
    content = {
        "state_dict": {"a": BASE[:3].copy(), "b": NUMBERS},
        "epoch": 3,
        "args": Call(Name("a", "B"), (), state={}),
    }
    save(tmp_path / "a.pth", content)
    return tmp_path / "a.pth", (tmp_path / "a.pth").read_bytes()


def test_every_cut_is_told(small):
    path, content = small
    for length in range(0, len(content), 3):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=r"a\.pth"):
            load_torch(path)


def test_a_flip_gives_our_error_or_data(small):
    path, content = small
    for position in range(len(content)):
        for bit in (0x01, 0x80):
            path.write_bytes(content[:position] + bytes([content[position] ^ bit]) + content[position + 1 :])
            try:
                load_torch(path)
            except CheckpointError as error:
                assert "a.pth" in str(error)


def test_a_flip_in_the_numbers_of_a_zip_is_told(tmp_path):
    path = tmp_path / "a.pth"
    save_zip(path, {"x": BASE})
    content = bytearray(path.read_bytes())
    content[content.index(BASE.tobytes()) + 5] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged: their checksum is another"):
        load_torch(path)


LIES = {
    "count of entries": ("<H", -12, 60000),
    "start of the directory": ("<L", -6, 2**32 - 2),
    "start beyond": ("<L", -6, 10**6),
}


@pytest.mark.parametrize("name", LIES)
def test_a_zip_directory_that_lies(name, tmp_path):
    layout, position, value = LIES[name]
    path = tmp_path / "a.pth"
    save_zip(path, {"x": BASE})
    content = bytearray(path.read_bytes())
    struct.pack_into(layout, content, len(content) + position, value)
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="zip directory"):
        load_torch(path)
