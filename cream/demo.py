"""``make demo``: search, retrain and test on the embedded images, by the commands that a user would type."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from cream.config import load_config

ROOT = Path(__file__).resolve().parents[1]
SEARCH_CFG = "configs/demo/search.yaml"


def run(title: str, *command: str) -> str:
    """Shows a command, runs it from the repository's root and returns what it printed; ends the demo if it fails."""
    python = os.path.relpath(sys.executable, ROOT)
    print(f"\n== {title} ==\n$ {python} {' '.join(command)}", flush=True)
    outcome = subprocess.run([sys.executable, *command], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    print(outcome.stdout, end="", flush=True)
    if outcome.returncode != 0:
        sys.exit(outcome.returncode)
    return outcome.stdout


def show_table(rows: list[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in rows)
    rule = "-" * (width + 2 + max(len(value) for _, value in rows))
    print("\n".join([rule, *(f"{name:<{width}}  {value}" for name, value in rows), rule]))


def main() -> None:
    started = time.monotonic()
    output = Path(load_config(ROOT / SEARCH_CFG).SAVE_PATH)
    found, retrained = output / "search", output / "search_retrain"
    # A second demonstration goes on from the first, and so ends at once with the same result.
    run("Search", "tools/train.py", "--cfg", SEARCH_CFG)
    retrain_cfg = str(found / "retrain.yaml")
    run("Retrain what was found", "tools/retrain.py", "--cfg", retrain_cfg)
    tested = run("Test", "tools/test.py", "--cfg", retrain_cfg, f"RESUME_PATH={retrained}")
    metrics = dict(pair.split(" ") for pair in tested.strip().splitlines()[-1].split(", "))
    architecture = json.loads((ROOT / found / "architecture.json").read_text())
    show_table(
        [
            ("architecture", str(architecture["arch"])),
            ("MFLOPs", f"{architecture['mflops']:.2f} at {architecture['resolution']} pixels, without classifier"),
            ("parameters", f"{architecture['mparams']:.2f} M, without classifier"),
            ("supernet path", f"top-1 {architecture['prec1']:.1f}%, top-5 {architecture['prec5']:.1f}%"),
            ("retrained net", f"top-1 {float(metrics['prec1']):.1f}%, top-5 {float(metrics['prec5']):.1f}%"),
            ("written to", str(output)),
            ("took", f"{time.monotonic() - started:.0f} s"),
        ]
    )


if __name__ == "__main__":
    main()
