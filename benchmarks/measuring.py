"""What the benchmarks of benchmarks/run.py share: figures, turns, and rivals that run in a process of their own."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

TURNS = 11
ENVIRONMENT = dict(os.environ)  # of other programs; Paddle, which is imported later, sets OMP_NUM_THREADS


class Figure(NamedTuple):
    """Holds one measured number.

    Args:
        what: what was measured; rivals share the text.
        by: who was measured: ``here``, or the name of a rival.
        value: median over turns.
        unit: of the value; of a unit that ends with ``/s``, more is better.
        at: the place on the axis of a curve, such as the size of the batch; None for a figure alone.
        turns: the value of each turn, where rivals took turns.
    """

    what: str
    by: str
    value: float
    unit: str
    at: float | None = None
    turns: Sequence[float] = ()


class Options(NamedTuple):
    """Holds what a benchmark is told.

    Args:
        seconds: that all its turns may take together.
        small: whether to try out the benchmark on the smallest sizes.
        rival_python: interpreter with torch and timm, empty for none.
        photographs: folder of class folders with photographs, empty to draw images.
        cifar10: folder with train/ and val/ of CIFAR-10, empty for the recipe's own.
    """

    seconds: float
    small: bool = False
    rival_python: str = ""
    photographs: str = ""
    cifar10: str = ""


def in_turns(runners, seconds):
    """Return what each runner measured in its turns, ``{name: values}``.

    Args:
        runners: name -> callable from seconds to a number; the first call warms up, and does not count.
        seconds: of all turns of all runners; each runs at least once after the warm-up.
    """
    share, found = seconds / len(runners) / (TURNS + 1), {name: [] for name in runners}
    deadline = time.perf_counter() + seconds
    for turn in range(TURNS + 1):
        for name, run in runners.items():
            value = run(share)
            if turn:
                found[name].append(value)
        if turn and time.perf_counter() > deadline:
            break
    return found


def figures_of(what, turns, unit="images/s", at=None):
    """Yield a figure of the same text for each runner of `in_turns`."""
    for by, values in turns.items():
        yield Figure(what, by, statistics.median(values), unit, at, values)


def times_as_good(one, other):
    """Return how many times as good a figure is as another: the median over turns, where both took the same turns.

    The speed of a machine may change between turns, and less within one.
    """
    higher = one.unit.endswith("/s")
    pairs = zip(one.turns, other.turns) if len(one.turns) == len(other.turns) > 0 else [(one.value, other.value)]
    return statistics.median(own / its if higher else its / own for own, its in pairs)


def images_per_second(step, batch):
    """Return a runner for ``in_turns`` that calls ``step``, which works on ``batch`` images, at least once."""

    def run(seconds):
        started, steps = time.perf_counter(), 0
        while not steps or time.perf_counter() - started < seconds:
            step()
            steps += 1
        return steps * batch / (time.perf_counter() - started)

    return run


class Rival:
    """Asks a script that runs in a process of its own, by lines of JSON.

    Args:
        python: interpreter.
        script: path of the script, which answers each line on its standard input by one line.
        args: its arguments.
    """

    def __init__(self, python, script, *args):
        environment = {name: value for name, value in ENVIRONMENT.items() if name != "PYTHONPATH"}
        command = [python, script, *map(str, args)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def ask(self, **question):
        """Return the answer.

        Raises:
            RuntimeError: the process has ended, or answers with an ``error``.
        """
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        answer = json.loads(line) if line else {"error": "the rival's process has ended"}
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["value"]

    def close(self):
        """End the process."""
        self.process.stdin.close()
        self.process.wait()


def imports(python, *modules):
    """Return whether an interpreter imports modules."""
    code = f"import {', '.join(modules)}"
    return bool(python) and subprocess.run([python, "-c", code], capture_output=True).returncode == 0


HERE = Path(__file__).resolve().parent
