"""Build the test device, a library that Paddle loads as a plug-in; a build in the cache is used again."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import paddle

from pimm.ops.build import cache_folder, find_compiler

FOLDER = Path(__file__).parent
NAME = "libtest_device.so"
FLAGS = ("-std=c++17", "-O0", "-fPIC", "-w", "-DPADDLE_WITH_CUSTOM_DEVICE", "-DPADDLE_NO_PYTHON")


def why_not() -> str:
    """Return why the device is not built; an empty text if it is."""
    if os.environ.get("PIMM_TEST_DEVICE") != "1":
        return "`make test-device` runs the tests of the test device"
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


def environment(library: Path, name: str = "testdevice") -> dict[str, str]:
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
