"""The reasons that a replay reads off the core, against numbers worked out by hand and against the commands.

The predictor knows its prior only: a heavy neighbour adds 0.6 to a slowdown, and the bound is the prediction itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import numpy as np
import pytest

from backend.commands.explanation_words import words
from backend.scheduler.core import Scheduler
from backend.scheduler.messages import Cancel, Finish, Launch, Preempted, Take
from backend.scheduler_process.event_file import Handled, Left, Woken, read_stretches
from backend.scheduler_process.explainer import explain
from backend.scheduler_process.explanation import Harmed
from backend.scheduler_process.request_index import RequestIndex
from predictor.learners.linear import Rls
from tests.fakes.builders import MS, START_NS, join, only_launch, profile
from tests.fakes.explained import HEAVY_MODEL, LIGHT_MODEL, device, explained, key_of
from tests.fakes.recorded import Recorded


def test_a_hold_names_the_batch_that_would_have_missed_its_deadline_and_by_how_much(tmp_path: Path) -> None:
    """Beside the heavy one from 1 to 11 ms the light batch would do 6.25 of the 9 ms left, and so end at 13.75 ms."""
    with device(tmp_path / "events") as made:
        light = only_launch(made.arrive(LIGHT_MODEL, made.request(12.0)))
        made.at(1).arrive(HEAVY_MODEL, made.request(50.0))
        made.at(2).handle(HEAVY_MODEL, Cancel((99,)))
        made.at(10).finish(key_of(light), 10 * MS)
        made.at(21).finish((HEAVY_MODEL, 2), 11 * MS)
    found, text = explained(tmp_path / "events", "2.2")
    (wait,) = found.waits
    assert (wait.reason, wait.times, wait.at_ns, wait.until_ns) == ("harm", 2, START_NS + MS, START_NS + 2 * MS)
    assert wait.harmed == [Harmed("light", 1, 0, round(1.75 * MS))]
    (ran,) = found.running
    assert (ran.model, ran.lane, ran.since_ns, ran.ends_ns) == ("light", 0, START_NS, START_NS + 10 * MS)
    assert found.launched is not None
    assert (found.launched.at_ns, found.launched.beside, found.launched.limit) == (START_NS + 10 * MS, [], "only")
    assert found.finished is not None
    assert found.finished.late_ns == (21 - 51) * MS
    assert "held: beside it light × 1 on lane 0 would have missed its deadline by 1.75 ms" in text
    assert "deadline kept with 30.00 ms left" in text
    assert "10.0 % more than predicted, beyond the bound" in text


def test_a_rejection_tells_what_it_needed_and_what_was_left(tmp_path: Path) -> None:
    with device(tmp_path / "events", lanes=1, rejects=True) as made:
        light = only_launch(made.arrive(LIGHT_MODEL, made.request()))
        made.at(1).arrive(HEAVY_MODEL, made.request(14.0))
        made.at(6).wake()
        made.at(10).finish(key_of(light), 10 * MS)
    found, text = explained(tmp_path / "events", "2.2")
    assert found.rejected is not None
    assert (found.rejected.needs_ns, found.rejected.left_ns) == (10 * MS, 9 * MS)
    assert [wait.reason for wait in found.waits] == ["lanes"]
    assert "rejected: it needs 10.00 ms even alone, and its deadline left 9.00 ms" in text


def test_a_preemption_is_told_of_both(tmp_path: Path) -> None:
    with device(tmp_path / "events", lanes=1, preemptible_lanes=1) as made:
        made.arrive(LIGHT_MODEL, made.request(100.0))
        _, urgent = made.at(1).arrive(HEAVY_MODEL, made.request(12.0))
        assert isinstance(urgent, Launch)
        made.at(11).finish(key_of(urgent), 10 * MS)
        made.at(20).finish((LIGHT_MODEL, 1), 10 * MS)
    found, text = explained(tmp_path / "events", "2.2")
    assert found.launched is not None
    (suspended,) = found.launched.preempts
    assert (found.launched.limit, suspended.model, suspended.lane) == ("preempts", "light", 0)
    assert "it preempted light × 1 on lane 0" in text
    found, text = explained(tmp_path / "events", "1.1")
    (span,) = found.suspended
    assert (span.at_ns, span.until_ns) == (START_NS + MS, START_NS + 11 * MS)
    assert "suspended for 10.00 ms: another batch preempted it" in text


def test_a_batch_that_is_preempted_in_the_decision_that_launches_it_says_so(tmp_path: Path) -> None:
    """The heavy one has no deadline and is due first by its age; the light one that follows cannot wait for it."""
    with device(tmp_path / "events", lanes=1, preemptible_lanes=1) as made:
        first = only_launch(made.arrive(LIGHT_MODEL, made.request(100.0)))
        made.arrive(HEAVY_MODEL, made.request())
        made.at(990).arrive(LIGHT_MODEL, made.request(15.0))
        made.at(994).finish(key_of(first), 10 * MS)
        made.at(1004).finish((LIGHT_MODEL, 3), 10 * MS)
        made.at(1014).finish((HEAVY_MODEL, 2), 10 * MS)
    found, text = explained(tmp_path / "events", "2.2")
    assert found.launched is not None
    (span,) = found.suspended
    assert (found.launched.at_ns, span.at_ns, span.until_ns) == (span.at_ns, START_NS + 994 * MS, START_NS + 1004 * MS)
    assert "suspended for 10.00 ms: another batch preempted it" in text
    found, _ = explained(tmp_path / "events", "1.3")
    assert found.launched is not None
    (suspended,) = found.launched.preempts
    assert (suspended.model, suspended.suspended, found.launched.beside) == ("heavy", True, [])


def test_a_batch_is_told_beside_what_the_same_decision_preempts_after_it(tmp_path: Path) -> None:
    """The heavy one of lane 1 slows the prediction of the light one, and is then suspended for 8 rows that take 17 ms
    and have 21.
    """
    with device(tmp_path / "events", preemptible_lanes=2) as made:
        first = only_launch(made.arrive(LIGHT_MODEL, made.request(100.0)))
        made.at(5).arrive(HEAVY_MODEL, made.request(rows=8))
        made.at(10).arrive(LIGHT_MODEL, made.request(24.0))
        made.arrive(HEAVY_MODEL, made.request(25.0, rows=8))
        made.at(14).finish(key_of(first), 10 * MS)
    found, _ = explained(tmp_path / "events", "1.3")
    assert found.launched is not None
    (co_runner,) = found.launched.beside
    assert (found.launched.predicted_ns, co_runner.model, co_runner.suspended) == (16 * MS, "heavy", False)
    found, _ = explained(tmp_path / "events", "2.2")
    assert [(span.at_ns, span.until_ns) for span in found.suspended] == [(START_NS + 14 * MS, None)]


def test_a_request_waits_where_it_makes_its_deadline_on_the_next_lane(tmp_path: Path) -> None:
    with device(tmp_path / "events", lanes=1, preemptible_lanes=1) as made:
        light = only_launch(made.arrive(LIGHT_MODEL, made.request(100.0)))
        made.at(1).arrive(HEAVY_MODEL, made.request(25.0))
        made.at(10).finish(key_of(light), 10 * MS)
    found, text = explained(tmp_path / "events", "2.2")
    assert [wait.reason for wait in found.waits] == ["can wait"]
    assert "it would make its deadline on the next one" in text
    assert "the log ends before it did" in text


def test_a_batch_that_is_better_launched_later_says_so(tmp_path: Path) -> None:
    """Beside each other both take thrice as long, so launched now it ends at 20 ms, at the next finish at 15 ms."""
    predictor = Rls()
    predictor.start(np.array([1.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0]))
    core = Scheduler(2, predictor=predictor)
    core.latency.bound.multiplier = 1.0
    with Recorded(tmp_path / "events", core=core) as made:
        for source, solo_ms in ((1, 5.0), (2, 10.0)):
            made.handle(source, join(profile(solo_ms, compute=1.0), model=f"m{source}"))
        first = only_launch(made.arrive(1, made.request()))
        made.arrive(2, made.request(17.0))
        made.at(5).finish(key_of(first), 5 * MS)
    found, text = explained(tmp_path / "events", "2.2")
    assert [wait.reason for wait in found.waits] == ["better later"]
    assert found.launched is not None
    assert (found.launched.at_ns, found.launched.predicted_ns) == (START_NS + 5 * MS, 10 * MS)
    assert "at the next finish it would make it" in text


@pytest.mark.parametrize(
    ("arrive", "limit"), [((1, 1, 1), "all"), ((2, 2, 2, 2, 2), "max_batch_size")], ids=["all", "max_batch_size"]
)
def test_a_batch_tells_its_limit(tmp_path: Path, arrive: tuple[int, ...], limit: str) -> None:
    with device(tmp_path / "events", lanes=1) as made:
        light = only_launch(made.arrive(LIGHT_MODEL, made.request()))
        made.at(1).arrive(HEAVY_MODEL, *(made.request(500.0, rows=rows) for rows in arrive))
        made.at(10).finish(key_of(light), 10 * MS)
    found, _ = explained(tmp_path / "events", "2.2")
    assert found.launched is not None
    assert (found.launched.limit, found.launched.rows) == (limit, min(8, sum(arrive)))


def test_a_batch_is_as_large_as_its_tightest_deadline_allows(tmp_path: Path) -> None:
    with device(tmp_path / "events", lanes=1) as made:
        light = only_launch(made.arrive(LIGHT_MODEL, made.request()))
        made.at(1).arrive(HEAVY_MODEL, *(made.request(20.5) for _ in range(5)))
        made.at(10).finish(key_of(light), 10 * MS)
    found, text = explained(tmp_path / "events", "2.2")
    assert found.launched is not None
    assert (found.launched.limit, found.launched.requests, found.launched.allowed) == ("deadline", 2, 5)
    assert "5 could have shared it, but one more would have missed the tightest deadline" in text


def test_a_process_that_leaves_and_a_client_that_cancels_are_told(tmp_path: Path) -> None:
    with device(tmp_path / "events", lanes=1) as made:
        made.arrive(LIGHT_MODEL, made.request())
        made.at(1).arrive(HEAVY_MODEL, made.request(), made.request())
        made.at(2).handle(HEAVY_MODEL, Cancel((2,)))
        made.at(3).leave(HEAVY_MODEL)
    assert "cancelled by the client" in explained(tmp_path / "events", "2.2")[1]
    assert "its model's process was gone" in explained(tmp_path / "events", "2.3")[1]


@pytest.fixture(scope="module")
def overload(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Recorded, Path]]:
    path = tmp_path_factory.mktemp("log") / "events"
    with Recorded(path, seed=2) as made:
        for _ in range(6):
            made.run(1_000)
            made.log.checkpoint(made.core, made.now_ns)
    yield made, path


def test_explanations_agree_with_the_commands_and_the_events(overload: tuple[Recorded, Path]) -> None:
    made, path = overload
    index = RequestIndex(path)
    entries = [entry for stretch in read_stretches(path) for entry in stretch.entries]
    chosen = Random(1).sample([r for r in index.requests if r.outcome != "waits"], 16)
    preempted = {
        command
        for entry in entries
        if isinstance(entry, Handled | Left | Woken)
        for command in entry.commands
        if isinstance(command, Preempted)
    }
    for record in chosen:
        found = explain(path, record)
        key, id_ = record.source, record.request.id
        assert found.request == made.requests[key, id_]
        assert found.incomplete == []
        launches = [
            (entry.at_ns, command)
            for entry in entries
            if isinstance(entry, Handled | Left | Woken)
            for command in entry.commands
            if isinstance(command, Launch) and command.source == key and id_ in command.requests
        ]
        if found.launched is not None and found.launched.limit != "lease":
            ((at_ns, launch),) = launches
            told = found.launched
            assert (told.at_ns, told.batch, told.lane, told.requests) == (
                at_ns, launch.batch, launch.lane, len(launch.requests)
            )  # fmt: skip
            assert (told.solo_ns, told.predicted_ns, told.bound_ns) == (
                launch.times.solo_ns, launch.times.predicted_ns, launch.times.bound_ns
            )  # fmt: skip
            if told.decision == "split":
                assert told.limit in ("deadline", "harm", "overdue", "preempts")
            assert all(wait.until_ns <= at_ns for wait in found.waits)
            assert bool(told.preempts) == launch.preempts
            assert bool(found.suspended) == (Preempted(key, launch.batch) in preempted)
        else:
            assert launches == []
        if found.finished is not None:
            assert found.launched is not None
            (end,) = [
                (entry.at_ns, entry.event.exec_ns)
                for entry in entries
                if isinstance(entry, Handled)
                and isinstance(entry.event, Finish)
                and (entry.source, entry.event.batch) == (key, found.launched.batch)
            ]
            assert end == (found.finished.at_ns, found.finished.exec_ns)
        outcomes = {
            "finished": found.finished, "failed": found.finished, "rejected": found.rejected,
            "cancelled": found.cancelled_ns, "gone": found.gone_ns, "runs": found.launched,
        }  # fmt: skip
        assert outcomes[record.outcome] is not None, record
        assert list(words(found))


def test_the_index_counts_what_the_scheduler_said(overload: tuple[Recorded, Path]) -> None:
    made, path = overload
    index = RequestIndex(path)
    total = {name: sum(getattr(c, name) for c in index.models.values()) for name in ("batches", "split", "preempted")}
    assert total["batches"] == len(made.launches) + made.seen["Take"]
    assert total["split"] == made.seen["launch split"]
    assert total["preempted"] == made.seen["preempted"]
    assert sum(c.rejected for c in index.models.values()) == made.seen["rejected"]
    assert sum(c.held for c in index.models.values()) == made.seen["held"]
    assert len(index.requests) == len(made.requests)


def test_a_lease_is_told(overload: tuple[Recorded, Path]) -> None:
    _, path = overload
    taken = next(
        (entry.source, entry.event.request.id)
        for stretch in read_stretches(path)
        for entry in stretch.entries
        if isinstance(entry, Handled) and isinstance(entry.event, Take)
    )
    _, text = explained(path, f"{taken[0]}.{taken[1]}")
    assert "launched by its process, which held a lease" in text
