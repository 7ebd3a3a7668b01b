"""Settings written as YAML."""

from __future__ import annotations

import functools
from typing import Any

import yaml

from cream.config.keys import KEYS, get
from cream.config.schema import Config
from cream.yaml_text import OneLine

# Written even where they equal the defaults, so that the record of a run says what it was.
ESSENTIAL = {
    *("DATA_DIR", "MODEL", "SAVE_PATH", "SEED", "OPT", "SCHED", "LR", "EPOCHS"),
    *("DATASET.NUM_CLASSES", "DATASET.IMAGE_SIZE", "DATASET.BATCH_SIZE"),
}


class _Dumper(yaml.SafeDumper):
    """Writes tuples as lists on one line, and short mappings on one line."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_representer(
    tuple, lambda dumper, value: dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=True)
)
_Dumper.add_representer(
    OneLine, lambda dumper, value: dumper.represent_mapping("tag:yaml.org,2002:map", value, flow_style=True)
)


def dump(cfg: Config) -> str:
    """Return YAML text that loads back equal: the keys that differ from their defaults, and the essential ones."""
    tree: dict[str, Any] = {}
    for name, known in KEYS.items():
        value = get(cfg, name)
        if value != known.default or name in ESSENTIAL:
            *sections, last = name.split(".")
            functools.reduce(lambda branch, part: branch.setdefault(part, {}), sections, tree)[last] = value
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, default_flow_style=False, allow_unicode=True, width=1000)
