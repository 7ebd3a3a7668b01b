"""The page on where this parts from the official code names a test in every row, and tests that exist."""

import re
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs" / "differences.md").read_text()
FILES = {path.stem: path.read_text() for path in TESTS.rglob("test_*.py")}


def test_every_named_test_exists():
    named = set(re.findall(r"`(test_\w+)::(test_\w+)`", PAGE))
    missing = [(file, test) for file, test in named if f"\ndef {test}(" not in FILES[file]]
    assert len(named) > 60 and missing == []


def test_every_row_says_what_is_there_what_is_here_and_why_and_has_a_test():
    rows = [line.strip("|").split(" | ") for line in PAGE.splitlines() if line.startswith("| ")]
    rows = [row for row in rows if row[0].strip() != "official code"]
    assert len(rows) > 40
    for row in rows:
        official, here, why, tests = map(str.strip, row)
        assert official and here and why, row
        assert re.fullmatch(r"`test_\w+::test_\w+`(, `test_\w+::test_\w+`)*", tests), row
