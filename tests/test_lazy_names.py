"""Packages whose names are imported when they are first used."""

import importlib
import subprocess
import sys

import pytest
from paths import ROOT

PUBLIC = {
    "pimm": {
        *("create_model", "get_pretrained_cfg", "get_pretrained_cfg_value", "is_model", "list_models", "list_modules"),
        *("list_pretrained", "model_entrypoint", "register_model"),
    },
    "cream": {
        *("CreamSupernetTrainer", "CreamSupernetTrainingMutator", "load"),
        *("SPOSEvolution", "SPOSSupernetTrainer", "SPOSSupernetTrainingMutator"),
    },
    "cream.mobile": {
        *("CHILD_NETS", "ChildNet", "MobileSpace", "MobileSuperNet", "fit_to_flops", "load_space", "mobile_space"),
    },
}
SUBMODULES = {
    "pimm": {"data", "engine", "errors", "layers", "loss", "models", "ops", "optim", "scheduler", "utils"},
    "cream": {"cli", "config", "convert", "flops", "jobs", "mobile", "shuffle", "space", "supernet"},
    "cream.mobile": set(),
}


def output_of(code):
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("package", PUBLIC)
def test_public_names_are_shown_and_are_there(package):
    module = importlib.import_module(package)
    assert set(module.__all__) == PUBLIC[package] | SUBMODULES[package] <= set(dir(module))
    for name in SUBMODULES[package]:
        assert getattr(module, name) is importlib.import_module(f"{package}.{name}")
    for name in PUBLIC[package]:
        assert getattr(module, name).__class__ is not type(module)
    assert not hasattr(module, "CreamOfTomatoes")  # which a prefix would have let through


@pytest.mark.parametrize("package", PUBLIC)
def test_everything_is_imported_by_a_star(package):
    found = output_of(f"from {package} import *; print(*[name for name in dir() if name[0] != '_'])")
    assert PUBLIC[package] | SUBMODULES[package] <= set(found.split())


def test_help_shows_the_public_names():
    shown = output_of("import pydoc, pimm; print(pydoc.plain(pydoc.render_doc(pimm)))")
    assert "create_model(" in shown and "list_models(" in shown


@pytest.mark.parametrize(
    "module", ["pimm", "pimm.cli", "pimm.preemption", "cream", "cream.cli", "cream.config", "cream.mobile"]
)
def test_an_import_takes_neither_paddle_nor_numpy(module):
    code = f"import {module}, sys; print(*sorted(set(sys.modules) & {{'paddle', 'numpy', 'matplotlib'}}))"
    assert output_of(code) == ""


def test_the_number_of_threads_is_read_before_paddle_changes_it():
    code = "import os; os.environ.pop('OMP_NUM_THREADS', None); import {}, paddle, pimm.threads as threads"
    code += "; print(threads.THREADS)"
    for module in ("pimm", "cream", "cream.mobile", "pimm.optim"):
        assert output_of(code.format(module)) == "None", module
