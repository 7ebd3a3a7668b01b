"""How the library of CPU operators is built, kept and loaded."""

import os
import subprocess
import sys
import time

import pytest
from damage import empty, flip_a_bit
from paths import ROOT

from pimm.errors import PimmError
from pimm.ops import build

# A script that copies the library of the user's cache stands for the compiler, so that nothing is compiled.

CONVOLVE = """
import sys, numpy as np, paddle
from paddle.nn import functional as F
from pimm.ops import depthwise_conv2d
print("imported", file=sys.stderr)
x, weight = paddle.randn([4, 32, 14, 14]), paddle.randn([32, 1, 3, 3])
for _ in range(2):
    a, b = depthwise_conv2d(x, weight, padding=1), F.conv2d(x, weight, padding=1, groups=32)
    assert np.abs((a - b).numpy()).max() < 1e-5
"""
BUILD = "import sys; from pimm.ops.build import main; sys.argv = ['pimm-build-ops']; sys.exit(main())"


def fake_compiler(folder, seconds=0.0, status=0):
    library = build.build_library()
    script = folder / "fake-c++"
    script.write_text(
        f"#!{sys.executable} -S\nimport shutil, sys, time\n"
        "if '--version' in sys.argv: sys.exit(print('fake 1.0'))\n"
        f"open({str(folder / 'runs')!r}, 'a').write('run\\n')\n"
        f"time.sleep({seconds})\n"
        f"shutil.copy({str(library)!r}, sys.argv[sys.argv.index('-o') + 1])\n"
        f"sys.exit({status})\n"
    )
    script.chmod(0o755)
    return script


def start(code, folder, **environment):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PIMM_CACHE_DIR": str(folder / "cache"), **environment}
    return subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_without_a_compiler_one_line_says_so_and_paddle_convolves(tmp_path):
    process = start(CONVOLVE, tmp_path, PATH="", CXX=str(tmp_path / "nowhere"))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    (line,) = [line for line in errors.partition("imported\n")[2].splitlines() if line]
    assert (
        line.startswith("pimm: found no C++ compiler (CXX=") and "several times slower, until you install g++" in line
    )


def test_processes_that_build_at_once_build_once(tmp_path):
    compiler = fake_compiler(tmp_path, seconds=1)
    processes = [start(BUILD, tmp_path, CXX=str(compiler)) for _ in range(2)]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    (library,) = (tmp_path / "cache").glob("*.so")
    assert [out for out, _ in outputs] == [f"{library}\n"] * 2
    assert (tmp_path / "runs").read_text() == "run\n"
    assert sum(errors.count("pimm: building") for _, errors in outputs) == 1
    assert list((tmp_path / "cache").glob("build-*")) == []


def test_a_lock_whose_owner_was_killed_is_free(tmp_path, monkeypatch):
    process = start(BUILD, tmp_path, CXX=str(fake_compiler(tmp_path, seconds=3)))
    wait_until((tmp_path / "runs").exists)
    process.kill()
    process.communicate()
    compiler = fake_compiler(tmp_path)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("PIMM_CACHE_DIR", str(tmp_path / "cache"))
    assert (tmp_path / "cache" / "lock").exists()
    begin = time.monotonic()
    assert build.build_library().exists()
    assert time.monotonic() - begin < 2


def test_a_library_is_found_again_also_without_the_compiler(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", str(fake_compiler(tmp_path)))
    monkeypatch.setenv("PIMM_CACHE_DIR", str(tmp_path / "cache"))
    library = build.build_library()
    assert build.build_library() == library
    monkeypatch.setenv("CXX", "nowhere")
    assert build.build_library() == library
    assert (tmp_path / "runs").read_text() == "run\n"


def test_a_compiler_that_fails_leaves_its_words_in_a_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CXX", str(fake_compiler(tmp_path, status=1)))
    monkeypatch.setenv("PIMM_CACHE_DIR", str(tmp_path / "cache"))
    with pytest.raises(PimmError, match=r"failed, see .*\.log; on the CPU, nets run on Paddle.s own"):
        build.build_library()
    assert len(list((tmp_path / "cache").glob("*.log"))) == 1
    assert list((tmp_path / "cache").glob("*.so")) == []
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_user_without_a_home_is_told_to_set_the_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CXX", str(fake_compiler(tmp_path)))
    for name in ("PIMM_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # what it does for a user whom the system ignores
    assert build._load_library_once.__wrapped__() is None
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("pimm: found no home folder") and line.endswith("until you set PIMM_CACHE_DIR")


def test_a_cache_that_cannot_be_written_is_said(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("CXX", str(fake_compiler(tmp_path)))
    monkeypatch.setenv("PIMM_CACHE_DIR", str(tmp_path / "file" / "cache"))
    with pytest.raises(PimmError, match="until you set PIMM_CACHE_DIR"):
        build.build_library()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_convolves_too(tmp_path):
    forking = CONVOLVE + "import os; child = os.fork()\n" + CONVOLVE
    forking += "if child == 0: os._exit(0)\nassert os.waitpid(child, 0)[1] == 0"
    process = start(forking, tmp_path, OMP_NUM_THREADS="2", CXX=str(fake_compiler(tmp_path)))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors


# A library in the cache is loaded only if it is whole and no other user can have written it.


def built(folder, monkeypatch, **options):
    """Build into ``folder``/cache with the compiler's stand-in, and return the library."""
    monkeypatch.setenv("CXX", str(fake_compiler(folder, **options)))
    monkeypatch.setenv("PIMM_CACHE_DIR", str(folder / "cache"))
    return build.build_library()


def runs(folder):
    return (folder / "runs").read_text().count("run")


def cut(library):
    os.truncate(library, 60000)


DAMAGES = [cut, flip_a_bit, empty]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_library_is_built_again(tmp_path, monkeypatch, damage):
    library = built(tmp_path, monkeypatch)
    content = library.read_bytes()
    damage(library)
    assert build.build_library() == library
    assert runs(tmp_path) == 2 and library.read_bytes() == content
    assert list((tmp_path / "cache").glob("*.so")) == [library]


def test_a_process_that_finds_a_cut_library_convolves(tmp_path, monkeypatch):
    cut(built(tmp_path, monkeypatch))
    process = start(CONVOLVE, tmp_path, CXX=os.environ["CXX"])
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0 and "slower" not in errors, errors
    assert runs(tmp_path) == 2


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_library_without_a_compiler_is_one_line(tmp_path, monkeypatch, capsys, damage):
    damage(built(tmp_path, monkeypatch))
    monkeypatch.setenv("CXX", "nowhere")
    capsys.readouterr()
    assert build._load_library_once.__wrapped__() is None
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("pimm: found no C++ compiler (CXX=nowhere)") and len(line) < 400


def test_processes_that_find_a_damaged_library_at_once_build_once(tmp_path, monkeypatch):
    cut(built(tmp_path, monkeypatch, seconds=1))
    processes = [start(BUILD, tmp_path, CXX=os.environ["CXX"]) for _ in range(2)]
    assert [process.communicate(timeout=60) and process.returncode for process in processes] == [0, 0]
    assert runs(tmp_path) == 2


def open_to_all(library):
    library.chmod(0o777)


def folder_open_to_all(library):
    library.parent.chmod(0o777)


def folder_above_open_to_all(library):
    library.parents[1].chmod(0o777)


def of_another_user(library):
    os.chown(library, 12345, 12345)


def folder_of_another_user(library):
    os.chown(library.parent, 12345, 12345)


def open_to_another_group(library):
    os.chown(library, -1, 12345)
    library.chmod(0o775)


def link_to_another_users(library):
    elsewhere = library.parents[1] / "elsewhere.so"
    library.rename(elsewhere)
    os.chown(elsewhere, 12345, 12345)
    library.symlink_to(elsewhere)


CHANGES = {  # what is changed of a library: what the line says
    open_to_all: "can be written by every user",
    folder_open_to_all: "can be written by every user",
    folder_above_open_to_all: "can be written by every user",
    of_another_user: "belongs to another user, of number 12345",
    folder_of_another_user: "belongs to another user, of number 12345",
    open_to_another_group: "can be written by another group, of number 12345",
    link_to_another_users: "is a symbolic link",
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_library_that_another_user_may_have_written_is_not_loaded(tmp_path, monkeypatch, capsys, change):
    if change not in (open_to_all, folder_open_to_all, folder_above_open_to_all) and os.geteuid() != 0:
        pytest.skip("only root gives files away")
    change(built(tmp_path, monkeypatch))
    capsys.readouterr()
    assert build._load_library_once.__wrapped__() is None
    (line,) = capsys.readouterr().err.splitlines()
    assert CHANGES[change] in line and "until you set PIMM_CACHE_DIR" in line and len(line) < 500
    tmp_path.chmod(0o700)


def test_a_folder_reached_by_a_link_is_judged_itself(tmp_path, monkeypatch):
    library = built(tmp_path, monkeypatch)
    (tmp_path / "public").mkdir()
    (tmp_path / "public").chmod(0o777)
    (tmp_path / "public" / "link").symlink_to(library.parent)
    monkeypatch.setenv("PIMM_CACHE_DIR", str(tmp_path / "public" / "link"))
    assert build.build_library() == library  # where the link leads, and nobody else writes there
    (tmp_path / "public" / "cache").mkdir(mode=0o700)
    (tmp_path / "mine").symlink_to(tmp_path / "public" / "cache")
    monkeypatch.setenv("PIMM_CACHE_DIR", str(tmp_path / "mine"))
    with pytest.raises(PimmError, match="public can be written by every user"):
        build.build_library()
    assert list((tmp_path / "public" / "cache").iterdir()) == []


def test_a_sticky_folder_above_is_fine(tmp_path, monkeypatch):
    tmp_path.chmod(0o1777)
    assert built(tmp_path, monkeypatch).exists()


def test_a_library_of_roots_is_fine_and_a_group_of_ones_own_may_write(tmp_path, monkeypatch):
    library = built(tmp_path, monkeypatch)
    library.chmod(0o775)
    library.parent.chmod(0o775)
    assert build.build_library() == library


def test_a_relative_folder_works(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    process = start(CONVOLVE, tmp_path, CXX=str(fake_compiler(tmp_path)), PIMM_CACHE_DIR=".")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0 and "slower" not in errors, errors
    assert len(list(tmp_path.glob("*.so"))) == 1


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ('g++ "x', 'CXX=g++ "x is no command (No closing quotation)'),
        ("nowhere -O1", "found no C++ compiler (CXX=nowhere -O1)"),
        ("{folder}/not-a-program", "cannot build the operators"),
    ],
)
def test_a_compiler_that_is_none_is_one_line(tmp_path, monkeypatch, capsys, command, message):
    (tmp_path / "not-a-program").write_bytes(b"\x7fELF")
    (tmp_path / "not-a-program").chmod(0o755)
    monkeypatch.setenv("CXX", command.format(folder=tmp_path))
    monkeypatch.setenv("PIMM_CACHE_DIR", str(tmp_path / "cache"))
    assert build._load_library_once.__wrapped__() is None
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line and line.startswith("pimm: ") and len(line) < 400


def test_a_library_that_does_not_load_is_one_line(tmp_path, monkeypatch, capsys):
    compiler = fake_compiler(tmp_path)
    compiler.write_text(compiler.read_text().replace("shutil.copy(", "(lambda _, to: open(to, 'w').write('text'))("))
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("PIMM_CACHE_DIR", str(tmp_path / "cache"))
    assert build._load_library_once.__wrapped__() is None
    building, line = capsys.readouterr().err.splitlines()
    assert "building" in building and "does not load" in line and "until you delete the file" in line


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is full")
def test_a_full_disk_is_one_line(tmp_path, monkeypatch, capsys):
    compiler = fake_compiler(tmp_path)
    compiler.write_text(
        compiler.read_text().replace("shutil.copy(", "print('x' * 2**20, file=open('/dev/full', 'w'))\n(")
    )
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("PIMM_CACHE_DIR", str(tmp_path / "cache"))
    assert build._load_library_once.__wrapped__() is None
    assert "failed, see" in capsys.readouterr().err.splitlines()[-1]
    assert list((tmp_path / "cache").glob("*.so")) == list((tmp_path / "cache").glob("build-*")) == []
