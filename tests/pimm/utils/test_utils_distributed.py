"""What processes exchange: with one nothing changes, with two over Gloo all end with the same."""

import json
import os
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import paddle
import pytest
from paddle import nn
from paths import ROOT

from pimm.errors import ConfigError
from pimm.utils import (
    all_reduce_gradients,
    all_reduce_mean,
    all_reduce_sum,
    barrier,
    broadcast_parameters,
    broadcast_tensors,
    broadcast_values,
    distribute_bn,
    init_distributed,
    init_distributed_device,
    is_distributed_env,
    is_main_process,
    rank,
    reduce_tensor,
    world_info_from_env,
    world_size,
)

SCRIPT = """
import json, os, signal, sys, threading, time
from types import SimpleNamespace
import numpy as np, paddle
from paddle import nn
from pimm.utils import *
from pimm.utils import broadcast_parameters, broadcast_tensors

args = SimpleNamespace(device="cpu")
device = init_distributed_device(args)
init_distributed()
r = rank()
paddle.seed(r)
net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1D(2), nn.Linear(2, 2))
before = net[0].weight.numpy().tolist()
broadcast_parameters(net)
weights = net[0].weight.numpy().tolist()
off_path = net[2].weight
net[0](paddle.full([2, 3], r + 1.0)).sum().backward()
all_reduce_gradients(net.parameters())

def statistics(reduce):
    net[1]._mean.set_value(np.full(2, r + 1, "float32"))
    distribute_bn(net, reduce=reduce)
    return net[1]._mean.tolist()

tensor = paddle.to_tensor([1.0, r], dtype="float64")
result = {
    "rank": [r, world_size(), is_main_process()],
    "args": [args.rank, args.local_rank, is_primary(args), is_primary(args, local=True)],
    "shared": [args.world_size, args.distributed, args.device, device, is_distributed_env()],
    "own": before,
    "weights": weights,
    "gradient": net[0].weight.grad.tolist(),
    "bias gradient": net[0].bias.grad.tolist(),
    "off path": off_path.grad is None,
    "sum": all_reduce_sum(tensor).tolist(),
    "unchanged": tensor.tolist(),
    "reduced": reduce_tensor(paddle.to_tensor(float(r)), world_size()).item(),
    "mean": [value.tolist() for value in all_reduce_mean([tensor, paddle.to_tensor([[2.0 * r]]), tensor + 1])],
    "broadcast": [value.tolist() for value in broadcast_tensors([paddle.to_tensor([r, 5]), paddle.to_tensor(0.5 + r)])],
    "values": broadcast_values(paddle.to_tensor([r + 0.5, 2.0])),
    "bn": [statistics(False), statistics(True)],
}
signals = []
signal.signal(signal.SIGTERM, lambda *_: signals.append(r))

def interrupt():
    for _ in range(100):
        time.sleep(0.013)
        os.kill(os.getpid(), signal.SIGTERM)

shooter = threading.Thread(target=interrupt)
shooter.start()
if r == 1:
    shooter.join()  # while the other waits, and has signals too
barrier()
shooter.join()
result["interrupted"] = len(signals) > 5
barrier()
with open(f"{sys.argv[1]}/{r}.json", "w") as file:
    json.dump(result, file)
"""


def launch(folder, processes):
    """Run SCRIPT in several processes on the CPU and return what each wrote; fails with the workers' logs."""
    script = folder / "script.py"
    script.write_text(SCRIPT)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PADDLE_")}
    environment.update(PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1")
    command = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", str(processes)]
    command += ["--log_dir", str(folder / "log"), str(script), str(folder)]
    run = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=180)
    logs = "\n".join(path.read_text() for path in (folder / "log").glob("workerlog.*"))
    assert run.returncode == 0, run.stdout[-2000:] + logs[-4000:]
    return [json.loads((folder / f"{number}.json").read_text()) for number in range(processes)]


def test_two_processes(tmp_path):
    results = launch(tmp_path, 2)
    assert [result.pop("rank") for result in results] == [[0, 2, True], [1, 2, False]]
    assert [result.pop("args") for result in results] == [[0, 0, True, True], [1, 1, False, False]]
    assert [result.pop("unchanged") for result in results] == [[1.0, 0.0], [1.0, 1.0]]
    first, second = (result.pop("own") for result in results)
    assert first != second
    assert results[0] == results[1]
    assert results[0] == {
        "weights": first,
        "shared": [2, True, "cpu", "cpu", True],
        "gradient": [[3.0, 3.0]] * 3,  # two images of ones and of twos: the mean of 2 and 4
        "bias gradient": [2.0, 2.0],
        "off path": True,
        "sum": [2.0, 1.0],
        "reduced": 0.5,
        "mean": [[1.0, 0.5], [[1.0]], [2.0, 1.5]],
        "broadcast": [[0, 5], 0.5],
        "values": [0.5, 2.0],
        "bn": [[1.0, 1.0], [1.5, 1.5]],
        "interrupted": True,
    }


def test_one_process():
    init_distributed()
    barrier()
    assert (rank(), world_size(), is_main_process()) == (0, 1, True)
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1D(2))
    net[0](paddle.ones([1, 3])).sum().backward()
    before = {name: value.numpy() for name, value in net.state_dict().items()}
    broadcast_parameters(net)
    distribute_bn(net, 1, reduce=True)
    all_reduce_gradients(net.parameters())
    assert all(np.array_equal(value.numpy(), before[name]) for name, value in net.state_dict().items())
    assert net[0].weight.grad.tolist() == [[1.0, 1.0]] * 3
    assert (is_distributed_env(), world_info_from_env()) == (False, (0, 0, 1))
    tensor = paddle.to_tensor([1.0, 2.0])
    assert all_reduce_sum(tensor).tolist() == broadcast_values(tensor) == [1.0, 2.0]
    assert all_reduce_mean([tensor])[0].tolist() == broadcast_tensors([tensor])[0].tolist() == [1.0, 2.0]
    assert reduce_tensor(tensor, 2).tolist() == [0.5, 1.0]


def test_a_rank_that_an_earlier_launch_left_in_the_environment(tmp_path):
    code = "from pimm.utils import *; print(rank(), world_size(), is_main_process(), world_info_from_env())"
    environment = {**os.environ, "PADDLE_TRAINER_ID": "5", "PADDLE_LOCAL_RANK": "5", "PYTHONPATH": str(ROOT)}
    outcome = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert outcome.stdout.splitlines()[-1] == "0 1 True (0, 0, 1)", outcome.stderr


def test_the_device_of_one_process(monkeypatch):
    args = SimpleNamespace()
    assert init_distributed_device(args) == args.device == paddle.get_device()
    with pytest.raises(ConfigError, match="the device is cup, and Paddle finds no cup:0 here; must be one of cpu"):
        init_distributed_device(SimpleNamespace(device="cup"))
    assert (args.distributed, args.world_size, args.rank, args.local_rank) == (False, 1, 0, 0)
    monkeypatch.setattr(paddle.device.cuda, "device_count", lambda: 0)
    for device in ("cuda", "gpu:1"):
        with pytest.raises(ConfigError, match=r"Paddle finds no gpu:[01] here; must be one of cpu"):
            init_distributed_device(SimpleNamespace(device=device))
    chosen = []
    monkeypatch.setattr(paddle.device.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(paddle, "set_device", chosen.append)
    for device in ("cuda", "cuda:1", "gpu"):
        init_distributed_device(SimpleNamespace(device=device))
    assert chosen == ["gpu:0", "gpu:1", "gpu:0"]


WATCHED = """
import os, signal, sys, time
from pimm.utils import init_distributed, rank, watch_processes

init_distributed()
watch_processes()
print("watching", flush=True)
if rank() == 1:
    exec(sys.stdin.readline())
time.sleep(60)
"""


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), signal.SIGKILL)", "1 / 0"])
def test_a_process_that_dies_ends_the_others_with_its_name(end, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free, socket.create_server(("127.0.0.1", 0)) as other:
        endpoints = [f"127.0.0.1:{server.getsockname()[1]}" for server in (free, other)]
    processes = []
    for number, endpoint in enumerate(endpoints):
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PADDLE_")},
            **{"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PADDLE_DISTRI_BACKEND": "gloo"},
            **{"PADDLE_TRAINER_ID": str(number), "PADDLE_TRAINERS_NUM": "2", "PADDLE_CURRENT_ENDPOINT": endpoint},
            **{"PADDLE_TRAINER_ENDPOINTS": ",".join(endpoints), "PADDLE_MASTER": endpoints[0]},
        }
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        command = [sys.executable, "-c", WATCHED]
        processes.append(subprocess.Popen(command, env=environment, cwd=tmp_path, text=True, **pipes))
    survivor, victim = processes
    while "watching" not in victim.stdout.readline():
        assert victim.poll() is None, victim.stderr.read()
    killed = time.monotonic()
    assert victim.communicate(f"{end}\n")[0] == ""
    said = survivor.communicate(timeout=30)[1]
    assert time.monotonic() - killed < 15
    assert survivor.returncode == 1
    assert f"process {victim.pid}) ended before its work was done" in said and "error: rank 1 (" in said
