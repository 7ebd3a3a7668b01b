"""The machine that reads pickles: what keys cost, what a reader may have called, and what is data all the same."""

import pickle
import random
import time

import numpy as np
import pytest

from pimm.safe_pickle import FUNCTIONS, Inert, Malformed, Resolver, Unpickler
from pimm.safe_pickle.keys import MAX_COST, Keys
from pimm.safe_pickle.objects import Global


def read(data, strict=False, functions=FUNCTIONS):
    return Resolver()(Unpickler(data, 0, len(data), functions, strict=strict).load())


COSTS = {
    "text": ("a", 0),
    "bytes": (b"a", 0),
    "none": (None, 1),
    "truth": (True, 1),
    "a class number": (65_535, 1),
    "a greater number": (65_536, 10),
    "a negative number": (-1, 10),
    "a fraction": (0.5, 10),
    "a name": (Global("a.b"), 1),
    "an object": (Inert("a"), 1),
    "a number of numpy's": (np.int64(3), 1),
    "a tuple": ((3, "a", 70_000), 4 + 1 + 1 + 10),
    "a tuple in a tuple": (((1,), 2), 4 + 4 + 1 + 1),
    "a frozen set": (frozenset({1, 2}), 4 + 1 + 1),
}


@pytest.mark.parametrize("name", COSTS)
def test_what_keys_cost(name):
    key, cost = COSTS[name]
    keys = Keys()
    assert keys.check(key) == key
    assert keys.cost == cost


@pytest.mark.parametrize("key", [[], {}, set(), float("nan"), 2**63, -(2**63) - 1, (1,) * 64, ([],), bytearray(b"a")])
def test_what_is_no_key(key):
    with pytest.raises(Malformed, match="as a key"):
        Keys().check(key)


def test_the_cost_is_that_of_the_whole_pickle():
    keys = Keys()
    for _ in range(MAX_COST // 100):
        keys.make_set(range(100))
    with pytest.raises(Malformed, match="too many keys that are not text"):
        keys.make_dict({None: 1})
    assert keys.make_dict({"a": 1}) == {"a": 1}


def colliding(count, size):
    """Return integers that CPython's ``lookdict`` tries against a large part of the integers before them.

    The ways through a table of ``size`` slots, a power of two, are simulated. With each of the first steps five more
    bits of the hash enter, so that there is a choice of next slots, one of which is in use; after all bits the steps go
    around in a cycle, whose beginning is what is in use.
    """
    mask, bits = size - 1, size.bit_length() - 1
    cycle, place, keys, rng = [0], {0: 0}, [], random.Random(0)
    while len(cycle) < size:
        cycle.append((5 * cycle[-1] + 1) & mask)
        place[cycle[-1]] = len(place)
    for end in range(count):  # slots in use are those of the cycle before ``end``
        ways = [_way_through(cycle, place, end, bits, rng) for _ in range(2)]
        _, key = max([(end - place[last], key) for key, last in ways if place[last] < end], default=(0, cycle[end]))
        keys.append(key)
    return keys


def _way_through(cycle, place, end, bits, rng):
    """Return an integer whose first steps meet slots in use if they can, and the slot from which its cycle begins."""
    slot = key = cycle[rng.randrange(end + 1)]
    mask = len(cycle) - 1
    for shift in range(5, 70, 5):
        for new in rng.sample(range(32), 32) if bits + shift <= 60 else (0,):
            entering = key | new << (bits + shift - 5)
            following = (5 * slot + (entering >> shift) + 1) & mask
            if place[following] < end:
                break
        key, slot = entering, following
    return key, slot


def test_as_many_colliding_keys_as_are_allowed_are_read_soon():
    keys = list(dict.fromkeys(colliding(2_700, 4096)))
    dicts = pickle.dumps([dict.fromkeys(keys[: MAX_COST // 20]), dict.fromkeys(keys[: MAX_COST // 20])], 2)
    start = time.process_time()
    assert len(read(dicts)) == 2
    assert time.process_time() - start < 2
    with pytest.raises(Malformed, match="too many keys"):
        read(pickle.dumps([dict.fromkeys(keys) for _ in range(5)], 2))


def test_a_strict_reader_refuses_what_a_lenient_one_makes_inert():
    data = b"\x80\x02ccollections\ndeque\n(K\x01t\x85R."
    found = read(data)
    assert (found.name, found.args) == ("collections.deque", ((1,),))
    with pytest.raises(Malformed, match=r"it asks for collections\.deque, which no file of arrays needs"):
        read(data, strict=True)
    for strict in (False, True):
        with pytest.raises(Malformed, match="do not trust where it comes from"):
            read(b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00id\x85R.", strict)


def test_a_function_of_the_reader_is_called_and_charged():
    def data(calls):
        return b"\x80\x02cown\nlength\nq\x00](" + b"N" * 3000 + b"e\x85q\x01](" + b"h\x00h\x01R" * calls + b"e."

    functions = {"own.length": lambda items: len(items)}
    assert read(data(3), functions=functions) == [3000] * 3
    with pytest.raises(Malformed, match="it has more made than it holds"):
        read(data(2000), functions=functions)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_data_of_every_protocol(protocol):
    value = {"a": [1, 2.5, None, True, "é", b"\0", (1, 2), {3}, frozenset({4})], "b": {(1, "x"): -(2**70)}}
    assert read(pickle.dumps(value, protocol), strict=True) == value


def test_a_name_of_several_lines_is_told_on_one():
    data = b"\x80\x02cnumpy\x0b.core\nodd\x0cname\n."
    with pytest.raises(Malformed) as error:
        read(data, strict=True)
    assert str(error.value) == r"it asks for numpy\x0b.core.odd\x0cname, which no file of arrays needs"


# Protocols 0 and 1

PLAIN = {
    "cat": 0,
    "d\u00f6g 'n\\ \u732b\U0001f63a\n": [1, -3, 2**40, -(2**70), 10**19, True, False, None],
    "numbers": (0.5, -1e300, float("inf"), 0),
    "empty": [{}, (), [], ""],
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_names_and_numbers_of_every_protocol(protocol):
    assert read(pickle.dumps(PLAIN, protocol), strict=True) == PLAIN
    shared = [PLAIN["numbers"]] * 3
    assert read(pickle.dumps(shared, protocol), strict=True) == shared


PYTHON_2 = {  # what Python 2.7's cPickle and pickle wrote
    "cPickle, 0": b"(dp1\nS'dog'\np2\nI1\nsS'cat'\np3\nI0\ns.",
    "pickle, 0": b"(dp0\nS'dog'\np1\nI1\nsS'cat'\np2\nI0\ns.",
    "cPickle, 1": b"}q\x01(U\x03dogq\x02K\x01U\x03catq\x03K\x00u.",
    "unicode, 0": b"(dp1\nVdog\np2\nL1L\nsVcat\np3\nL0L\ns.",
}


@pytest.mark.parametrize("name", PYTHON_2)
def test_dicts_of_python_2(name):
    assert read(PYTHON_2[name], strict=True) == pickle.loads(PYTHON_2[name]) == {"dog": 1, "cat": 0}


@pytest.mark.parametrize(
    ("line", "value"),
    [
        (b"S'it\\'s \\xc3\\xa9'", "it's \u00e9"),
        (b'S"it\'s"', "it's"),
        (b"S'\\xff'", "\udcff"),  # no UTF-8: the bytes can be had back
        (b"Vtab\\u0009 \xe9", "tab\t \u00e9"),
        (b"I01", True),
        (b"I1", 1),
        (b"I00", False),
        (b"L-12L", -12),
        (b"F1e3", 1000.0),
    ],
)
def test_values_in_lines(line, value):
    found = read(line + b"\n.")
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    "data",
    [
        b"I1_0\n.",
        b"I 1\n.",
        b"I\n.",
        b"L" + b"9" * 650 + b"L\n.",
        b"I" + b"9" * 10**6 + b"\n.",
        b"Fone\n.",
        b"Scat\n.",
        b"S'cat\n.",
        b"S'\n.",
        b"S'cat'",
        b"V" + b"x" * 70_000 + b"\n.",
        b"I1\np-1\n.",
        b"I1\np1000000\n.",
        b"I1\np" + b"9" * 600 + b"\n.",
        b"g5\n.",
        b"p1\n.",
        b"(icollections\nOrderedDict\n.",
        b"(cos\nsystem\nS'true'\no.",
        b"cos\nsystem\n(S'true'\ntR.",
        b"Pcat\n.",
    ],
)
def test_lines_that_are_no_values(data):
    start = time.perf_counter()
    with pytest.raises((Malformed, ValueError, LookupError)):
        read(data, strict=True)
    assert time.perf_counter() - start < 1


def test_colliding_keys_in_lines():
    many = b"(d" + b"".join(b"I%d\nI0\ns" % (number << 20) for number in range(20_000)) + b"."
    start = time.perf_counter()
    with pytest.raises(Malformed, match="too many keys that are not text"):
        read(many)
    assert time.perf_counter() - start < 1
