"""The event log of a real scheduler process."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest

from backend.device_process import connect_or_start
from backend.runtime_dir import meeting_point
from backend.scheduler.messages import (
    MAX_MESSAGE_BYTES,
    Arrive,
    Command,
    Decided,
    Event,
    Finish,
    Launch,
    Request,
    Welcome,
    decode_reply,
    encode,
)
from backend.scheduler_process.event_file import Woken, read_stretches
from backend.scheduler_process.event_log import VARIABLE
from backend.scheduler_process.replay import Replay
from tests.fakes.builders import MS, join, profile
from tests.fakes.fake_model import PATIENCE_S, FakeModel, eventually, pending


class RawModel:
    """A model's process as its messages, on a device of its own with so many lanes."""

    def __init__(self, name: str, solo_ms: float, lanes: int) -> None:
        self._socket = connect_or_start(meeting_point("held"), PATIENCE_S, "--lanes", str(lanes))
        self._socket.settimeout(PATIENCE_S)
        self._send(join(profile(solo_ms), model=name))
        assert isinstance(decode_reply(self._socket.recv(MAX_MESSAGE_BYTES)), Welcome)
        self._requests = 0

    def _send(self, event: Event) -> None:
        self._socket.sendall(encode(event))

    def ask(self, slo_ms: float, priority: int) -> None:
        """One request arrives."""
        self._requests += 1
        now_ns = time.monotonic_ns()
        self._send(Arrive((Request(self._requests, 1, now_ns, now_ns + round(slo_ms * MS), priority, 0),)))

    def commands(self) -> tuple[Command, ...]:
        """Wait for commands."""
        reply = decode_reply(self._socket.recv(MAX_MESSAGE_BYTES))
        assert isinstance(reply, Decided)
        return reply.commands

    def finish(self, launch: Launch) -> None:
        """A batch fails, which teaches nothing."""
        self._send(Finish(launch.batch, None))

    def close(self) -> None:
        self._socket.close()


@pytest.mark.usefixtures("runtime_dir")
def test_a_schedulers_process_writes_what_replays_to_its_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "events-cpu"
    monkeypatch.setenv(VARIABLE, str(tmp_path / "events-{device}"))
    with FakeModel("a", rejects=True) as model:
        for _ in range(30):
            model.wait_for(*model.submit(pending(5_000.0)))
        model.fill()
        (late,) = model.submit(pending(50.0))
        eventually(lambda: late.id in model.rejects)
        model.gate.set()
    eventually(lambda: path.exists() and b'{"line":"save"}' in path.read_bytes())  # as the last one left
    (stretch,) = read_stretches(path)
    assert (stretch.checkpoint.origin.device, stretch.checkpoint.origin.scheduler) == ("cpu", None)
    kinds = Counter(type(entry).__name__ for entry in stretch.entries)
    assert kinds["Left"] == kinds["Woken"] == 1
    assert kinds["Trained"] == kinds["Handled"] + kinds["Left"]
    replay = Replay()
    replay.run(stretch)
    assert (replay.departures, replay.times_differ) == ([], 0)
    assert replay.decisions >= 60


@pytest.mark.usefixtures("runtime_dir")
def test_an_idle_device_that_was_held_for_a_higher_class_is_let_go_without_an_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forty milliseconds of the low one would make all of the high ones miss that are to be expected meanwhile."""
    path = tmp_path / "events"
    monkeypatch.setenv(VARIABLE, str(path))
    high, low = RawModel("high", 10.0, lanes=1), RawModel("low", 40.0, lanes=1)
    for _ in range(200):
        high.ask(15.0, priority=1)
        (launch,) = high.commands()
        assert isinstance(launch, Launch)
        high.finish(launch)
    low.ask(10_000.0, priority=2)
    (launch,) = low.commands()
    assert isinstance(launch, Launch)
    low.close()
    high.close()
    eventually(lambda: path.read_bytes().count(b'{"line":"leave"') == 2)
    (stretch,) = read_stretches(path)
    (woken,) = [entry for entry in stretch.entries if isinstance(entry, Woken)]
    assert woken.commands == (launch,)
    replay = Replay()
    replay.run(stretch)
    assert replay.departures == []
