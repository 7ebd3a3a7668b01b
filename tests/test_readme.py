"""README.md, README_cn.md and the pages in docs/ name only what exists, and both READMEs say the same."""

import ast
import functools
import importlib
import re
import runpy
import shlex
import sys
from collections import Counter
from operator import attrgetter

import pytest
from paths import ROOT

from cream.config import load_config
from pimm.errors import ConfigError

READMES = ("README.md", "README_cn.md")
# The page of parity with timm is made, and has tests of its own.
PAGES = [*READMES, "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in ROOT.glob("docs/*.md"))]
PAGES.remove("docs/timm-parity.md")
# What a user has to bring.
BROUGHT = ("data/imagenet", "data/cifar10", "data/subImageNet")
SETTING = re.compile(r"[A-Z][A-Z0-9_.]*=")
NO_SETTINGS = ("SECTION.KEY", "OMP_NUM_THREADS")


def read(page):
    return (ROOT / page).read_text(encoding="utf-8")


def code_blocks(page, language=r"\w*"):
    """List the contents of the page's fenced blocks in this language, by default in any."""
    return re.findall(rf"^```{language}\n(.*?)^```", read(page), flags=re.DOTALL | re.MULTILINE)


def prose(page):
    """Return the page without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", read(page), flags=re.DOTALL | re.MULTILINE)


def inline_code(page):
    return re.findall(r"`([^`\n]+)`", prose(page))


def shell_commands(page):
    """List the commands of the page's shell blocks, each as its words."""
    lines = "".join(code_blocks(page, "sh")).replace("\\\n", " ").splitlines()
    return [words for words in (shlex.split(line, comments=True) for line in lines) if words]


def test_the_readme_is_short():
    assert len(read("README.md").splitlines()) <= 180


def test_both_readmes_have_the_same_code_blocks():
    english, chinese = map(code_blocks, READMES)
    assert len(english) >= 6 and english == chinese


def test_both_readmes_have_the_same_numbers_and_links_in_each_section():
    english, chinese = (prose(page).split("\n## ") for page in READMES)
    assert len(english) == len(chinese) >= 8
    for ours, theirs in zip(english, chinese):
        for pattern in (r"\d[\d.,]*\d%?|\d%?", r"\]\(([^)]+)\)", r"`([^`\n]+)`"):
            ours_found, theirs_found = (set(re.findall(pattern, section)) for section in (ours, theirs))
            assert ours_found - {*READMES} == theirs_found - {*READMES}, ours.partition("\n")[0]


def test_both_readmes_have_the_same_tables():
    english, chinese = ([row for row in prose(page).splitlines() if row.startswith("|")] for page in READMES)
    assert len(english) == len(chinese) >= 9
    for ours, theirs in zip(english, chinese):
        assert [cell for cell in ours.split("|") if "%" in cell] == [cell for cell in theirs.split("|") if "%" in cell]


@pytest.mark.parametrize("page", PAGES)
def test_every_relative_link_leads_to_a_file_and_a_heading(page):
    folder = (ROOT / page).parent
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        path = folder / name if name else ROOT / page
        assert path.exists(), f"{page} links to {target}"
        assert not anchor or anchor in headings(path), f"{page} links to {target}"


def headings(path):
    """Return the anchors that GitHub gives to the headings of a page."""
    titles = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_readme_leads_to_every_page():
    linked = set(re.findall(r"\]\((docs/[\w-]+\.md)\)", read("README.md")))
    assert linked == {f"docs/{path.name}" for path in ROOT.glob("docs/*.md")}


@pytest.mark.parametrize("page", PAGES)
def test_every_named_file_exists(page):
    pattern = r"(?<![\w./-])(?:tools|configs|benchmarks|docs|tests|cream|pimm|data)/[\w./-]*\w"
    places = [*re.findall(pattern, "\n".join(inline_code(page))), *re.findall(pattern, "\n".join(code_blocks(page)))]
    missing = [name for name in places if not name.startswith(BROUGHT) and not (ROOT / name).exists()]
    assert missing == []


def installed_commands():
    table = re.search(r"\[project\.scripts\]\n(.*?)\n\n", read("pyproject.toml"), flags=re.DOTALL)[1]
    return {line.partition(" = ")[0] for line in table.splitlines()}


@pytest.mark.parametrize("page", READMES)
def test_the_readmes_name_the_installed_commands(page):
    assert installed_commands() <= set(inline_code(page))


@pytest.mark.parametrize("page", PAGES)
def test_every_named_command_is_installed(page):
    words = [*inline_code(page), *(words[0] for words in shell_commands(page))]
    named = {word for word in words if re.fullmatch(r"(?:cream|spos|pimm|convert)-[a-z-]+", word)}
    assert named <= installed_commands()


@pytest.mark.parametrize("page", PAGES)
def test_every_import_works(page):
    imports = [text for text in spans(page) if text.startswith(("from ", "import "))]
    for code in [*code_blocks(page, "python"), *imports]:
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module)
                assert [name.name for name in node.names if not hasattr(module, name.name)] == []
            elif isinstance(node, ast.Import):
                for name in node.names:
                    importlib.import_module(name.name)


def spans(page):
    """List the inline code of a page, that over two lines included."""
    return [text.replace("\n", " ") for text in re.findall(r"`([^`]+)`", prose(page))]


@pytest.mark.parametrize("page", PAGES)
def test_every_dotted_name_exists(page):
    names = re.findall(r"(?<![\w./@-])((?:cream|pimm)(?:\.[A-Za-z_]\w*)+)(?!\.?\w|-)", "\n".join(inline_code(page)))
    missing = [name for name in names if not name.endswith((".py", ".yaml")) and not resolves(name)]
    assert missing == []


def resolves(name):
    """Tell whether a dotted name is a module, or an attribute of one."""
    try:
        importlib.import_module(name)
        return True
    except ModuleNotFoundError:
        parent, _, attribute = name.rpartition(".")
        try:
            return hasattr(importlib.import_module(parent), attribute)
        except ModuleNotFoundError:
            return False


@functools.cache
def is_setting(key):
    """Tell whether a key is a setting, a key of the official files without effect, or another name of a setting."""
    try:
        attrgetter(key)(load_config())
        return True
    except AttributeError:
        pass
    try:
        load_config(None, [f"{key}=1"])
        return True
    except ConfigError as error:
        return "unknown key" not in str(error)


def test_what_is_no_setting_is_found():
    assert is_setting("SUPERNET.FLOPS_MAXIMUM") and is_setting("NET.EMA.FORCE_CPU") and is_setting("INPUT_ARCH")
    assert not is_setting("SUPERNET.FLOPS_MAX") and not is_setting("FLOPS_MAXIMUM")


@pytest.mark.parametrize("page", PAGES)
def test_every_setting_exists(page):
    given = [word.partition("=")[0] for words in shell_commands(page) for word in words if SETTING.match(word)]
    named = re.findall(r"(?<![\w.])[A-Z]+(?:\.[A-Z0-9_]+)+\b", "\n".join(inline_code(page)))
    assert [key for key in [*given, *named] if key not in NO_SETTINGS and not is_setting(key)] == []


@pytest.mark.parametrize("page", READMES)
def test_every_command_of_a_job_loads_its_settings(page):
    loaded = 0
    for words in shell_commands(page):
        if "--cfg" in words and words[words.index("--cfg") + 1].startswith("configs/"):
            overrides = [word for word in words if SETTING.match(word)]
            assert load_config(ROOT / words[words.index("--cfg") + 1], overrides)
            loaded += 1
    assert loaded >= 4


def scripts_and_options():
    """Map each script that a command names to the options that it is given."""
    found = {}
    for words in (words for page in PAGES for words in shell_commands(page)):
        scripts = [i for i, word in enumerate(words) if re.fullmatch(r"(?:(?:tools|benchmarks)/)?\w+\.py", word)]
        if scripts:
            options = [word for word in words[scripts[0] + 1 :] if re.match(r"--?[a-z]", word)]
            found.setdefault(words[scripts[0]], Counter()).update(options)
    return found


SCRIPTS = [(script, sorted(options)) for script, options in scripts_and_options().items()]


@pytest.mark.parametrize(("script", "options"), SCRIPTS, ids=[script for script, _ in SCRIPTS])
def test_every_option_is_in_the_scripts_help(script, options, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    monkeypatch.setattr(sys, "path", [str((ROOT / script).parent), *sys.path])  # as `python SCRIPT` sets it
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    shown = capsys.readouterr().out
    assert not ended.value.code
    assert [option for option in options if not re.search(rf"(?<![\w-]){option}(?![\w-])", shown)] == []
