"""The place of a device's process in the runtime folder: lost and taken again, and when descriptors or disk run out."""

from __future__ import annotations

import errno
import itertools
import os
import resource
import selectors
import shutil
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from backend.device_process import DeviceListener, connect_or_start, only_listener
from backend.errors import ServerError
from backend.runtime_dir import VARIABLE, MeetingPoint, meeting_point
from backend.scheduler_process.process import SchedulerProcess

_numbers = itertools.count()


@pytest.fixture
def point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MeetingPoint:
    """In a runtime folder of the test's own: the lock is this process's until it ends."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "run"))
    return meeting_point(f"emulated-{next(_numbers)}")


@pytest.fixture
def listener(point: MeetingPoint) -> Iterator[DeviceListener]:
    with only_listener(point) as found:
        assert found is not None
        yield found


@contextmanager
def no_descriptor() -> Iterator[None]:
    """As if this process had all open that it may."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limit[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)


def test_a_folder_that_was_removed_is_made_again_and_the_process_found_there(
    point: MeetingPoint, listener: DeviceListener
) -> None:
    assert listener.in_place()
    shutil.rmtree(point.lock.parent)
    assert not listener.in_place()
    assert listener.take_place()
    assert listener.in_place()
    assert point.lock.read_text() == f"{os.getpid()}\n"
    assert point.lock.parent.stat().st_mode & 0o777 == 0o700
    with connect_or_start(point, 1.0), closing(listener.accept() or socket.socket()) as served:
        assert served.getsockname() == str(point.socket)


def test_a_socket_alone_that_was_removed_is_put_back(point: MeetingPoint, listener: DeviceListener) -> None:
    point.socket.unlink()
    assert not listener.in_place()
    assert listener.take_place()
    assert listener.in_place()


def test_a_place_that_another_one_took_meanwhile_is_left_to_it(point: MeetingPoint, listener: DeviceListener) -> None:
    shutil.rmtree(point.lock.parent)
    meeting_point(point.device)
    with only_listener(point) as newcomer:
        assert newcomer is not None
        assert not listener.take_place()
        listener.close()
        assert newcomer.in_place()


def test_a_place_that_cannot_be_had_is_told_once_and_tried_again(
    point: MeetingPoint, listener: DeviceListener, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(point.lock.parent)
    point.lock.parent.write_text("in its way")
    for _ in range(3):
        assert listener.take_place()
        assert not listener.in_place()
    assert caplog.text.count("are gone, and cannot be put back: ") == 1
    point.lock.parent.unlink()
    assert listener.take_place()
    assert listener.in_place()


def test_a_full_disk_is_no_reason_not_to_listen(point: MeetingPoint, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with only_listener(point) as found:
        assert found is not None
        assert found.in_place()


def test_a_place_that_cannot_be_had_at_all_is_told_in_a_sentence(point: MeetingPoint) -> None:
    point.socket.mkdir()
    with (
        pytest.raises(ServerError, match=f"the scheduler cannot listen at '{point.socket}': Is a directory"),
        only_listener(point),
    ):
        pass


def test_connections_wait_while_there_is_no_descriptor(
    point: MeetingPoint, listener: DeviceListener, caplog: pytest.LogCaptureFixture
) -> None:
    with connect_or_start(point, 1.0):
        with no_descriptor():
            for _ in range(3):
                with pytest.raises(OSError, match="Too many open files"):
                    listener.accept()
        assert caplog.text.count("no connection can be accepted for now") == 1
        with closing(listener.accept() or socket.socket()) as served:
            assert served.getsockname() == str(point.socket)


def test_a_scheduler_without_a_descriptor_is_not_woken_by_those_who_wait(
    point: MeetingPoint, listener: DeviceListener
) -> None:
    """Else it would do nothing else, at the highest priority, and write a line each time."""
    serving = SchedulerProcess(point, listener, 2, None, None)
    try:
        with connect_or_start(point, 1.0):
            with no_descriptor():
                serving._accept()
            assert serving._selector.select(0.0) == []
            serving._look_s = 0.0
            assert serving._in_place()
            assert [key.fileobj for key, _ in serving._selector.select(0.0)] == [listener.socket]
            serving._accept()
            assert len(serving._connections) == 1
    finally:
        for source in [*serving._connections]:
            serving._drop(source, "the test ends")
        serving.close()


def test_a_scheduler_listens_on_the_socket_that_it_put_back(point: MeetingPoint, listener: DeviceListener) -> None:
    serving = SchedulerProcess(point, listener, 2, None, None)
    try:
        shutil.rmtree(point.lock.parent)
        serving._look_s = 0.0
        assert serving._in_place()
        with connect_or_start(point, 1.0):
            assert serving._selector.select(5.0)[0][0].fileobj is listener.socket
            assert serving._selector.select(0.0)[0][1] == selectors.EVENT_READ
    finally:
        serving.close()


def test_a_model_without_a_descriptor_is_told_in_a_sentence_and_may_try_again(
    point: MeetingPoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anything but a sentence of ours would end the thread that is to find the scheduler again."""

    def none_left(*_: Any, **__: Any) -> socket.socket:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr("backend.device_process.socket.socket", none_left)
    with pytest.raises(ServerError, match="cannot be used: Too many open files"):
        connect_or_start(point, 1.0)
