"""The event log of a real scheduler process."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from backend.scheduler_process.event_file import read_stretches
from backend.scheduler_process.event_log import VARIABLE
from backend.scheduler_process.replay import Replay
from tests.fakes.fake_model import FakeModel, eventually, pending


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
