"""Write the two scripts of ``porting/`` side by side into ``porting.md``; ``--check`` only says whether they are there.

Lines that differ are marked with ``-`` and ``+``.
"""

from __future__ import annotations

import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
BEGIN, END = "<!-- made by make_porting.py -->", "<!-- end -->"


def read_pair():
    """The lines of both scripts, of which there are equally many."""
    timm, pimm = ((DOCS / "porting" / f"train_{name}.py").read_text().splitlines() for name in ("timm", "pimm"))
    if len(timm) != len(pimm):
        raise SystemExit(f"the scripts have {len(timm)} and {len(pimm)} lines; a port changes lines and adds none")
    return timm, pimm


def differing_lines():
    """Pairs of lines that differ."""
    return [(old, new) for old, new in zip(*read_pair()) if old != new]


def render():
    """The table of both, for the document."""
    timm, pimm = read_pair()
    columns = [
        "\n".join(f"{mark if old != new else ' '} {line}".rstrip() for line, old, new in zip(lines, timm, pimm))
        for mark, lines in (("-", timm), ("+", pimm))
    ]
    cells = "\n".join(f'<td valign="top">\n\n```diff\n{column}\n```\n\n</td>' for column in columns)
    return f"<table>\n<tr><th>timm on PyTorch</th><th>pimm on Paddle</th></tr>\n<tr>\n{cells}\n</tr>\n</table>"


def with_table(text):
    """The document with the table as it should be now."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n\n{render()}\n\n{END}{rest.split(END)[1]}"


def main(argv):
    path = DOCS / "porting.md"
    text = path.read_text()
    if "--check" in argv:
        return int(with_table(text) != text)
    path.write_text(with_table(text))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
