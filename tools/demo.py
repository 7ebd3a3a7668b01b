"""Search, train and test on the embedded images by the commands that users type (``make demo``, ``make demo-spos``)."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent  # must not be searched for modules: its select.py would hide Python's
sys.path = [str(HERE.parent), *(path for path in sys.path if Path(path).resolve() != HERE)]

import json
import os
import subprocess
import time

from cream.config.load import load_config
from pimm.cli import Parser

STARTED = time.monotonic()
ROOT = HERE.parent
SEARCH_CFG = "configs/demo/search.yaml"
SPOS_CFG, SCRATCH_CFG = "configs/spos/demo_supernet.yaml", "configs/spos/demo_scratch.yaml"


def run(title: str, *command: str) -> str:
    """Show a command, run it from the repository's root and return what it printed; end the demo if it fails."""
    python = os.path.relpath(sys.executable, ROOT)
    print(f"\n== {title} ==\n$ {python} {' '.join(command)}", flush=True)
    outcome = subprocess.run([sys.executable, *command], cwd=ROOT, stdout=subprocess.PIPE, text=True)
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
    output = Path(load_config(ROOT / SEARCH_CFG).SAVE_PATH)
    found, retrained = output / "search", output / "search_retrain"
    run("Search", "tools/train.py", "--cfg", SEARCH_CFG)
    retrain_cfg = str(found / "retrain.yaml")
    run("Retrain what was found", "tools/retrain.py", "--cfg", retrain_cfg)
    tested = run("Test", "tools/test.py", "--cfg", retrain_cfg, f"RESUME_PATH={retrained}")
    show_result(found, tested, "without classifier", output)


def spos() -> None:
    """Run Single Path One-Shot's supernet, evolution, and training from scratch with its test."""
    output = Path(load_config(ROOT / SPOS_CFG).SAVE_PATH)
    evolved = output / "supernet" / "evolution"
    run("Train a supernet", "tools/spos_supernet.py", "--cfg", SPOS_CFG)
    run("Evolve paths in it", "tools/spos_search.py", str(output / "supernet"))
    architecture = str(evolved / "architecture_final.json")
    tested = run(
        "Train the best from scratch, and test it",
        *("tools/spos_scratch.py", "--cfg", SCRATCH_CFG, "--architecture", architecture),
    )
    show_table([("generation", "best top-1 so far"), *best_by_generation(ROOT / evolved)])
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
    architecture = json.loads((ROOT / found / "architecture.json").read_text())
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


def main() -> None:
    """Run the demo that the command line names."""
    parser = Parser(config_file=False, description="Search, train and test on the embedded images.")
    parser.add_argument("system", nargs="?", choices=DEMOS, default="cream", help="whose search (default: cream)")
    DEMOS[parser.parse_args().system]()


if __name__ == "__main__":
    main()
