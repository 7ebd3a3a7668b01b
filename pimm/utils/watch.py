"""Notice within seconds that a process of a launch has died, on whichever machine, and name it in all others.

Collective operations do not tell which process is missing: between GPUs they wait for ever, between CPUs they break
with an address. Every process therefore keeps a connection to rank 0, which the system closes however a process ends.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import secrets
import socket
import sys
import threading
import time

import paddle
from paddle import distributed as dist

from pimm.errors import TrainingError
from pimm.utils.distributed import world_size

_GOODBYE = "goodbye"
_LINE = 200  # bytes of a message, filled up with spaces
_PATIENCE = 60.0  # seconds for the processes to find each other
_INTRODUCTION = 5.0  # seconds for a process that connects to say which rank it has
_GRACE = 4.0  # seconds in which the launcher can see which process failed, before the other processes end

_connections: dict[int, socket.socket] = {}  # to the processes that this process watches, by their ranks
_names: dict[int, str] = {}


def watch_processes() -> None:
    """End this process, with a line that names the culprit, as soon as another process ends before its work is done.

    Every process of a launch calls this once the processes are connected; a process that exits in the ordinary way says
    goodbye. With one process the function has no effect.

    Raises:
        TrainingError: if the processes cannot reach each other.
    """
    if world_size() == 1 or _connections:
        return
    try:
        if dist.get_rank() == 0:
            _accept_all()
        else:
            _connect_to_first()
    except OSError as error:
        raise TrainingError(
            f"the processes of this run cannot watch each other: {error}; the first one's machine must let the others "
            "connect to any of its ports"
        ) from error
    atexit.register(_say_goodbye)
    for rank, connection in _connections.items():
        threading.Thread(target=_watch, args=(rank, connection), daemon=True).start()


def _accept_all() -> None:
    with socket.create_server(("", 0), backlog=dist.get_world_size()) as server:
        server.settimeout(_PATIENCE)
        _, secret = _broadcast([server.getsockname()[1], secrets.randbits(62)])
        while len(_connections) < dist.get_world_size() - 1:
            connection, _ = server.accept()
            connection.settimeout(_INTRODUCTION)
            told, _, name = _receive(connection).partition(" ")
            if told != str(secret):  # not a process of this launch
                connection.close()
                continue
            rank = int(name.split()[1])
            _connections[rank], _names[rank] = connection, name


def _connect_to_first() -> None:
    port, secret = _broadcast([0, 0])
    host = os.environ["PADDLE_TRAINER_ENDPOINTS"].partition(":")[0]
    connection = socket.create_connection((host, port), timeout=_PATIENCE)
    _send(connection, f"{secret} rank {dist.get_rank()} ({socket.gethostname()}, process {os.getpid()})")
    _connections[0], _names[0] = connection, f"rank 0 ({host})"


def _broadcast(values: list[int]) -> list[int]:
    told = paddle.to_tensor(values, "int64")
    dist.broadcast(told, src=0)
    return told.tolist()


def _watch(rank: int, connection: socket.socket) -> None:
    connection.settimeout(None)
    _expect_life(connection)
    message = _receive(connection)
    if message == _GOODBYE:
        return
    lost = message or _names[rank]  # a message is the name of another process, which rank 0 passes on
    for other, link in list(_connections.items()):
        if other != rank:
            _send(link, lost)
    print(f"error: {lost} ended before its work was done; its log says why", file=sys.stderr, flush=True)
    time.sleep(_GRACE)
    os._exit(1)


def _expect_life(connection: socket.socket) -> None:
    """Let the connection break within half a minute if the machine at its other end is gone without a word."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):  # not on all systems
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _say_goodbye() -> None:
    if getattr(sys, "last_value", None) is not None:  # an exception that nobody caught ends this process
        return
    for connection in _connections.values():
        _send(connection, _GOODBYE)
    _connections.clear()


def _send(connection: socket.socket, text: str) -> None:
    with contextlib.suppress(OSError):  # a process that has ended is noticed where its messages are awaited
        connection.sendall(text.encode()[:_LINE].ljust(_LINE))


def _receive(connection: socket.socket) -> str:
    """Return the next message; an empty text if the connection has broken."""
    received = b""
    with contextlib.suppress(OSError):
        while len(received) < _LINE:
            part = connection.recv(_LINE - len(received))
            if not part:
                return ""
            received += part
    return received.decode(errors="replace").rstrip()
