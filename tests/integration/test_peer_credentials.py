"""Whose connections a device's processes take: their own user's and root's, both ends look."""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend import device_process
from backend.device_process import DeviceListener, only_listener
from backend.errors import ServerError
from backend.linux import peer_credentials
from backend.linux.peer_credentials import PeerCredentials, peer_of, refusal
from backend.runtime_dir import MeetingPoint, meeting_point
from backend.scheduler.messages import MAX_MESSAGE_BYTES, PROTOCOL, Refused, decode_reply
from backend.scheduler_process import process

pytestmark = pytest.mark.usefixtures("runtime_dir")
NOBODY = 65534


_numbers = itertools.count()


@pytest.fixture
def point() -> MeetingPoint:
    """Of a device of the test's own: the lock is this process's until it ends."""
    return meeting_point(f"emulated-{next(_numbers)}")


@pytest.fixture
def listener(point: MeetingPoint) -> Iterator[DeviceListener]:
    with only_listener(point) as found:
        assert found is not None
        found.socket.settimeout(10.0)
        yield found


def test_a_connection_of_the_same_user_is_taken(point: MeetingPoint, listener: DeviceListener) -> None:
    with device_process.connect_or_start(point, 1.0) as client:
        served = listener.accept()
        assert served is not None
        with served:
            assert peer_of(served) == (os.getpid(), os.geteuid(), os.getegid())
            assert (refusal(served), refusal(client)) == (None, None)


def test_a_connection_of_another_user_is_closed_and_the_next_one_taken(
    point: MeetingPoint,
    listener: DeviceListener,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with device_process.connect_or_start(point, 1.0) as client:
        with monkeypatch.context() as patch:
            patch.setattr(peer_credentials, "peer_of", lambda _: PeerCredentials(1, NOBODY, NOBODY))
            assert listener.accept() is None
        assert client.recv(1) == b""
    assert f"a process of user {NOBODY} is at the other end" in caplog.text
    with device_process.connect_or_start(point, 1.0):
        served = listener.accept()
        assert served is not None
        served.close()


@pytest.mark.usefixtures("listener")
def test_a_process_of_another_user_is_not_asked(point: MeetingPoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_credentials, "peer_of", lambda _: PeerCredentials(1, NOBODY, NOBODY))
    with pytest.raises(ServerError) as refused:
        device_process.connect_or_start(point, 1.0)
    assert str(refused.value) == (
        f"the scheduler's socket '{point.socket}' is not used: a process of user {NOBODY} is at the other end of a "
        f"socket of user {os.geteuid()}: both must be the same user's (in containers, `runAsUser` or `--user`)"
    )


def test_root_is_taken_whoever_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_credentials, "peer_of", lambda _: PeerCredentials(1, 0, 0))
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY)
    one, other = socket.socketpair()
    with one, other:
        assert refusal(one) is None


def test_connections_beyond_the_most_are_told_so(
    point: MeetingPoint, listener: DeviceListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "SOURCES_MAX", 1)
    serving = process.SchedulerProcess(point, listener, 2, None, None)
    try:
        with (
            device_process.connect_or_start(point, 1.0) as first,
            device_process.connect_or_start(point, 1.0) as second,
        ):
            serving._accept()
            serving._accept()
            second.settimeout(10.0)
            reply = decode_reply(second.recv(MAX_MESSAGE_BYTES))
            assert reply == Refused("1 models' processes are connected, which is the most", PROTOCOL)
            assert second.recv(1) == b""
            first.setblocking(False)
            with pytest.raises(BlockingIOError):
                first.recv(1)
    finally:
        for source in [*serving._connections]:
            serving._drop(source, "the test ends")
        serving.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process of another user")
def test_a_real_process_of_another_user_is_refused(
    point: MeetingPoint, listener: DeviceListener, runtime_dir: Path
) -> None:
    """Though the folder's and the socket's modes let it in."""
    modes = {path: path.stat().st_mode for path in (runtime_dir, point.socket)}
    try:
        for path in modes:
            path.chmod(0o777)
        child = os.fork()  # not another Python, which this user may have no right to start
        if child == 0:
            os._exit(_ask_as_nobody(point))
        assert listener.accept() is None
        assert os.waitpid(child, 0)[1] == 0
    finally:
        for path, mode in modes.items():
            path.chmod(mode)


def _ask_as_nobody(point: MeetingPoint) -> int:
    """Exit status 0 where the connection was closed without a word."""
    try:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
            client.settimeout(10.0)
            client.connect(str(point.socket))
            return int(client.recv(1) != b"")
    except BaseException:
        return 2
