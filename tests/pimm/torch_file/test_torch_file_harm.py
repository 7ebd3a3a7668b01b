"""Files that are not PyTorch's, or damaged, or mean harm: one clear error, soon, in little memory, and nothing run."""

import io
import os
import pickle
import struct
import time
import zipfile

import numpy as np
import pytest
from torch_bytes import FORMATS, PROTO, STOP, Call, Name, Raw, Reference, ordered_dict, save_legacy, save_zip

from pimm.errors import CheckpointError
from pimm.torch_file import Inert, load_torch, read_torch

BASE = np.arange(24, dtype=np.float32)
NUMBERS = np.array([[0, 1, 2], [3, 100, 127]])


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
    **{
        f"TorchScript with {name}": (
            zipped([("net/data.pkl", EMPTY_PICKLE), (f"net/{name}", b"x" * 99)], zipfile.ZIP_DEFLATED),
            r"a TorchScript archive.*torch\.save\(torch\.jit\.load\(OLD\)\.state_dict\(\), NEW\)",
        )
        for name in ("constants.pkl", "code/__torch__.py", "model.json")
    },
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


def colliding(count):
    """Return a pickle of a dict of integers that differ in their highest bits alone, and so begin in the same slot."""
    keys = b"".join(b"\x8a\x08" + (i << 44).to_bytes(8, "little") + b"N" for i in range(count))
    return PROTO + b"}(" + keys + b"u" + STOP


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
    "an ndarray with less data than its shape": PROTO
    + b"}U\x01acnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    + b"(K\x01\x8a\x05\x00\x00\x00\x00\x7f\x85cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R\x89U\x04abcdtbs"
    + STOP,
    "state for a list": PROTO + b"}U\x01a]}U\x01xK\x01sbs" + STOP,
    "state for a name": PROTO + b"}U\x01acos_path\nx\n}U\x01xK\x01sbs" + STOP,
    "an item for a tuple": PROTO + b"}U\x01a)K\x01as" + STOP,
    "a call of a number": PROTO + b"}U\x01aK\x01)Rs" + STOP,
    "an unhashable key": PROTO + b"}]K\x01s" + STOP,
    "a tuple as key, nested beyond hashing": PROTO + b"})" + b"q\x00h\x00\x86" * 60 + b"K\x01s" + STOP,
    "integers as keys that collide": colliding(87_381),
    "a set of integers that collide": PROTO
    + b"cbuiltins\nset\n]("
    + b"".join(b"\x8a\x08" + (i << 44).to_bytes(8, "little") for i in range(87_381))
    + b"e\x85R"
    + STOP,
    "a hundred dicts of four thousand integers": PROTO + b"](" + colliding(4000)[2:-1] * 100 + b"e" + STOP,
    "one key set again and again": PROTO + b"}(" + b"\x88N" * 400_000 + b"u" + STOP,
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
    "ten thousand keys that are tuples": PROTO
    + b"}("
    + b"".join(b"K\x01M%c%c\x86N" % (i % 256, i // 256) for i in range(10_000))
    + b"u"
    + STOP,
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
    "a numpy type of objects": run("numpy", "dtype", "O8", 0, 1),
    "getattr of getattr": run("builtins", "getattr", Call(Name("builtins", "getattr"), (1, "__class__")), "__bases__"),
    "copyreg": run("copyreg", "_reconstructor", Name("builtins", "object"), Name("builtins", "object"), None),
    "operator.attrgetter": run("operator", "attrgetter", "__class__"),
    "a class's own state": {"a": Call(Name("x", "y"), (), state={"__class__": 1, "__reduce__": 2})},
    "functools.partial": run("functools", "partial", Name("builtins", "print"), "x"),
    "state of a dict": {"a": Call(Name("collections", "OrderedDict"), (), state={"__class__": 1, "pop": 2})},
    "a call of a result": PROTO + b"}U\x01aca\nb\n)R)Rs" + STOP,
    "numpy's loader of files": run("numpy", "load", "PWNED"),
    "a billion laughs": laughs(60),
    "pickles in pickles": {"a": Call(Name("pickle", "loads"), ("cos\nsystem\n",))},
}


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
