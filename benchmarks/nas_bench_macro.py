"""Train supernets of NAS-Bench-Macro by several methods at equal processor time, and judge how each ranks 400 nets.

``python benchmarks/nas_bench_macro.py --data data/cifar10_macro --truth nas-bench-macro_cifar10.json --output FOLDER``

The same command resumes after any interruption, inside a training too. ``FOLDER/seedN/METHOD`` is a search,
``FOLDER/seconds.json`` holds the processor time of each, and ``FOLDER/bench`` the report of
``tools/rank_correlation.py``. The epochs of each method are estimated from the forward and backward passes of a step;
``seconds.json`` tells how equal the times were. Docs: ``docs/ranking.md``.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = ROOT / "configs" / "cifar10" / "nas_bench_macro.yaml"


class Method(NamedTuple):
    """A way to train the supernet.

    Args:
        epochs: number of epochs at equal processor time, as a share of the epochs of single paths.
        start: the last epoch without teaching, as a share of ``epochs``; None where nothing teaches.
        settings: keys of SUPERNET and their values.
    """

    epochs: float
    start: float | None
    settings: dict[str, object]


FITTED = {"ESTIMATE": True, "FIT_WINDOW": 1500}
SINGLE = {"METHOD": "single_path", **FITTED}
CREAM = {"METHOD": "cream"}
HELD_OUT = {"BOARD_SCORE": "held_out", "SELECT_ON": "held_out"}
DEEP = {"HOW_TO_PROB": "pre_prob", "PRE_PROB": "(0.2,0.4,0.4)"}  # less of the identity, which has little to learn
ESTIMATE = {**CREAM, "BOARD_SCORE": "estimate", "PICK_METHOD": "top1", "TEACHING": "added", "RHO": 1.0}
SEVERAL = {"METHOD": "multi_path", "PATHS": 3}
EACH = {**SEVERAL, "DRAW": "fair", "UPDATES": "each", "ESTIMATE": True, "FIT_WINDOW": 300}
METHODS = {
    "single_path": Method(1.0, None, SINGLE),
    "single_path_average": Method(1.0, None, {**SINGLE, "AVERAGE": 0.98}),
    "single_path_zero": Method(1.0, None, {**SINGLE, "ZERO_RESIDUAL": True}),
    "single_path_deep": Method(0.87, None, {**SINGLE, **DEEP}),
    "single_path_zero_deep": Method(0.87, None, {**SINGLE, **DEEP, "ZERO_RESIDUAL": True}),
    "fair_each": Method(0.41, None, EACH),
    "fair_each_zero": Method(0.41, None, {**EACH, "ZERO_RESIDUAL": True}),
    "cream": Method(0.74, 0.2, {**CREAM, **FITTED}),
    "cream_late": Method(0.85, 0.67, CREAM),
    "cream_added": Method(0.74, 0.2, {**CREAM, "TEACHING": "added"}),
    "cream_top1": Method(0.77, 0.2, {**CREAM, "PICK_METHOD": "top1"}),
    "cream_random": Method(0.77, 0.2, {**CREAM, "PICK_METHOD": "random"}),
    "cream_largest": Method(0.67, 0.2, {**CREAM, "PICK_METHOD": "largest"}),
    "cream_estimate": Method(0.74, 0.2, {**CREAM, "BOARD_SCORE": "estimate"}),
    "cream_held_out": Method(0.74, 0.2, {**CREAM, **HELD_OUT}),
    "cream_half": Method(0.85, 0.2, {**CREAM, "TEACH_SHARE": 0.5}),
    "cream_if_better": Method(0.74, 0.2, {**CREAM, "TEACH_ONLY_BETTER": True}),
    "estimate": Method(0.88, 0.67, ESTIMATE),
    "estimate_largest": Method(0.83, 0.67, {**ESTIMATE, "PICK_METHOD": "largest"}),
    "even": Method(0.37, None, {**SEVERAL, "DRAW": "even"}),
    "fair": Method(0.37, None, {**SEVERAL, "DRAW": "fair"}),
    "sandwich": Method(0.3, 0.2, {**SEVERAL, "DRAW": "sandwich", "TEACHING": "added", "RHO": 1.0}),
    "sandwich_untaught": Method(0.3, None, {**SEVERAL, "DRAW": "sandwich", "RHO": 0.0}),
}


def overrides(method: Method, single_path_epochs: int) -> list[str]:
    """Return the settings of a training, as KEY=VALUE."""
    epochs = max(round(method.epochs * single_path_epochs), 1)
    found = [f"EPOCHS={epochs}", *(f"SUPERNET.{name}={value}" for name, value in method.settings.items())]
    if method.start is not None:
        found.append(f"SUPERNET.META_STA_EPOCH={max(round(method.start * epochs) - 1, 0)}")
    return found


def train(folder: Path, seed: int, settings: list[str], data: str, times: Path) -> None:
    """Train a supernet, or go on with its training; add the processor seconds to the file ``times``."""
    if (folder / "architecture.json").exists():
        return
    places = [f"DATA_DIR={data}", f"SAVE_PATH={folder.parent}", f"MODEL={folder.name}", f"SEED={seed}"]
    command = [sys.executable, ROOT / "tools" / "train.py", "--cfg", SETTINGS, *places, *settings]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        subprocess.run(command, check=True, cwd=ROOT)
    finally:
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        known = json.loads(times.read_text()) if times.exists() else {}
        name = f"{folder.parent.name}/{folder.name}"
        known[name] = round(known.get(name, 0) + used, 1)
        times.write_text(json.dumps(known, indent=1) + "\n")


def main() -> int:
    """Train every method with every seed, and judge all of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, metavar="FOLDER", help="images in train/CLASS and val/CLASS")
    parser.add_argument("--truth", required=True, metavar="FILE", help="NAS-Bench-Macro's table of accuracies")
    parser.add_argument("--output", required=True, type=Path, metavar="FOLDER", help="where all results go")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=["fair_each_zero", "single_path", "cream"])
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="supernets of each method (default: 3)")
    parser.add_argument(
        "--epochs",
        type=int,
        default=27,
        metavar="N",
        help="epochs of single paths (default: 27)",
    )
    parser.add_argument("--paths", type=int, default=400, metavar="N", help="nets that are ranked (default: 400)")
    parser.add_argument("--limit", type=float, default=50.0, metavar="MFLOPS", help="largest cost of the pick")
    args = parser.parse_args()
    data, output = str(Path(args.data).resolve()), args.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    folders = [output / f"seed{seed}" / name for name in args.methods for seed in range(args.seeds)]
    for seed in range(args.seeds):
        for name in args.methods:
            settings = overrides(METHODS[name], args.epochs)
            train(output / f"seed{seed}" / name, seed, settings, data, output / "seconds.json")
    report = [*map(str, folders), "SUPERNET.SELECT_ON=val", "--truth", args.truth, "--output", str(output / "bench")]
    numbers = ["--paths", str(args.paths), "--limit", str(args.limit)]
    return subprocess.run([sys.executable, ROOT / "tools" / "rank_correlation.py", *report, *numbers]).returncode


if __name__ == "__main__":
    sys.exit(main())
