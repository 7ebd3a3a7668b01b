"""Sections of timm-parity.md on timm's models and on the options of its scripts."""

from __future__ import annotations

import ast
import zipfile
from pathlib import Path

import yaml

from pimm import options

FOLDER = Path(__file__).parent
OPTIONS = FOLDER / "timm_script_options.yaml"
SCRIPTS = {  # timm's: ours
    "train.py": "tools/pimm_train.py",
    "validate.py": "tools/pimm_validate.py",
    "inference.py": "tools/pimm_inference.py",
}

PARSERS = {
    "tools/pimm_train.py": options.make_train_parser,
    "tools/pimm_validate.py": options.make_validate_parser,
    "tools/pimm_inference.py": options.make_inference_parser,
}

OLD_NAMES_NOTE = (
    "Names of 0.1.20 that are missing are sets of weights of other names, or other spellings of them. In timm 1.x they "
    "are tags: `tf_efficientnet_b0_ap` is `tf_efficientnet_b0.ap_in1k`."
)
EDGE_NOTE = (
    "With the same weights both versions compute the same logits, except for `tf_efficientnet_es`, `em` and `el`: 1.x "
    "has the stride in the 3x3 convolution, and 0.1.20 in the 1x1 convolution behind it. pimm follows 1.x; "
    "`create_model(name, stride_in_expansion=False)`, or `--model-kwargs stride_in_expansion=False` of the scripts, "
    "follows 0.1.20. `tests/parity/test_timm_models.py` compares every model with both versions."
)


# Models


def registered_models(wheel):
    """Return the names of the functions under ``@register_model`` by file of ``timm/models``."""
    found = {}
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.namelist():
            if entry.startswith("timm/models/") and entry.endswith(".py"):
                tree = ast.parse(archive.read(entry))
                names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and _is_registered(node)}
                if names:
                    found[Path(entry).stem] = names
    return found


def _is_registered(node):
    return any(getattr(decorator, "id", "") == "register_model" for decorator in node.decorator_list)


def model_section(wheels):
    """Return the lines of the section that counts models by family, for ``{version: wheel}``."""
    import pimm

    ours = {name for name in pimm.list_models() if pimm.model_entrypoint(name).__module__.startswith("pimm.")}
    lines = ["", "## models", "", "| family | version | models | here | missing |", "|---|---|---|---|---|"]
    for version, wheel in wheels.items():
        families = registered_models(wheel)
        rest = {family: names for family, names in families.items() if not names & ours}
        for family, names in sorted(families.items()):
            if family not in rest:
                missing = ", ".join(f"`{name}`" for name in sorted(names - ours)) or "none"
                lines.append(f"| {family} | {version} | {len(names)} | {len(names & ours)} | {missing} |")
        count = sum(map(len, rest.values()))
        named = ", ".join(f"`{family}`" for family in sorted(rest))
        lines.append(
            f"| {len(rest)} other families | {version} | {count} | 0 | all; families come by their use: {named} |"
        )
    only = ours - set().union(*(names for wheel in wheels.values() for names in registered_models(wheel).values()))
    own = ", ".join(f"`{name}`" for name in sorted(only)) or "none"
    lines += ["", f"Models of pimm that neither version has under the same name: {own}."]
    return [*lines, "", OLD_NAMES_NOTE, "", EDGE_NOTE]


# Scripts


def taken_options(script):
    """Return the option names, without dashes, of one of our scripts."""
    return {text.lstrip("-") for action in PARSERS[script]()._actions for text in action.option_strings}


def compare_options():
    """Return ``{timm's script: (its options, those that ours does not take)}`` and ``{option: reason}``."""
    table = yaml.safe_load(OPTIONS.read_text())
    reasons = {option: reason for reason, names in table["missing"].items() for option in names.split()}
    found = {}
    for script, ours in SCRIPTS.items():
        theirs, taken = table["options"][script].split(), taken_options(ours)
        found[script] = theirs, [option for option in theirs if option not in taken]
    return found, reasons


def script_problems():
    """Return what is wrong with the table of options, in lines."""
    found, reasons = compare_options()
    missing = {option for _, lacking in found.values() for option in lacking}
    problems = [f"no reason for the missing option --{option}" for option in sorted(missing - reasons.keys())]
    return problems + [f"a reason for --{option}, which is taken" for option in sorted(reasons.keys() - missing)]


def script_section():
    """Return the lines of the section on the options of the scripts."""
    found, reasons = compare_options()
    lines = ["", "## scripts", "", "| timm's script | here | options | taken | missing |", "|---|---|---|---|---|"]
    for script, (names, lacking) in found.items():
        counts = f"{len(names)} | {len(names) - len(lacking)} | {len(lacking)}"
        lines.append(f"| `{script}` | `{SCRIPTS[script]}` | {counts} |")
    lines += ["", "| missing option | of | why |", "|---|---|---|"]
    by_reason = {}
    for script, (_, lacking) in found.items():
        for option in lacking:
            by_reason.setdefault(reasons[option], {}).setdefault(f"`--{option}`", []).append(f"`{script}`")
    for reason, names in by_reason.items():
        scripts = sorted({script for named in names.values() for script in named})
        lines.append(f"| {', '.join(names)} | {', '.join(scripts)} | {reason} |")
    return lines
