"""Run all benchmarks of speed, each beside its rivals where these import, and write a table, all numbers and a picture.

    python benchmarks/run.py [--only JOB ...] [--minutes 60] [--rival-python PYTHON] [--photographs FOLDER]
        [--cifar10 FOLDER] [--output OUTPUT] [--small]

Each job runs in a process of its own, which shares the time that is left with the jobs after it. Rivals take turns;
figures are medians over turns. Files are written after every job, so that an interruption loses the current job alone:
OUTPUT.json holds all numbers and the machine, OUTPUT.md the table, OUTPUT.svg the curves. ``--small`` tries out every
job on the smallest sizes, whose figures mean nothing.

PYTHON is an interpreter with torch and timm; this one if it has them. The FOLDER of photographs holds class folders;
without it, images are drawn. The other holds CIFAR-10 as ``train/`` and ``val/``, for the job ``paths``.

To add a benchmark, write a function from `measuring.Options` to figures, and a line of JOBS.
"""

import argparse
import importlib
import json
import os
import platform
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

from measuring import HERE, Figure, Options, imports, times_as_good

# name: module of this folder, function. Figures of a job that have the same ``what`` are rows of one comparison.
JOBS = {
    "evaluation": ("evaluation", "measure"),
    "training": ("run_jobs", "training"),
    "paths": ("run_jobs", "path_scoring"),
    "supernet": ("run_jobs", "supernet"),
    "decoding": ("decoding", "measure"),
    "loader": ("run_jobs", "loaders"),
    "operators": ("run_jobs", "operators"),
    "reduction": ("run_jobs", "reduction"),
    "index": ("run_jobs", "folder_index"),
    "conversion": ("run_jobs", "conversion"),
    "growth: batch": ("growth", "batches"),
    "growth: side": ("growth", "sides"),
    "growth: depth": ("growth", "depths"),
    "growth: board": ("growth", "boards"),
    "growth: processes": ("growth", "processes"),
}
LEAST = 120  # seconds that a job gets before it is stopped, whatever is left


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=JOBS, default=list(JOBS), metavar="JOB", help=", ".join(JOBS))
    parser.add_argument("--minutes", type=float, default=60.0, help="that all jobs may take together (default: 60)")
    parser.add_argument(
        "--rival-python", default=sys.executable, metavar="PYTHON", help="interpreter with torch and timm"
    )
    parser.add_argument("--photographs", default="", metavar="FOLDER", help="folder of class folders")
    parser.add_argument("--cifar10", default="", metavar="FOLDER", help="that has train/ and val/, for the job paths")
    parser.add_argument("--output", type=Path, default=Path("output/benchmarks"), metavar="OUTPUT")
    parser.add_argument("--small", action="store_true", help="try out each job on the smallest sizes")
    parser.add_argument("--job", nargs=2, help=argparse.SUPPRESS)  # how this script starts itself: name, seconds
    return parser.parse_args()


def main():
    args = arguments()
    if args.job:
        name, seconds = args.job
        serve(name, Options(float(seconds), args.small, args.rival_python, args.photographs, args.cifar10))
        return
    args.output.parent.mkdir(parents=True, exist_ok=True)
    found = {"machine": machine(args.rival_python), "small": args.small, "jobs": {}}
    deadline = time.monotonic() + 60 * args.minutes
    for number, name in enumerate(args.only):
        left = deadline - time.monotonic()
        if left <= 0:
            found["jobs"][name] = {"error": "no time was left", "figures": []}
        else:
            started = time.monotonic()
            found["jobs"][name] = run_job(args, name, left / (len(args.only) - number), left)
            found["jobs"][name]["seconds"] = round(time.monotonic() - started, 1)
        print(table({name: found["jobs"][name]}), flush=True)
        write(args.output, found)


def serve(name, options):
    """Run one job, and print each of its figures as a line of JSON."""
    sys.path.insert(0, str(HERE.parent))
    from pimm.cli import use_cores  # before Paddle, which changes OMP_NUM_THREADS
    from pimm.ops import reuse_freed_memory

    use_cores()
    reuse_freed_memory()
    module, function = JOBS[name]
    for figure in getattr(importlib.import_module(module), function)(options):
        print(json.dumps(figure._asdict()), flush=True)


def run_job(args, name, share, left):
    """Return the figures of one job, and its error if it fails or is stopped.

    Args:
        args: the arguments of the script.
        name: of the job.
        share: seconds that its turns may take.
        left: seconds after which it is stopped, if they are more than LEAST.
    """
    command = [sys.executable, __file__, "--job", name, str(1 if args.small else 0.7 * share)]  # the rest is to start
    command += ["--rival-python", args.rival_python, "--photographs", args.photographs, "--cifar10", args.cifar10]
    command += ["--small"] if args.small else []
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    error = ""
    try:
        out, said = process.communicate(timeout=max(left, LEAST))
        if process.returncode:
            error = (said.strip().splitlines() or ["it failed"])[-1][:300]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)  # with its rivals and launches
        out, said = process.communicate()
        error = "stopped: no time was left"
    lines = [json.loads(line) for line in out.splitlines() if line.startswith('{"what"')]
    return {"figures": lines, **({"error": error} if error else {})}


def machine(rival_python):
    """Return what the figures depend on beside the code."""
    model = next((line.partition(":")[2].strip() for line in read_lines("/proc/cpuinfo") if "model name" in line), "")
    flags = next((line for line in read_lines("/proc/cpuinfo") if line.startswith("flags")), "")
    found = {
        "processor": model or platform.processor(),
        "vectors": next((name for name in ("avx512f", "avx2") if name in flags), "portable"),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "not set"),
        "load before": round(os.getloadavg()[0], 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "paddle": next(filter(None, map(version, ("paddlepaddle", "paddlepaddle-gpu"))), "none"),
        "date": time.strftime("%Y-%m-%d"),
    }
    for module in ("torch", "timm"):
        has = imports(rival_python, module)
        code = f"import {module}; print({module}.__version__)"
        found[module] = subprocess.check_output([rival_python, "-c", code], text=True).strip() if has else "none"
    return found


def version(package):
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def read_lines(path):
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def table(jobs):
    """Return the figures of jobs as a table: a row for each comparison, ours against the best of the rivals."""
    lines = []
    for name, job in jobs.items():
        figures = [Figure(**each) for each in job["figures"]]
        for what, at in dict.fromkeys((each.what, each.at) for each in figures):
            same = [each for each in figures if (each.what, each.at) == (what, at)]
            place = "" if at is None else f", {at:g} ({name.removeprefix('growth: ')})"
            lines.append(f"| {name} | {what}{place} | {cells(same)} |")
        if job.get("error"):
            lines.append(f"| {name} | {job['error']} | | | |")
    return "\n".join(lines)


def cells(figures):
    """Return three cells: our figures, those of rivals, and how many times our best is as good as the best rival's."""
    ours = [each for each in figures if each.by.startswith("here")]
    rivals = [each for each in figures if not each.by.startswith("here")]
    shown = ["; ".join(text(each) for each in group) for group in (ours, rivals)]
    gain = ""
    if rivals:
        choose = max if ours[0].unit.endswith("/s") else min
        own, best = (choose(group, key=lambda each: each.value) for group in (ours, rivals))
        gain = f"{times_as_good(own, best):.2f}"
    return " | ".join([*shown, gain])


def text(figure):
    value = f"{figure.value:,.0f}" if figure.value >= 100 else f"{figure.value:.3g}"
    by = figure.by.removeprefix("here").removeprefix(", ")
    return f"{by + ' ' if by else ''}{value} {figure.unit}"


HEAD = "| job | what | here | rivals | times the best rival |\n|---|---|--:|--:|--:|\n"


def write(output, found):
    """Write the JSON file, the table and the picture; each replaces the earlier one at once."""
    import growth

    written = {
        ".json": json.dumps(found, indent=1) + "\n",
        ".md": "\n".join(f"- {key}: {value}" for key, value in found["machine"].items())
        + f"\n\n{HEAD}{table(found['jobs'])}\n",
    }
    for ending, content in written.items():
        scratch = output.with_name(output.name + ending + ".part")
        scratch.write_text(content)
        os.replace(scratch, output.with_name(output.name + ending))
    curves = {name: [Figure(**each) for each in job["figures"]] for name, job in found["jobs"].items()}
    growth.draw(curves, output.with_name(output.name + ".svg"))


if __name__ == "__main__":
    main()
