"""The pure core, replayed from an event log, gives the commands that the log holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from backend.scheduler.messages import Launch
from backend.scheduler_process.event_file import Handled, Stretch, read_stretches
from backend.scheduler_process.replay import Replay
from tests.fakes.recorded import Recorded

EVENTS = 2_000
"""Few enough for a unit test; tests/properties has more, and all that can happen."""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Recorded, list[Stretch]]]:
    path = tmp_path_factory.mktemp("log") / "events"
    with Recorded(path, seed=1) as made:
        while made.seen.total() - made.seen["train"] < 3 * EVENTS:
            made.run(1_000)
    yield made, list(read_stretches(path))


@pytest.mark.parametrize("skipped", ["Trained", "Saved"])
def test_a_replay_without_training_departs(recorded: tuple[Recorded, list[Stretch]], skipped: str) -> None:
    (stretch,) = recorded[1]
    replay = Replay()
    replay.run(stretch._replace(entries=[e for e in stretch.entries if type(e).__name__ != skipped]))
    assert replay.departures or replay.times_differ


def test_a_replay_tells_where_it_departs_from_the_log(recorded: tuple[Recorded, list[Stretch]]) -> None:
    (stretch,) = recorded[1]
    place, entry = next((i, e) for i, e in enumerate(stretch.entries) if isinstance(e, Handled) and e.commands)
    entries = [*stretch.entries]
    entries[place] = replace(entry, commands=())
    replay = Replay()
    replay.run(stretch._replace(entries=entries))
    (departure,) = replay.departures
    assert (departure.at_ns, departure.logged) == (entry.at_ns, ())
    assert departure.replayed == entry.commands


def test_a_replay_on_a_machine_that_rounds_otherwise_goes_on(recorded: tuple[Recorded, list[Stretch]]) -> None:
    (stretch,) = recorded[1]
    place, entry = next(
        (i, e)
        for i, e in enumerate(stretch.entries)
        if isinstance(e, Handled) and isinstance(next(iter(e.commands), 0), Launch)
    )
    entries = [*stretch.entries]
    first, *rest = entry.commands
    assert isinstance(first, Launch)
    entries[place] = replace(entry, commands=(replace(first, times=replace(first.times, bound_ns=1)), *rest))
    del entries[place + 2_000 :]
    replay = Replay()
    replay.run(stretch._replace(entries=entries))
    assert (replay.departures, replay.times_differ) == ([], 1)


def test_a_replay_may_begin_at_any_checkpoint(tmp_path: Path) -> None:
    """Taken while batches run, requests wait, and samples wait to be learned."""
    path = tmp_path / "events"
    with Recorded(path, seed=5) as made:
        for _ in range(12):
            made.run(400)
            made.log.checkpoint(made.core, made.now_ns)
    stretches = list(read_stretches(path))
    assert len(stretches) == 13
    for stretch in stretches:
        replay = Replay()
        replay.run(stretch)
        assert (replay.departures, replay.times_differ) == ([], 0)
