"""The jobs on a device that is no CPU: the test device, whose memory is its own and whose streams run behind the host.

The device computes with the kernels of Paddle's CPU build. On the CPU itself, this project computes some layers in
another way (a pointwise convolution is a matrix product), so that the numbers agree to rounding.
"""

import os

import pytest
from device_library import DEVICE, run, run_jobs

JOBS = ["searches", "selections", "retraining", "resuming", "scripts", "exporting"]
MORE_JOBS = [*JOBS, "ranking", "conversion", "notebook", "mixed_precision"]

ITSELF = """
import ctypes, os, signal
import numpy as np, paddle
from recording import counts
from pimm import device

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

address = paddle.ones([4]).data_ptr()
for touch in (lambda: ctypes.string_at(address, 4), lambda: ctypes.memset(address, 0, 4)):
    child = os.fork()
    if not child:
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)
        touch()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGSEGV, status

large = paddle.to_tensor(np.random.default_rng(0).normal(size=(512, 512)).astype("float32"))
kept = [large := paddle.tanh(large @ large) for _ in range(100)]
waiting = counts()["behind"]
print("done")
"""


def test_the_device_itself(library):
    """Poisoned memory that no host can touch, streams behind the host, the numbers of the CPU's kernels to the bit.

    The process ends while a stream has much to do, and what reads freed memory goes wrong (MALLOC_PERTURB_).
    """
    outcome = run(library, ITSELF)
    assert outcome.stdout.splitlines()[-1:] == ["done"], outcome.stderr[-3000:]
    assert outcome.returncode == 0, outcome.stderr[-3000:]


COPIES = """
import numpy as np, paddle
from pimm.data.device import to_device
from recording import counts

image, product = np.zeros([64, 64], "float32"), paddle.ones([256, 256])
copies, before = [], counts()
for number in range(20):
    for _ in range(4):
        product = paddle.tanh(product @ product)
    image[:] = number
    copies.append(to_device(image))
moved = {name: count - before[name] for name, count in counts().items()}
assert (moved["copies_in"], moved["copies_in_async"], moved["waits"]) == (0, 20, 0), moved
assert [copy.mean().item() for copy in copies] == list(range(20))
"""


def test_batches_are_copied_behind_the_host_from_memory_that_is_kept(library, in_full):
    outcome = run(library, COPIES)
    assert outcome.returncode == 0, outcome.stderr[-3000:]


@pytest.fixture(scope="module")
def numbers(library, tmp_path_factory):
    """Return the numbers of the jobs, by device."""
    jobs = MORE_JOBS if os.environ.get("PIMM_TEST_DEVICE") == "1" else JOBS
    folders = {name: tmp_path_factory.mktemp(name) for name in ("cpu", DEVICE)}
    found = run_jobs(library, {"cpu": jobs, DEVICE: [*jobs, "waits"]}, folders)
    return {name: processes[0] for name, processes in found.items()}


def on_both(numbers, name):
    """Return a number of the jobs on the CPU and on the device."""
    return numbers["cpu"][name], numbers[DEVICE][name]


def test_each_job_runs_where_it_is_told(numbers):
    assert on_both(numbers, "device") == ("cpu", f"{DEVICE}:0")
    assert numbers["cpu"]["counts"]["kernels"] == 0
    assert numbers[DEVICE]["counts"]["kernels"] > 10_000


@pytest.mark.parametrize("job", ["single path", "cream", "select", "evolve"])
def test_searches_select_the_same_architecture(numbers, job):
    on_cpu, there = on_both(numbers, f"{job} architecture")
    assert there == on_cpu


@pytest.mark.parametrize("job", ["select", "evolve"])
def test_candidates_have_the_same_scores(numbers, job):
    on_cpu, there = on_both(numbers, f"{job} scores")
    assert len(on_cpu) > 4
    assert there == pytest.approx(on_cpu, rel=1e-5)


@pytest.mark.parametrize("job", ["single path", "cream", "retrain", "script"])
def test_checkpoints_hold_the_same_numbers(numbers, job):
    on_cpu, there = on_both(numbers, f"{job} state")
    assert there == pytest.approx(on_cpu, rel=1e-5)
    assert ("ema.pdema" in there) == (job in ("retrain", "script"))


def test_tests_give_the_same_accuracy(numbers):
    on_cpu, there = on_both(numbers, "test")
    assert there == {**on_cpu, "loss": pytest.approx(on_cpu["loss"], rel=1e-5)}
    on_cpu, there = on_both(numbers, "validate")
    loss, checkpoint = pytest.approx(on_cpu["loss"], rel=1e-5), there["checkpoint"]
    assert there == {**on_cpu, "loss": loss, "checkpoint": checkpoint}


def test_images_get_the_same_classes(numbers):
    on_cpu, there = on_both(numbers, "inference")
    assert [(row["index"], row["label"]) for row in there] == [(row["index"], row["label"]) for row in on_cpu]
    for row, other in zip(there, on_cpu):
        assert row["prob"] == pytest.approx(other["prob"], rel=1e-5)


def test_an_export_runs_on_the_device(numbers):
    """As the net does there, and as the export does on the CPU."""
    there = numbers[DEVICE]
    assert there["kernels of the export"] > 10 and there["kernels of the net"] > 10
    expected = _probabilities(numbers["cpu"]["export classifies"])
    assert len(expected) == 15 * 3
    for name in ("net classifies", "export classifies"):
        assert _probabilities(there[name]) == pytest.approx(expected, rel=1e-4)


def _probabilities(images):
    """Return the probabilities of the classes of images, by the ends of the images' paths and the classes."""
    return {
        (*path.split("/")[-2:], guess["name"]): guess["probability"]
        for path, guesses in images.items()
        for guess in guesses
    }


def test_a_resumed_training_is_the_same_to_the_bit_and_goes_on_elsewhere(numbers):
    there = numbers[DEVICE]
    assert there["resumed here"] == [there["retrain bits"], there["retrain state"]]
    for elsewhere in ("on the CPU", "here from the CPU"):
        assert there[f"resumed {elsewhere}"][1] == pytest.approx(there["retrain state"], rel=1e-5)
    assert numbers["cpu"]["resumed on the CPU"][0] == numbers["cpu"]["retrain bits"]


def test_rank_correlation_is_the_same(in_full, numbers):
    on_cpu, there = on_both(numbers, "ranking rows")
    assert len(on_cpu) == 3 and there == on_cpu
    assert numbers[DEVICE]["ranking"] == numbers["cpu"]["ranking"]


def test_conversion_keeps_the_bits_and_classifies_alike(in_full, numbers):
    on_cpu, there = on_both(numbers, "converted says")
    assert len(there) == 3 and there == on_cpu
    assert numbers[DEVICE]["converted is whole"] is True


@pytest.mark.parametrize("name", ["Cream validated", "Cream weights", "SPOS validated", "SPOS weights"])
def test_searches_of_a_notebook_train_the_same(in_full, numbers, name):
    on_cpu, there = on_both(numbers, name)
    assert there == pytest.approx(on_cpu, rel=1e-5, nan_ok=True)


def test_an_evolution_of_a_notebook_finds_the_same(in_full, numbers):
    on_cpu, there = on_both(numbers, "SPOS evolution")
    assert len(there) > 2 and there == on_cpu


# Waits

NONE, ONE_READ = [0, 0, 0], [1, 0, 2]  # reads, blocking copies to the device, and other waits


def reads(step):
    return step["copies_out"] + step["copies_out_async"]


@pytest.mark.parametrize("kind", ["single path", "classify"])
def test_training_steps_do_not_wait_for_the_device(numbers, kind):
    steps = numbers[DEVICE]["steps"][kind]
    assert len(steps) >= 4
    assert [reads(step) + step["copies_in"] + step["waits"] for step in steps] == [0] * len(steps)
    assert sum(step["behind"] for step in steps) > len(steps)


def test_a_step_with_a_teacher_reads_the_teacher_and_the_accuracy(numbers):
    """The first epoch has no teachers; then the board fills; every second taught batch picks its teacher twice."""
    steps = numbers[DEVICE]["steps"]["cream"]
    assert [reads(step) for step in steps] == [0, 0, 0, 0, 1, 2, 3, 2]
    assert [step["copies_in"] for step in steps] == [0] * len(steps)


def test_only_a_loss_scale_and_an_average_on_the_cpu_wait_in_a_step(numbers):
    """With the step's batch from the prefetcher, and the sums of its metrics."""
    found = numbers[DEVICE]["waits"]["steps"]
    waiting = {
        "averaged on the CPU": [[1, 0, 1]] * 4,
        "float16": [ONE_READ] * 4,
        "float16, clipped and accumulating": [NONE, ONE_READ] * 2,
    }
    assert found == {**{name: [NONE] * 4 for name in found}, **waiting}
    assert len(found) == 15


def test_an_average_on_the_cpu_is_that_on_the_device(numbers):
    found = numbers[DEVICE]["averages"]
    assert found["averaged on the CPU"] == pytest.approx(found["averaged"], rel=1e-6)


def test_an_evaluation_reads_once(numbers):
    found = numbers[DEVICE]["waits"]["evaluations"]
    assert found["3"] == found["6"]
    assert found["6"][0] == 1


def test_mixed_precision_halves_the_scale_at_an_overflow_and_then_follows_float32(numbers):
    found = numbers[DEVICE]["mixed precision"]
    plain, (losses, scales) = found["float32"]["losses"], found["float16"].values()
    skipped = [after < before for before, after in zip([2.0**24, *scales], scales)]
    overflows = sum(skipped)
    assert 2 < overflows < 7 and skipped == sorted(skipped, reverse=True), scales
    assert losses[: overflows + 1] == [losses[0]] * (overflows + 1)
    assert losses[overflows:] == pytest.approx(plain[: len(losses) - overflows], rel=1e-3)
    assert losses[overflows:] != plain[: len(losses) - overflows]


@pytest.mark.parametrize("job", ["mixed cream", "O1", "O2"])
def test_trainings_in_float16_end_near_those_in_float32(in_full, numbers, job):
    on_cpu, there = on_both(numbers, f"{job} state")
    assert there["model.pdparams"] == pytest.approx(on_cpu["model.pdparams"], rel=1e-3)
    assert there["model.pdparams"] != pytest.approx(on_cpu["model.pdparams"], rel=1e-5)
    holds_weights = there["optimizer.pdopt"] > there["model.pdparams"] / 2  # those in float32
    assert holds_weights == (job == "O2")


def test_a_resumed_training_of_level_o2_is_the_same_to_the_bit(in_full, numbers):
    for name in ("cpu", DEVICE):
        assert numbers[name]["resumed O2 bits"] == numbers[name]["O2 bits"]


BFLOAT16 = """
import numpy as np
import waits

found = waits.of_mixed_precision(("float32", "bfloat16"))
plain, mixed = found["float32"]["losses"], found["bfloat16"]["losses"]
assert not np.allclose(mixed, plain, rtol=1e-4), mixed
assert np.allclose(mixed, plain, rtol=1e-2), mixed
kind = {"bfloat16": {"amp": True, "amp_dtype": "bfloat16"}}
assert waits.of_steps(kind) == {"bfloat16": [[0, 0, 0]] * 4}
"""


def test_bfloat16_needs_no_loss_scale_and_waits_for_nothing(library, in_full):
    """Of plug-ins, Paddle trusts those of a few names with bfloat16."""
    outcome = run(library, BFLOAT16, name="npu")
    assert outcome.returncode == 0, outcome.stderr[-3000:]
