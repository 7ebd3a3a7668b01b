"""Typed, checked fields for dataclasses whose values arrive as text."""

import ast
import dataclasses
import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any, Callable, NamedTuple, Union, get_args, get_origin, get_type_hints

from pimm.errors import ConfigError

Numbers = tuple[float, ...]
ArchLists = tuple[tuple[int, ...], ...]
Nested = dict[str, Any]  # names and what is below them, to be read elsewhere, or the file that holds it


class Rule(NamedTuple):
    """What a value must be: in words, and as a test."""

    words: str
    holds: Callable[[Any], bool]


def at_least(low: float) -> Rule:
    """Not below ``low``."""
    return Rule(f"at least {low}", lambda value: value >= low)


def between(low: float, high: float) -> Rule:
    """From ``low`` to ``high``, both included."""
    return Rule(f"from {low} to {high}", lambda value: low <= value <= high)


def one_of(*choices: str) -> Rule:
    """One of these texts."""
    return Rule("one of " + ", ".join(choice or "''" for choice in choices), lambda value: value in choices)


ANYTHING = Rule("", lambda value: True)


REQUIRED = dataclasses.MISSING  # the default of a field that has none


def key(default: Any, rule: Rule = ANYTHING) -> Any:
    """A field with its default and the rule that its values keep (``None`` is exempt)."""
    return dataclasses.field(default=default, metadata={"rule": rule})


def read_fields(kind: type, raw: Any, place: str, **readers: Callable[[Any, str], Any]) -> Any:
    """A dataclass of such fields from a mapping of names to texts; ``readers(value, where)`` read what is no scalar.

    Raises ConfigError for an unknown name, one that is missing, and values as ``convert`` does; messages begin with
    ``place`` and the name.
    """
    fields, hints = {item.name: item for item in dataclasses.fields(kind)}, get_type_hints(kind)
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{place.rstrip('.: ')} is {_shown(raw)}; must hold {', '.join(fields)}")
    values = {}
    for name, value in raw.items():
        if name not in fields:
            near = difflib.get_close_matches(str(name), fields, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(fields)}"
            raise ConfigError(f"{place}{name} is unknown; {hint}")
        if name in readers:
            values[name] = readers[name](value, place + name)
            continue
        try:
            values[name] = convert(value, hints[name], fields[name].metadata["rule"])
        except ValueError as error:
            raise ConfigError(f"{place}{name} {error}") from None
    missing = [name for name, item in fields.items() if item.default is REQUIRED and name not in values]
    if missing:
        raise ConfigError(f"{place}{missing[0]} is missing")
    return kind(**values)


def section(kind: type) -> Any:
    """A field that holds a section of further keys."""
    return dataclasses.field(default_factory=kind)


def convert(raw: Any, kind: Any, rule: Rule) -> Any:
    """The value of this type that a text, or list of texts, stands for.

    Raises:
        ValueError: it stands for none, or breaks the rule; the message goes on from the name of the field.
    """
    try:
        value = _typed(raw, kind)
        valid = value is None or rule.holds(value)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):  # the last two: of nested brackets
        valid = False
    if not valid:
        raise ValueError(f"is {_shown(raw)}; must be {_words(kind, rule)}") from None
    return value


def _typed(raw: Any, kind: Any) -> Any:
    if get_origin(kind) is Union:
        return None if str(raw).lower() in ("none", "null", "~", "") else _typed(raw, get_args(kind)[0])
    if get_origin(kind) is tuple:
        item_kind = get_args(kind)[0]
        return tuple(_typed(item, item_kind) for item in _items(raw, item_kind))
    return _SCALARS[kind](raw)


def _items(raw: Any, kind: Any) -> Sequence[Any]:
    """Items of a list, also of one written as text; one number in place of several counts as a list of one."""
    items = ast.literal_eval(raw) if isinstance(raw, str) else raw
    if isinstance(items, (list, tuple)):
        return items
    if kind is float and not isinstance(items, dict):
        return [items]
    raise ValueError(raw)


def _bool(raw: Any) -> bool:
    words = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
    text = str(raw).lower()
    if text not in words:
        raise ValueError(raw)
    return words[text]


def _int(raw: Any) -> int:
    text = str(raw)
    try:
        return int(text)
    except ValueError:
        if not float(text).is_integer():
            raise
        return int(float(text))


def _float(raw: Any) -> float:
    value = float(str(raw))
    if not math.isfinite(value):
        raise ValueError(raw)
    return value


def _str(raw: Any) -> str:
    if not isinstance(raw, str):
        raise ValueError(raw)
    return raw


def _nested(raw: Any) -> Any:
    if not isinstance(raw, (dict, str)):
        raise ValueError(raw)
    return raw


_SCALARS = {bool: _bool, int: _int, float: _float, str: _str, Nested: _nested}
_WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    Numbers: "a list of numbers",
    tuple[int, ...]: "a list of whole numbers",
    Nested: "the name of a file, or a section",
    ArchLists: "a list of lists of whole numbers such as [[0], [3], [3, 1], [3, 1], [3, 3, 3], [3, 3], [0]]",
}


def _words(kind: Any, rule: Rule) -> str:
    if get_origin(kind) is Union:
        return f"None or {_words(get_args(kind)[0], rule)}"
    if kind is str and rule.words:
        return rule.words
    return ", ".join(filter(None, (_WORDS[kind], rule.words)))


def _shown(raw: Any) -> str:
    text = f"'{raw}'" if isinstance(raw, str) else str(raw).replace("'", "")
    return text if len(text) <= 80 else f"{text[:77]}..."
