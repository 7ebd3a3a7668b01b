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
import json
import os
import queue
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from fuzz_formats import TABLE, mutate

SECONDS, MEMORY, CHARACTERS = 2.0, 1 << 30, 400
_STUCK = 30.0  # seconds without an answer, whether the processor worked or not
KINDS = ("read", "refused", "message", "traceback", "timeout", "memory")


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
