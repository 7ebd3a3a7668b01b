"""Build the C++ operators with the user's compiler, once, and load them.

The library lies in a folder of the user (PIMM_CACHE_DIR, or pimm under XDG_CACHE_HOME or ~/.cache). Its name is made of
a checksum of everything that it depends on, and of its own size and checksum. `pimm-build-ops` builds the library ahead
of time; otherwise the first use does.
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
from .trust import is_whole, name_for, reason_for_distrust

try:
    import fcntl
except ImportError:  # Windows, for which there are no operators either
    fcntl = None

SOURCE = Path(__file__).with_name("cpu_ops.cc")
HEADERS = sorted(SOURCE.parent.glob("*.h"))
FLAGS = ["-std=c++17", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-fPIC", "-shared", "-pthread"]
FLAGS += ["-D_GLIBCXX_USE_CXX11_ABI=1"]
COMPILERS = ("c++", "g++", "clang++")

_loading = threading.Lock()


def load_library() -> ctypes.CDLL | None:
    """Return the operators' library, built if need be and registered with Paddle, or None where there can be none.

    Only the first call builds, loads, or prints one line that says why there is no library.
    """
    with _loading:
        return _load_library_once()


@functools.cache
def _load_library_once() -> ctypes.CDLL | None:
    try:
        return _open_library(build_library(), register=True)
    except PimmError as error:
        print(f"pimm: {error}", file=sys.stderr)
        return None


def _open_library(path: Path, register: bool) -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(str(path))
        if register:
            cpp_extension.load_op_meta_info_and_register_op(str(path))
    except (OSError, RuntimeError) as error:  # a folder mounted noexec, or a Paddle changed in place
        reason = str(error).strip().splitlines()[0]
        remedy = "delete the file, or set PIMM_CACHE_DIR to a folder whose programs may run"
        raise PimmError(f"{path} does not load ({reason}); {_consequence(remedy)}") from None
    return library


def build_library() -> Path:
    """Return the path of the library for this Paddle, Python, machine and compiler; compile the library if need be.

    Any number of processes may call this function at once: one compiles, the others wait. A damaged library is built
    again.

    Raises:
        PimmError: if the library cannot be built, or another user may have changed it. The message says what is slower
            without the library, and how to mend that.
    """
    compiler = find_compiler()
    prefix = f"cpu_ops-{_checksum(*_dependencies())}"
    try:
        folder = cache_folder()
        if compiler is None:
            library = next((path for path in sorted(folder.glob(f"{prefix}-*.so")) if _is_intact(path)), None)
            if library is None:
                raise _no_compiler()
        else:
            library = _find_or_compile(compiler, folder, f"{prefix}-{_checksum(_version(compiler))}")
    except OSError as error:
        raise PimmError(f"cannot build the operators ({error}); {_consequence('set PIMM_CACHE_DIR')}") from None
    _check_trust(folder, library)
    return library


def _find_or_compile(compiler: list[str], folder: Path, prefix: str) -> Path:
    def find() -> Path | None:
        return next((path for path in sorted(folder.glob(f"{prefix}-*.so")) if is_whole(path, prefix)), None)

    library = find()
    if library is None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_trust(folder)  # before anything is written
        with file_lock(folder / "lock"):
            library = find() or _compile(compiler, folder, prefix)  # unless the owner of the lock before has built it
    return library


def _check_trust(folder: Path, library: Path | None = None) -> None:
    reason = reason_for_distrust(folder, library)
    if reason:
        remedy = "set PIMM_CACHE_DIR to a folder that nobody else can write"
        raise PimmError(f"{reason}, so the CPU operators there are not loaded; {_consequence(remedy)}")


def _is_intact(library: Path) -> bool:
    return is_whole(library, library.name.rsplit("-", 2)[0])


def _no_compiler() -> PimmError:
    wanted = os.environ.get("CXX")
    looked_for = f"CXX={wanted}" if wanted else ", ".join(COMPILERS)
    return PimmError(f"found no C++ compiler ({looked_for}); {_consequence('install g++')}")


def cache_folder() -> Path:
    """Return the absolute path, without symbolic links, of this user's folder for what is built.

    Raises PimmError for a user without a home folder who names no other.
    """
    if os.environ.get("PIMM_CACHE_DIR"):
        return Path(os.path.realpath(os.environ["PIMM_CACHE_DIR"]))
    folder = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if folder.startswith("~"):
        raise PimmError(f"found no home folder; {_consequence('set PIMM_CACHE_DIR')}")
    return Path(os.path.realpath(folder), "pimm")


def find_compiler() -> list[str] | None:
    """Return the command of the C++ compiler: the environment's CXX, or the first of COMPILERS; None without one."""
    for command in [os.environ["CXX"]] if os.environ.get("CXX") else COMPILERS:
        try:
            words = shlex.split(command)
        except ValueError as error:
            raise PimmError(f"CXX={command} is no command ({error}); {_consequence('mend CXX')}") from None
        if fcntl is not None and words and shutil.which(words[0]):
            return words
    return None


def _consequence(remedy: str) -> str:
    return f"on the CPU, nets run on Paddle's own operators, several times slower, until you {remedy}"


def _dependencies() -> list[str]:
    """List what decides whether a library fits, but for the compiler."""
    abi = sysconfig.get_config_var("SOABI") or sys.implementation.cache_tag
    sources = [path.read_text(encoding="utf-8") for path in (SOURCE, *HEADERS)]
    return [paddle.__version__, paddle.version.commit, abi, sys.platform, platform.machine(), *FLAGS, *sources]


def _checksum(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]


def _version(compiler: list[str]) -> str:
    return subprocess.run([*compiler, "--version"], capture_output=True, text=True).stdout


@contextlib.contextmanager
def file_lock(path: Path, patience: float = 300):
    """Hold a lock that the system frees when its owner ends, however the owner ends.

    After ``patience`` seconds, and on file systems without locks, go on without the lock: a build ends in one atomic
    rename to a name of its own, so that two builds at once waste time and nothing else.
    """
    with open(path, "w") as file:
        deadline = time.monotonic() + patience
        while fcntl is not None and time.monotonic() < deadline:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.1)
            except OSError:
                break
        yield


def _compile(compiler: list[str], folder: Path, prefix: str) -> Path:
    start = time.monotonic()
    say = functools.partial(print, file=sys.stderr, flush=True)
    say(f"pimm: building the CPU operators with {compiler[0]}, once ...", end="")
    with tempfile.TemporaryDirectory(prefix="build-", dir=folder) as scratch:
        built = Path(scratch) / "cpu_ops.so"
        for openmp in (["-fopenmp"], []):  # Apple's compiler has none: one thread then
            result = subprocess.run(_command(compiler, openmp, built), capture_output=True, text=True)
            if result.returncode == 0:
                break
        say(f" {time.monotonic() - start:.0f} s")
        if result.returncode:
            log = folder / f"{prefix}.log"
            log.write_text(result.stderr, encoding="utf-8")
            raise PimmError(f"{compiler[0]} failed, see {log}; {_consequence('mend that')}")
        built.chmod(0o755)  # whatever the umask: others may read the library, and none but the owner write it
        library = folder / name_for(prefix, built.read_bytes())
        for other in folder.glob(f"{prefix}-*.so"):
            if not is_whole(other, prefix):
                other.unlink(missing_ok=True)
        os.replace(built, library)
    return library


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
    """Run the console command `pimm-build-ops`, which builds the operators ahead of time."""
    description = "Build pimm's CPU operators now, for this user, instead of when one is first used."
    argparse.ArgumentParser("pimm-build-ops", description=description).parse_args()
    try:
        path = build_library()
        _open_library(path, register=False)
    except PimmError as error:
        print(f"pimm: {error}", file=sys.stderr)
        return 2
    print(path)
    return 0
