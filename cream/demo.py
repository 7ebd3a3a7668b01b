"""Search, train and test on the embedded images by the commands that users type (``cream-demo``, ``make demo``)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from cream.config.load import load_config
from pimm import cli

STARTED = time.monotonic()
SEARCH_CFG, SPOS_CFG, SCRATCH_CFG = "demo/search", "spos/demo_supernet", "spos/demo_scratch"

# Functions of cream.cli by command.
COMMANDS = {
    "cream-search": "search",
    "cream-retrain": "retrain",
    "cream-test": "test",
    "spos-supernet": "spos_supernet",
    "spos-search": "spos_search",
    "spos-scratch": "spos_scratch",
}


def run(title: str, command: str, *args: str) -> str:
    """Show a command, run it in a process of its own and return what it printed; end the demo if it fails."""
    print(f"\n== {title} ==\n$ {command} {' '.join(args)}", flush=True)
    function = COMMANDS[command]
    code = f"import sys; sys.path = [*filter(None, sys.path)]; from cream.cli import {function}; sys.exit({function}())"
    # A clone need not be installed: the process finds the packages where this one did.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    words = [sys.executable, "-c", code, *args]
    outcome = subprocess.run(words, env=environment, stdout=subprocess.PIPE, text=True)
    print(outcome.stdout, end="", flush=True)
    if outcome.returncode != 0:
        sys.exit(outcome.returncode)
    return outcome.stdout


def show_table(rows: list[tuple[str, str]]) -> None:
    """Print names and values in two columns."""
    width = max(len(name) for name, _ in rows)
    rule = "-" * (width + 2 + max(len(value) for _, value in rows))
    print("\n".join([rule, *(f"{name:<{width}}  {value}" for name, value in rows), rule]))


def cream() -> None:
    """Run Cream's search, retraining and test; a second time they end at once, with the same result."""
    output = Path(load_config(SEARCH_CFG).SAVE_PATH)
    found, retrained = output / "search", output / "search_retrain"
    run("Search", "cream-search", "--cfg", SEARCH_CFG)
    retrain_cfg = str(found / "retrain.yaml")
    run("Retrain what was found", "cream-retrain", "--cfg", retrain_cfg)
    tested = run("Test", "cream-test", "--cfg", retrain_cfg, f"RESUME_PATH={retrained}")
    show_result(found, tested, "without classifier", output)


def spos() -> None:
    """Run Single Path One-Shot's supernet, evolution, and training from scratch with its test."""
    output = Path(load_config(SPOS_CFG).SAVE_PATH)
    evolved = output / "supernet" / "evolution"
    run("Train a supernet", "spos-supernet", "--cfg", SPOS_CFG)
    run("Evolve paths in it", "spos-search", str(output / "supernet"))
    architecture = str(evolved / "architecture_final.json")
    tested = run(
        "Train the best from scratch, and test it",
        *("spos-scratch", "--cfg", SCRATCH_CFG, "--architecture", architecture),
    )
    show_table([("generation", "best top-1 so far"), *best_by_generation(evolved)])
    show_result(evolved, tested, "with classifier", output)


def best_by_generation(evolved: Path) -> list[tuple[str, str]]:
    """Return the best accuracy met up to each generation, as rows of a table."""
    state = json.loads((evolved / "evolution.json").read_text())["state"]
    met = [
        max(state["scores"][json.dumps(arch)]["prec1"] for arch in generation) for generation in state["generations"]
    ]
    return [(str(number), f"{max(met[: number + 1]):.1f}%") for number in range(len(met))]


def show_result(found: Path, tested: str, counted: str, output: Path) -> None:
    """Print the table at the end.

    Args:
        found: folder of the found net.
        tested: what the test of the trained net printed.
        counted: how its costs are counted, in words.
        output: folder of all results.
    """
    metrics = dict(pair.split(" ") for pair in tested.strip().splitlines()[-1].split(", "))
    architecture = json.loads((found / "architecture.json").read_text())
    show_table(
        [
            ("architecture", str(architecture["arch"])),
            ("MFLOPs", f"{architecture['mflops']:.2f} at {architecture['resolution']} pixels, {counted}"),
            ("parameters", f"{architecture['mparams']:.2f} M, {counted}"),
            ("supernet path", f"top-1 {architecture['prec1']:.1f}%, top-5 {architecture['prec5']:.1f}%"),
            ("trained net", f"top-1 {float(metrics['prec1']):.1f}%, top-5 {float(metrics['prec5']):.1f}%"),
            ("written to", str(output)),
            ("took", f"{time.monotonic() - STARTED:.0f} s"),
        ]
    )


DEMOS = {"cream": cream, "spos": spos}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo that the command line names (``cream-demo``, ``tools/demo.py``)."""

    def job() -> None:
        description = "Search, train and test on the embedded images; results go to output/ in this folder."
        parser = cli.Parser(config_file=False, description=description)
        parser.add_argument("system", nargs="?", choices=DEMOS, default="cream", help="whose search (default: cream)")
        DEMOS[parser.parse_args(argv).system]()

    return cli.run(job)
