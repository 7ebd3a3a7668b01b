"""A report as one HTML file that needs no other: sections of words, figures and tables."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from string import Template

import matplotlib
from matplotlib.figure import Figure

from cream.report.figures import BLUE, INK

DPI = 200  # of what is drawn as dots because there is so much of it
LARGEST = 1.25  # times its size: how far a figure may grow on a large screen
NARROW = 5  # inches: a figure that a telephone can show in full, with words that can be read

STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --page: #ffffff; --soft: #f3f5f7; --rule: #d0d7de; --link: #0072b2 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --page: #14171c; --soft: #1f242c; --rule: #3a424d; --link: #56b4e9 }
}
* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, sans-serif }
main { max-width: 60rem; margin: 0 auto; padding: 1rem 1rem 4rem }
h1 { font-size: 1.6rem; line-height: 1.25; overflow-wrap: anywhere }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem; border-bottom: 1px solid var(--rule); padding-bottom: .25rem }
p { max-width: 44rem; margin: .5rem 0; overflow-wrap: anywhere }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; padding: 0; list-style: none }
a { color: var(--link) }
code { font: .9em ui-monospace, monospace; background: var(--soft); padding: .1em .3em; overflow-wrap: anywhere }
figure { margin: 1rem 0 }
.scroll { overflow-x: auto }
svg { display: block; height: auto; color: var(--ink) }
svg.fits { width: 100% }
svg text { font-family: system-ui, sans-serif }
table { border-collapse: collapse; font-size: .875rem; margin: .5rem 0; font-variant-numeric: tabular-nums }
caption { text-align: left; font-weight: 600; padding: .25rem 0 }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--rule); text-align: left; vertical-align: top }
th, td { white-space: nowrap }
td.number { text-align: right }
.facts td:last-child { white-space: normal; overflow-wrap: anywhere }
tbody tr:nth-child(even) { background: var(--soft) }
summary { cursor: pointer; padding: .4rem 0; color: var(--link) }
"""

PAGE = Template(
    """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>$style</style>
</head>
<body>
<main>
<h1>$title</h1>
<nav aria-label="Sections"><ul>$links</ul></nav>
$sections
</main>
</body>
</html>
"""
)


@dataclass(frozen=True)
class Picture:
    """A figure, the name of its file, and the words that stand for it where it cannot be seen."""

    name: str
    figure: Figure
    words: str


@dataclass(frozen=True)
class Table:
    """Rows of texts and numbers, or of a name and its value; a table that is ``folded`` opens at a click."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[object]]
    folded: bool = False


@dataclass(frozen=True)
class Section:
    """Paragraphs, then a picture if there is one, then tables."""

    title: str
    paragraphs: Sequence[str]
    picture: Picture | None = None
    tables: Sequence[Table] = field(default_factory=tuple)


def page(title: str, sections: Sequence[Section]) -> str:
    """The whole document; all texts are escaped, and nothing in it is loaded from elsewhere."""
    links = "".join(f'<li><a href="#section-{i}">{escape(one.title)}</a></li>' for i, one in enumerate(sections))
    return PAGE.substitute(
        title=escape(title),
        style=STYLE,
        links=links,
        sections="\n".join(_section(number, one) for number, one in enumerate(sections)),
    )


def _section(number: int, section: Section) -> str:
    parts = [f'<section aria-labelledby="section-{number}">', f'<h2 id="section-{number}">{escape(section.title)}</h2>']
    parts += [f"<p>{escape(text)}</p>" for text in section.paragraphs]
    if section.picture is not None:
        parts.append(_picture(section.picture))
    parts += [_table(table) for table in section.tables]
    return "\n".join([*parts, "</section>"])


def _picture(picture: Picture) -> str:
    """A wide figure keeps its size and scrolls on a small screen; others shrink with it."""
    wide = picture.figure.get_figwidth() > NARROW
    content = svg(picture.figure, picture.name, picture.words, "wide" if wide else "fits")
    return f"<figure>{_scrolling(content, picture.words) if wide else content}</figure>"


def _scrolling(content: str, label: str) -> str:
    """Content that may be wider than the screen, within reach of the keyboard."""
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(label)}">{content}</div>'


def _table(table: Table) -> str:
    header = "".join(f'<th scope="col">{escape(name)}</th>' for name in table.header)
    rows = "".join(f"<tr>{''.join(map(_cell, row))}</tr>\n" for row in table.rows)
    caption = "" if table.folded else f"<caption>{escape(table.caption)}</caption>"
    kind = ' class="facts"' if len(table.header) == 2 else ""
    content = _scrolling(
        f"<table{kind}>{caption}<thead><tr>{header}</tr></thead>\n<tbody>{rows}</tbody></table>", table.caption
    )
    return f"<details><summary>{escape(table.caption)}</summary>{content}</details>" if table.folded else content


def _cell(value: object) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f'<td class="number">{number(value)}</td>'
    return f"<td>{escape(str(value))}</td>"


def number(value: float) -> str:
    """Whole numbers whole, others with four figures or, from 10 on, two places; a dash where there is none."""
    if isinstance(value, int):
        return str(value)
    if not math.isfinite(value):
        return "-"
    return f"{value:.2f}" if abs(value) >= 10 else f"{value:#.4g}"


def svg(figure: Figure, name: str, words: str, css_class: str) -> str:
    """The figure as an element of a page: in the page's colours, with ids of its own and without links."""
    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(file, format="svg", dpi=DPI, transparent=True, metadata={"Date": None})
    text = file.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.S)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)  # the page's own
    text = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{name}-", text)
    text = text.replace(INK, "currentColor").replace(BLUE, "var(--link)")
    limit = f"max-width: {LARGEST * figure.get_figwidth():.1f}in"
    return text.replace("<svg", f'<svg class="{css_class}" style="{limit}" role="img" aria-label="{escape(words)}"', 1)
