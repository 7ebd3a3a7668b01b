"""The formats of files that fuzz_files.py mutates: how whole files are made, what mutations put in, what reads them."""

import io
import pickle
import sys
import tarfile
from collections import OrderedDict
from pathlib import Path
from typing import Callable, NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from torch_bytes import FORMATS, Call, Name, Tensor, ordered_dict  # noqa: E402

# Pieces of pickles that do something, and numbers at the edges of their types.
PICKLE_WORDS = [
    *(b"cos\nsystem\n", b"cbuiltins\neval\n", b"cbuiltins\ngetattr\n", b"ccopyreg\n_reconstructor\n"),
    *(b"\x8c\x04eval\x93", b"R", b"b", b"\x81", b"\x92", b"Q", b"e", b"u", b"s", b"a", b"(", b"t", b"0", b"2", b"l"),
    *(b"d", b"\x8f", b"\x90", b"h\x00", b"j\x00\x00\x00\x00", b"q\x00", b"r\xff\xff\xff\xff", b"\x8e" + b"\xff" * 8),
    *(b"\x8a\x09" + b"\xff" * 9, b"\xff" * 8, b"\xff" * 4, b"\0" * 8, b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\x80\x05"),
    *(b"PK\1\2", b"PK\5\6", b"PK\3\4", b"})" + b"q\x00h\x00\x86" * 60 + b"K\x01s", b"\x85" * 40, b"r\xff\xff\xff\x0f"),
    *(b"h\x00h\x01R" * 300, b"h\x02\x86" * 50, b"h\x01e" * 20, b"K\x01N" * 200, b"\x88\x89\x8a\x01\x7f"),
]
SAFETENSORS_WORDS = [
    *(
        b'"',
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"-1",
        b"0",
        b"1",
        b"9" * 30,
        b"1e300",
        b"18446744073709551615",
        b"null",
    ),
    *(b'"dtype":"F32"', b'"dtype":"F4"', b'"dtype":"BF16"', b'"shape":[0,4611686018427387904]', b'"shape":[]'),
    *(
        b'"data_offsets":[0,0]',
        b'"__metadata__":{"format":"pt"}',
        b"[" * 2000,
        b"0," * 2000,
        b"\xff",
        b"\xff" * 8,
        b"\0" * 8,
    ),
    *(b"\\u0000", b"\\ud800", b"\x1b[2J", b"\n", b'"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},' * 100),
]
YAML_WORDS = [
    *(b"&a ", b"*a", b"&a [*a,*a]", b"<<: *a", b"!!python/object/apply:os.system [id]", b"!!binary x", b"? ", b"- "),
    *(b"[", b"]", b"{", b"}", b"[" * 2000, b"{a: " * 2000, b"\t", b"\n\n", b"---\n", b"...\n", b"|", b">", b"'", b'"'),
    *(
        b"1e300",
        b"-1",
        b"0x10",
        b"1_000",
        b"9" * 5000,
        b".inf",
        b".nan",
        b"2024-01-01",
        b"yes",
        b"null",
        b"\xff",
        b"\0",
    ),
    *(b"SPACE: ", b"NET:\n", b"INPUT_ARCH: ", b"%YAML 9.9\n", b"\xef\xbb\xbf", b"\xed\xb2\x80", b": ", b"#", b"1:1:1"),
]
TAR_WORDS = [
    *(
        b"\x80" + b"\xff" * 11,
        b"\xff" * 12,
        b"\x80" + b"\0" * 10 + b"\2",
        b"77777777777\0",
        b"-0000001000\0",
        b"\0" * 512,
    ),
    *(b"../../", b"/etc/", b"ustar\x0000", b"ustar  \0", b"L", b"K", b"x", b"g", b"S", b"1", b"2", b"5", b"\xff\xfe"),
    *(b"30 path=../../b/1.jpg\n", b"99999999 size=1\n", b"12 size=-1\n", b".jpg", b".cls", b".json", b"[" * 2000),
]


class Format(NamedTuple):
    """Says how files of a format are made, changed and read."""

    ending: str
    make: Callable  # returns the bytes of whole files, given a folder to write into
    words: list  # bytes that mutations put in
    reader: Callable  # returns the function that reads a path


def numpy_content():
    """Return something of every kind that Paddle's and our own files of arrays hold."""
    rng = np.random.default_rng(0)
    return {
        "conv.weight": rng.standard_normal((4, 3, 3, 3)).astype(np.float32),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "half": np.arange(4, dtype=np.uint16),
        "text": np.array(["ab", "c"]),
        "ordered": OrderedDict(b=1, a=[np.ones(2)]),
        "state": {"rng": 2**100, 5: {"lr": 0.1, None: True}, "set": {1, 2}, "bytes": b"\0\1"},
        "shapes": {(16, 16, 28, 28, 1): 3.5, (3, 16, 224, 224, 2): 1},
        "nested": [("name", np.ones(3)), (1, 2, (3, 4)), np.float32(2.5)],
    }


def make_pdparams(folder):
    """Return files of arrays as this project and pickles of each protocol have them, and a class map."""
    from pimm.utils import save_arrays

    save_arrays(folder / "a.pdparams", numpy_content())
    pickles = [pickle.dumps(numpy_content(), protocol) for protocol in (2, 3, 4, 5)]
    class_map = pickle.dumps({f"n{index:08}": index for index in range(30)}, 2)
    return [(folder / "a.pdparams").read_bytes(), *pickles, class_map]


def torch_content():
    """Return something of every kind that PyTorch's checkpoints hold."""
    base = np.arange(24, dtype=np.float32)
    dtype = Call(Name("numpy", "dtype"), ("u1", 0, 1), state=(3, "|", *[None] * 3, -1, -1, 0))
    return {
        "state_dict": ordered_dict(
            {"a": base.reshape(4, 6), "b": Tensor(base, 1, (3, 2), (2, 7)), "c": np.ones(2, bool)}
        ),
        "half": Tensor(np.arange(4, dtype=np.uint16), dtype="bfloat16"),
        "wide": Tensor(np.arange(4, dtype=np.uint32)),
        "args": Call(Name("argparse", "Namespace"), (), state={"lr": 0.1}, new=True),
        "array": Call(
            Name("numpy.core.multiarray", "_reconstruct"),
            (Name("numpy", "ndarray"), (0,), "b"),
            state=(1, (2,), dtype, False, "ab"),
        ),
        "optimizer": {"state": {0: {"step": 1, "x": base}}, "param_groups": [{"params": [0, 1], "betas": (0.9, 0.99)}]},
        "epoch": 2**40,
        "confusion": {(0, 1): 3},
        "parameter": Call(Name("torch._utils", "_rebuild_parameter"), (np.ones(3), True, ordered_dict())),
    }


def make_pth(folder):
    """Return PyTorch's files of both formats, and one of the zip format without checksums, so that changes get by."""
    whole = []
    for save in FORMATS.values():
        save(folder / "a.pth", torch_content())
        whole.append((folder / "a.pth").read_bytes())
    return [*whole, without_checksums(whole[0])]


def without_checksums(data):
    """Return a zip file whose entries say that no checksum was computed."""
    data, position = bytearray(data), -1
    while (position := data.find(b"PK\1\2", position + 1)) >= 0:
        data[position + 16 : position + 20] = bytes(4)
    return bytes(data)


def make_yaml(folder):
    """Return the project's files of settings and of spaces, as they are and with a space written into the settings."""
    settings = [path.read_bytes() for path in sorted((ROOT / "configs").rglob("*.yaml"))]
    space = (ROOT / "configs" / "spaces" / "tiny.yaml").read_text()
    inside = "SUPERNET:\n  SPACE:\n" + "".join(f"    {line}\n" for line in space.splitlines())
    return [*settings, inside.encode()]


def make_tar(folder):
    """Return archives of class folders and of webdataset's layout, in the formats of tar, and a tar of tars."""
    from PIL import Image

    image = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 30, 60)).save(image, "PNG")
    folders = {f"{name}/{number}.png": image.getvalue() for name in ("cat", "dög") for number in range(2)}
    webdataset = {"1.png": image.getvalue(), "1.cls": b"1", "2.png": image.getvalue(), "2.json": b'{"label": 2}'}
    long_names = {f"{'deep/' * 30}{'cat' * 30}/1.png": image.getvalue()}
    formats = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
    whole = [pack(folders, form) for form in formats] + [pack(webdataset, tarfile.GNU_FORMAT)]
    whole += [pack(long_names, form) for form in formats[1:]]
    return [*whole, pack({"a.tar": whole[0], "b.tar": whole[1]}, tarfile.USTAR_FORMAT)]


def pack(files, form):
    """Return the bytes of a tar file with these files in it."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=form) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return data.getvalue()


def read_pdparams():
    """Return the reader of files of arrays."""
    from pimm.utils import load_arrays

    return load_arrays


def make_safetensors(folder):
    """Return a safetensors file with an array of each type that the format and numpy have, and one of no metadata."""
    from safetensors.numpy import save

    from pimm.utils import save_arrays

    types = ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?", "c8")
    arrays = {f"conv.{name}": np.arange(6).reshape(2, 3).astype(name) for name in types}
    save_arrays(folder / "a.safetensors", {**arrays, "empty": np.zeros((0, 3), np.float32)})
    return [(folder / "a.safetensors").read_bytes(), save({"w": np.ones((2, 3), np.float32)})]


def read_pth():
    """Return the reader of PyTorch's files."""
    from pimm.torch_file import load_torch

    return load_torch


def read_yaml():
    """Return a function that reads settings, or a space where the file has stages."""
    from cream.config.load import load_config
    from cream.mobile.space import load_space

    def read(path):
        is_space = b"\nstages:" in path.read_bytes()
        return load_space(path) if is_space else load_config(path)

    return read


def read_tar():
    """Return a function that indexes the images of a tar file and decodes the first ones."""
    from pimm.data import ImageDataset

    def read(path):
        dataset = ImageDataset(path)
        return [dataset[index] for index in range(min(len(dataset), 3))]

    return read


TABLE = {
    "pdparams": Format(".pdparams", make_pdparams, PICKLE_WORDS, read_pdparams),
    "pth": Format(".pth", make_pth, PICKLE_WORDS, read_pth),
    "safetensors": Format(".safetensors", make_safetensors, SAFETENSORS_WORDS, read_pdparams),
    "yaml": Format(".yaml", make_yaml, YAML_WORDS, read_yaml),
    "tar": Format(".tar", make_tar, TAR_WORDS, read_tar),
}


def mutate(data, words, rng):
    """Return the bytes with a few changes: bits, bytes, words, pieces taken out, doubled, moved, or the end cut off."""
    data = bytearray(data)
    for _ in range(min(int(rng.geometric(0.5)), 5)):
        start = int(rng.integers(len(data)))
        stop = min(len(data), start + int(rng.integers(1, 40)))
        kind = rng.integers(8)
        if kind == 0:
            data[start] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            data[start] = int(rng.integers(256))
        elif kind == 2:
            word = words[rng.integers(len(words))]
            data[start : start + len(word)] = word
        elif kind == 3:
            data[start:start] = words[rng.integers(len(words))]
        elif kind == 4 and len(data) > 100:
            del data[start:stop]
        elif kind == 5:
            data[start:start] = data[start:stop]
        elif kind == 6:
            place = int(rng.integers(len(data)))
            data[place : place + stop - start] = data[start:stop]
        elif rng.random() < 0.2 and len(data) > 100:
            del data[start + 1 :]
    return bytes(data)
