"""Batches, lanes' time and requests of an event log, against the samples of the same run."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest
from msgspec.structs import replace

from backend.errors import ConfigError
from backend.reporting.event_reader import read_event_recording
from backend.reporting.recording import Suspended
from backend.reporting.report import make_report
from backend.scheduler.core import Scheduler
from backend.scheduler.messages import Finish, Launch
from backend.scheduler.running_batch import RunningBatch
from backend.scheduler.source import Source
from backend.scheduler_process.event_file import read_stretches
from backend.scheduler_process.request_index import RequestIndex
from predictor.features import CoRunner
from predictor.samples import co_runners_of, read_samples
from tests.fakes.builders import MS, START_NS, join, profile
from tests.fakes.recorded import Recorded
from tests.fakes.simulated_log import SimulatedLog


def test_batches_and_their_co_runners_are_those_of_the_samples(disturbed: SimulatedLog) -> None:
    batches = sorted(read_event_recording(disturbed.events).batches, key=lambda b: (b.launched_ns, b.own.model))
    samples = sorted(read_samples(disturbed.samples).samples, key=lambda s: (s.start_ns, s.model))
    assert len(batches) == len(samples) > 500
    shift_ns = batches[0].launched_ns - samples[0].start_ns
    for batch, sample in zip(batches, samples, strict=True):
        assert (batch.own.model, batch.own.batch_size, batch.exec_ns) == (
            sample.model,
            sample.batch_size,
            sample.exec_ns,
        )
        assert batch.launched_ns - shift_ns == sample.start_ns
        assert batch.predicted_ns == sample.predicted_ns
        assert batch.own.load.features[0] == sample.features["compute"]
        assert [(c.model, c.batch_size, c.begin, c.end) for c in batch.co_runners] == [
            (c.model, c.batch_size, c.begin, c.end) for c in co_runners_of(sample)
        ]


def test_requests_are_those_that_were_sent_with_what_became_of_them(disturbed: SimulatedLog) -> None:
    log = read_event_recording(disturbed.events)
    sent = Counter(request.arrival.model for request in disturbed.ran.requests)
    assert {model: counts.total() for (model, _), counts in log.outcomes.items()} == sent
    missed = sum(not outcome.met for outcome in disturbed.ran.outcomes())
    assert sum(counts["missed"] for counts in log.outcomes.values()) == missed == len(list(log.missed())) > 50


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_lanes_are_taken_as_long_as_batches_are_not_suspended(tmp_path: Path, seed: int) -> None:
    with Recorded(tmp_path / "events", seed) as recorded:
        recorded.run(2_000)
    assert recorded.seen["preempted"] and recorded.seen["Adopt"] and recorded.seen["leave"]
    log = read_event_recording(tmp_path / "events")
    instants = sorted({at_ns for span in log.spans for at_ns in (span.begin_ns, span.end_ns)})
    taken = Counter[int]()
    for span in log.spans:
        taken[span.begin_ns] += 1
        taken[span.end_ns] -= 1
    running = 0
    for at_ns in instants:
        running += taken[at_ns]
        assert 0 <= running <= 4 + recorded.seen["Adopt"]
    index = RequestIndex(tmp_path / "events")
    assert sum(len(batch.answers) for batch in log.batches) == sum(r.outcome == "finished" for r in index.requests)


@pytest.mark.parametrize("seed", [1, 2])
def test_co_runners_are_those_that_the_scheduler_learned_from(tmp_path: Path, seed: int) -> None:
    """Their cores too, where lanes share them."""
    learned: dict[tuple[str, int, int], list[CoRunner]] = {}

    def observe(source: Source, batch: RunningBatch, finish: Finish, co_runners: list[CoRunner]) -> None:
        learned[source.join.model, batch.launched_ns, finish.exec_ns or 0] = co_runners

    with Recorded(tmp_path / "events", seed, Scheduler(4, observe, cores=2)) as recorded:
        recorded.run(1_500)
    log = read_event_recording(tmp_path / "events")
    shift_ns = log.begins_ns - START_NS
    compared = Counter[bool]()
    for batch in log.batches:
        if not batch.suspended:
            co_runners = learned.pop((batch.own.model, batch.launched_ns - shift_ns, batch.exec_ns))
            compared.update(c.same_core for c in co_runners)
            assert [(c.model, c.begin, c.end, c.same_core) for c in batch.co_runners] == [
                (c.model, c.begin, c.end, c.same_core) for c in co_runners
            ]
    assert learned == {}
    assert min(compared[True], compared[False]) > 20


def preempted(recorded: Recorded) -> tuple[tuple[int, int], tuple[int, int]]:
    """All four lanes run `long` from 0 on, one of which a batch of `short` preempts at 10 ms. Returns these two."""
    for source, name, solo_ms in ((1, "long", 40.0), (2, "short", 4.0)):
        recorded.handle(source, join(profile(solo_ms), model=name, preemptible_lanes=8))
    for _ in range(4):
        recorded.arrive(1, recorded.request(400.0, priority=2))
    recorded.at(10.0)
    (*_, launch) = recorded.arrive(2, recorded.request(6.0))
    assert isinstance(launch, Launch)
    assert launch.preempts
    (suspended,) = (key for key, batch in recorded.core.device.running.items() if batch.suspended_for is not None)
    return suspended, (2, launch.batch)


def test_a_suspended_batch_has_its_suspension_and_the_co_runners_of_its_other_time(tmp_path: Path) -> None:
    with Recorded(tmp_path / "events") as recorded:
        suspended, urgent = preempted(recorded)
        recorded.at(15.0)
        recorded.finish(urgent, 5 * MS)
        recorded.at(60.0)
        recorded.finish(suspended, 60 * MS)
        for key in [*recorded.ends_ns]:
            recorded.finish(key, 60 * MS)
    log = read_event_recording(tmp_path / "events")
    (batch,) = (b for b in log.batches if b.suspended)
    assert batch.suspended == (Suspended("short", 5 * MS),)
    assert batch.running_ns == 55 * MS
    assert batch.own.model == "long"
    assert sum(span.end_ns - span.begin_ns for span in log.spans if span.model == "long") == (3 * 60 + 10 + 45) * MS
    others = [c for c in batch.co_runners if c.model == "long"]
    assert sum(c.end - c.begin for c in others) == pytest.approx(3.0)  # the three others, before and after
    assert not [c for c in batch.co_runners if c.model == "short"]


def test_a_batch_that_ends_while_it_is_suspended_was_suspended(tmp_path: Path) -> None:
    with Recorded(tmp_path / "events") as recorded:
        suspended, urgent = preempted(recorded)
        recorded.at(12.0)
        recorded.finish(suspended, 12 * MS)
        recorded.at(15.0)
        recorded.finish(urgent, 5 * MS)
    long, short = sorted(read_event_recording(tmp_path / "events").batches, key=lambda b: b.ended_ns)
    assert (long.own.model, long.suspended) == ("long", (Suspended("short", 2 * MS),))
    assert (short.own.model, short.suspended) == ("short", ())


@pytest.mark.parametrize("checkpoint", [False, True])
def test_runs_that_measure_a_loading_model_are_co_runners_and_nothing_else(tmp_path: Path, checkpoint: bool) -> None:
    with Recorded(tmp_path / "events") as recorded:
        recorded.handle(1, join(profile(10.0), model="serving"))
        recorded.handle(2, replace(join(profile(10.0), model="loaded"), loading=True))
        if checkpoint:
            recorded.log.checkpoint(recorded.core, recorded.now_ns)
        for source, priority in ((1, 1), (2, 1_000)):
            recorded.arrive(source, recorded.request(priority=priority))
        recorded.at(12.0)
        for key in [*recorded.core.device.running]:
            recorded.finish(key, 12 * MS)
    log = read_event_recording(tmp_path / "events")
    (batch,) = log.batches
    assert batch.own.model == "serving"
    assert [(c.model, c.begin, c.end) for c in batch.co_runners] == [("loaded", 0.0, 1.0)]
    index = RequestIndex(tmp_path / "events")
    assert ([r.model for r in index.requests], [*index.models]) == (["serving"], ["serving"])
    assert [(r.model, r.outcome) for r in index.profile_runs] == [("loaded", "finished")]


def test_a_gap_is_a_note_and_what_ran_then_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "events"
    with Recorded(path, seed=3) as recorded:
        recorded.run(600)
        recorded.log.checkpoint(recorded.core, recorded.now_ns)
        recorded.run(600)
    lines = path.read_bytes().splitlines(keepends=True)
    whole = len(read_event_recording(path).batches)
    lines[len(lines) // 4] = b'{"line":"event"\n'
    path.write_bytes(b"".join(lines))
    log = read_event_recording(path)
    (note,) = log.notes
    assert f"line {len(lines) // 4 + 1} cannot be read" in note
    assert 0 < len(log.batches) < whole


def test_a_log_without_a_checkpoint_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "events"
    path.write_bytes(b'{"line":"train"}\n')
    with pytest.raises(ConfigError, match="is no event log that can be replayed: it has no checkpoint"):
        read_event_recording(path)


def test_a_log_whose_time_goes_back_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "events"
    with Recorded(path, seed=3) as recorded:
        recorded.run(100)
    first, *lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([first, *reversed(lines)]))
    with pytest.raises(ConfigError, match=r"the event log holds what cannot be: time goes back from \d+ to \d+ ns"):
        read_event_recording(path)


def test_a_log_that_is_set_aside_while_it_is_read_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, later = tmp_path / "events", tmp_path / "later"
    for file in (path, later):
        with Recorded(file, seed=3) as recorded:
            recorded.run(50)
    monkeypatch.setattr("backend.reporting.event_reader.read_stretches", lambda _: read_stretches(later))
    with pytest.raises(ConfigError, match="was full and set aside while it was read: read it again"):
        read_event_recording(path)


@pytest.mark.parametrize("seed", range(20))
def test_a_damaged_log_is_reported_on_or_is_one_sentence(tmp_path: Path, seed: int) -> None:
    path, random = tmp_path / "events", Random(seed)
    with Recorded(path, seed=5) as recorded:
        recorded.run(150)
        recorded.log.checkpoint(recorded.core, recorded.now_ns)
        recorded.run(150)
    lines = path.read_bytes().splitlines(keepends=True)
    for _ in range(3):
        at = random.randrange(1, len(lines))
        damage = random.choice(("lost", "twice", "torn"))
        line = lines.pop(at)
        if damage != "lost":
            lines[at:at] = [line, line] if damage == "twice" else [line[: random.randrange(len(line))] + b"\n"]
    path.write_bytes(b"".join(lines))
    with suppress(ConfigError):
        assert make_report(path).markdown().startswith("# Report on events")
