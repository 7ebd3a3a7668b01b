"""Read mutated files of a format: whatever is changed, there is content or one line, soon and in little memory.

OMP_NUM_THREADS=1 python benchmarks/fuzz_files.py pdparams --files 20000

A process of its own reads the files and is replaced when it must be ended. Prints how many files were read and refused
with one line of fewer than 400 characters, and how many led to another message, to a traceback, to more than two
seconds of processor time, or to more than a gibibyte over what the process had at the start. Keeps the files of these
last kinds, and exits with 1 if there are any.
"""

import argparse
import collections
import contextlib
import io
import json
import os
import pickle
import queue
import resource
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections import OrderedDict
from pathlib import Path
from typing import Callable, NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from torch_bytes import FORMATS, Call, Name, Tensor, ordered_dict  # noqa: E402

SECONDS, MEMORY, CHARACTERS = 2.0, 1 << 30, 400
_STUCK = 30.0  # seconds without an answer, whether the processor worked or not
KINDS = ("read", "refused", "message", "traceback", "timeout", "memory")

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


# The process that reads


def watch(event, args):
    """Refuse what only code run from a file would do."""
    if event in ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen"):
        raise AssertionError(f"{event} {args[:1]}")


def memory(key):
    """Return the memory of this process in bytes: ``VmRSS`` is that of now, ``VmHWM`` the most since a reset."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return 1024 * int(line.split()[1])


def read_files(form):
    """Read the files whose paths come by standard input, and answer each with a line of JSON."""
    from pimm.errors import PimmError

    read = TABLE[form].reader()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(1, 2)
    started = None
    sys.addaudithook(watch)
    for line in sys.stdin:
        Path("/proc/self/clear_refs").write_text("5")  # reset the peak
        started = memory("VmRSS") if started is None else started
        kind, detail, before = "read", "", time.process_time()
        try:
            read(Path(line.rstrip("\n")))
        except PimmError as error:
            kind, detail = "refused", str(error)
        except BaseException as error:
            kind, detail = "traceback", f"{type(error).__name__}: {error!s:.300}"
        answer = {"kind": kind, "detail": detail, "seconds": time.process_time() - before}
        print(json.dumps({**answer, "memory": memory("VmHWM") - started}), file=answers, flush=True)


# The process that watches


class Reader:
    """Has files read by a process of its own, which has limits and is replaced when it ends or must be ended."""

    def __init__(self, form):
        self.form, self.process = form, None

    def __call__(self, path):
        """Return what became of a file: its kind, a text that says more, and seconds of processor time."""
        if self.process is None:
            self._start()
        self.process.stdin.write(f"{path}\n")
        self.process.stdin.flush()
        before, waited = self._processor_time(), time.monotonic()
        while True:
            with contextlib.suppress(queue.Empty):
                line = self.answers.get(timeout=0.2)
                return self._judge(json.loads(line), path) if line else self._end("traceback", "the process died")
            seconds = self._processor_time() - before
            if seconds > 2 * SECONDS or time.monotonic() - waited > _STUCK:
                return self._end("timeout", "it was ended", seconds)

    def close(self):
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def _start(self):
        command = [sys.executable, __file__, self.form, "--read"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.answers = queue.Queue()
        threading.Thread(target=self._listen, args=(self.process, self.answers), daemon=True).start()
        with tempfile.TemporaryDirectory() as folder:  # the first file waits for all imports
            self.process.stdin.write(f"{folder}/nothing\n")
            self.process.stdin.flush()
            self.answers.get(timeout=300)
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + 2 * MEMORY  # addresses are not memory: some room is left
        resource.prlimit(self.process.pid, resource.RLIMIT_AS, (limit, limit))

    @staticmethod
    def _listen(process, answers):
        for line in process.stdout:
            answers.put(line)
        answers.put("")

    def _processor_time(self):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return 0.0

    def _end(self, kind, detail, seconds=0.0):
        self.close()
        return kind, detail, seconds

    def _judge(self, answer, path):
        kind, detail, seconds = answer["kind"], answer["detail"], answer["seconds"]
        length = len(detail.replace(str(path), path.name))
        if answer["memory"] > MEMORY or "MemoryError" in detail:
            kind, detail = "memory", f"{answer['memory'] >> 20} MiB {detail}"
        elif seconds > SECONDS:
            kind = "timeout"
        elif "AssertionError" in detail:
            kind = "traceback"
        elif kind == "refused" and ("\n" in detail or length >= CHARACTERS):
            kind = "message"
        return kind, detail, seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("format", choices=TABLE)
    parser.add_argument("--files", type=int, default=20_000, help="mutated files (default: 20000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("."), help="folder for the files that went wrong")
    parser.add_argument("--read", action="store_true", help=argparse.SUPPRESS)  # how this script starts its reader
    args = parser.parse_args()
    if args.read:
        read_files(args.format)
        return
    form, rng = TABLE[args.format], np.random.default_rng(args.seed)
    counts, slowest, start, reader = collections.Counter(), 0.0, time.perf_counter(), Reader(args.format)
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(reader):
        path = Path(folder) / f"a{form.ending}"
        whole = form.make(Path(folder))
        for number in range(args.files):
            path.write_bytes(mutate(whole[number % len(whole)], form.words, rng))
            kind, detail, seconds = reader(path)
            counts[kind] += 1
            slowest = max(slowest, seconds)
            if kind not in KINDS[:2]:
                kept = args.keep / f"fuzz-{args.format}-{args.seed}-{number}{form.ending}"
                kept.write_bytes(path.read_bytes())
                print(f"file {number}: {kind}, {detail:.300}; kept as {kept}", flush=True)
    listed = ", ".join(f"{counts[kind]:,} {kind}" for kind in KINDS)
    seconds = time.perf_counter() - start
    print(f"{args.format}: {args.files:,} files in {seconds:.0f} s: {listed}; slowest {1000 * slowest:.0f} ms")
    sys.exit(any(counts[kind] for kind in KINDS[2:]))


if __name__ == "__main__":
    main()
