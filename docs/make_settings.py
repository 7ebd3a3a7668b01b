"""Write ``settings.md`` from the schema of the settings; ``--check`` only says whether it is up to date."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_type_hints

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from cream.config.bounds import CHOICES, TRAININGS
from cream.config.keys import ALIASES, CHANGEABLE, INERT, KEYS, SELECTABLE, Key
from cream.config.schema import Config
from cream.fields import type_words

PAGE = ROOT / "docs" / "settings.md"

# Commands of the jobs that the schema names.
TOOLS = {
    "search": "train.py",
    "retrain": "retrain.py",
    "test": "test.py",
    "select": "select.py",
    "latency": "latency.py",
    "spos_supernet": "spos_supernet.py",
    "spos_search": "spos_search.py",
    "spos_scratch": "spos_scratch.py",
}

GROUPS = {"trainings": set(TRAININGS), "selections": set(CHOICES)}

HEAD = """# Settings

<!-- made by make_settings.py from cream/config/schema.py and search_schema.py -->

A job reads its settings from a YAML file (`--cfg FILE`) and from the command line, as `KEY=VALUE` or
`SECTION.KEY=VALUE`; the command line replaces values of the file. A key that neither gives has its default. Values may
be written as in Python or as in YAML: `1e-4`, `(0.05, 0.2)`, `[[0], [3, 1]]`, `None`, `true`. A mistake ends the job
with one line that names the key and its file and line. `--help` of each tool lists the keys of its job.

**Source** says where a key comes from: microsoft/Cream (official), NNI, or this project (ours). **Read by** names the
tools: *trainings* are `train.py`, `retrain.py`, `spos_supernet.py` and `spos_scratch.py`; *selections* are `select.py`
and `spos_search.py`; `rank_correlation.py` reads its recipe as `retrain.py` does. A resumed training may change the
keys marked with ↻. A selection among the paths of a finished search may change the keys marked with ⇄.
"""


def sections(kind: type, prefix: str = "") -> Iterator[tuple[str, type]]:
    """List the sections of the schema with their dataclasses, the top first."""
    yield prefix, kind
    for item in dataclasses.fields(kind):
        below = get_type_hints(kind)[item.name]
        if dataclasses.is_dataclass(below):
            yield from sections(below, f"{prefix}{item.name}.")


def cell(text: str) -> str:
    """Return a text as a cell of a table."""
    return text.replace("|", "\\|").replace("\n", " ").strip()


def readers(jobs: set[str]) -> str:
    """Name the tools of these jobs, in groups where all of a group are among them."""
    if jobs == set(TOOLS):
        return "all"
    found = []
    for words, group in GROUPS.items():
        if jobs >= group:
            found.append(words)
            jobs = jobs - group
    return ", ".join([*found, *(tool for job, tool in TOOLS.items() if job in jobs)])


def row(name: str, known: Key) -> str:
    """Return the row of one key."""
    marks = "".join(mark for mark, names in ((" ↻", CHANGEABLE), (" ⇄", SELECTABLE)) if name in names)
    default = "empty" if known.default == "" else f"`{known.default}`"
    value = type_words(known.kind, known.rule) + (f" [{known.unit}]" if known.unit else "")
    cells = (f"`{name}`{marks}", value, default, known.text, known.source, readers(set(known.jobs)))
    return f"| {' | '.join(map(cell, cells))} |"


def render() -> str:
    """Return the page as it should be."""
    parts = [HEAD]
    for prefix, kind in sections(Config):
        names = [name for name in KEYS if name.rpartition(".")[0] == prefix.rstrip(".")]
        parts += [f"## {prefix.rstrip('.') or 'The run'}\n", f"{kind.__doc__}\n"]
        parts += ["| key | value | default | meaning | source | read by |\n|---|---|---|---|---|---|"]
        parts += [*(row(name, KEYS[name]) for name in names), ""]
    parts += ["## Other names\n", "NNI's names and places of two keys:\n"]
    parts += [*(f"- `{other}` is `{name}`" for other, name in ALIASES.items()), ""]
    parts += [
        "## Keys without effect\n",
        "Files may hold them; other values than the official ones are noted.\n",
    ]
    parts += [*(f"- `{name}`: {inert.why}" for name, inert in INERT.items()), ""]
    return "\n".join(parts)


def main(argv: list[str]) -> int:
    """Write the page, or with ``--check`` return 1 where it is out of date."""
    if "--check" in argv:
        return int(PAGE.read_text(encoding="utf-8") != render())
    PAGE.write_text(render(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
