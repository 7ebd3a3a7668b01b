"""Typed, checked fields for dataclasses whose values arrive as text."""

import ast
import dataclasses
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Callable, NamedTuple, Union, get_args, get_origin, get_type_hints

from pimm.errors import ConfigError
from pimm.messages import did_you_mean

Numbers = tuple[float, ...]
ArchLists = tuple[tuple[int, ...], ...]
Nested = dict[str, Any]  # a section that other code reads, or the name of the file that holds it


class Rule(NamedTuple):
    """Holds what a value must be: in words, and as a test."""

    words: str
    holds: Callable[[Any], bool]


def at_least(low: float, most: float = math.inf) -> Rule:
    """Return the rule for values from ``low`` up, or to ``most``, both included."""
    limit = "" if most == math.inf else f" and at most {most:g}"
    return Rule(f"at least {low}{limit}", lambda value: low <= value <= most)


def between(low: float, high: float) -> Rule:
    """Return the rule for values from ``low`` to ``high``, both included."""
    return Rule(f"from {low} to {high}", lambda value: low <= value <= high)


def one_of(*choices: str) -> Rule:
    """Return the rule for one of these texts."""
    return Rule("one of " + ", ".join(choice or "''" for choice in choices), lambda value: value in choices)


ANYTHING = Rule("", lambda value: True)


REQUIRED = dataclasses.MISSING  # the default of a field that has none


def key(
    default: Any,
    rule: Rule = ANYTHING,
    text: str = "",
    *,
    unit: str = "",
    source: str = "official",
    jobs: Sequence[str] = (),
) -> Any:
    """Return a dataclass field with its default, its rule, and what a reader must know of it.

    Args:
        default: the default; REQUIRED where there is none.
        rule: what values must be; ``None`` is exempt.
        text: what the key means, in a sentence.
        unit: unit of the values.
        source: whose key it is.
        jobs: the jobs that read it.
    """
    facts = {"rule": rule, "text": text, "unit": unit, "source": source, "jobs": tuple(jobs)}
    return dataclasses.field(default=default, metadata=facts)


def read_fields(kind: type, raw: Any, place: str, **readers: Callable[[Any, str], Any]) -> Any:
    """Read a dataclass of such fields from a mapping of names to texts.

    Args:
        kind: the dataclass.
        raw: the mapping.
        place: what messages begin with, before the name.
        readers: for fields that are no scalars, the function ``(value, where)`` that reads them.

    Raises:
        ConfigError: an unknown name, a missing one, or a value that ``convert`` refuses.
    """
    fields, hints = {item.name: item for item in dataclasses.fields(kind)}, get_type_hints(kind)
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{place.rstrip('.: ')} is {shown(raw)}; must hold {', '.join(fields)}")
    values = {}
    for name, value in raw.items():
        if name not in fields:
            hint = did_you_mean(name, fields) or f"; known are {', '.join(fields)}"
            raise ConfigError(f"{place}{shown(name, quote='')} is unknown{hint}")
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
    """Return a dataclass field that holds a section of further keys."""
    return dataclasses.field(default_factory=kind)


def convert(raw: Any, kind: Any, rule: Rule) -> Any:
    """Return the value of type ``kind`` that a text, or a list of texts, stands for.

    Raises:
        ValueError: it stands for none, or breaks the rule; the message continues the name of the field.
    """
    try:
        value = _typed(raw, kind)
        valid = value is None or rule.holds(value)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):  # the last two: of nested brackets
        valid = False
    if not valid:
        words = TEXT_WORDS if _is_unreadable(raw) else type_words(kind, rule)
        raise ValueError(f"is {shown(raw)}; must be {words}") from None
    return value


def _typed(raw: Any, kind: Any) -> Any:
    if get_origin(kind) is Union:
        return None if str(raw).lower() in ("none", "null", "~", "") else _typed(raw, get_args(kind)[0])
    if get_origin(kind) is tuple:
        item_kind = get_args(kind)[0]
        return tuple(_typed(item, item_kind) for item in _items(raw, item_kind))
    return _SCALARS[kind](raw)


def _items(raw: Any, kind: Any) -> Sequence[Any]:
    """Return the items of a list, also of one written as text; a number or a word alone counts as a list of one."""
    if kind is str and isinstance(raw, str):
        return _WORD.findall(raw)
    items = ast.literal_eval(raw) if isinstance(raw, str) else raw
    if isinstance(items, (list, tuple)):
        return items
    if kind is float and not isinstance(items, dict):
        return [items]
    raise ValueError(raw)


# One of a list of texts; inside it brackets may stand, as in the pattern blocks.[0-3].
_WORD = re.compile(r"""[^\s,()\[\]'"]+(?:\[[\w!-]+\][^\s,()\[\]'"]*)*""")


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
    if not isinstance(raw, str) or _is_unreadable(raw):
        raise ValueError(raw)
    return raw


def _is_unreadable(raw: Any) -> bool:
    """Return whether a text holds control characters, or bytes that are no UTF-8: no file could record it."""
    return isinstance(raw, str) and any(unicodedata.category(letter) in ("Cc", "Cs") for letter in raw)


def _nested(raw: Any) -> Any:
    if not isinstance(raw, (dict, str)) or _is_unreadable(raw):
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
    tuple[str, ...]: "a list of texts",
    Nested: "the name of a file, or a section",
    ArchLists: "a list of lists of whole numbers such as [[0], [3], [3, 1], [3, 1], [3, 3, 3], [3, 3], [0]]",
}


TEXT_WORDS = "text in UTF-8, without control characters"


def type_words(kind: Any, rule: Rule) -> str:
    """Say in words what a value of this type and rule must be."""
    if get_origin(kind) is Union:
        return f"None or {type_words(get_args(kind)[0], rule)}"
    if kind is str and rule.words:
        return rule.words
    return ", ".join(filter(None, (_WORDS[kind], rule.words)))


# What messages quote, in one line of bounded length.


def shown(raw: Any, room: int = 80, quote: str = "'") -> str:
    """Return a value as a message quotes it: in ``quote`` if it is text, and cut after ``room`` characters."""
    text = f"{quote}{raw}{quote}" if isinstance(raw, str) else str(raw).replace("'", "")
    text = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text[: room + 1])
    return text if len(text) <= room else f"{text[: room - 3]}..."


def listed(names: Iterable[str], room: int = 200) -> str:
    """Return the first of these names that fit, separated by commas, and ``...`` where there are more."""
    found, names = "", list(names)
    for name in names:
        if found and len(found) + len(name) > room:
            return f"{found}, ..."
        found = f"{found}, {name}" if found else name
    return found
