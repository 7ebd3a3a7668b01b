"""What keeps the house in order: sizes, layers, modules that import alone, and docstrings that start with a verb."""

import ast
import functools
import json
import os
import subprocess
import sys

import pytest
from paths import ROOT, TESTS

MOST_LINES_OF_A_FUNCTION, MOST_LINES_OF_A_FILE = 60, 450
SMALLER_FILES = {"pimm/commands/train.py": 299}
FOLDERS = ("cream", "examples", "pimm/commands", "pimm/engine", "tools")
FILES = sorted(str(path.relative_to(ROOT)) for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
OF_PACKAGES = sorted(
    str(path.relative_to(ROOT)) for folder in ("cream", "pimm") for path in (ROOT / folder).rglob("*.py")
)

# How a docstring of a function must not start: it says what the function does, so its first word is a verb.
OTHER_WORDS = """
a an the this that these those its their it they he she what whether which who whom whose how where when why if
all any both each every everything few many more most much neither no none nothing not one other several some
at by for from in inside into like of off on out outside over per through to under upon with within without as
and but or so than true false
"""


@functools.cache
def tree(file):
    return ast.parse((ROOT / file).read_text())


def functions(file):
    return [node for node in ast.walk(tree(file)) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]


def is_property(function):
    names = {ast.unparse(decorator).rpartition(".")[2] for decorator in function.decorator_list}
    return bool(names & {"property", "cached_property", "setter"})


@pytest.mark.parametrize("file", FILES)
def test_files_and_functions_are_small(file):
    longest = SMALLER_FILES.get(file, MOST_LINES_OF_A_FILE)
    lines = len((ROOT / file).read_text().splitlines())
    assert lines <= longest, f"{file} has {lines} lines; at most {longest} are read in one go"
    lengths = [(function.name, function.end_lineno - function.lineno + 1) for function in functions(file)]
    long = [(name, length) for name, length in lengths if length > MOST_LINES_OF_A_FUNCTION]
    assert not long, f"{file} has functions of more than {MOST_LINES_OF_A_FUNCTION} lines: {long}"


def test_only_jobs_and_plans_see_the_settings():
    """All other parts of cream take named values."""
    seeing = set()
    for file in OF_PACKAGES:
        for node in ast.walk(tree(file)):
            imported = isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cream.config")
            if imported and "Config" in {name.name for name in node.names}:
                seeing.add(file)
    others = {file for file in seeing if not file.startswith(("cream/build/", "cream/config/"))}
    assert others == {"cream/jobs.py"}


@pytest.mark.parametrize("file", FILES)
def test_what_is_public_is_documented(file):
    public = [node for node in tree(file).body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    bare = [node.name for node in public if not node.name.startswith("_") and not ast.get_docstring(node)]
    assert not bare, f"{file}: no docstring: {', '.join(bare)}"
    assert ast.get_docstring(tree(file)) or not public, f"{file} has no docstring"


@pytest.mark.parametrize("file", FILES)
def test_docstrings_of_functions_start_with_a_verb(file):
    """Properties may be noun phrases."""
    found = {}
    for function in functions(file):
        said = ast.get_docstring(function)
        if said and not is_property(function) and not starts_with_a_verb(said):
            found[f"{function.name} (line {function.lineno})"] = said.splitlines()[0][:50]
    assert not found, f"{file}: {len(found)} docstrings start with no verb: {found}"


def starts_with_a_verb(text):
    """Judge the first word: a capital and small letters, and none of OTHER_WORDS; nouns are for readers to find."""
    first = text.split()[0].rstrip(",;:")
    return first.isalpha() and first == first.capitalize() and first.lower() not in OTHER_WORDS.split()


@pytest.mark.parametrize(
    "text, expected",
    [
        ("Return the settings that must agree.", True),
        ("Draw, then count, paths.", True),
        ("The classes of images that there are.", False),
        ("Whether it takes tensors of these shapes.", False),
        ("``{name: array}`` of a net.", False),
        ("ConfigError for a share above one.", False),
    ],
)
def test_what_starts_with_a_verb(text, expected):
    assert starts_with_a_verb(text) == expected


def imported(file):
    """List the top-level packages that a file imports anywhere, but for relative imports."""
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.partition(".")[0]


@pytest.mark.parametrize("file", OF_PACKAGES)
def test_packages_import_neither_scripts_nor_tests(file):
    beside = {path.stem for path in ROOT.iterdir()} | {path.stem for path in TESTS.glob("*.py")}
    assert not set(imported(file)) & (beside - {"cream", "pimm"})


def test_layers():
    """The contracts of pyproject.toml: which part of the packages may import from which."""
    command = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_module_imports_alone():
    """In an interpreter that has imported none of our other modules, so that no order of imports hides a circle."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{TESTS}"}
    command = [sys.executable, str(TESTS / "import_each.py")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said == {"imported": len(OF_PACKAGES), "errors": {}}
