"""Builds the C++ operators with the user's compiler, once, and loads it.

The library lies in a folder of the user (PIMM_CACHE_DIR, or pimm under XDG_CACHE_HOME or ~/.cache) under a name made
of everything that it depends on. `pimm-build-ops` builds it ahead of time; otherwise the first use does.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from pathlib import Path

import paddle
from paddle.utils import cpp_extension

from ..errors import PimmError

try:
    import fcntl
except ImportError:  # Windows, for which there are no operators either
    fcntl = None

SOURCE = Path(__file__).with_name("cpu_ops.cc")
HEADERS = sorted(SOURCE.parent.glob("*.h"))
FLAGS = ["-std=c++17", "-O3", "-ffp-contract=fast", "-fPIC", "-shared", "-pthread", "-D_GLIBCXX_USE_CXX11_ABI=1"]
COMPILERS = ("c++", "g++", "clang++")

_loading = threading.Lock()


def load_library() -> ctypes.CDLL | None:
    """The operators' library, registered with Paddle, built before if need be; None, said once in a line, without."""
    with _loading:
        return _load_library_once()


@functools.cache
def _load_library_once() -> ctypes.CDLL | None:
    try:
        path = build_library()
        library = _open_library(path)
    except PimmError as error:
        print(f"pimm: {error}", file=sys.stderr)
        return None
    cpp_extension.load_op_meta_info_and_register_op(str(path))
    return library


def _open_library(path: Path) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise PimmError(f"{path} does not load ({error}); {_consequence('delete it')}") from None


def build_library() -> Path:
    """Path of the library for this Paddle, Python, machine and compiler, compiled unless it is there already.

    Any number of processes may call this at once: one compiles, the others wait for it. Raises PimmError with what is
    slower now and how to mend it where it cannot be built.
    """
    compiler = find_compiler()
    name = f"cpu_ops-{_checksum(*_dependencies())}"
    if compiler is None:
        built = sorted(cache_folder().glob(f"{name}-*.so"))
        if built:
            return built[0]
        wanted = os.environ.get("CXX")
        looked_for = f"CXX={wanted}" if wanted else ", ".join(COMPILERS)
        raise PimmError(f"found no C++ compiler ({looked_for}); {_consequence('install g++')}")
    path = cache_folder() / f"{name}-{_checksum(_version(compiler))}.so"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            with _file_lock(path.parent / "lock"):
                if not path.exists():  # unless the one that we waited for has built it
                    _compile(compiler, path)
    except OSError as error:
        raise PimmError(f"cannot build {path} ({error}); {_consequence('set PIMM_CACHE_DIR')}") from None
    return path


def cache_folder() -> Path:
    """Folder of this user for what is built. Raises PimmError for a user without a home who names none."""
    if os.environ.get("PIMM_CACHE_DIR"):
        return Path(os.environ["PIMM_CACHE_DIR"])
    folder = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if folder.startswith("~"):
        raise PimmError(f"found no home folder; {_consequence('set PIMM_CACHE_DIR')}")
    return Path(folder) / "pimm"


def find_compiler() -> list[str] | None:
    """Command of the C++ compiler: the environment's CXX, or the first of COMPILERS; None without one."""
    for command in [os.environ["CXX"]] if os.environ.get("CXX") else COMPILERS:
        words = shlex.split(command)
        if fcntl is not None and words and shutil.which(words[0]):
            return words
    return None


def _consequence(remedy: str) -> str:
    return f"on the CPU nets take Paddle's own operators, and several times as long, until you {remedy}"


def _dependencies() -> list[str]:
    """All but the compiler that decides whether a library fits."""
    abi = sysconfig.get_config_var("SOABI") or sys.implementation.cache_tag
    sources = [path.read_text(encoding="utf-8") for path in (SOURCE, *HEADERS)]
    return [paddle.__version__, paddle.version.commit, abi, sys.platform, platform.machine(), *FLAGS, *sources]


def _checksum(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]


def _version(compiler: list[str]) -> str:
    return subprocess.run([*compiler, "--version"], capture_output=True, text=True).stdout


@contextlib.contextmanager
def _file_lock(path: Path, patience: float = 300):
    """Hold a lock that the system frees when its owner ends, however it ends.

    After `patience` seconds, and on file systems without locks, go on without: a build ends in one atomic rename, so
    that two at once waste time and nothing else.
    """
    with open(path, "w") as file:
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.1)
            except OSError:
                break
        yield


def _compile(compiler: list[str], path: Path) -> None:
    start = time.monotonic()
    say = functools.partial(print, file=sys.stderr, flush=True)
    say(f"pimm: building the CPU operators with {compiler[0]}, once ...", end="")
    with tempfile.TemporaryDirectory(prefix="build-", dir=path.parent) as folder:
        library = Path(folder) / path.name
        for openmp in (["-fopenmp"], []):  # Apple's compiler has none: one thread then
            result = subprocess.run(_command(compiler, openmp, library), capture_output=True, text=True)
            if result.returncode == 0:
                break
        say(f" {time.monotonic() - start:.0f} s")
        if result.returncode:
            log = path.with_suffix(".log")
            log.write_text(result.stderr, encoding="utf-8")
            raise PimmError(f"{compiler[0]} failed, see {log}; {_consequence('mend that')}")
        os.replace(library, path)


def _command(compiler: list[str], openmp: list[str], library: Path) -> list[str]:
    extension = cpp_extension.CppExtension(sources=[str(SOURCE)], extra_compile_args={"cxx": [*FLAGS, *openmp]})
    folders = extension.library_dirs
    command = [*compiler, *extension.extra_compile_args["cxx"]]
    command += [f"-I{folder}" for folder in extension.include_dirs]
    command += [str(SOURCE), "-o", str(library)]
    command += [f"-L{folder}" for folder in folders] + [f"-Wl,-rpath,{folder}" for folder in folders]
    command += extension.extra_link_args
    # Paddle's own OpenMP runtime where it ships one: its thread count is ours, and no second pool of threads competes.
    if openmp and any((Path(folder) / "libiomp5.so").exists() for folder in folders):
        command.append("-l:libiomp5.so")
    return command


def main() -> int:
    """Build ahead of time: the console command `pimm-build-ops`."""
    description = "Build pimm's CPU operators now, for this user, instead of when one is first used."
    argparse.ArgumentParser("pimm-build-ops", description=description).parse_args()
    try:
        path = build_library()
        _open_library(path)
    except PimmError as error:
        print(f"pimm: {error}", file=sys.stderr)
        return 2
    print(path)
    return 0
