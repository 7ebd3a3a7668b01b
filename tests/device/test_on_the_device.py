"""The jobs on a device that is no CPU: the test device, whose memory is its own and whose streams run behind the host.

The device computes with the kernels of Paddle's CPU build. On the CPU itself, this project computes some layers in
another way (a pointwise convolution is a matrix product), so that the numbers agree to rounding.
"""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from device_library import environment
from tiny import write_images

NAME = "gpu_like_cpu"  # no text in a name may decide anything
JOBS = Path(__file__).with_name("device_jobs.py")
WORDS = """
import ctypes, os, sys
import numpy as np, paddle
from device_jobs import counts, leave
from pimm import device
"""


def run(library, code, *lines):
    """Run code in a process whose Paddle has the device, and return the process."""
    return subprocess.run(
        [sys.executable, "-c", "\n".join((WORDS, code, *lines))],
        env=environment(library, NAME),
        cwd=JOBS.parent,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_device_itself(library):
    """Two devices, poisoned memory, streams behind the host, and numbers of the CPU's kernels, to the bit."""
    outcome = run(
        library,
        """
found = device.counts()
assert found == {"cpu": 1, "gpu_like_cpu": 2}, found
assert str(device.current()) == device.current().described() == "gpu_like_cpu:0"
assert np.isnan(paddle.empty([999]).numpy()).all()
x = np.random.default_rng(0).normal(size=(64, 64)).astype("float32")
product = paddle.to_tensor(x)
before = counts()
for _ in range(50):
    product = paddle.tanh(product @ product)
moved = {name: count - before[name] for name, count in counts().items()}
assert (moved["kernels"], moved["copies_in"], moved["copies_out"], moved["waits"]) == (100, 0, 0, 0), moved
assert moved["behind"] > 10, moved
on_cpu = paddle.to_tensor(x, place="cpu")
for _ in range(50):
    on_cpu = paddle.tanh(on_cpu @ on_cpu)
assert np.array_equal(product.numpy(), on_cpu.numpy())
assert counts()["copies_out"] > before["copies_out"]
other = paddle.to_tensor(x, place="gpu_like_cpu:1")
assert device.device_of(other.place) == device.Device("gpu_like_cpu", 1)
assert np.array_equal((other + 1).numpy(), x + 1)
assert np.array_equal(paddle.to_tensor(x).t()[3:, ::2].numpy(), x.T[3:, ::2])
half = paddle.to_tensor(x).astype("float16")
exact = (half.astype("float32") @ half.astype("float32")).astype("float16")
assert np.array_equal((half @ half).numpy(), exact.numpy()) and counts()["half_kernels"] == 1
print("done")
leave()
""",
    )
    assert outcome.stdout.splitlines()[-1:] == ["done"], outcome.stderr[-3000:]


@pytest.mark.parametrize(
    "code",
    [
        "ctypes.string_at(paddle.ones([4]).data_ptr(), 4)",
        "ctypes.memset(paddle.ones([4]).data_ptr(), 0, 4)",
    ],
    ids=["reads", "writes"],
)
def test_a_host_that_touches_the_memory_of_the_device_crashes(library, code):
    outcome = run(library, code, 'print("still here")')
    assert (outcome.returncode, "still here" in outcome.stdout) == (-signal.SIGSEGV, False)


def run_on_both(library, folders, command, *options):
    """Run the jobs on the CPU and on the device, beside one another; return the numbers of each process, by device."""
    processes = {
        name: subprocess.Popen(
            [*command(folder), JOBS, name, folder, *options],
            env=environment(library, NAME),
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for name, folder in folders.items()
    }
    for name, process in processes.items():
        output, _ = process.communicate(timeout=400)
        assert (folders[name] / "numbers0.json").exists(), output[-3000:]
    return {
        name: [json.loads(path.read_text()) for path in sorted(folder.glob("numbers*.json"))]
        for name, folder in folders.items()
    }


@pytest.fixture(scope="module")
def numbers(library, tmp_path_factory):
    """Return the numbers of the jobs, by device."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("cpu", NAME)}
    found = run_on_both(library, folders, lambda folder: [sys.executable])
    return {name: processes[0] for name, processes in found.items()}


@pytest.fixture(scope="module")
def ranks(library, tmp_path_factory):
    """Return the numbers of both processes of a launch, by device."""
    folders = {name: tmp_path_factory.mktemp(f"two_{name}") for name in ("cpu", NAME)}
    for folder in folders.values():
        write_images(folder / "data")
    launch = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", "2", "--log_dir"]
    return run_on_both(library, folders, lambda folder: [*launch, folder / "logs"], "LOG_INTERVAL=1")


def test_each_job_runs_where_it_is_told(numbers):
    assert [numbers[name]["device"] for name in ("cpu", NAME)] == ["cpu", f"{NAME}:0"]
    assert numbers["cpu"]["counts"]["kernels"] == 0
    assert numbers[NAME]["counts"]["kernels"] > 10_000


@pytest.mark.parametrize("search", ["single path", "cream"])
def test_searches_select_the_same_architecture(numbers, search):
    on_cpu, there = (numbers[name][f"{search} architecture"] for name in ("cpu", NAME))
    assert there == on_cpu


@pytest.mark.parametrize("job", ["single path", "cream", "retrain", "script"])
def test_checkpoints_hold_the_same_numbers(numbers, job):
    on_cpu, there = (numbers[name][f"{job} state"] for name in ("cpu", NAME))
    assert there == pytest.approx(on_cpu, rel=1e-5)
    assert ("ema.pdema" in there) == (job in ("retrain", "script"))


def test_the_test_gives_the_same_accuracy(numbers):
    on_cpu, there = (numbers[name]["test"] for name in ("cpu", NAME))
    assert there == {
        "loss": pytest.approx(on_cpu["loss"], rel=1e-5),
        "prec1": on_cpu["prec1"],
        "prec5": on_cpu["prec5"],
    }


def test_a_resumed_training_is_the_same_to_the_bit_and_goes_on_elsewhere(numbers):
    there = numbers[NAME]
    assert there["resumed on the device"] == [there["retrain bits"], there["retrain state"]]
    assert there["resumed on the CPU"][1] == pytest.approx(there["retrain state"], rel=1e-5)
    assert numbers["cpu"]["resumed on the CPU"][0] == numbers["cpu"]["retrain bits"]


@pytest.mark.parametrize("kind", ["single path", "classify"])
def test_training_steps_do_not_wait_for_the_device(numbers, kind):
    steps = numbers[NAME]["steps"][kind]
    assert len(steps) >= 4
    assert [reads(step) + step["copies_in"] + step["waits"] for step in steps] == [0] * len(steps)
    assert sum(step["behind"] for step in steps) > len(steps)


def reads(step):
    return step["copies_out"] + step["copies_out_async"]


def test_a_step_with_a_teacher_reads_the_teacher_and_the_accuracy(numbers):
    """The first epoch has no teachers; then the board fills; every second taught batch picks its teacher twice."""
    steps = numbers[NAME]["steps"]["cream"]
    assert [reads(step) for step in steps] == [0, 0, 0, 0, 1, 2, 3, 2]
    assert [step["copies_in"] for step in steps] == [0] * len(steps)


def test_two_processes_on_two_devices_exchange_by_the_collectives_of_the_device(ranks):
    assert [found["device"] for found in ranks[NAME]] == [f"{NAME}:0", f"{NAME}:1"]
    assert [found["device"] for found in ranks["cpu"]] == ["cpu", "cpu"]
    for found in ranks[NAME]:
        assert all(step["collectives"] > 0 for steps in found["steps"].values() for step in steps)


@pytest.mark.parametrize("name", ["single path state", "cream state", "retrain state", "test"])
def test_two_processes_train_what_two_processes_on_the_cpu_train(ranks, name):
    first, second = ranks[NAME]
    assert first[name] == second[name] == pytest.approx(ranks["cpu"][0][name], rel=1e-5)


MIXED = """
from pimm import create_model
from pimm.engine import ClassifyStep, Update
from pimm.optim import create_optimizer_v2

def losses(amp):
    paddle.seed(3)
    net = create_model("mobilenetv3_small_075", num_classes=5)
    update = Update(create_optimizer_v2(net, opt="sgd", lr=0.001), amp=amp, clip_grad=1.0)
    step = ClassifyStep(net, paddle.nn.CrossEntropyLoss(), update, topk=())
    rng = np.random.default_rng(0)
    images, labels = rng.normal(size=(8, 3, 32, 32)).astype("float32"), rng.integers(0, 5, 8)
    before, found, scales = counts(), [], []
    for _ in range(9):
        found.append(step(paddle.to_tensor(images), paddle.to_tensor(labels), 0)["loss"].item())
        scales.append(update.state_dict()["scale"].item() if amp else 1.0)
    return found, scales, counts()["half_kernels"] - before["half_kernels"]

plain, _, none = losses(False)
mixed, scales, some = losses(True)
assert none == 0 and some > 100, (none, some)
skipped = [after < before for before, after in zip([65536.0, *scales], scales)]
overflows = sum(skipped)
assert 0 < overflows < 7 and skipped == sorted(skipped, reverse=True), scales
assert mixed[: overflows + 1] == [mixed[0]] * (overflows + 1), mixed
kept = mixed[overflows:]
assert np.allclose(kept, plain[: len(kept)], rtol=0.02), (kept, plain)
print("done")
leave()
"""


def test_mixed_precision_halves_the_scale_at_an_overflow_and_then_follows_float32(library):
    outcome = run(library, MIXED)
    assert outcome.stdout.splitlines()[-1:] == ["done"], outcome.stderr[-3000:]
