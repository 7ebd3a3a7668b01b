"""The sections of docs/timm-parity.md on models and scripts against the code."""

import re
import sys
from pathlib import Path

import pytest

import pimm

DOCS = Path(__file__).parents[2] / "docs"
sys.path.insert(0, str(DOCS))

from timm_models_and_scripts import SCRIPTS, compare_options, script_problems, script_section  # noqa: E402

PAGE = (DOCS / "timm-parity.md").read_text()


def test_every_missing_option_has_a_reason():
    assert script_problems() == []


def test_the_page_is_that_of_the_scripts():
    assert "\n".join(script_section()) in PAGE


@pytest.mark.parametrize("script", SCRIPTS)
def test_counts_of_options(script):
    options, missing = compare_options()[0][script]
    assert len(set(options)) == len(options)
    row = re.search(rf"^\| `{re.escape(script)}` \| `[\w/.]+` \| (\d+) \| (\d+) \| (\d+) \|$", PAGE, flags=re.M)
    assert tuple(map(int, row.groups())) == (len(options), len(options) - len(missing), len(missing))


def test_models_that_are_said_to_be_missing_are_missing():
    section = PAGE.partition("\n## models\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([\w ]+) \| ([\d.]+) \| (\d+) \| (\d+) \| (.*) \|$", section, flags=re.M)
    assert len(rows) > 4
    for _, _, count, here, text in rows:
        missing = re.findall(r"`(\w+)`", text)
        assert not set(missing) & set(pimm.list_models())
        assert int(count) == int(here) + (len(missing) if int(here) else int(count))
    own = re.findall(r"`(\w+)`", section.rpartition("under the same name: ")[2].partition("\n")[0])
    assert set(own) <= set(pimm.list_models())
