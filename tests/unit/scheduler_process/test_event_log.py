"""The event log's files: bounded, self-contained, honest about what is missing; and hostile ones."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

import msgspec
import pytest

from backend.errors import ConfigError
from backend.scheduler.core import Scheduler
from backend.scheduler.messages import Arrive, Ping, Reject, Request
from backend.scheduler_process import background_writer, event_file, event_log
from backend.scheduler_process.event_file import Checkpoint, Entry, Handled, Trained, Woken, encode, read_stretches
from backend.scheduler_process.event_log import VARIABLE, EventLog, event_log_of_environment
from backend.scheduler_process.replay import Replay, restored
from backend.scheduler_process.request_index import RequestIndex
from backend.scheduler_process.scheduler_factory import VARIABLE as SCHEDULER
from tests.fakes.builders import START_NS
from tests.fakes.fake_model import eventually
from tests.fakes.recorded import ORIGIN, Recorded

PING = Handled(START_NS, 1, Ping(), (), "source 1 has not joined")
SECOND = 1_000_000_000


@pytest.fixture(autouse=True)
def _the_writer_takes_no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background_writer, "_REST_S", 0.001)


def begun(path: Path, max_bytes: int = event_log.MAX_BYTES) -> EventLog:
    log = EventLog(path, ORIGIN, max_bytes)
    log.checkpoint(Scheduler(2), START_NS)
    return log


def arrival(i: int) -> Handled:
    return Handled(START_NS + i, 1, Arrive((Request(i, 1, START_NS, None, 1),)))


def test_the_lines_come_back(tmp_path: Path) -> None:
    log = begun(tmp_path / "events")
    lines: list[Entry] = [arrival(1), Trained(), PING]
    for line in lines:
        log.put(line)
    log.close()
    (stretch,) = read_stretches(tmp_path / "events")
    assert stretch.entries == lines
    assert stretch.checkpoint.origin == ORIGIN
    assert abs(stretch.checkpoint.unix_ns - time.time_ns()) < 600 * SECOND
    restored(stretch.checkpoint).check_invariants()


def test_a_line_is_documented_json(tmp_path: Path) -> None:
    log = begun(tmp_path / "events")
    log.put(arrival(7))
    log.put(Trained())
    log.close()
    checkpoint, event, train = map(msgspec.json.decode, (tmp_path / "events").read_bytes().splitlines())
    assert (checkpoint["line"], checkpoint["format"], checkpoint["version"]) == ("checkpoint", "isochrone-events", 2)
    assert event == {
        "line": "event",
        "at_ns": START_NS + 7,
        "source": 1,
        "event": ["arrive", [[7, 1, START_NS, None, 1, 0]]],
    }
    assert train == {"line": "train"}


def test_files_are_bounded_and_each_can_be_replayed_alone(tmp_path: Path) -> None:
    path, max_bytes = tmp_path / "events", 600_000
    with Recorded(path, max_bytes=max_bytes) as recorded:
        for _ in range(160):
            recorded.run(500)
            eventually(lambda: len(recorded.log._writer) == 0)
            if recorded.log._checkpoints > 5:
                break
        recorded.run(500)  # after the last checkpoint too, which may just have been taken
    assert {p.name for p in tmp_path.iterdir()} == {"events", "events.1"}
    for file in (path, path.with_name("events.1")):
        assert b'"line":"checkpoint"' in file.read_bytes()[:100]
        assert file.stat().st_size <= max_bytes * 1.25
    stretches = list(read_stretches(path))
    assert 2 <= len(stretches) < recorded.log._checkpoints, "no file was ever given up"
    assert [stretch.gap for stretch in stretches] == ["the log begins there", *[None] * (len(stretches) - 1)]
    for stretch in stretches:
        replay = Replay()
        replay.run(stretch)
        assert replay.departures == []
        assert replay.decisions > 50


def test_lines_beyond_the_queue_are_counted_and_the_next_checkpoint_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = begun(tmp_path / "events")
    eventually(lambda: len(log._writer) == 0)
    monkeypatch.setattr(log._writer, "_max_queued", 0)
    for i in range(5):
        log.put(arrival(i))
    monkeypatch.undo()
    log.put(arrival(5))  # of no use without those before it
    assert not log.checkpoint_due(START_NS + SECOND), "a full queue must not be met with the largest of lines"
    assert log.checkpoint_due(START_NS + 20 * SECOND)
    log.checkpoint(Scheduler(2), START_NS + 20 * SECOND)
    log.put(arrival(6))
    log.close()
    first, second = read_stretches(tmp_path / "events")
    assert (first.entries, second.entries) == ([], [arrival(6)])
    assert (second.checkpoint.lost, second.gap) == (6, "6 lines could not be written before that")


def test_a_disk_that_is_full_costs_lines_and_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        log = begun(Path("/dev/full"))
        eventually(lambda: log._failed == 1)
        log.put(PING)
        log.checkpoint(Scheduler(2), START_NS + 20 * SECOND)
        eventually(lambda: log._failed == 2)
        assert log.checkpoint_due(START_NS + 40 * SECOND)
        log.close()
    assert caplog.text.count("events cannot be written to '/dev/full': No space left on device") == 1


def test_a_number_beyond_64_bits_comes_back(tmp_path: Path) -> None:
    """A client's deadline is its own choice."""
    rejected = Woken(START_NS, (Reject(1, 1, -(2**64), 1),))
    log = begun(tmp_path / "events")
    log.put(rejected)
    log.close()
    (stretch,) = read_stretches(tmp_path / "events")
    assert stretch.entries == [rejected]


def test_a_disk_that_has_room_again_is_written_to_again(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    log = begun(folder / "events")
    eventually(lambda: (folder / "events").read_bytes().endswith(b"\n"))
    (folder / "events").unlink()  # nor may a new file begin in the middle
    log.put(arrival(1))
    eventually(lambda: log._failed == 1)
    log.put(arrival(2))
    log.checkpoint(Scheduler(2), START_NS + 20 * SECOND)
    log.put(arrival(3))
    log.close()
    (stretch,) = read_stretches(folder / "events")
    assert stretch.checkpoint.lost == 2
    assert stretch.entries == [arrival(3)]


def test_a_file_without_checkpoint_is_not_written_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "events"
    log = begun(path, max_bytes=40_000)
    eventually(lambda: path.read_bytes().endswith(b"\n"))
    begin = path.stat().st_size
    for i in range(2_000):
        log.put(arrival(i))
    log.close()
    assert log._failed == 1
    assert path.stat().st_size < begin + 20_000 + 32 * 200


def test_two_schedulers_do_not_share_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "events"))
    first = event_log_of_environment("cpu", 2, 2)
    assert first is not None
    with caplog.at_level(logging.WARNING):
        assert event_log_of_environment("gpu-0", 2, None) is None
    assert "another device's scheduler writes to" in caplog.text
    monkeypatch.setenv(VARIABLE, str(tmp_path / "events-{device}"))
    second = event_log_of_environment("gpu-0", 2, None)
    assert second is not None
    first.close()
    second.close()
    assert (tmp_path / "events-gpu-0").exists()


def test_no_log_where_none_is_asked_for_or_none_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert event_log_of_environment("cpu", 2, 2) is None
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "missing" / "events", tmp_path / "pipe"):
        monkeypatch.setenv(VARIABLE, str(path))
        with caplog.at_level(logging.WARNING):
            assert event_log_of_environment("cpu", 2, 2) is None
        assert f"events cannot be written to '{path}'" in caplog.text


# Reading what somebody else wrote, or half of it


def test_a_killed_process_leaves_a_torn_line_and_the_next_one_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "events"
    log = begun(path)
    log.put(arrival(1))
    log.close()
    with path.open("ab") as file:
        file.write(encode(arrival(2))[:30])
    log = begun(path)
    log.put(arrival(3))
    log.close()
    first, second = read_stretches(path)
    assert (first.entries, second.entries) == ([arrival(1)], [arrival(3)])
    assert second.gap is not None
    assert "events, line 3 cannot be read" in second.gap


def test_a_log_that_ends_in_the_middle_of_a_line_is_read_up_to_there(tmp_path: Path) -> None:
    path = tmp_path / "events"
    log = begun(path)
    log.put(arrival(1))
    log.put(arrival(2))
    log.close()
    path.write_bytes(path.read_bytes()[:-5])
    (stretch,) = read_stretches(path)
    assert stretch.entries == [arrival(1)]


def checkpoint_of(state: bytes) -> bytes:
    made = Checkpoint("isochrone-events", 2, ORIGIN, START_NS, START_NS, msgspec.Raw(state))
    return encode(made) + b"\n"


_HOSTILE = {
    "": "it has no checkpoint",
    "hello\n": "line 1 cannot be read",
    '{"line":"train"}\n': "it has no checkpoint",
    '{"line":"event","at_ns":"x"}\n': "line 1 cannot be read",
    "[" * 100_000 + "\n": "line 1 cannot be read",
    "x" * 3_000_000 + "\n": "line 1 is longer than 1 MiB",
    checkpoint_of(b"{}").decode().replace('"version":2', '"version":9'): "version 9, not isochrone-events version 2",
    '{"schema":1,"model":"a"}\n': "line 1 cannot be read",
}


@pytest.mark.parametrize("text", _HOSTILE, ids=range(len(_HOSTILE)))
def test_a_hostile_log_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(event_file, "MAX_LINE_BYTES", 1 << 20)
    path = tmp_path / "events"
    path.write_text(text)
    with pytest.raises(ConfigError, match=_HOSTILE[text]):
        list(read_stretches(path))


@pytest.mark.parametrize("state", [b"{}", b'{"classes":[],"root":5}', b'{"classes":["os:system"],"root":["object",0]}'])
def test_a_checkpoint_of_no_scheduler_is_one_sentence(tmp_path: Path, state: bytes) -> None:
    path = tmp_path / "events"
    path.write_bytes(checkpoint_of(state))
    (stretch,) = read_stretches(path)
    with pytest.raises(ConfigError, match=r"checkpoint, which isochrone 0\.0\.0 wrote, cannot be used"):
        Replay().run(stretch)


def test_a_missing_log_and_a_folder_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such file"):
        list(read_stretches(tmp_path / "nothing"))
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        list(read_stretches(tmp_path))


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "events"
    path.touch()
    os.truncate(path, event_file.FILE_BYTES_MAX + 1)
    with pytest.raises(ConfigError, match="is larger than 256 MiB, which no event log is"):
        next(read_stretches(path))


def test_a_log_of_another_scheduler_imports_nothing_unless_the_reader_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it could choose whose classes are made, and what they do as they end."""
    path, named = tmp_path / "events", "tempfile:gettempdir"
    with Recorded(path) as recorded:
        recorded.run(20)
    path.write_bytes(path.read_bytes().replace(b'"scheduler":null', f'"scheduler":"{named}"'.encode()))
    monkeypatch.delenv(SCHEDULER, raising=False)
    with pytest.raises(ConfigError, match=f"is of scheduler '{named}', whose code is needed to read it"):
        RequestIndex(path)
    monkeypatch.setenv(SCHEDULER, named)
    assert RequestIndex(path).requests
