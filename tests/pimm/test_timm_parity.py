"""docs/timm-parity.md against the code: what it says is here is here, and what it says is missing is missing."""

import importlib
import inspect
import re

import pytest
import yaml
from paths import ROOT

DOCS = ROOT / "docs"
PAGE = (DOCS / "timm-parity.md").read_text()
NAME = r"`(\w+)`"


def sections():
    """``(package, text)`` of the page's parts."""
    for part in re.split(r"^## ", PAGE, flags=re.M)[1:]:
        package, text = part.split("\n", 1)
        yield package, text


def present():
    """``(module, name)`` of all that the page says is here."""
    for _, text in sections():
        for module, names in re.findall(r"^As in timm, `([\w.]+)`: (.*)\.$", text, flags=re.M):
            yield from ((module, name) for name in re.findall(NAME, names))
        for name, module in re.findall(rf"^\| {NAME}(?:\\\*)?, `(pimm[\w.]*)` \|", text, flags=re.M):
            yield module, name


def missing():
    """``(package, name, reason)`` of all that the page says is missing."""
    for package, text in sections():
        for table in re.findall(r"^\| missing \| why \|\n\|---\|---\|\n((?:\|.*\n)*)", text, flags=re.M):
            for names, reason in re.findall(r"^\| (.*) \| (.*) \|$", table, flags=re.M):
                yield from ((package, name, reason) for name in re.findall(NAME, names))


def counts():
    """``{(package, version): (names, as in timm, other arguments, missing)}`` of the page's first table."""
    rows = re.findall(r"^\| (\w+) \| ([\d.]+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", PAGE, flags=re.M)
    return {(package, version): tuple(map(int, numbers)) for package, version, *numbers in rows}


@pytest.mark.parametrize("module", sorted({module for module, _ in present()}))
def test_what_is_said_to_be_here_is_here(module):
    names = [name for where, name in present() if where == module]
    assert [name for name in names if not hasattr(importlib.import_module(module), name)] == []


def test_what_is_said_to_be_missing_is_missing():
    found = [
        f"pimm.{package}.{name}"
        for package, name, _ in missing()
        if not inspect.ismodule(getattr(importlib.import_module(f"pimm.{package}"), name, inspect))
    ]
    assert found == []


def test_every_reason_is_one_of_the_table():
    table = yaml.safe_load((DOCS / "timm_parity_reasons.yaml").read_text())
    assert {reason for _, _, reason in missing()} == set(table["missing"])
    assert all(reason in PAGE for reason in table["differs"])


def test_the_counts_are_those_of_the_lists():
    table = counts()
    assert len(table) == 10 and all(names == sum(parts) for names, *parts in table.values())
    stars = len(re.findall(rf"{NAME}\\\*", PAGE))
    assert sum(numbers[0] for (_, version), numbers in table.items() if version == "0.1.20") == stars
    listed = len(list(present())) + len(list(missing()))
    newest = sum(numbers[0] for (_, version), numbers in table.items() if version == "1.0.31")
    assert newest <= listed <= newest + stars
