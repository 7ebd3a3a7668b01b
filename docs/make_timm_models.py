"""Write ``pimm/models/timm_models.json`` and ``timm_old_names.json``: facts about every model of timm.

``python docs/make_timm_models.py`` needs timm 1.0.31 and torch. The first file holds the settings of every set of
weights, as ``{module: {name: {tag: fields}}}``; fields that are as `PretrainedCfg` has them are left out. The first tag
of a model is the default one. The second file holds the names that timm has replaced, as ``{module: {old: current}}``.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, fields
from pathlib import Path

import timm
from timm.models import get_arch_pretrained_cfgs

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pimm.models.pretrained_cfg import PretrainedCfg
from pimm.models.timm_table import OLD_NAMES, TABLE

VERSION = "1.0.31"
_GIVEN = {"architecture", "tag"}  # by the place in the table


def told(cfg) -> dict:
    """Return the fields of timm's settings that differ from the defaults here."""
    defaults, found = asdict(PretrainedCfg()), asdict(cfg)
    unknown = {name for name, value in found.items() if name not in defaults and value is not None}
    if unknown:
        raise SystemExit(f"{cfg.architecture}: PretrainedCfg has no {', '.join(sorted(unknown))}")
    names = [field.name for field in fields(PretrainedCfg) if field.name not in _GIVEN]
    return {name: found[name] for name in names if found[name] != defaults[name]}


def tags(name: str) -> dict:
    """Return ``{tag: fields}`` of a model, the default tag first."""
    found = get_arch_pretrained_cfgs(name)
    default = timm.models.get_pretrained_cfg(name)
    ordered = sorted(found.values(), key=lambda cfg: cfg.tag != default.tag)
    return {cfg.tag or "": told(cfg) for cfg in ordered}


def table() -> dict:
    """Return the whole table, modules and names in natural order."""
    return {
        module: {name: tags(name) for name in timm.list_models(module=module)} for module in timm.models.list_modules()
    }


def write(content: dict) -> None:
    """Write the table with a line for each set of weights, so that changes can be read."""
    modules = []
    for module, models in sorted(content.items()):
        names = []
        for name, cfgs in models.items():
            rows = [f"   {json.dumps(tag)}: {json.dumps(cfg, separators=(',', ':'))}" for tag, cfg in cfgs.items()]
            names.append(f"  {json.dumps(name)}: {{\n" + ",\n".join(rows) + "\n  }")
        modules.append(f" {json.dumps(module)}: {{\n" + ",\n".join(names) + "\n }")
    TABLE.write_text("{\n" + ",\n".join(modules) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    if timm.__version__ != VERSION:
        raise SystemExit(f"timm is {timm.__version__}, the table is of {VERSION}")
    write(table())
    replaced = {module: timm.models.get_deprecated_models(module) for module in timm.models.list_modules()}
    OLD_NAMES.write_text(json.dumps({key: names for key, names in replaced.items() if names}, indent=1) + "\n")
