"""What is shipped: the embedded images, the package's metadata, and the set-up's first words."""

import ast
import collections
import importlib
import io
import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from console_scripts import scripts
from PIL import Image

import cream
import pimm
from pimm.data.embedded import find_images

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "data" / "fashion_mnist"
ORIGINAL = Path("/usr/share/datasets/fashion-mnist")  # where Debian's package puts it
CLASSES = {
    *("t-shirt_top", "trouser", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "ankle_boot"),
}


def read_tar(path):
    with tarfile.open(path) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar.getmembers()}


def pixels(files):
    return {name: np.asarray(Image.open(io.BytesIO(content))) for name, content in files.items()}


# Embedded images


@pytest.mark.parametrize(("part", "per_class"), [("train", 100), ("val", 30)])
def test_embedded_images_are_balanced_grey_and_distinct(part, per_class):
    images = pixels(read_tar(IMAGES / f"{part}.tar"))
    counts = collections.Counter(name.split("/")[0] for name in images)
    assert counts == dict.fromkeys(CLASSES, per_class)
    assert sorted(images) == sorted(f"{name}/{number:04d}.png" for name in CLASSES for number in range(per_class))
    assert {(image.shape, image.dtype.name) for image in images.values()} == {((28, 28), "uint8")}
    assert len({image.tobytes() for image in images.values()}) == len(images)


def test_embedded_parts_share_no_image():
    parts = [
        {image.tobytes() for image in pixels(read_tar(IMAGES / f"{part}.tar")).values()} for part in ("train", "val")
    ]
    assert parts[0] & parts[1] == set()


def test_embedded_tars_are_small_and_carry_neither_times_nor_owners():
    assert sum(path.stat().st_size for path in IMAGES.iterdir()) < 3e6
    for part in ("train", "val"):
        with tarfile.open(IMAGES / f"{part}.tar") as tar:
            members = tar.getmembers()
        assert {(member.mtime, member.uid, member.gid, member.uname) for member in members} == {(0, 0, 0, "")}
        assert [member.name for member in members] == sorted(member.name for member in members)


@pytest.mark.skipif(not ORIGINAL.is_dir(), reason="needs the original data set, Debian's dataset-fashion-mnist")
def test_script_makes_the_embedded_images_again(tmp_path):
    command = [sys.executable, ROOT / "data" / "make_fashion_mnist.py", ORIGINAL, tmp_path]
    subprocess.run(command, check=True, timeout=120)
    for part in ("train", "val"):
        made, shipped = (pixels(read_tar(folder / f"{part}.tar")) for folder in (tmp_path, IMAGES))
        assert list(made) == list(shipped)
        assert all(np.array_equal(made[name], shipped[name]) for name in shipped)


def test_licences_are_included():
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    licence = (IMAGES / "LICENSE").read_text()
    assert "MIT" in licence
    assert "Zalando SE" in licence


# Metadata


@pytest.mark.parametrize(
    "command",
    [
        *("cream-search", "cream-select", "cream-retrain", "cream-test", "cream-latency", "cream-rank-correlation"),
        *("cream-sub-imagenet", "cream-report", "spos-supernet", "spos-search", "spos-scratch"),
        *("cream-export", "cream-predict", "cream-demo", "convert-weights", "pimm-build-ops"),
        *("pimm-train", "pimm-validate", "pimm-inference", "pimm-avg-checkpoints"),
    ],
)
def test_console_command_names_a_function(command):
    module, function = scripts()[command].split(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_every_command_is_tested():
    listed = test_console_command_names_a_function.pytestmark[0].args[1]
    assert set(listed) == scripts().keys()


def test_the_version_has_one_source():
    text = (ROOT / "pyproject.toml").read_text()
    assert 'version = { attr = "pimm.__version__" }' in text and not re.search(r'^version = "', text, re.M)
    assert pimm.__version__ == cream.__version__ and re.fullmatch(r"\d+\.\d+\.\d+", pimm.__version__)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Copy the packages with the folders that setup.py puts into them, as an installation has them."""
    site = tmp_path_factory.mktemp("site")
    for package in ("pimm", "cream"):
        shutil.copytree(ROOT / package, site / package, ignore=shutil.ignore_patterns("__pycache__"))
    assigned = next(node for node in ast.parse((ROOT / "setup.py").read_text()).body if isinstance(node, ast.Assign))
    for package, folder in ast.literal_eval(assigned.value).items():
        shutil.copytree(ROOT / folder, site.joinpath(*package.split(".")))
    return site


def run_installed(site, folder, code):
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "PYTHONPATH": str(site)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_an_installation_has_the_recipes_and_the_images(installed, tmp_path):
    code = """
import cream, pimm
from cream.config import load_config
from cream.recipes import recipes
from pimm.data import create_dataset, Dataset
settings = load_config("demo/search")
print(pimm.__file__, settings.SUPERNET.STAGE_DEPTHS, settings.RETRAIN_CFG, len(recipes()))
print(len(create_dataset("", settings.DATA_DIR, split="train")), len(Dataset("data/fashion_mnist/val.tar")))
"""
    count = len(list(ROOT.glob("configs/**/*.yaml")))
    said = run_installed(installed, tmp_path, code)
    assert said == [f"{installed / 'pimm' / '__init__.py'} (1, 1, 1, 1, 1) demo/retrain {count}", "1000 300"]


def test_an_installation_names_its_commands_in_help(installed, tmp_path):
    said = run_installed(installed, tmp_path, "from cream import cli; cli.search(['--help'])")
    assert any(line.strip().endswith("8 cream-search --cfg configs/train.yaml EPOCHS=120") for line in said)


@pytest.mark.parametrize("path", ["data/fashion_mnist", "./data/fashion_mnist/", "data/fashion_mnist/val.tar"])
def test_embedded_images_are_found_from_any_folder_and_a_folder_of_that_name_wins(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Path(find_images(path)) == ROOT / path
    (tmp_path / path).mkdir(parents=True)
    assert find_images(path) == path
    assert find_images("data/fashion") == "data/fashion"


def imports(path):
    """Top-level names of the packages that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name.split(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module.split(".")[0]


def extra(name):
    """List the requirements of an extra of the package."""
    listed = re.search(rf"^{name} = (\[.*\])$", (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)
    return ast.literal_eval(listed[1])


@pytest.mark.skipif(sys.version_info < (3, 10), reason="this Python does not list its standard modules")
def test_every_imported_package_is_required():
    paths = [path for pattern in ("pimm/**/*.py", "cream/**/*.py", "tools/*.py", "*.py") for path in ROOT.glob(pattern)]
    own = {"pimm", "cream", *(path.stem for path in ROOT.glob("*.py"))}
    imported = {name for path in paths for name in imports(path)} - set(sys.stdlib_module_names) - own
    projects = {"yaml": "pyyaml", "PIL": "pillow", "paddle": "paddlepaddle"}
    lines = (ROOT / "requirements.txt").read_text().splitlines() + extra("export") + extra("hub") + extra("fast")
    required = {re.match(r"[\w-]+", line).group() for line in lines if not line.startswith("#")}
    assert {projects.get(name, name) for name in imported} - required == set()


# Set-up


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize(
    ("fails_at", "says"),
    [("version_info", "is not Python 3.9 or newer; name one with PYTHON="), ("ensurepip", "apt install python3-venv")],
)
def test_make_says_what_the_interpreter_lacks(fails_at, says, tmp_path):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\ncase "$2" in *{fails_at}*) exit 1;; esac\n')
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    done = subprocess.run(["make", "-C", ROOT, "test", f"PYTHON={python}"], capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert says in done.stderr
