"""Write the two scripts of ``porting/`` side by side into ``porting.md``; with ``--check``, only compare.

The page marks lines that differ with ``-`` and ``+``. ``--check`` exits with 1 if the page is out of date.
"""

from __future__ import annotations

import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
BEGIN, END = "<!-- made by make_porting.py -->", "<!-- end -->"


def read_pair():
    """Return the lines of timm's script and of pimm's, which must be equally many; SystemExit otherwise."""
    timm, pimm = ((DOCS / "porting" / f"train_{name}.py").read_text().splitlines() for name in ("timm", "pimm"))
    if len(timm) != len(pimm):
        raise SystemExit(f"the scripts have {len(timm)} and {len(pimm)} lines; a port changes lines and adds none")
    return timm, pimm


def differing_lines():
    """List the pairs of lines that differ."""
    return [(old, new) for old, new in zip(*read_pair()) if old != new]


def render():
    """Return both scripts as a table with two columns."""
    timm, pimm = read_pair()
    columns = [
        "\n".join(f"{mark if old != new else ' '} {line}".rstrip() for line, old, new in zip(lines, timm, pimm))
        for mark, lines in (("-", timm), ("+", pimm))
    ]
    cells = "\n".join(f'<td valign="top">\n\n```diff\n{column}\n```\n\n</td>' for column in columns)
    return f"<table>\n<tr><th>timm on PyTorch</th><th>pimm on Paddle</th></tr>\n<tr>\n{cells}\n</tr>\n</table>"


def with_table(text):
    """Return the page's text with the table made from the current scripts."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n\n{render()}\n\n{END}{rest.split(END)[1]}"


def main(argv):
    """Write the page, or compare the page with the scripts; return the exit code."""
    path = DOCS / "porting.md"
    text = path.read_text()
    if "--check" in argv:
        return int(with_table(text) != text)
    path.write_text(with_table(text))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
