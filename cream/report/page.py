"""A page of sections with text, figures and tables, as a single HTML file that loads no other file."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from string import Template
from xml.etree import ElementTree

import matplotlib
from matplotlib.figure import Figure

from cream.report.figures import BLUE, INK

DPI = 200  # resolution of the points of a figure that are drawn as pixels
LARGEST = 1.25  # a figure grows on a large screen to at most so many times its size
NARROW = 5  # inches; a figure of at most this width shrinks to fit a telephone, and its text stays readable
PAGE_COLOURS = {INK: "currentColor", BLUE: "var(--link)"}  # what follows the page, which may be light or dark
NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))

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
svg text { font-family: system-ui, sans-serif !important }
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
    """A figure, the name of its file, and a description for those who cannot see the figure."""

    name: str
    figure: Figure
    words: str


@dataclass(frozen=True)
class Table:
    """A table of texts and numbers; if ``folded``, the page shows only its caption until that is clicked."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[object]]
    folded: bool = False


@dataclass(frozen=True)
class Section:
    """A section of a page: paragraphs, then a picture if there is one, then tables."""

    title: str
    paragraphs: Sequence[str]
    picture: Picture | None = None
    tables: Sequence[Table] = field(default_factory=tuple)


def page(title: str, sections: Sequence[Section]) -> str:
    """Write the whole HTML document, with all texts escaped."""
    links = "".join(
        f'<li><a href="#section-{number}">{escape(section.title)}</a></li>' for number, section in enumerate(sections)
    )
    return PAGE.substitute(
        title=escape(title),
        style=STYLE,
        links=links,
        sections="\n".join(_section(number, section) for number, section in enumerate(sections)),
    )


def _section(number: int, section: Section) -> str:
    parts = [f'<section aria-labelledby="section-{number}">', f'<h2 id="section-{number}">{escape(section.title)}</h2>']
    parts += [f"<p>{escape(text)}</p>" for text in section.paragraphs]
    if section.picture is not None:
        parts.append(_picture(section.picture))
    parts += [_table(table) for table in section.tables]
    return "\n".join([*parts, "</section>"])


def _picture(picture: Picture) -> str:
    """Write a picture, which on a small screen shrinks if it is narrow, and scrolls if it is wide."""
    wide = picture.figure.get_figwidth() > NARROW
    content = svg(picture.figure, picture.name, picture.words, "wide" if wide else "fits")
    return f"<figure>{_scrolling(content, picture.words) if wide else content}</figure>"


def _scrolling(content: str, label: str) -> str:
    """Wrap content that may be wider than the screen, so that it can be scrolled, also by keyboard."""
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
    """Write a number for a table.

    Integers are written in full. Other numbers have two decimal places from 10 on, and four significant digits below;
    what is not finite is a dash.
    """
    if isinstance(value, int):
        return str(value)
    if not math.isfinite(value):
        return "-"
    return f"{value:.2f}" if abs(value) >= 10 else f"{value:#.4g}"


def svg(figure: Figure, name: str, words: str, css_class: str) -> str:
    """Draw a figure as an ``<svg>`` element that takes its colours and its font from the page.

    Args:
        figure: the figure.
        name: a name that no other figure of the page has; it makes the ids in the element unique.
        words: the description for those who cannot see the figure.
        css_class: the class of the element.
    """
    file = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(file, format="svg", dpi=DPI, transparent=True, metadata=NO_METADATA)
    root = ElementTree.fromstring(file.getvalue())
    for element in root.iter():
        _make_inline(element)
    limit = f"max-width: {LARGEST * figure.get_figwidth():.1f}in"
    root.attrib.update({"class": css_class, "style": limit, "role": "img", "aria-label": words})
    return ElementTree.tostring(root, encoding="unicode")


def _make_inline(element: ElementTree.Element) -> None:
    """Adapt an element of an SVG file to an HTML page: no namespaces, no ids that figures share, the page's colours."""
    element.tag = _local_name(element.tag)
    attributes = {_local_name(name): value for name, value in element.attrib.items()}
    if element.tag == "g":  # matplotlib numbers groups in every figure from 1; no link leads to a group
        attributes.pop("id", None)
    if "style" in attributes:
        for colour, page_colour in PAGE_COLOURS.items():
            attributes["style"] = attributes["style"].replace(colour, page_colour)
    element.attrib.clear()
    element.attrib.update(attributes)


def _local_name(name: str) -> str:
    """Return the name of an element or attribute without its namespace."""
    return name.rpartition("}")[2]
