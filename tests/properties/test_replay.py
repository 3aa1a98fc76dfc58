"""A log of ten thousand events, replayed, gives the same commands and leaves the scheduler as it was."""

from __future__ import annotations

import pytest

from backend.scheduler_process.event_file import Handled, Stretch, read_stretches
from backend.scheduler_process.replay import Replay
from tests.fakes.recorded import Recorded

EVENTS = 10_000


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recorded, Stretch]:
    path = tmp_path_factory.mktemp("log") / "events"
    with Recorded(path, seed=1) as made:
        while made.seen.total() - made.seen["train"] < 3 * EVENTS:
            made.run(1_000)
    (stretch,) = read_stretches(path)
    return made, stretch


def test_the_stream_has_all_that_a_decision_follows_from(recorded: tuple[Recorded, Stretch]) -> None:
    seen = recorded[0].seen
    kinds = ("preempted", "lease", "Take", "recall", "held", "rejected", "woken", "Cancel", "leave", "Adopt")
    for kind in (*kinds, "refused", "launch split", "save"):
        assert seen[kind] >= 5, kind
    assert seen["train"] > EVENTS // 2
    moved = [launch for launch in recorded[0].launches.values() if launch.times.h2d_ns > 0]
    assert len(moved) > 100


def test_a_replay_of_ten_thousand_events_gives_the_same_commands(recorded: tuple[Recorded, Stretch]) -> None:
    made, stretch = recorded
    assert sum(isinstance(entry, Handled) for entry in stretch.entries) >= EVENTS
    replay = Replay()
    scheduler = replay.run(stretch)
    assert (replay.departures, replay.times_differ) == ([], 0)
    assert replay.decisions >= EVENTS
    scheduler.check_invariants()
    assert scheduler.latency.predictor.state() == made.core.latency.predictor.state()
    assert scheduler.latency.bound.state() == made.core.latency.bound.state()
    assert scheduler.latency.transfers.state() == made.core.latency.transfers.state()
