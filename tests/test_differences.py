"""The page on differences from the official code names a test in every row, and the named tests exist."""

import re
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs" / "differences.md").read_text()


def find_test_files():
    """Map the stem of every test file to its paths; the page names files by their stems."""
    files = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        files.setdefault(path.stem, []).append(path)
    return files


def test_every_named_test_exists():
    named = set(re.findall(r"`(test_\w+)::(test_\w+)`", PAGE))
    files = find_test_files()
    ambiguous = [file for file, _ in named if len(files.get(file, [])) > 1]
    assert ambiguous == []
    missing = [
        (file, test) for file, test in named if file not in files or f"\ndef {test}(" not in files[file][0].read_text()
    ]
    assert len(named) > 60 and missing == []


def test_every_row_says_what_is_there_what_is_here_and_why_and_has_a_test():
    rows = [line.strip("|").split(" | ") for line in PAGE.splitlines() if line.startswith("| ")]
    rows = [row for row in rows if row[0].strip() != "official code"]
    assert len(rows) > 40
    for row in rows:
        official, here, why, tests = map(str.strip, row)
        assert official and here and why, row
        assert re.fullmatch(r"`test_\w+::test_\w+`(, `test_\w+::test_\w+`)*", tests), row
