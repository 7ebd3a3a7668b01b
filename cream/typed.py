"""Commands as people type them: the scripts of a clone, or the commands of an installation that has no scripts."""

from __future__ import annotations

from pathlib import Path

# The command that an installation has for a script of tools/.
COMMANDS = {
    "train": "cream-search",
    "retrain": "cream-retrain",
    "test": "cream-test",
    "select": "cream-select",
    "latency": "cream-latency",
    "rank_correlation": "cream-rank-correlation",
    "report": "cream-report",
    "export": "cream-export",
    "predict": "cream-predict",
    "demo": "cream-demo",
    "generate_subImageNet": "cream-sub-imagenet",
    "spos_supernet": "spos-supernet",
    "spos_search": "spos-search",
    "spos_scratch": "spos-scratch",
}

_TOOLS = Path(__file__).parents[1] / "tools"


def script(tool: str) -> str:
    """Return what names a command here, and for the launcher: ``tools/train.py`` in a clone, or ``cream-search``."""
    return f"tools/{tool}.py" if (_TOOLS / f"{tool}.py").is_file() else COMMANDS[tool]


def command(tool: str) -> str:
    """Return the first words of a command: ``python tools/train.py`` in a clone, or ``cream-search``."""
    named = script(tool)
    return f"python {named}" if named.endswith(".py") else named
