"""Build the test device, a library that Paddle loads as a plug-in, and run jobs on it; builds are kept in the cache."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import paddle

from pimm.ops.build import cache_folder, find_compiler

FOLDER = Path(__file__).parent
JOBS = FOLDER / "device_jobs.py"
DEVICE = "gpu_like_cpu"  # no text in a name may decide anything
NAME = "libtest_device.so"
FLAGS = ("-std=c++17", "-O0", "-fPIC", "-w", "-DPADDLE_WITH_CUSTOM_DEVICE", "-DPADDLE_NO_PYTHON")


def why_not() -> str:
    """Return why the device is not built; an empty text if it is."""
    if sys.platform != "linux":
        return "the test device is for Linux"
    if not find_compiler():
        return "the test device needs a C++ compiler"
    if not (_paddle() / "include/paddle/phi/kernels").is_dir():
        return "Paddle came without the headers of its kernels"
    return ""


def build() -> Path:
    """Return the library of the test device, which lies alone in its folder."""
    sources = sorted(path for path in FOLDER.iterdir() if path.suffix in (".cc", ".h", ".def"))
    key = hashlib.sha256(" ".join((paddle.__version__, *find_compiler(), *FLAGS)).encode())
    for path in sources:
        key.update(path.read_bytes())
    library = cache_folder() / "test-device" / key.hexdigest()[:16] / NAME
    if not library.exists():
        library.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=library.parent.parent) as scratch:
            os.replace(_compile([path for path in sources if path.suffix == ".cc"], Path(scratch)), library)
    return library


def environment(library: Path, name: str = DEVICE) -> dict[str, str]:
    """Return the environment of a process whose Paddle has the test device under ``name``."""
    return {
        **os.environ,
        "CUSTOM_DEVICE_ROOT": str(library.parent),
        "TEST_DEVICE_LIBRARY": str(library),
        "TEST_DEVICE_NAME": name,
        "PIMM_CPU_OPS": "paddle",
        "OMP_NUM_THREADS": "1",
        "MALLOC_PERTURB_": "165",  # so that what reads freed memory goes wrong
        "PYTHONPATH": os.pathsep.join(str(path) for path in (FOLDER.parent.parent, FOLDER.parent)),
    }


def run(library: Path, code: str, name: str = DEVICE) -> subprocess.CompletedProcess:
    """Run code in a process whose Paddle has the device, and return the process."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env=environment(library, name),
        cwd=FOLDER,
        capture_output=True,
        text=True,
        timeout=300,
    )


def run_jobs(library: Path, words: dict[str, list], folders: dict[str, Path], command=(sys.executable,)) -> dict:
    """Run jobs on several devices beside one another.

    Args:
        library: the test device.
        words: the words for `device_jobs.py` by device: names of jobs, and settings.
        folders: where the jobs write, by device.
        command: what runs a script.

    Returns:
        The numbers of each process, by device.
    """
    processes = {
        name: subprocess.Popen(
            [*command, JOBS, name, folders[name], *words[name]],
            env=environment(library),
            cwd=folders[name],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for name in words
    }
    outputs = {name: process.communicate(timeout=500)[0] for name, process in processes.items()}
    for name, process in processes.items():
        logs = "".join(path.read_text()[-3000:] for path in folders[name].glob("log/workerlog.*"))
        assert process.returncode == 0, outputs[name][-3000:] + logs
    return {
        name: [json.loads(path.read_text()) for path in sorted(folders[name].glob("numbers*.json"))] for name in words
    }


def _paddle() -> Path:
    return Path(paddle.__file__).parent


def _compile(sources: list[Path], scratch: Path) -> Path:
    """Compile the sources beside one another, which takes twenty seconds of processor time, and link them."""
    includes = [f"-I{_paddle() / 'include' / part}" for part in ("", "third_party")]
    objects = [scratch / f"{source.stem}.o" for source in sources]
    commands = [
        [*find_compiler(), *FLAGS, *includes, "-c", str(source), "-o", str(made)]
        for source, made in zip(sources, objects)
    ]
    for process in [subprocess.Popen(command) for command in commands]:
        if process.wait():
            raise RuntimeError("the test device does not compile")
    libraries = [f"-L{_paddle() / 'libs'}", *("-lphi", "-lphi_core", "-lcommon", "-lrt", "-lpthread")]
    made = scratch / NAME
    subprocess.run([*find_compiler(), "-shared", "-o", str(made), *map(str, objects), *libraries], check=True)
    return made
