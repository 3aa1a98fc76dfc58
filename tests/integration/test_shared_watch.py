"""Who is taken for an engine process that hangs: real processes that never answer a ping, at rest and at work."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from backend.engine_process.client.watch import HangWatch
from backend.linux import hang_detector
from tests.fakes.fake_model import eventually
from tests.fakes.open_files import open_files

Start = Callable[[str], tuple["subprocess.Popen[bytes]", socket.socket]]
LISTEN = (
    "import socket, sys, time\n"
    "listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); listener.bind(sys.argv[1]); listener.listen()\n"
    "connection, _ = listener.accept()\n"
)


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts a process that accepts a connection and then does as it is told; gives that connection."""
    monkeypatch.setattr(hang_detector, "WAIT_S", 0.2)
    monkeypatch.setattr(hang_detector, "WAITS", 3)
    processes = []

    def starts(then: str) -> tuple[subprocess.Popen[bytes], socket.socket]:
        path = tmp_path / "socket"
        process = subprocess.Popen([sys.executable, "-c", LISTEN + then, str(path)])
        processes.append(process)
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)

        def connected() -> bool:
            return path.exists() and connection.connect_ex(str(path)) == 0

        eventually(connected)
        return process, connection

    yield starts
    for process in processes:
        process.kill()
        process.wait()


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_one_that_does_nothing_is_ended(start: Start) -> None:
    process, connection = start("time.sleep(600)")
    with closing(HangWatch(connection)):
        assert process.wait(timeout=20.0) == -9


def test_one_that_computes_is_not(start: Start) -> None:
    """As while it loads something that keeps Python's lock; until it has done so for several times the patience."""
    process, connection = start("while True: pass")
    begun_s = cpu_s(process.pid)
    with closing(HangWatch(connection)):
        eventually(lambda: cpu_s(process.pid) > begun_s + 2.5)
        assert process.poll() is None


def test_one_that_answers_nonsense_is_left_alone(start: Start) -> None:
    process, connection = start("connection.recv(99); connection.send(b'hello'); connection.recv(99); time.sleep(600)")
    with closing(HangWatch(connection)) as watch:
        eventually(lambda: not watch._thread.is_alive())
        assert process.poll() is None


def test_a_watch_that_is_closed_leaves_nothing(start: Start) -> None:
    before = open_files(os.getpid())
    process, connection = start("time.sleep(600)")
    HangWatch(connection).close()
    assert process.poll() is None
    assert open_files(os.getpid()) == before
