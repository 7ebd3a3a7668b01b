"""A net's parameters by depth: the layers that a net's ``group_matcher`` names, or slices of equal length."""

from __future__ import annotations

import re
from collections import defaultdict
from itertools import chain

MATCH_PREV_GROUP = (99999,)  # the last number of a key that joins the layer before it
_BEHIND_ALL = (float("inf"),)


def group_with_matcher(named_objects, group_matcher, return_values=False, reverse=False):
    """``{layer: names}`` of named objects, layers counted from the input; ``{name: layer}`` if ``reverse``.

    ``group_matcher`` is a function of the name that gives a sortable number or tuple (None leaves the object out), or
    ``{group: pattern}``, where a pattern is a regular expression whose groups are numbers, or a list of pairs of one
    and a suffix to its key. What no pattern matches comes last. ``return_values`` lists the objects themselves.
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
    """The function that maps a name to the number of its pattern, the numbers found by it, and its suffix."""
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
        return _BEHIND_ALL

    return key_of


def group_parameters(model, group_matcher, return_values=False, reverse=False):
    """``group_with_matcher`` of a net's parameters."""
    return group_with_matcher(model.named_parameters(), group_matcher, return_values, reverse)


def auto_group_layers(model, layers_per_group=12, num_groups=None):
    """``{name: layer}`` of a net without a matcher: ``layers_per_group`` parameters each, the classifier last.

    ``num_groups`` layers instead, if given. The classifier is what the net's ``default_cfg`` calls so; without one all
    parameters are of one layer. Frozen parameters, among them running statistics, are left out.
    """
    head = getattr(model, "default_cfg", {}).get("classifier")
    prefixes = tuple(head) if isinstance(head, (tuple, list)) else (head,)
    names = [name for name, param in model.named_parameters() if not param.stop_gradient]
    trunk = [name for name in names if head and not name.startswith(prefixes)]
    if num_groups is not None:
        layers_per_group = -(-len(trunk) // num_groups)
    layers = {name: index // layers_per_group for index, name in enumerate(trunk)}
    behind = max(layers.values(), default=-1) + 1
    return {**layers, **{name: behind for name in names if name not in layers}}
