"""Read pickles without running what is in them, in bounded time and memory."""

from pimm.safe_pickle.machine import MAX_OPERATIONS, Unpickler, map_file
from pimm.safe_pickle.objects import Global, Inert, Malformed
from pimm.safe_pickle.resolver import Resolver, no_garbage_collection
from pimm.safe_pickle.values import FUNCTIONS

__all__ = [
    "FUNCTIONS",
    "MAX_OPERATIONS",
    "Global",
    "Inert",
    "Malformed",
    "Resolver",
    "Unpickler",
    "map_file",
    "no_garbage_collection",
]
