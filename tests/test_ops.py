"""The CPU depthwise convolution against Paddle's own and finite differences, and the ways in which it is built."""

import concurrent.futures
import itertools
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import paddle
import pytest
from paddle.nn import functional as F

from pimm.errors import ConfigError, PimmError
from pimm.ops import build, cpu_backend, depthwise_conv2d
from pimm.ops.backend import INSTRUCTION_SETS

ROOT = Path(__file__).resolve().parent.parent
SIZES = [(1, 1), (2, 2), (3, 4), (7, 7), (8, 8), (14, 13), (33, 18)]
LAYERS = [  # images, channels, kernel, stride, of nets for small and for large images
    ((33, 7, 2, 2), 5, 1),
    ((16, 24, 4, 4), 3, 1),
    ((9, 40, 8, 8), 5, 2),
    ((2, 96, 14, 14), 7, 1),
    ((2, 16, 56, 56), 3, 2),
    ((1, 3, 112, 112), 3, 1),
]


@pytest.fixture(autouse=True)
def default_backend(monkeypatch):
    monkeypatch.delenv("PIMM_CPU_OPS", raising=False)


def paddle_conv2d(x, weight, bias=None, stride=1, padding=0, dilation=1):
    return F.conv2d(x, weight, bias, stride, padding, dilation, groups=x.shape[1])


def draw(*shape, seed=0, dtype="float32"):
    values = np.random.default_rng([seed, *shape]).standard_normal(shape)
    return paddle.to_tensor(values.astype(dtype), stop_gradient=False)


def outputs_and_gradients(conv, x, weight, **options):
    out = conv(x, weight, **options)
    gradients = paddle.grad(out, [x, weight], draw(*out.shape, seed=1, dtype=x.numpy().dtype))
    return [tensor.numpy() for tensor in (out, *gradients)]


def assert_equal_to_paddle(x, weight, **options):
    ours = outputs_and_gradients(depthwise_conv2d, x, weight, **options)
    theirs = outputs_and_gradients(paddle_conv2d, x, weight, **options)
    for name, a, b in zip(("output", "input gradient", "weight gradient"), ours, theirs):
        error, size = np.abs(a - b).max(), np.abs(b).max()
        assert error <= 1e-5 * size, f"{name} of {x.shape}, {weight.shape}, {options}: {error} of {size}"


def fits(size, kernel, padding, dilation):
    top, bottom, left, right = padding
    spans = (size[0] + top + bottom, size[1] + left + right)
    return all(span > dilation * (k - 1) for span, k in zip(spans, kernel))


@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (5, 5), (7, 7), (9, 9), (3, 5)], ids=str)
def test_equals_paddle_on_a_grid(kernel, stride, dilation):
    assert cpu_backend() != "paddle", "these tests need a C++ compiler"
    same = [dilation * (k // 2) for k in kernel]
    paddings = [[0, 0, 0, 0], [same[0], same[0], same[1], same[1]], [0, 1, 1, 2], [3, 0, 2, 1]]
    checked = 0
    for size, padding, (images, channels) in itertools.product(SIZES, paddings, [(1, 3), (5, 17)]):
        if fits(size, kernel, padding, dilation):
            x, weight = draw(images, channels, *size), draw(channels, 1, *kernel)
            assert_equal_to_paddle(x, weight, stride=stride, padding=padding, dilation=dilation)
            checked += 1
    assert checked >= 14


@pytest.mark.parametrize("backend", INSTRUCTION_SETS)
@pytest.mark.parametrize(("shape", "kernel", "stride"), LAYERS)
def test_every_instruction_set_equals_paddle(shape, kernel, stride, backend, monkeypatch):
    monkeypatch.setenv("PIMM_CPU_OPS", backend)
    if not build.load_library().pimm_cpu_ops_support(backend.encode()):
        with pytest.raises(ConfigError, match="this machine has only"):
            cpu_backend()
        pytest.skip(f"no {backend} here")
    assert cpu_backend() == backend
    assert_equal_to_paddle(draw(*shape), draw(shape[1], 1, kernel, kernel), stride=stride, padding=kernel // 2)


@pytest.mark.parametrize(("stride", "padding", "dilation"), [(1, 1, 1), (2, [0, 1, 0, 1], 1), (1, [2, 1, 3, 0], 2)])
def test_gradients_equal_finite_differences(stride, padding, dilation):
    tensors = draw(2, 3, 6, 5, dtype="float64"), draw(3, 1, 3, 3, dtype="float64")

    def loss(x, weight):
        return depthwise_conv2d(x, weight, stride=stride, padding=padding, dilation=dilation).square().sum()

    gradients = paddle.grad(loss(*tensors), tensors)
    for which, (tensor, gradient) in enumerate(zip(tensors, gradients)):
        step = 1e-5 * draw(*tensor.shape, seed=2, dtype="float64")
        there, back = list(tensors), list(tensors)
        there[which], back[which] = tensor + step, tensor - step
        difference = (loss(*there) - loss(*back)).item() / 2
        assert difference == pytest.approx((gradient * step).sum().item(), rel=1e-8)


@pytest.mark.parametrize("padding", [1, (1, 2), [0, 1, 2, 3]], ids=str)
def test_bias_and_forms_of_padding(padding):
    x, weight, bias = draw(2, 5, 9, 7), draw(5, 1, 3, 3), draw(5)
    out = depthwise_conv2d(x, weight, bias, padding=padding)
    np.testing.assert_allclose(out.numpy(), paddle_conv2d(x, weight, bias, padding=padding).numpy(), atol=1e-5)
    (gradient,) = paddle.grad(out.sum(), [bias])
    np.testing.assert_allclose(gradient.numpy(), np.full(5, out.numel().item() / 5))


@pytest.mark.parametrize(
    ("weight", "options"),
    [
        (draw(5, 1, 3, 3), {"stride": 3}),
        (draw(5, 1, 3, 3), {"stride": (1, 2)}),
        (draw(5, 1, 3, 3), {"dilation": (1, 2)}),
        (draw(10, 1, 3, 3), {"padding": 1}),
    ],
    ids=["stride 3", "two strides", "two dilations", "two filters a channel"],
)
def test_what_the_operator_cannot_do_is_left_to_paddle(weight, options):
    x = draw(2, 5, 12, 10)
    for a, b in zip(*(outputs_and_gradients(conv, x, weight, **options) for conv in (depthwise_conv2d, paddle_conv2d))):
        np.testing.assert_array_equal(a, b)


def test_the_environment_switches_it_off_and_rejects_other_names(monkeypatch):
    x, weight = draw(2, 5, 12, 10), draw(5, 1, 3, 3)
    monkeypatch.setenv("PIMM_CPU_OPS", "paddle")
    assert cpu_backend() == "paddle"
    np.testing.assert_array_equal(depthwise_conv2d(x, weight).numpy(), paddle_conv2d(x, weight).numpy())
    monkeypatch.setenv("PIMM_CPU_OPS", "neon")
    with pytest.raises(ConfigError, match=r"'neon'; it can be paddle, avx512, avx2, portable"):
        depthwise_conv2d(x, weight)


def test_an_empty_batch():
    assert depthwise_conv2d(draw(0, 5, 6, 4), draw(5, 1, 3, 3), stride=2, padding=1).shape == [0, 5, 3, 2]


@pytest.mark.parametrize("frozen", ["x", "weight"])
def test_only_wanted_gradients_are_made(frozen):
    tensors = {"x": draw(2, 5, 6, 6), "weight": draw(5, 1, 3, 3)}
    tensors[frozen].stop_gradient = True
    (other,) = tensors.keys() - {frozen}
    (expected,) = paddle.grad(paddle_conv2d(**tensors).sum(), [tensors[other]])
    depthwise_conv2d(**tensors).sum().backward()
    assert tensors[frozen].grad is None
    np.testing.assert_allclose(tensors[other].grad.numpy(), expected.numpy(), atol=1e-5)


def test_no_graph_is_recorded_without_need():
    x, weight = draw(2, 5, 6, 6), draw(5, 1, 3, 3)
    with paddle.no_grad():
        assert depthwise_conv2d(x, weight).stop_gradient
    assert depthwise_conv2d(x.detach(), weight.detach()).stop_gradient
    assert not depthwise_conv2d(x.detach(), weight).stop_gradient


def test_tensors_that_are_not_contiguous():
    x, weight = draw(2, 6, 7, 5).transpose([0, 3, 1, 2]), draw(3, 3, 1, 5).transpose([3, 2, 0, 1])
    gradient = draw(2, 6, 7, 5, seed=3).transpose([0, 3, 1, 2])
    assert not x.is_contiguous() and not gradient.is_contiguous()
    ours, theirs = (
        paddle.grad(conv(x, weight, padding=1), [x, weight], gradient) for conv in (depthwise_conv2d, paddle_conv2d)
    )
    for a, b in zip(ours, theirs):
        np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-5)


def test_the_number_of_threads_changes_no_bit():
    x, weight = draw(7, 50, 14, 14), draw(50, 1, 5, 5)
    results = []
    try:
        for threads in (1, 3):
            paddle.base.core.set_num_threads(threads)
            results.append(outputs_and_gradients(depthwise_conv2d, x, weight, padding=2))
    finally:
        paddle.base.core.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))  # Paddle sets it on import
    for a, b in zip(*results):
        np.testing.assert_array_equal(a, b)


def test_several_threads_of_python_at_once():
    inputs, weight = [draw(4, 32, 14, 14, seed=seed) for seed in range(8)], draw(32, 1, 3, 3)
    expected = [paddle_conv2d(x, weight).numpy() for x in inputs]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for a, b in zip(pool.map(lambda x: depthwise_conv2d(x, weight).numpy(), inputs), expected):
            np.testing.assert_allclose(a, b, atol=1e-5)


class Depthwise(paddle.nn.Layer):
    def __init__(self):
        super().__init__()
        self.conv = paddle.nn.Conv2D(6, 6, 3, groups=6)

    def forward(self, x):
        return F.relu(depthwise_conv2d(2 * x, self.conv.weight, self.conv.bias, padding=[1, 1, 0, 1]))


@pytest.mark.parametrize("full_graph", [True, False])
def test_compiled_functions_give_the_same(full_graph):
    net, x = Depthwise(), draw(2, 6, 8, 8)
    expected = net(x).numpy()
    np.testing.assert_allclose(paddle.jit.to_static(net, full_graph=full_graph)(x).numpy(), expected, atol=1e-5)


def test_an_exported_net_needs_no_operator_of_ours(tmp_path):
    net, x = Depthwise(), draw(2, 6, 8, 8)
    net.eval()
    paddle.jit.save(net, str(tmp_path / "net"), input_spec=[paddle.static.InputSpec([None, 6, None, None], "float32")])
    (program,) = tmp_path.glob("*.json")
    assert "depthwise_conv2d" in program.read_text() and "pimm_" not in program.read_text()
    np.testing.assert_allclose(paddle.jit.load(str(tmp_path / "net"))(x).numpy(), net(x).numpy(), atol=1e-5)


# Building. A script that copies the library of the user's cache stands for the compiler, so that nothing is compiled.

CONVOLVE = """
import sys, numpy as np, paddle
from paddle.nn import functional as F
from pimm.ops import depthwise_conv2d
print("imported", file=sys.stderr)
x, weight = paddle.randn([4, 32, 14, 14]), paddle.randn([32, 1, 3, 3])
for _ in range(2):
    a, b = depthwise_conv2d(x, weight, padding=1), F.conv2d(x, weight, padding=1, groups=32)
    assert np.abs((a - b).numpy()).max() < 1e-5
"""
BUILD = "import sys; from pimm.ops.build import main; sys.argv = ['pimm-build-ops']; sys.exit(main())"


def fake_compiler(folder, seconds=0.0, status=0):
    library = build.build_library()
    script = folder / "fake-c++"
    script.write_text(
        f"#!{sys.executable} -S\nimport shutil, sys, time\n"
        "if '--version' in sys.argv: sys.exit(print('fake 1.0'))\n"
        f"open({str(folder / 'runs')!r}, 'a').write('run\\n')\n"
        f"time.sleep({seconds})\n"
        f"shutil.copy({str(library)!r}, sys.argv[sys.argv.index('-o') + 1])\n"
        f"sys.exit({status})\n"
    )
    script.chmod(0o755)
    return script


def start(code, folder, **environment):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PIMM_CACHE_DIR": str(folder / "cache"), **environment}
    return subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_without_a_compiler_one_line_says_so_and_paddle_convolves(tmp_path):
    process = start(CONVOLVE, tmp_path, PATH="", CXX=str(tmp_path / "nowhere"))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    (line,) = [line for line in errors.partition("imported\n")[2].splitlines() if line]
    assert line.startswith("pimm: found no C++ compiler (CXX=") and "as long, until you install g++" in line


def test_processes_that_build_at_once_build_once(tmp_path):
    compiler = fake_compiler(tmp_path, seconds=1)
    processes = [start(BUILD, tmp_path, CXX=str(compiler)) for _ in range(2)]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    (library,) = (tmp_path / "cache").glob("*.so")
    assert [out for out, _ in outputs] == [f"{library}\n"] * 2
    assert (tmp_path / "runs").read_text() == "run\n"
    assert sum(errors.count("pimm: building") for _, errors in outputs) == 1
    assert list((tmp_path / "cache").glob("build-*")) == []


def test_a_lock_whose_owner_was_killed_is_free(tmp_path, monkeypatch):
    process = start(BUILD, tmp_path, CXX=str(fake_compiler(tmp_path, seconds=3)))
    wait_until((tmp_path / "runs").exists)
    process.kill()
    process.communicate()
    compiler = fake_compiler(tmp_path)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("PIMM_CACHE_DIR", str(tmp_path / "cache"))
    assert (tmp_path / "cache" / "lock").exists()
    begin = time.monotonic()
    assert build.build_library().exists()
    assert time.monotonic() - begin < 2


def test_a_library_is_found_again_also_without_the_compiler(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", str(fake_compiler(tmp_path)))
    monkeypatch.setenv("PIMM_CACHE_DIR", str(tmp_path / "cache"))
    library = build.build_library()
    assert build.build_library() == library
    monkeypatch.setenv("CXX", "nowhere")
    assert build.build_library() == library
    assert (tmp_path / "runs").read_text() == "run\n"


def test_a_compiler_that_fails_leaves_its_words_in_a_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CXX", str(fake_compiler(tmp_path, status=1)))
    monkeypatch.setenv("PIMM_CACHE_DIR", str(tmp_path / "cache"))
    with pytest.raises(PimmError, match=r"failed, see .*\.log; on the CPU nets take Paddle's own"):
        build.build_library()
    assert len(list((tmp_path / "cache").glob("*.log"))) == 1
    assert list((tmp_path / "cache").glob("*.so")) == []
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_cache_that_cannot_be_written_is_said(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("CXX", str(fake_compiler(tmp_path)))
    monkeypatch.setenv("PIMM_CACHE_DIR", str(tmp_path / "file" / "cache"))
    with pytest.raises(PimmError, match="until you set PIMM_CACHE_DIR"):
        build.build_library()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_convolves_too(tmp_path):
    forking = CONVOLVE + "import os; child = os.fork()\n" + CONVOLVE
    forking += "if child == 0: os._exit(0)\nassert os.waitpid(child, 0)[1] == 0"
    process = start(forking, tmp_path, OMP_NUM_THREADS="2", CXX=str(fake_compiler(tmp_path)))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
