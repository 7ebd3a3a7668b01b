"""Write timm-parity.md: which names of timm's packages pimm has with the same arguments, its models, and its scripts.

    pip download --no-deps timm==0.1.20 timm==1.0.31
    python docs/make_timm_parity.py timm-0.1.20-py3-none-any.whl timm-1.0.31-py3-none-any.whl

The wheels are read as text, not imported. The reasons for what is missing or differs are in timm_parity_reasons.yaml,
the options of timm's scripts, which the wheels do not carry, in timm_script_options.yaml. Nothing is written while a
name or an option has no reason, or a reason has no name.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import fnmatch
import importlib
import inspect
import pkgutil
import sys
import zipfile
from pathlib import Path

import yaml

FOLDER = Path(__file__).parent
sys.path[:0] = [str(FOLDER.parent), str(FOLDER)]

from timm_interface import interface_section
from timm_models_and_scripts import model_section, script_problems, script_section

INTRO = """# What of timm is here

This page lists the public functions, classes and constants of timm's `data`, `layers`, `loss`, `optim`, `scheduler`
and `utils`, in version 0.1.20 (for which Cream was written; its names have a star) and in 1.0.31, and what pimm has of
each. A name is *as in timm* if it takes all of timm's arguments under their names, at their positions and with their
defaults; it may take more. Where the two versions differ, the newer one counts. In the table, a name of 0.1.20 is as in
timm if it takes all arguments of that version by keyword, whatever their defaults. Of timm's `models` the page counts
the models by family and compares their interface; the blocks inside its model files are not compared. At the end are
the options of timm's scripts.

The page is generated, and `tests/pimm/test_timm_parity.py` and `tests/pimm/test_timm_scripts.py` hold it to the code:

    pip download --no-deps timm==0.1.20 timm==1.0.31
    python docs/make_timm_parity.py timm-0.1.20-py3-none-any.whl timm-1.0.31-py3-none-any.whl

The reasons are in `docs/timm_parity_reasons.yaml` and `docs/timm_script_options.yaml`; without a reason for each name
the page is not written.
"""
PACKAGES = ("data", "layers", "loss", "optim", "scheduler", "utils")
OLD, TODAY = "0.1.20", "1.0.31"
UNKNOWN = object()  # a default that is not a literal
NEEDED = inspect.Parameter.empty
GLOBAL = ("device", "dtype")  # arguments that Paddle has no use for: it sets both globally
STATUSES = ("same", "differs", "missing")


@dataclasses.dataclass
class Name:
    """Describe a public name of one version of timm: where it is defined, and its arguments or its value."""

    package: str
    name: str
    module: str  # inside the package, "" for its __init__
    exported: bool = False
    arguments: dict = None  # name: default, or NEEDED; None if they are unknown
    by_keyword: frozenset = frozenset()  # arguments that are keyword-only
    value: object = UNKNOWN

    @property
    def keys(self):
        """Return the texts that patterns in the table of reasons may match."""
        return {f"{self.package}.{self.name}", f"{self.package}.{self.module}.{self.name}"}


@dataclasses.dataclass
class Finding:
    """Describe what pimm has of a name: its module, the differences in words, and their reason."""

    theirs: Name
    module: str = ""
    differences: list = dataclasses.field(default_factory=list)
    gone: list = dataclasses.field(default_factory=list)  # arguments of 0.1.20 that pimm does not take
    reason: str = ""

    @property
    def status(self):
        if not self.module:
            return "missing"
        return "differs" if self.differences else "same"

    @property
    def status_of_old(self):
        """Return the status for callers of 0.1.20: ``same`` if all arguments of that version are taken."""
        return "same" if self.status == "differs" and not self.gone else self.status


# Reading timm


def read_wheel(path):
    """Return the syntax trees ``{module: tree}`` of the packages, with module names below timm: ``utils.metrics``.

    The layers of 0.1.20 are in ``models.layers``.
    """
    trees = {}
    with zipfile.ZipFile(path) as wheel:
        entries = wheel.namelist()
        has_layers = "timm/layers/__init__.py" in entries
        for entry in entries:
            parts = entry[: -len(".py")].split("/")
            if parts[1:3] == ["models", "layers"] and not has_layers:
                del parts[1]
            if entry.endswith(".py") and parts[0] == "timm" and len(parts) > 1 and parts[1] in PACKAGES:
                if parts[-1] == "__init__":
                    parts.pop()
                trees[".".join(parts[1:])] = ast.parse(wheel.read(entry))
    return trees


def public_names(trees):
    """Return every public function, class and constant as ``{(package, name): Name}``, and note which are exported."""
    names = {}
    for module, tree in trees.items():
        package, _, inner = module.partition(".")
        for node in tree.body:
            for name in defined(node):
                found = Name(package, name, inner, exported=not inner)
                found.arguments, found.value = describe(node, module, trees)
                found.by_keyword = keyword_only(node)
                names.setdefault((package, name), found)
    for package in PACKAGES:
        for name in torch_exports(trees[package]):
            names[package, name] = Name(package, name, "", exported=True)
        for name in exports(package, trees):
            if (package, name) in names:
                names[package, name].exported = True
    return names


def torch_exports(tree):
    """Return the names that a package imports from PyTorch, whose arguments the wheel does not contain."""
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == "torch.optim"]
    return [alias.name for node in nodes for alias in node.names]


def defined(node):
    """Return the public names that a statement defines: functions, classes and constants."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        found = [node.name]
    else:
        targets = getattr(node, "targets", []) if isinstance(node, ast.Assign) else []
        found = [target.id for target in targets if isinstance(target, ast.Name) and target.id.isupper()]
    return [name for name in found if not name.startswith("_")]


def exports(module, trees):
    """Return the names that a package exports: its own, and those that it imports from its modules."""
    found = []
    for node in trees[module].body:
        found += defined(node)
        if isinstance(node, ast.ImportFrom) and node.level:
            source = f"{module}.{node.module}"
            for alias in node.names:
                found += exports(source, trees) if alias.name == "*" else [alias.asname or alias.name]
    return found


def describe(node, module, trees):
    """Return the arguments and the value of what a statement defines."""
    if isinstance(node, ast.FunctionDef):
        return arguments_of(node), UNKNOWN
    if isinstance(node, ast.ClassDef):
        return constructor(node, module, trees), UNKNOWN
    return None, literal(node.value)


def constructor(node, module, trees):
    """Return the arguments of a class or of its base class in the wheel; None if the base class is from elsewhere."""
    for child in node.body:
        if isinstance(child, ast.FunctionDef) and child.name == "__init__":
            return dict(list(arguments_of(child).items())[1:])
    for base in node.bases:
        found = class_named(getattr(base, "id", ""), module, trees)
        if found:
            return constructor(*found, trees)
    fields = [child for child in node.body if isinstance(child, ast.AnnAssign)]
    if fields and node.decorator_list:  # a dataclass
        return {field.target.id: literal(field.value) if field.value else NEEDED for field in fields}
    return None


def class_named(name, module, trees):
    """Return the class that ``name`` means in a module, and the module that defines the class."""
    package = module.rpartition(".")[0] or module
    for node in trees[module].body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return node, module
        if isinstance(node, ast.ImportFrom) and node.level == 1 and name in [alias.name for alias in node.names]:
            source = f"{package}.{node.module}"
            return class_named(name, source, trees) if source in trees else None
    return None


def arguments_of(node):
    """Return ``{name: default}`` of a function, without ``*args`` and ``**kwargs``."""
    spec = node.args
    positional = [*spec.posonlyargs, *spec.args]
    defaults = [NEEDED] * (len(positional) - len(spec.defaults)) + [literal(d) for d in spec.defaults]
    defaults += [literal(d) if d else NEEDED for d in spec.kw_defaults]
    return {argument.arg: default for argument, default in zip([*positional, *spec.kwonlyargs], defaults)}


def keyword_only(node):
    return frozenset(a.arg for a in node.args.kwonlyargs) if isinstance(node, ast.FunctionDef) else frozenset()


def literal(node):
    try:
        return ast.literal_eval(node)
    except ValueError:
        return UNKNOWN


# Comparing with pimm


def pimm_modules(package):
    """Return all modules of a package of pimm, with the package itself first."""
    root = importlib.import_module(f"pimm.{package}")
    inner = sorted(info.name for info in pkgutil.walk_packages(root.__path__, f"{root.__name__}."))
    return [root, *map(importlib.import_module, inner)]


def find(theirs):
    """Return the module of pimm that has a name: the package if timm exports the name, or a module, best timm's."""
    modules = pimm_modules(theirs.package)
    wanted = f"pimm.{theirs.package}.{theirs.module}"
    if theirs.exported:
        modules = modules[:1]
    having = [module for module in modules if not inspect.ismodule(getattr(module, theirs.name, inspect))]
    having.sort(key=lambda m: (m.__name__ != wanted, getattr(getattr(m, theirs.name), "__module__", "") != m.__name__))
    return having[0] if having else None


def compare(today, old):
    """Return what pimm has of a name of today's timm, of 0.1.20, or of both; where these differ, today's counts."""
    theirs = old if old and old.arguments and not (today and today.arguments) else today or old
    theirs = dataclasses.replace(theirs, exported=any(version and version.exported for version in (today, old)))
    module = find(theirs)
    if module is None:
        return Finding(theirs)
    ours = getattr(module, theirs.name)
    finding = Finding(theirs, module.__name__)
    if theirs.arguments is None:
        if theirs.value is not UNKNOWN and plain(theirs.value) != plain(ours):
            finding.differences.append(f"is {ours!r}, not {theirs.value!r}"[:80])
        return finding
    accepted, positions = accepted_arguments(ours)
    finding.differences += argument_differences(theirs, accepted, positions)
    renamed = zip((old and old.arguments) or (), positions)  # at the same place, by another name
    taken = {*accepted, *(name for name, ours in renamed if ours not in old.arguments)}
    finding.gone = [name for name in (old and old.arguments) or () if name not in taken]
    finding.differences += [f"no `{name}`, which 0.1.20 had" for name in finding.gone if name not in theirs.arguments]
    return finding


def accepted_arguments(ours):
    """Return ``{name: default}`` of all arguments, those of base classes included, and the names of positional ones."""
    chain = [vars(cls).get("__init__") for cls in ours.__mro__] if inspect.isclass(ours) else [ours]
    accepted, positions, kinds = {}, [], {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
    for function in filter(None, chain):
        arguments = list(inspect.signature(function).parameters.values())[inspect.isclass(ours) :]
        if inspect.Parameter.VAR_POSITIONAL in kinds:
            positions += [argument.name for argument in arguments if argument.kind == argument.POSITIONAL_OR_KEYWORD]
        accepted = {**{argument.name: argument.default for argument in arguments}, **accepted}
        kinds &= {argument.kind for argument in arguments}
        if not kinds:
            break
    return accepted, positions


def argument_differences(theirs, accepted, positions):
    """Describe arguments that are missing, cannot be given at timm's position, or have another default."""
    arguments = {name: default for name, default in theirs.arguments.items() if name not in GLOBAL}
    shared = {name: default for name, default in arguments.items() if name in accepted}
    renamed = {
        name: ours
        for (name, default), ours in zip(arguments.items(), positions)
        if default is NEEDED and name not in accepted and ours not in theirs.arguments
    }
    missing = [f"`{ours}` for `{name}`" for name, ours in renamed.items()]
    missing += [f"no `{name}`" for name in arguments if name not in {*accepted, *renamed}]
    order = [name for name in positions if name in shared]
    moved = [f"`{name}` by keyword" for name in shared if name not in {*positions, *theirs.by_keyword}]
    if order != [name for name in shared if name in order]:
        moved.append(f"order {', '.join(order)}")
    other = [
        f"`{name}={shown(accepted[name])}`, not `{default!r}`"
        for name, default in shared.items()
        if default not in (UNKNOWN, NEEDED) and plain(default) != plain(accepted[name])
    ]
    return missing + moved + other


def shown(default):
    return "" if default is NEEDED else repr(default)


def plain(value):
    """Return a value for comparisons in which lists equal tuples."""
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


# Reasons, and the page


def give_reasons(findings, reasons):
    """Set the reason of each finding that needs one; return what is wrong with the table, in lines."""
    problems, used = [], set()
    for finding in findings:
        if finding.status == "same":
            continue
        patterns = {pattern: why for why, names in reasons[finding.status].items() for pattern in names}
        fitting = [p for p in patterns if any(fnmatch.fnmatch(key, p) for key in finding.theirs.keys)]
        if fitting:
            used.add((finding.status, fitting[0]))
            finding.reason = patterns[fitting[0]]
        else:
            name = f"{finding.theirs.package}.{finding.theirs.module}.{finding.theirs.name}"
            problems.append(f"{finding.status}, and no reason: {name} {'; '.join(finding.differences)}".rstrip())
    given = {(status, p) for status in reasons for names in reasons[status].values() for p in names}
    return problems + [f"a reason without a name: {status}: {pattern}" for status, pattern in sorted(given - used)]


def page(findings, versions, more):
    """Return the whole page; ``more`` are the lines of its last sections."""
    text = [INTRO, *count_table(findings, versions), "", exported_by_old(findings, versions)]
    for package in PACKAGES:
        own = [finding for finding in findings if finding.theirs.package == package]
        text += ["", f"## {package}"]
        for exported, title in ((True, f"From `pimm.{package}`"), (False, "From its modules")):
            text += section(title, [finding for finding in own if finding.theirs.exported is exported], versions)
    return "\n".join([*text, *more]) + "\n"


def count_table(findings, versions):
    rows = ["| package | version | names | as in timm | other arguments | missing |", "|---|---|---|---|---|---|"]
    for package in PACKAGES:
        for version, names in versions.items():
            own = [f for f in findings if f.theirs.package == package and (package, f.theirs.name) in names]
            own = [f.status_of_old if version == OLD else f.status for f in own]
            counts = " | ".join(str(own.count(status)) for status in STATUSES)
            rows.append(f"| {package} | {version} | {len(own)} | {counts} |")
    return rows


def exported_by_old(findings, versions):
    """Return a sentence on how many of the names that the packages of 0.1.20 export are in pimm."""
    keys = {key for key, name in versions[OLD].items() if name.exported}
    own = [finding for finding in findings if (finding.theirs.package, finding.theirs.name) in keys]
    lacking = [
        f"`{f.theirs.name}`" + (f" takes no {', '.join(f'`{name}`' for name in f.gone)}" if f.module else " is missing")
        for f in own
        if f.status_of_old != "same"
    ]
    here = sum(bool(finding.module) for finding in own)
    return (
        f"Of the {len(own)} names that the packages of {OLD} export {here} are here"
        + "".join(f"; {x}" for x in lacking)
        + "."
    )


def section(title, findings, versions):
    """Return lines with the names that are as in timm, those with other arguments, and those that are missing."""
    if not findings:
        return []
    groups = {status: [f for f in findings if f.status == status] for status in STATUSES}
    lines = ["", f"### {title}"]
    by_module = {}
    for finding in groups["same"]:
        by_module.setdefault(finding.module, []).append(marked(finding, versions))
    for module, names in sorted(by_module.items()):
        lines += ["", f"As in timm, `{module}`: {', '.join(sorted(names))}."]
    if groups["differs"]:
        lines += ["", "| other arguments | here | why |", "|---|---|---|"]
        for f in groups["differs"]:
            lines.append(f"| {marked(f, versions)}, `{f.module}` | {'; '.join(f.differences)} | {f.reason} |")
    if groups["missing"]:
        lines += ["", "| missing | why |", "|---|---|"]
        by_reason = {}
        for finding in groups["missing"]:
            by_reason.setdefault(finding.reason, []).append(marked(finding, versions))
        lines += [f"| {', '.join(sorted(names))} | {reason} |" for reason, names in by_reason.items()]
    return lines


def marked(finding, versions):
    """Return a name, with a star if 0.1.20 has it."""
    return f"`{finding.theirs.name}`" + "\\*" * ((finding.theirs.package, finding.theirs.name) in versions[OLD])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", help="wheel of timm 0.1.20")
    parser.add_argument("today", help="wheel of timm 1.0.31")
    args = parser.parse_args()
    old, today = (public_names(read_wheel(path)) for path in (args.old, args.today))
    findings = [compare(today.get(key), old.get(key)) for key in sorted({*old, *today})]
    problems = give_reasons(findings, yaml.safe_load((FOLDER / "timm_parity_reasons.yaml").read_text()))
    problems += script_problems()
    if problems:
        sys.exit("\n".join([*problems, f"timm-parity.md is not written: {len(problems)} problems"]))
    more = [*model_section({OLD: args.old, TODAY: args.today}), *interface_section(args.today), *script_section()]
    (FOLDER / "timm-parity.md").write_text(page(findings, {OLD: old, TODAY: today}, more))


if __name__ == "__main__":
    main()
