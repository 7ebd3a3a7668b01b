"""Read mutated PyTorch files: whatever is changed, there is data or our own error, soon and in little memory.

OMP_NUM_THREADS=1 python benchmarks/fuzz_torch_file.py --files 20000

Exits with 1, and keeps the file, at the first that breaks this.
"""

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from torch_bytes import FORMATS, Call, Name, Tensor, ordered_dict  # noqa: E402

from pimm.errors import CheckpointError  # noqa: E402
from pimm.torch_file import load_torch  # noqa: E402

SECONDS, MEMORY = 2.0, 512 << 20
# Pieces of pickles that do something, and numbers at the edges of their types.
WORDS = [
    *(b"cos\nsystem\n", b"cbuiltins\neval\n", b"cbuiltins\ngetattr\n", b"ccopyreg\n_reconstructor\n"),
    *(b"\x8c\x04eval\x93", b"R", b"b", b"\x81", b"\x92", b"Q", b"e", b"u", b"s", b"a", b"(", b"t", b"0", b"2", b"l"),
    *(b"d", b"\x8f", b"\x90", b"h\x00", b"j\x00\x00\x00\x00", b"q\x00", b"r\xff\xff\xff\xff", b"\x8e" + b"\xff" * 8),
    *(b"\x8a\x09" + b"\xff" * 9, b"\xff" * 8, b"\xff" * 4, b"\0" * 8, b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\x80\x05"),
    *(b"PK\1\2", b"PK\5\6", b"PK\3\4"),
]


def content():
    """Something of every kind that a checkpoint holds."""
    base = np.arange(24, dtype=np.float32)
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
            state=(
                1,
                (2,),
                Call(Name("numpy", "dtype"), ("u1", 0, 1), state=(3, "|", *[None] * 3, -1, -1, 0)),
                False,
                "ab",
            ),
        ),
        "optimizer": {"state": {0: {"step": 1, "x": base}}, "param_groups": [{"params": [0, 1], "betas": (0.9, 0.99)}]},
        "epoch": 2**40,
        "parameter": Call(Name("torch._utils", "_rebuild_parameter"), (np.ones(3), True, ordered_dict())),
    }


def mutate(data, rng):
    """The bytes with a few changes: bits, bytes, words, pieces taken out, doubled, moved, or the end cut off."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 6)):
        start = int(rng.integers(len(data)))
        stop = min(len(data), start + int(rng.integers(1, 40)))
        kind = rng.integers(8)
        if kind == 0:
            data[start] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            data[start] = int(rng.integers(256))
        elif kind == 2:
            word = WORDS[rng.integers(len(WORDS))]
            data[start : start + len(word)] = word
        elif kind == 3:
            data[start:start] = WORDS[rng.integers(len(WORDS))]
        elif kind == 4 and len(data) > 100:
            del data[start:stop]
        elif kind == 5:
            data[start:start] = data[start:stop]
        elif kind == 6:
            place = int(rng.integers(len(data)))
            data[place : place + stop - start] = data[start:stop]
        elif rng.random() < 0.2 and len(data) > 100:
            del data[start:]
    return bytes(data)


def without_checksums(data):
    """A zip file whose entries say that no checksum was computed, so that changes get past it."""
    data, position = bytearray(data), -1
    while (position := data.find(b"PK\1\2", position + 1)) >= 0:
        data[position + 16 : position + 20] = bytes(4)
    return bytes(data)


def watch(event, args):
    """Refuse what only code run from a file would do."""
    if event in ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen", "exec", "compile", "import"):
        raise AssertionError(f"{event} {args[:1]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=20_000, help="mutated files, of both formats")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.pth"
        whole = []
        for save in FORMATS.values():
            save(path, content())
            whole.append(path.read_bytes())
        whole.append(without_checksums(whole[0]))
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))
        sys.addaudithook(watch)
        refused, slowest, start = 0, 0.0, time.perf_counter()
        for number in range(args.files):
            path.write_bytes(mutate(whole[number % len(whole)], rng))
            before = time.process_time()
            problem = ""
            try:
                load_torch(path)
            except CheckpointError as error:
                refused += 1
                problem = "memory" if "MemoryError" in str(error) or "AssertionError" in str(error) else ""
            except BaseException as error:
                problem = repr(error)
            slowest = max(slowest, time.process_time() - before)
            if problem or slowest > SECONDS:
                kept = Path(f"fuzz-{args.seed}-{number}.pth")
                kept.write_bytes(path.read_bytes())
                sys.exit(f"file {number}: {problem or f'{slowest:.1f} s'}; kept as {kept}")
        seconds = time.perf_counter() - start
        print(
            f"{args.files:,} files in {seconds:.0f} s: {refused:,} refused, {args.files - refused:,} read; "
            f"the slowest took {1000 * slowest:.0f} ms"
        )


if __name__ == "__main__":
    main()
