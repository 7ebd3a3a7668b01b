"""The command-line front: arguments, exit codes, one line for a user's mistake, and the end of all processes."""

import errno
import os
import signal
import subprocess
import sys
import time
import types

import pytest
from paths import ROOT

from cream import cli
from cream.config.keys import KEYS
from pimm import preemption
from pimm.cli import run, use_cores
from pimm.errors import CheckpointError, ConfigError, DataError, TrainingError

COMMANDS = {"train": "search", "retrain": "retrain", "test": "test"}
TOOLS = {
    **COMMANDS,
    **{"select": "select", "latency": "latency", "rank_correlation": "retrain", "spos_supernet": "spos_supernet"},
    **{"spos_search": "spos_search", "spos_scratch": "spos_scratch"},
}


@pytest.fixture
def settings(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("LR: 0.5\n")
    return path


@pytest.fixture
def calls(monkeypatch):
    """Settings that each job was called with."""
    calls = []
    jobs = types.SimpleNamespace(
        **{name: lambda cfg, name=name: calls.append((name, cfg)) for name in COMMANDS.values()}
    )
    monkeypatch.setitem(sys.modules, "cream.jobs", jobs)
    monkeypatch.setattr("cream.jobs", jobs, raising=False)
    return calls


@pytest.mark.parametrize("name", COMMANDS.values())
def test_command_runs_its_job_with_the_settings(name, settings, calls):
    code = getattr(cli, name)(["--cfg", str(settings), "EPOCHS=3", "--local_rank", "1", "NET.EMA.DECAY=0.9"])
    ((job, cfg),) = calls
    assert (code, job, cfg.LR, cfg.EPOCHS, cfg.NET.EMA.DECAY) == (0, name, 0.5, 3, 0.9)


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (ConfigError("LR is odd"), 2, "error: LR is odd\n"),
        (DataError("broken"), 2, "error: broken\n"),
        (CheckpointError("damaged"), 2, "error: damaged\n"),
        (TrainingError("loss is nan"), 2, "error: loss is nan\n"),
        (FileNotFoundError(errno.ENOENT, "x", "a/b.tar"), 2, "error: a/b.tar: No such file or directory\n"),
        (PermissionError(errno.EACCES, "x", "a/b.tar"), 2, "error: a/b.tar: Permission denied\n"),
        (OSError(errno.ENAMETOOLONG, "x", "a" * 5000), 2, f"error: {'a' * 300}: File name too long\n"),
        (OSError(errno.ENOSPC, "x"), 2, "error: No space left on device\n"),
        (KeyboardInterrupt(), 130, "interrupted; it goes on\n"),
        (preemption.Preempted("saved", saved=True), 0, "saved; it goes on\n"),
        (preemption.Preempted(), 143, "ended by SIGTERM; it goes on\n"),
    ],
)
def test_mistake_is_told_in_one_line(error, code, says, capsys):
    def job():
        raise error

    assert run(job, "it goes on") == code
    assert capsys.readouterr().err == says


def test_sigterm_ends_a_job_once(capsys):
    """The launcher sends it several times: what the first one ends is not broken off by the others."""
    ended = []

    def job():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            ended.append("well")

    assert run(job) == 128 + signal.SIGTERM
    os.kill(os.getpid(), signal.SIGTERM)
    assert ended == ["well"]
    assert capsys.readouterr().err == "ended by SIGTERM\n"


@pytest.mark.parametrize("error", [ValueError("a bug"), OSError(errno.EBADF, "a bug")])
def test_fault_of_the_program_keeps_its_traceback(error, capsys):
    def job():
        raise error

    assert run(job) == 1
    assert capsys.readouterr().err.startswith("Traceback")


def run_tool(tool, folder, *args):
    command = [sys.executable, ROOT / "tools" / f"{tool}.py", *args]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("tool", COMMANDS)
def test_tool_runs_from_anywhere_without_installation(tool, tmp_path):
    code, out, err = run_tool(tool, tmp_path, "--help")
    assert (code, err) == (0, "")
    assert f"usage: {tool}.py [-h] --cfg FILE [KEY=VALUE ...]" in out


PIMM_TOOLS = ("pimm_train", "pimm_validate", "pimm_inference", "avg_checkpoints")


def run_without_paddle(tool, *args):
    """Run a tool where an import of Paddle fails."""
    code = "import runpy, sys; sys.modules['paddle'] = None; sys.argv = sys.argv[1:]; "
    code += "runpy.run_path(sys.argv[0], {}, '__main__')"
    command = [sys.executable, "-c", code, ROOT / "tools" / f"{tool}.py", *args]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, env={**os.environ, "COLUMNS": "80"}
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("tool", TOOLS)
def test_help_lists_the_settings_of_the_job_without_paddle(tool):
    code, out, err = run_without_paddle(tool, "--help")
    assert (code, err) == (0, "")
    assert f"tools/{tool}.py " in out.partition("example:")[2].partition("settings")[0]
    listed = {
        line.partition("=")[0].strip() for line in out.partition("settings, ")[2].splitlines() if line[2:3].isupper()
    }
    assert listed == {name for name, known in KEYS.items() if TOOLS[tool] in known.jobs}
    assert max(map(len, out.partition("settings, ")[2].splitlines())) <= 80


@pytest.mark.parametrize("tool", ["report", "generate_subImageNet", "demo", "main", *PIMM_TOOLS])
def test_help_of_other_tools_needs_no_paddle(tool):
    code, out, err = run_without_paddle(tool, "--help")
    assert (code, err) == (0, "") and out.startswith(f"usage: {tool}.py")


PEERS = {
    # NNI's scripts of Cream
    ("train", "--flops_minimum", "0"): "type SUPERNET.FLOPS_MINIMUM=0",
    ("retrain", "--model_selection", "14"): "type NET.SELECTION=14",
    ("retrain", "--resume=a.pth.tar"): "type RESUME_PATH=a.pth.tar",
    ("test", "--resume", "a.pth.tar"): "type RESUME_PATH=a.pth.tar",
    # NNI's scripts of SPOS
    ("spos_supernet", "--imagenet-dir", "data"): "type DATA_DIR=data",
    ("spos_supernet", "--load-checkpoint", "--seed", "3"): "type NET.INITIAL_WEIGHTS=FILE",
    ("spos_supernet", "--cfg", "configs/spos/supernet.yaml", "--seed", "3"): "type SEED=3",
    ("spos_scratch", "--batch-size", "64"): "type DATASET.BATCH_SIZE=64",
    ("spos_scratch", "--learning-rate", "0.1"): "type LR=0.1",
    ("spos_scratch", "--lr-decay", "linear"): "type SCHED=linear",
    ("spos_scratch", "--label-smooth", "0.1"): "type AUGMENTATION.SMOOTHING=0.1",
    ("spos_scratch", "--log-frequency", "9"): "type LOG_INTERVAL=9",
    ("spos_scratch", "--tb-dir", "out"): "type SAVE_PATH=out",
    ("spos_scratch", "--weight-decay", "0"): "type WEIGHT_DECAY=0",
    # PaddleClas's
    ("train", "-c", "configs/train.yaml", "-o", "EPOCHS=3"): "type EPOCHS=3",
    ("train", "configs/train.yaml"): "required: --cfg/-c",
    ("train", "--cfg", "configs/train.yaml", "configs/train.yaml"): "is given by --cfg configs/train.yaml",
    # Nobody's
    ("select", "output", "--outputt", "x"): "there is no option --outputt; did you mean --output?",
    ("select",): "one SEARCH is needed, not 0",
    ("select", "--help-me" + "e" * 5000): "there is no option --help-mee",
    ("rank_correlation", "--cfg", "x.yaml", "--output", "x"): "at least one SEARCH is needed",
    ("spos_search", "output", "--cfg", "x.yaml"): "one SEARCH is needed, or --cfg in its place",
    ("main", "train", "missing.yaml"): "error: missing.yaml: No such file or directory",
    ("main", "serve", "missing.yaml"): "invalid choice: 'serve'",
    ("train", "-c", "configs/train.yaml", "EPOCH=3"): "unknown key EPOCH; did you mean EPOCHS?",
    ("train", "-c", "configs/train.yaml", "SUPERNET.FLOPS_MINIMUM=700"): "must be at most SUPERNET.FLOPS_MAXIMUM",
}


@pytest.mark.parametrize(("command", "says"), PEERS.items(), ids=map(" ".join, PEERS))
def test_a_mistake_is_answered_in_one_line_without_paddle(command, says):
    code, out, err = run_without_paddle(*command)
    assert (code, out) == (2, "")
    assert err.startswith("error: ") and says in err and err.count("\n") == 1 and len(err) < 400, err


def test_options_with_another_name(settings, calls):
    assert cli.search(["-c", str(settings), "EPOCHS=3"]) == 0
    assert cli.main(["train", str(settings), "EPOCHS=3"]) == 0
    (first, cfg), (second, same) = calls
    assert (first, second, cfg.EPOCHS) == ("search", "search", 3) and same == cfg


def test_a_system_without_locks_is_named(settings, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert cli.search(["--cfg", str(settings)]) == 2
    assert capsys.readouterr().err.startswith("error: cream runs on Linux and macOS alone")


def test_the_options_of_the_subset_are_those_that_it_has():
    from cream.studies import subset

    how = next(action for action in cli.subset_parser()._actions if action.dest == "how")
    assert set(how.choices) == set(subset.PLACE)


def test_tool_names_a_missing_file_and_an_unknown_key(tmp_path):
    missing = run_tool("train", tmp_path, "--cfg", "missing.yaml")
    assert missing == (2, "", "error: missing.yaml: No such file or directory\n")
    (tmp_path / "settings.yaml").write_text("EPOCH: 3\n")
    unknown = run_tool("train", tmp_path, "--cfg", "settings.yaml")
    assert unknown == (2, "", "error: settings.yaml, line 1: unknown key EPOCH; did you mean EPOCHS?\n")


@pytest.mark.parametrize("failing", [0, 1])
def test_failure_of_one_process_ends_all_and_is_seen(failing, tmp_path):
    script = tmp_path / "two.py"
    script.write_text(
        f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import paddle.distributed as dist
import paddle
from pimm.cli import run
from pimm.errors import DataError

def job():
    paddle.set_device("cpu")
    dist.init_parallel_env()
    if dist.get_rank() == {failing}:
        raise DataError("broken image")
    dist.all_reduce(paddle.ones([2]))

sys.exit(run(job))
"""
    )
    launch = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", "2", "--log_dir", "log", script]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(launch, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    output = done.stdout + done.stderr
    assert ("error: broken image" if failing == 0 else "[rank 1] error: broken image") in output
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("given", "launched", "expected"),
    [
        ({}, False, lambda cores: cores),
        ({"OMP_NUM_THREADS": "3,2"}, False, lambda cores: 3),
        ({"OMP_NUM_THREADS": "1"}, False, lambda cores: 1),
        ({}, True, lambda cores: max(1, cores // 2)),
        ({"OMP_NUM_THREADS": "3"}, True, lambda cores: 3),
    ],
)
def test_processes_share_the_cores_unless_told_otherwise(tmp_path, given, launched, expected):
    script = tmp_path / "script.py"
    script.write_text("from pimm.cli import use_cores\nprint('threads', use_cores())\n")
    launch = (
        ["-m", "paddle.distributed.launch", "--nproc_per_node", "2", "--log_dir", str(tmp_path)] if launched else []
    )
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    environment.update(given, PYTHONPATH=str(ROOT))
    command = [sys.executable, *launch, str(script)]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, cwd=tmp_path).stdout
    if launched:
        said = (tmp_path / "workerlog.1").read_text()
    assert f"threads {expected(len(os.sched_getaffinity(0)))}\n" in said


@pytest.mark.parametrize("text", ["abc", "0", "-1", "1000000", "1.5", "²"])
def test_a_number_of_threads_that_is_none(text, monkeypatch):
    monkeypatch.setattr("pimm.cli.THREADS", text)
    with pytest.raises(ConfigError, match=f"OMP_NUM_THREADS is '{text}'; must be a whole number from 1 to"):
        use_cores()


# As on Windows, where no such module is found.
NO_LOCKS = """
import importlib.util, sys

find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *package: None if name == "fcntl" else find(name, *package)
sys.modules["fcntl"] = None
"""


@pytest.mark.parametrize(
    "code, status, error",
    [
        ("import cream.jobs, cream.deploy.command, pimm.train_parts", 0, ""),
        (
            "from cream import cli; sys.exit(cli.search(['--cfg', 'configs/demo/search.yaml']))",
            2,
            "error: cream runs on Linux and macOS alone: this Python",
        ),
    ],
)
def test_a_python_without_locks_imports_everything_and_says_that_jobs_need_them(code, status, error):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", NO_LOCKS + code], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == status
    assert done.stderr.startswith(error) and done.stderr.count("\n") <= 1
