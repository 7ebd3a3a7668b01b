"""How the library of CPU operators is built, kept and loaded."""

import os
import subprocess
import sys
import time

import pytest
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
    assert line.startswith("pimm: found no C++ compiler (CXX=") and "as long, until you install g++" in line


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
    with pytest.raises(PimmError, match=r"failed, see .*\.log; on the CPU nets take Paddle's own"):
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
