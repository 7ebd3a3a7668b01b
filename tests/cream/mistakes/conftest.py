"""Run jobs that go wrong, on images of noise."""

import os

import pytest
from job_lines import ARCH, JOBS, write_images
from paths import ROOT

from cream import cli


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    """Run each test at the root, where the paths of recipes begin."""
    monkeypatch.chdir(ROOT)


@pytest.fixture
def run(images, tmp_path, capsys):
    """Return a function that runs a job with small settings and returns its exit code and the lines of stderr."""

    def run(job, *overrides):
        common = [f"DATA_DIR={images}", f"SAVE_PATH={tmp_path / 'runs'}", "MODEL=mine"]
        capsys.readouterr()
        code = getattr(cli, job)([*JOBS[job], *common, *map(str, overrides)])
        return code, capsys.readouterr().err.splitlines()

    return run


@pytest.fixture
def told(run):
    """Return a function that runs a job, which must fail with one line, and returns this line."""

    def told(job, *overrides):
        code, lines = run(job, *overrides)
        assert code == 2
        assert [line for line in lines if line.startswith("error: ")] == lines[-1:], lines
        assert not [line for line in lines if "Traceback" in line]
        assert len(lines[-1]) < 1000
        return lines[-1]

    return told


@pytest.fixture(scope="module")
def trained(images, tmp_path_factory):
    """Return the run of a retrained net."""
    os.chdir(ROOT)
    folder = tmp_path_factory.mktemp("trained")
    assert cli.retrain([*JOBS["retrain"], ARCH, f"DATA_DIR={images}", f"SAVE_PATH={folder}", "MODEL=net"]) == 0
    return folder / "net"


@pytest.fixture
def run_folder(trained, tmp_path):
    """Return a copy of the run, to be damaged."""
    return copy_tree(trained, tmp_path / "net")


def copy_tree(source, target):
    for path in source.rglob("*"):
        if path.is_file():
            copied = target / path.relative_to(source)
            copied.parent.mkdir(parents=True, exist_ok=True)
            copied.write_bytes(path.read_bytes())
    return target
