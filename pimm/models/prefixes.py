"""Take off the names of weights what wrappers of a net put before them, and keep what is the net's own."""

from __future__ import annotations

# What DataParallel, torch.compile, Lightning, averages, and classes that hold a net put before every name.
WRAPPERS = ("module.", "_orig_mod.", "model.", "backbone.", "net.", "ema.", "ema_model.")
_MOST_WRAPPERS = 8
_MOST_PARTS = 4


def wrapper_prefix(names):
    """Return the longest row of ``WRAPPERS``, in any order, with which all names begin."""
    prefix = ""
    for _ in range(_MOST_WRAPPERS):
        longer = (prefix + each for each in WRAPPERS if all(name.startswith(prefix + each) for name in names))
        found = next(longer, None)
        if found is None or any(name == found for name in names):
            break
        prefix = found
    return prefix


def without_prefix(values):
    """Remove the prefix that all names share, whatever it is, such as ``encoder.``, and return it too.

    A net that trained as a part of another one is saved with such a prefix. At most four parts of a name are taken for
    one. Where the net is known, `with_own_names` tells what of it belongs to the net.
    """
    parts = _shared_parts(values)
    prefix = "".join(parts)
    return {name[len(prefix) :]: value for name, value in values.items()}, prefix


def _shared_parts(names):
    """List the first parts that all names have in common, each with its point."""
    parts, rest = [], list(names)
    for _ in range(_MOST_PARTS):
        firsts = {name.partition(".")[0] for name in rest}
        if len(firsts) != 1 or not all("." in name for name in rest):
            break
        parts.append(f"{firsts.pop()}.")
        rest = [name[len(parts[-1]) :] for name in rest]
    return parts


def with_own_names(values, own, prefix="", renamed=lambda name: name):
    """Return ``values`` without as much of what their names share as gives the most of them names of a net.

    A part of the net may be called as a wrapper is: what `wrapper_prefix` took off is put back where the net needs it.

    Args:
        values: ``{name: value}``.
        own: the names that the net has.
        prefix: what was taken off each name before, and stays off where nothing else fits better.
        renamed: gives the net's name for one of another package.
    """
    parts = [f"{part}." for part in prefix.split(".") if part] + _shared_parts(values)
    beginnings = ["".join(parts[:count]) for count in range(len(parts) + 1)]
    beginnings.sort(key=lambda beginning: beginning != prefix)
    full = {prefix + name: value for name, value in values.items()}

    def fitting(beginning):
        count = sum(renamed(name[len(beginning) :]) in own for name in full)
        # To take off more than wrappers add, one name that fits by chance is not enough.
        return count if len(beginning) <= len(prefix) or 2 * count > len(full) else 0

    best = max(beginnings, key=fitting)
    return {name[len(best) :]: value for name, value in full.items()}
