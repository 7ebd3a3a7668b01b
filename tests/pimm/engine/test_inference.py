"""The engine of evaluations: programs that compute what nets do, their cache, and eager nets where none can be had."""

import concurrent.futures
import logging
import os
import threading
import time

import numpy as np
import paddle
import pytest
from exports import OwnFilters, awakened, draw_images
from paddle import nn
from paddle.nn import functional as F

from pimm.device import Device
from pimm.engine import evaluate, inference, open_engine, program_cache
from pimm.engine.net_checksum import net_checksum
from pimm.engine.program import PADDLE_FILES, PaddleNet, has_bf16, quiet
from pimm.errors import ConfigError
from pimm.layers import BatchNorm2d, Conv2d
from pimm.layers.fusible import LinearBn

SIZE = (3, 8, 8)


class Net(nn.Layer):
    """Has a batch norm to fold, a layer with ``fuse()`` and an activation."""

    def __init__(self, stride=2):
        super().__init__()
        self.conv, self.bn = Conv2d(3, 8, 3, stride, 1), BatchNorm2d(8)
        self.head = LinearBn(8, 5)

    def forward(self, x):
        x = F.swish(self.bn(self.conv(x))).flatten(2).transpose([0, 2, 1])
        return self.head(x).mean(1)


class TokenNet(Net):
    """Puts a token of its own before those of each image, so that its program must work out the number of images."""

    def __init__(self):
        super().__init__()
        self.token = self.create_parameter([1, 1, 8], default_initializer=nn.initializer.Normal())

    def forward(self, x):
        x = F.swish(self.bn(self.conv(x))).flatten(2).transpose([0, 2, 1])
        return self.head(paddle.concat([self.token.expand([x.shape[0], -1, -1]), x], axis=1))[:, 0] + x.mean([1, 2])[0]


class Unexportable(Net):
    def forward(self, x):
        return super().forward(paddle.to_tensor(np.sort(np.asarray(x))))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache of programs."""
    monkeypatch.setattr(program_cache, "cache_folder", lambda: tmp_path)
    return tmp_path / "programs"


def net_of(kind=Net, **options):
    paddle.seed(0)
    return awakened(kind(**options))


@paddle.no_grad()
def logits(engine, count):
    return engine(paddle.to_tensor(draw_images(count, 8))).numpy()


def folders(cache):
    return sorted(path.name for path in cache.iterdir() if path.is_dir())


@pytest.mark.parametrize("kind", [Net, TokenNet])
def test_a_program_computes_what_the_net_does(kind, cache):
    """For any number of images, the last batch's too; the net itself stays as it was."""
    net = net_of(kind)
    net.train()
    before = {name: value.numpy() for name, value in net.state_dict().items()}
    engine = open_engine(net, SIZE)
    assert net.training and net.bn.training and engine is not net
    net.eval()
    for count in (1, 7, 2):
        expected = logits(net, count)
        assert np.ptp(expected) > 0.1
        np.testing.assert_allclose(logits(engine, count), expected, rtol=1e-4, atol=1e-5)
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[name])
    assert len(folders(cache)) == 1


def test_an_evaluation_is_the_eager_one():
    net = net_of()
    draw = np.random.default_rng(0)
    batches = [(paddle.to_tensor(draw_images(n, 8, n)), paddle.to_tensor(draw.integers(0, 5, n))) for n in (8, 8, 3)]
    expected, found = (evaluate(open_engine(net, SIZE, engine), batches) for engine in ("eager", "inference"))
    assert 0 < expected["top1"] < 100 and expected["top5"] == 100
    assert found == pytest.approx(expected, rel=1e-5)


def test_a_program_is_written_once(monkeypatch):
    first = logits(open_engine(net_of(), SIZE), 3)
    monkeypatch.setattr(inference, "save_program", None)
    np.testing.assert_array_equal(logits(open_engine(net_of(), SIZE, images=1), 3), first)


def test_the_checksum_is_that_of_weights_statistics_structure_and_size():
    def checksum(change=lambda net: None, size=SIZE, **options):
        net = net_of(**options)
        change(net)
        return net_checksum(net, *size)

    def nudge(value):
        value.set_value(value.numpy() + np.float32(1e-7) * (np.arange(value.size).reshape(value.shape) == 0))

    changed = [
        checksum(lambda net: nudge(net.conv.bias)),
        checksum(lambda net: nudge(net.bn._variance)),
        checksum(lambda net: setattr(net.bn, "_epsilon", 1e-3)),
        checksum(lambda net: setattr(net, "forward", lambda x: x)),
        checksum(stride=1),
        checksum(size=(3, 8, 16)),
        net_checksum(net_of(TokenNet), *SIZE),
    ]
    assert checksum() == checksum(lambda net: net.train())
    assert len({checksum(), *changed}) == len(changed) + 1


@pytest.mark.parametrize("name", [*PADDLE_FILES, "files.json"])
def test_a_damaged_program_is_made_anew(name, cache):
    net = net_of()
    open_engine(net, SIZE)
    [path] = cache.glob(f"*/{name}")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert program_cache.find_program(path.parent.name) is None
    np.testing.assert_allclose(logits(open_engine(net, SIZE), 3), logits(net, 3), rtol=1e-4, atol=1e-5)
    assert program_cache.find_program(path.parent.name) == path.parent and folders(cache) == [path.parent.name]


def test_a_program_of_another_class_body_is_made_anew(monkeypatch, cache):
    """The checksum does not see a method that a script has replaced."""
    net = net_of()
    before = logits(open_engine(net, SIZE), 3)
    forward = Net.forward
    monkeypatch.setattr(Net, "forward", lambda self, x: 2 * forward(self, x))
    np.testing.assert_allclose(logits(open_engine(net, SIZE), 3), 2 * before, rtol=1e-4, atol=1e-5)
    assert len(folders(cache)) == 1


def test_a_program_takes_images_that_are_not_in_one_piece():
    net = net_of()
    images = paddle.to_tensor(draw_images(4, 8)).transpose([0, 1, 3, 2])[::2]
    assert not images.is_contiguous()
    with paddle.no_grad():
        expected, found = net(images).numpy(), open_engine(net, SIZE)(images).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [Net, TokenNet])
def test_a_program_takes_no_images_and_refuses_those_of_another_size(kind):
    engine = open_engine(net_of(kind), SIZE)
    assert logits(engine, 0).shape == (0, 5)
    with pytest.raises(ConfigError, match=r"images of \[3, 8, 16\]: must be of \[3, 8, 8\]"):
        engine(paddle.zeros([2, 3, 8, 16]))


@pytest.mark.parametrize("dtype", ["float64", "uint8", "float16"])
def test_a_program_refuses_images_of_another_type(dtype):
    engine = open_engine(net_of(), SIZE)
    with pytest.raises(ConfigError, match=f"images of paddle.{dtype}: must be of float32"):
        engine(paddle.zeros([2, *SIZE], dtype))


def write_files(size, calls=None):
    """Return what writes two files of half this size, slowly, and counts its calls."""

    def write(folder):
        time.sleep(0.05)
        for name in PADDLE_FILES:
            (folder / name).write_bytes(bytes(size // 2))
        if calls is not None:
            calls.append(folder)

    return write


def test_one_of_many_writes_a_program(cache):
    calls = []
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: program_cache.make_program("a", write_files(10, calls)), range(4)))
    assert len(calls) == 1 and set(found) == {cache / "a"}
    assert folders(cache) == ["a"]


def test_programs_that_were_not_used_for_long_go(cache, monkeypatch):
    monkeypatch.setattr(program_cache, "MOST_BYTES", 3000)
    for age, name in ((9, "a"), (8, "b")):
        folder = program_cache.make_program(name, write_files(1000))
        os.utime(folder, (time.time() - age,) * 2)
    assert program_cache.find_program("a") == cache / "a" and program_cache.find_program("none") is None
    program_cache.make_program("c", write_files(1000))
    assert folders(cache) == ["a", "c"]
    program_cache.make_program("large", write_files(9000))
    assert folders(cache) == ["large"]


def test_what_a_killed_process_left_goes_and_what_failed_leaves_nothing(cache):
    def fail(folder):
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        program_cache.make_program("a", fail)
    for name, age in ((".partial-old", 7200), (".partial-new", 60)):
        (cache / name).mkdir()
        os.utime(cache / name, (time.time() - age,) * 2)
    program_cache.make_program("b", write_files(10))
    assert folders(cache) == [".partial-new", "b"]


def test_a_cache_that_others_can_write_is_not_used(cache, caplog):
    cache.mkdir()
    cache.chmod(0o777)
    net = net_of()
    assert open_engine(net, SIZE) is net
    assert "can be written by every user: set PIMM_CACHE_DIR" in caplog.text and not folders(cache)


def test_auto_is_eager_where_a_program_is_not_worth_its_export_and_says_why(cache, caplog):
    caplog.set_level(logging.INFO)
    net = net_of()
    assert open_engine(net, SIZE, images=inference.MIN_IMAGES - 1) is net
    reason = "an export of the net pays from 200 images, and there are 199"
    assert caplog.messages == [f"the net is evaluated eagerly: {reason}"]
    assert open_engine(net, SIZE, "eager") is net and not cache.exists()
    assert open_engine(net, SIZE, images=inference.MIN_IMAGES) is not net


def gpu(monkeypatch):
    monkeypatch.setattr(inference, "current", lambda: Device("gpu", 0))


def another_program(monkeypatch):
    monkeypatch.setattr(PaddleNet, "logits", lambda self, images: paddle.full([len(images), 5], float("nan")))


@pytest.mark.parametrize(
    "kind, change, reason",
    [
        (Net, gpu, "Paddle Inference with oneDNN is for CPUs, and the device is gpu:0"),
        (Unexportable, lambda monkeypatch: None, "Unexportable cannot be exported: "),
        (Net, another_program, "Net cannot be exported: a logit differs by nan, where the largest is "),
        (
            OwnFilters,
            lambda monkeypatch: None,
            "OwnFilters cannot be exported: the filters of a convolution are made from the images",
        ),
    ],
)
def test_where_no_program_can_be_had_one_line_says_why(kind, change, reason, monkeypatch, cache, caplog):
    caplog.set_level(logging.INFO)
    net = net_of(kind)
    change(monkeypatch)
    assert open_engine(net, SIZE) is net
    [line] = caplog.messages
    assert line.startswith(f"the net is evaluated eagerly: {reason}") and "\n" not in line and len(line) < 400
    with pytest.raises(ConfigError, match=f"the engine inference cannot be had: {reason}"):
        open_engine(net, SIZE, "inference")
    assert not cache.exists() or not folders(cache)


def test_a_cpu_without_bf16_computes_in_fp32_and_says_so(monkeypatch, caplog):
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(inference, "has_bf16", lambda: False)
    net = net_of()
    found = logits(open_engine(net, SIZE, precision="bf16"), 3)
    np.testing.assert_array_equal(found, logits(open_engine(net, SIZE), 3))
    assert caplog.messages == ["this CPU has no bf16, which needs AVX-512: computing in fp32"]
    with pytest.raises(ConfigError, match="the engine inference cannot be had: this CPU has no bf16"):
        open_engine(net, SIZE, "inference", "bf16")
    with pytest.raises(ConfigError, match="the engine eager computes in fp32; precision bf16 needs"):
        open_engine(net, SIZE, "eager", "bf16")


@pytest.mark.skipif(not has_bf16(), reason="needs a CPU with bfloat16")
def test_bf16_differs_by_its_rounding():
    net = net_of()
    expected, found = logits(net, 7), logits(open_engine(net, SIZE, "inference", "bf16"), 7)
    assert 0 < np.abs(found - expected).max() < 0.1 * np.abs(expected).max()


def test_quiet_drops_what_goes_to_the_process_and_nothing_after(capfd):
    os.write(1, b"a")
    with quiet():
        os.write(1, b"b")
        os.write(2, b"c")
    os.write(1, b"d")
    os.write(2, b"e")
    assert capfd.readouterr() == ("ad", "e")


def test_threads_that_want_quiet_leave_the_outputs_as_they_were(capfd):
    """Whichever of two comes first, and whichever leaves last."""
    inside, left = threading.Event(), threading.Event()

    def first():
        with quiet():
            inside.set()
            left.wait(0.2)  # in vain, if the other one waits for its turn

    def second():
        inside.wait()
        with quiet():
            left.set()
            time.sleep(0.1)

    threads = [threading.Thread(target=each) for each in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.write(1, b"a")
    os.write(2, b"b")
    assert capfd.readouterr() == ("a", "b")


def test_the_difference_of_bf16_is_logged_for_the_first_two_batches(caplog):
    net = net_of()
    compared = inference._Compared(net, lambda images: net(images) + paddle.to_tensor([0, 0, 0, 0, 0.5]))
    for count in (0, 40, 40, 40):
        logits(compared, count)
    expected = logits(net, 40)[:32]
    same = (expected.argmax(1) == (expected + [0, 0, 0, 0, 0.5]).argmax(1)).sum()
    assert len(caplog.messages) == 2 and 0 < same < 32
    assert caplog.messages[0] == (
        f"bf16: logits differ by at most 0.5 from the net's, the largest of which is {np.abs(expected).max():.2g}; "
        f"the same class for {same} of 32 images"
    )
