"""Group the parameters of a net by depth: by the patterns of its ``group_matcher``, or in slices of equal length."""

from __future__ import annotations

import re
from collections import defaultdict
from itertools import chain

MATCH_PREV_GROUP = (99999,)  # end of the key of an object that joins the layer before it
_AFTER_ALL = (float("inf"),)


def group_with_matcher(named_objects, group_matcher, return_values=False, reverse=False):
    """Return ``{layer: names}`` of named objects, with layers counted from the input.

    Args:
        named_objects: pairs of a name and an object.
        group_matcher: a function that maps a name to a sortable number or tuple, or to None to leave the object out;
            or ``{group: pattern}``, where a pattern is a regular expression whose groups match numbers, or a list of
            pairs of such an expression and a suffix of the key. Objects that no pattern matches come last.
        return_values: whether to return the objects in place of their names.
        reverse: whether to return ``{name: layer}``.
    """
    key_of = _pattern_keys(group_matcher) if isinstance(group_matcher, dict) else group_matcher
    by_key = defaultdict(list)
    for name, value in named_objects:
        key = key_of(name)
        if key is not None:
            by_key[tuple(key) if isinstance(key, (tuple, list)) else (key,)].append(value if return_values else name)
    layers = []
    for key in sorted(by_key):
        if layers and key[-1:] == MATCH_PREV_GROUP:
            layers[-1] += by_key[key]
        else:
            layers.append(by_key[key])
    if reverse:
        return {name: layer for layer, names in enumerate(layers) for name in names}
    return dict(enumerate(layers))


def _pattern_keys(matcher):
    """Return a function that maps a name to the number of its pattern, the numbers that it matches, and its suffix."""
    specs = []
    for number, patterns in enumerate(matcher.values()):
        for pattern, suffix in [(patterns, None)] if isinstance(patterns, str) else patterns or ():
            specs.append((re.compile(pattern), number, suffix or ()))

    def key_of(name):
        for pattern, number, suffix in specs:
            match = pattern.match(name)
            if match:
                found = (part for part in match.groups() if part is not None)
                return tuple(map(float, chain([number], found, suffix)))
        return _AFTER_ALL

    return key_of


def group_parameters(model, group_matcher, return_values=False, reverse=False):
    """Group the parameters of a net by `group_with_matcher`."""
    return group_with_matcher(model.named_parameters(), group_matcher, return_values, reverse)


def auto_group_layers(model, layers_per_group=12, num_groups=None):
    """Return ``{name: layer}`` for a net without a matcher, with the classifier as the last layer.

    Without a ``classifier`` in the net's ``default_cfg`` there is one layer. Frozen parameters, among them running
    statistics, are left out.

    Args:
        model: the net.
        layers_per_group: parameters in a layer.
        num_groups: number of layers before the classifier, in place of ``layers_per_group``.
    """
    head = getattr(model, "default_cfg", {}).get("classifier")
    prefixes = tuple(head) if isinstance(head, (tuple, list)) else (head,)
    names = [name for name, param in model.named_parameters() if not param.stop_gradient]
    trunk = [name for name in names if head and not name.startswith(prefixes)]
    if num_groups is not None:
        layers_per_group = -(-len(trunk) // num_groups)
    layers = {name: index // layers_per_group for index, name in enumerate(trunk)}
    last = max(layers.values(), default=-1) + 1
    return {**layers, **{name: last for name in names if name not in layers}}
